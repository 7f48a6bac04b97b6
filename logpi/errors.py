"""The kinds of error that are shown to a user as one line, and that line.

Anything else that is raised is a fault of the library and keeps its traceback.
"""

from __future__ import annotations

__all__ = ["RunError", "Stopped", "UserError", "one_line"]

SHOWN = 600  # characters


class UserError(Exception):
    """A user's mistake (a misspelt name, a missing file). Its text is one line that says what to do about it.

    Attributes:
        code: the command's exit code.
    """

    code = 2


class RunError(UserError):
    """A run's directory cannot be made, read or written: disk full, permission lost, damaged, or in use."""


class Stopped(UserError):
    """A job that a signal ended, after it had saved. Its exit code is the shells': 128 + the signal's number."""

    def __init__(self, text: str, signal: int) -> None:
        super().__init__(text, signal)  # both, so that it can be pickled
        self.signal, self.code = signal, 128 + signal

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(text: object) -> str:
    """A message as it is shown: on one line, without its middle where that is somebody's whole prompt.

    >>> one_line("no file\\n  called x")
    'no file called x'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]} … {line[-SHOWN // 2 :]}"

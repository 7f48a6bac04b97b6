"""Messages for users: errors that are shown as one line, the nearest known word, and type checks.

Every other exception is a fault of the library and keeps its traceback. Left out: where errors are
printed (`cli.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from pathlib import Path
from typing import Any

__all__ = [
    "RunError",
    "SamplerLost",
    "Stopped",
    "UserError",
    "as_user_errors",
    "did_you_mean",
    "errors_in_keywords",
    "install",
    "keywords_for_flags",
    "nearest",
    "one_line",
    "row_place",
    "shell",
    "wrong_type",
]

# characters
SHOWN = 600


class UserError(Exception):
    """A user's mistake (a misspelt name, a missing file). Its text is one line that says what to
    do.

    Attributes:
        code: the command's exit code.
    """

    code = 2


class RunError(UserError):
    """A run's directory cannot be created, read or written: the disk is full, permission is
    missing, or the run is damaged or in use."""


class SamplerLost(UserError):
    """Nobody samples any more: all servers are gone, or the weights do not get to them. What was
    learned until then is saved (`logpi.train`)."""


class Stopped(UserError):
    """A job that a signal ended, after it had saved. Its exit code is 128 + the signal's number, as
    in shells."""

    def __init__(self, text: str, signal: int) -> None:
        # Both arguments are passed on, so that the error can be pickled.
        super().__init__(text, signal)
        self.signal, self.code = signal, 128 + signal

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def as_user_errors() -> Iterator[None]:
    """While a job is set up, a ValueError or a file that cannot be read is a user's mistake: one
    line, no traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


# `--max-length`, and `logpi rl` before it. "=" follows where the next word looks like a value: a
# number, PATH, runs/rl-1, model:DIR.
_VALUE = r"\S*\d|[A-Z]{2}|\S*[/:]\S"
_FLAG = re.compile(
    rf"(?:logpi [a-z0-9-]+ )?(?<![\w-])--(no-)?([a-z][a-z0-9-]*)(?:[ =](?={_VALUE}))?"
)
_in_shell: ContextVar[bool] = ContextVar("_in_shell", default=False)


def install(extra: str) -> str:
    """The command that adds an extra's packages, to a checkout if logpi is run from one.

    >>> install("view").endswith("[view]'")
    True
    """
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    return f"pip install 'logpi[{extra}]'"


@contextmanager
def shell() -> Iterator[None]:
    """In here the user has typed a command line, and messages name flags."""
    token = _in_shell.set(True)
    try:
        yield
    finally:
        _in_shell.reset(token)


@contextmanager
def errors_in_keywords() -> Iterator[None]:
    """Outside `shell`, messages of UserErrors name keywords instead of flags."""
    try:
        yield
    except UserError as error:
        if not _in_shell.get():
            error.args = (keywords_for_flags(str(error)), *error.args[1:])
        raise


def keywords_for_flags(message: str) -> str:
    """A message for a caller in Python.

    >>> keywords_for_flags("pass@8 needs more samples: --samples 8, or --no-shuffle")
    'pass@8 needs more samples: samples=8, or shuffle=False'
    >>> keywords_for_flags("leave --max-length out; resume with: logpi rl --resume runs/rl-1")
    'leave max_length out; resume with: resume=runs/rl-1'
    """

    def keyword(flag: re.Match[str]) -> str:
        name = flag[2].replace("-", "_")
        return f"{name}=False" if flag[1] else name + "=" * flag[0].endswith((" ", "="))

    return _FLAG.sub(keyword, message)


def one_line(text: object) -> str:
    """A message on one line; the middle of a long one (somebody's whole prompt) is left out.

    >>> one_line("no file\\n  called x")
    'no file called x'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]} … {line[-SHOWN // 2 :]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest of `known`, or '' when none is near. Letters in another
    order are nearer than other letters.

    >>> did_you_mean("gpro", ["gspo", "grpo"])
    '; did you mean grpo?'
    """
    # imported here, because it is needed only after a mistake
    import difflib

    known = list(known)
    near = [k for k in known if k.startswith(word)] or difflib.get_close_matches(
        word, known, n=5, cutoff=0.6
    )
    near.sort(key=lambda k: sorted(k) != sorted(word))
    return f"; did you mean {near[0]}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest of `known`, or all of them where none is near.

    >>> nearest("nubmer", ["exact", "number"]), nearest("?", ["exact", "number"])
    ('did you mean number?', 'there are: exact, number')
    """
    known = sorted(known)
    near = did_you_mean(word.lower(), known).removeprefix("; ")
    return near or f"there are: {', '.join(known) or 'none'}"


def row_place(row: Any, otherwise: str) -> str:
    """The place of a row, for messages: its file and line; `otherwise` if it is of no file.

    >>> row_place({"prompt": "1+1="}, "row 3")
    'row 3'
    """
    return getattr(row, "where", "") or otherwise


_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "None": "null for none",
    "tuple[int, ...]": "widths like [64,64]",
}


def wrong_type(kind: str, value: Any) -> str | None:
    """Type check: the kind that the value should be, in words, or None if it is. Kinds that are not
    in `_WORDS` are classes, whose objects only Python code can give.

    >>> wrong_type("int | None", 2.5), wrong_type("int | None", None)
    ('a whole number, or null for none', None)
    >>> wrong_type("Weight", "TokenMean")
    'an object of the class Weight, which only Python code can give'
    """
    kinds = [k.strip() for k in kind.split("|")]
    if any(_fits(k, value) for k in kinds):
        return None
    objects = [
        f"an object of the class {k}, which only Python code can give"
        for k in kinds
        if k not in _WORDS
    ]
    return ", or ".join([*objects, *(_WORDS[k] for k in kinds if k in _WORDS)])


def _fits(kind: str, value: Any) -> bool:
    # Python's bools are ints
    number = isinstance(value, Real) and not isinstance(value, bool)
    match kind:
        case "None":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return number and isinstance(value, Integral)
        case "float":
            # not NaN
            return number and value == value
        case "str":
            return isinstance(value, str)
        case "tuple[int, ...]":
            return isinstance(value, list | tuple) and all(_fits("int", x) for x in value)
    return not isinstance(value, str | Real | list | tuple | dict | None)

"""The tool `python`: the model writes a program, the sandbox runs it, the model reads its output.

It needs a sandbox (this machine's, any object of the protocol `logpi.sandbox.Sandbox`, or a
function `run(code)`); without one it refuses before anything runs. Left out: state between calls,
files, packages beyond those of the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from logpi.envs.tools.tool import Tool, tool
from logpi.sandbox import ProgramResult, Sandbox


def python(
    run: Sandbox | Callable[[str], ProgramResult | str] | None = None, name: str = "python"
) -> Tool:
    """The tool `python(code)`.

    Args:
        run: a sandbox; or a function that runs a program and returns its output, as a text or a
            `ProgramResult`. Default: this machine's sandbox.

    Raises:
        ValueError: this machine has no sandbox; the text says why.
    """
    run = run or _sandboxed()
    run_code = run.run if isinstance(run, Sandbox) else run

    def python(code: str) -> str:
        """Runs a Python 3 program and returns what it prints. Nothing is kept from one program to
        the next.

        Args:
            code: the program; print what you want to see
        """
        result = run_code(code)
        if isinstance(result, str):
            return result or "(nothing was printed)"
        status = "" if result.status in ("ok", "error") else f"[stopped: {result.status}]"
        parts = (result.stdout.rstrip("\n"), _last_lines(result.stderr), status)
        return "\n".join(part for part in parts if part) or "(nothing was printed)"

    return replace(tool(python), name=name)


def _last_lines(stderr: str, lines: int = 5) -> str:
    """The end of a traceback, which says what is wrong; its beginning is about the sandbox."""
    return "\n".join(stderr.rstrip("\n").splitlines()[-lines:])


def _sandboxed() -> Callable[[str], Any]:
    from logpi.sandbox import SandboxError, run_python

    try:
        run_python("pass")
    except SandboxError as error:
        raise ValueError(
            f"the tool python runs programs in a sandbox only, and there is none here: {error}"
        ) from None
    return run_python

"""Runs a job in a confined child: a script, a program under test, or the tests.

A program under test and its tests are two processes. They share a socket with plain data on it
(`rpc.py`) and nothing else, so the program cannot read or stop the tests, or make an object that
equals everything. Left out: confinement (`fork_server.py`).
"""

from __future__ import annotations

import atexit
import builtins
import os
import sys
import threading
import traceback
from typing import Any

# the exit code of a script that ran out of memory
MEMORY_EXIT = 86


def run(job: str, task: dict[str, Any]) -> int:
    """Run a job in this process and return the exit code."""
    from logpi.sandbox import tests

    _standard_streams()
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # what `site` would do
    return {
        "script": script,
        "program": tests.program,
        "tests": tests.tests,
        "beside": tests.beside,
    }[job](task)


def _standard_streams() -> None:
    """Make new stream objects on descriptors 0, 1, 2: the fork server's are on other files."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="replace", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.argv = ["program.py"]


def script(task: dict[str, Any]) -> int:
    """Run `code` as a script: as `__main__`, up to the end of its threads and exit functions."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    code = 0
    try:
        exec(compile(task["code"], "program.py", "exec"), main.__dict__)
    except SystemExit as end:
        code = _exit_code(end)
    except MemoryError:
        code = MEMORY_EXIT
    except BaseException as error:
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, trace)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    os.write(2, f"{end.code}\n".encode())
    return 1

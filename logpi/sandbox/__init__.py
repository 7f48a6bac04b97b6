"""A sandbox for programs that nobody has read: no network, no files but a private /tmp, no other
process, hard limits.

    protocol.py    Sandbox, the protocol; ProgramLimits, ProgramResult, ProgramVerdict
    local.py       LocalSandbox, this machine's; launch.py starts its fork server
    children.py    a running program: its turn, its output, its end
    judge.py       a program and its tests, seen from the main process
  inside of the sandbox:
    fork_server.py a warm Python that forks a confined child for every program
    confinement.py what a process does to itself: kernel.py (Landlock, seccomp, namespaces) and
                   syscalls.py (the calls a program may make)
    jobs.py        what a child runs: a script, a program, or tests
    tests.py       a program and its tests               runner.py    unittest's and pytest's part
    checks.py      which statements check something      counting.py  counts them while they run
    names.py       whose the names in tests are
    rpc.py         calls from one process to the other over wire.py: plain.py copies values,
                   mirrors.py and mirror_classes.py stand for objects, operations.py acts on them

>>> run_python("print(sum(range(10)))").stdout
'45\\n'
"""

from __future__ import annotations

from functools import lru_cache

from logpi.sandbox.local import BACKENDS, LocalSandbox
from logpi.sandbox.protocol import (
    ProgramLimits,
    ProgramResult,
    ProgramVerdict,
    Sandbox,
    SandboxError,
)

__all__ = [
    "BACKENDS",
    "ProgramLimits",
    "ProgramResult",
    "LocalSandbox",
    "Sandbox",
    "SandboxError",
    "ProgramVerdict",
    "run_python",
    "shared",
]


@lru_cache
def shared(backend: str = "auto") -> LocalSandbox:
    """The one sandbox of this process for each backend."""
    return LocalSandbox(backend)


def run_python(code: str, stdin: str = "", limits: ProgramLimits | None = None) -> ProgramResult:
    """Run `code` as a Python script in the shared sandbox. What it does shows in the result, never
    as an exception.

    Raises:
        SandboxError: (a ValueError) there is no sandbox to be had here, and why.
    """
    return shared().run(code, stdin, limits)

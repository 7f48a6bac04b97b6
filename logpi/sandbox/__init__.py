"""A sandbox for untrusted programs: no network, no files but a private /tmp, no other process, hard
limits.

    protocol.py    Sandbox, the protocol; ProgramLimits, ProgramResult, ProgramVerdict
    local.py       LocalSandbox, this machine's; launch.py starts its fork server
    children.py    a running program: its turn, its output, its end
    judge.py       judges a program by its tests, from the main process
  inside the sandbox:
    fork_server.py a warm Python that forks a confined child for every program
    confinement.py confines a process by kernel.py (Landlock, seccomp, namespaces) and syscalls.py
                   (the allowed system calls)
    jobs.py        runs a script, a program, or tests in a child
    tests.py       runs tests against a program          runner.py    runs unittest's and pytest's
    checks.py      finds the statements that check       counting.py  counts them while they run
    names.py       finds the owners of names in tests
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
    """The sandbox of this process, one for each backend."""
    return LocalSandbox(backend)


def run_python(code: str, stdin: str = "", limits: ProgramLimits | None = None) -> ProgramResult:
    """Run `code` as a Python script in the shared sandbox. Its errors show in the result.

    Raises:
        SandboxError: (a ValueError) no sandbox works on this machine; with the reason.
    """
    return shared().run(code, stdin, limits)

"""A sandbox for programs that nobody has read: no network, no files but a private /tmp, no other
process, hard limits.

    sandbox.py      Sandbox: start, run, be sure it holds         limits.py    Limits, Result, Verdict
    children.py  a program on its way, its place among others  fork_server.py    inside: a warm Python that forks a child for every program
    kernel.py    Landlock, seccomp, namespaces                 syscalls.py  the calls a program may make
    jobs.py      what a child does: a script, or a program and its tests in two processes:
    judge.py     the host's side of them: whose word counts    tests.py     a program, its tests; runner.py: unittest's, pytest's
    checks.py    what in tests is a check                      rpc.py      what crosses: plain.py copies, mirrors.py objects

>>> run_python("print(sum(range(10)))").stdout
'45\\n'
"""

from __future__ import annotations

from functools import lru_cache

from logpi.sandbox.limits import Limits, Result, SandboxError, Verdict
from logpi.sandbox.sandbox import BACKENDS, Sandbox

__all__ = [
    "BACKENDS",
    "Limits",
    "Result",
    "Sandbox",
    "SandboxError",
    "Verdict",
    "run_python",
    "shared",
]


@lru_cache
def shared(backend: str = "auto") -> Sandbox:
    """The one sandbox of this process for each backend."""
    return Sandbox(backend)


def run_python(code: str, stdin: str = "", limits: Limits = Limits()) -> Result:  # noqa: B008
    """Run `code` as a Python script in the shared sandbox; what it does shows in the `Result`,
    never as an exception.

    Raises:
        SandboxError: (a ValueError) there is no sandbox to be had here, and why.
    """
    return shared().run(code, stdin, limits)

"""A program against its tests: two children that talk to each other, and the verdict from the one that is trusted.

Only the tests' process holds the pipe on which verdicts come, so there is nothing that the program could print, and no
way to pass by leaving early: tests that got no answer have not passed. Left out: what is under test (`tests.py`).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from logpi.sandbox.limits import Limits, Verdict

if TYPE_CHECKING:
    from logpi.sandbox.host import Child, Sandbox

__all__ = ["judge"]

GRACE = 0.25  # seconds in which a program that left is expected to have ended


def judge(sandbox: Sandbox, code: str, tests: Sequence[str], setup: str, entry_point: str, limits: Limits) -> Verdict:
    """See `Sandbox.judge`."""
    one, other = socket.socketpair()
    task = {"tests": list(tests), "setup": setup, "entry_point": entry_point}
    roomy = replace(limits, output=1 << 20, memory=max(limits.memory, 512 << 20))
    with one, other:
        program = sandbox.spawn("program", {"code": code}, limits, extra=[one.fileno()], silent=True)
        try:
            trusted = sandbox.spawn("tests", task, roomy, extra=[other.fileno()])
        except OSError:
            program.let_go()
            raise
    try:
        ended = trusted.follow(time.monotonic() + limits.seconds)
        end = _end(program, ended, limits)
    finally:
        trusted.let_go()
        program.let_go()
    return _verdict(trusted, ended, end, len(tests))


def _end(program: Child, ended: bool, limits: Limits) -> str:
    """How the program ended, if it had before the tests told it to."""
    if not ended:
        return "timeout"
    program.follow(time.monotonic() + GRACE)
    code = (program.facts or {}).get("code", 0)
    if code < 0 and (program.facts or {}).get("cpu", 0.0) > limits.cpu_seconds - 1:
        return "timeout"
    return "" if code == 0 else "died"


def _verdict(trusted: Child, ended: bool, end: str, total: int) -> Verdict:
    lines = bytes(next(iter(trusted.streams.values()))).splitlines(keepends=True)
    results = [json.loads(line) for line in lines if line.endswith(b"\n")]
    passed = sum(r[0] is True for r in results)
    faults = [r[1] for r in results if r[0] is None]
    if faults:
        return Verdict(passed, total, "invalid", faults[0])
    if passed == total:
        return Verdict(passed, total, "ok")
    wrong = next((r[1] for r in results if r[0] is False), "")
    if not ended:
        return Verdict(passed, total, "timeout", wrong or f"test {len(results) + 1} does not end")
    if not trusted.facts:
        return Verdict(passed, total, "failed", "the sandbox ended before the tests")
    return Verdict(passed, total, end or "wrong", wrong or "the tests ended early on what the program answered")

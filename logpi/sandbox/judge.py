"""Judges a program by its tests: two children that talk to each other, and a verdict from the one
with the tests.

Only the tests' process holds the pipe of verdicts. So a program cannot print a verdict, and does
not pass by leaving early: a test without an answer has not passed.

A test that passes between two processes has passed. A failure may come from the separation, if
tests and program share more than values (objects of the program's classes, files, streams, seeds,
patched modules). Then the same tests run again in the program's process, and one that passes there
leaves no verdict. A program can forge that second run; this gains it no verdict. Left out: running
the tests (`tests.py`).
"""

from __future__ import annotations

import ast
import json
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from logpi.sandbox.checks import FORGED
from logpi.sandbox.names import shares
from logpi.sandbox.protocol import ProgramLimits, ProgramVerdict

if TYPE_CHECKING:
    from logpi.sandbox.children import Child

# seconds that a program has to end after its tests
GRACE = 0.25


@dataclass(frozen=True)
class ProgramTests:
    """The tests of a program.

    Attributes:
        sources: Python texts, each a test.
        setup: Python that runs before them.
        entry_point: the name under test, or "". It is the program's, even if the tests define it.
        classes: names of the program's classes, beside those that the sources use as such.
            Instances that the tests make of these may decide how they compare with plain data
            (`mirrors.py`).
    """

    sources: Sequence[str]
    setup: str = ""
    entry_point: str = ""
    classes: Sequence[str] = ()

    def task(self, **more: Any) -> dict[str, Any]:
        named = {"tests": list(self.sources), "setup": self.setup, "entry_point": self.entry_point}
        return named | {"classes": list(self.classes)} | more


def judge(
    spawn: Callable[..., Child],
    code: str,
    tests: ProgramTests,
    limits: ProgramLimits,
    leave: Callable[[], None],
) -> ProgramVerdict:
    """The verdict; see `LocalSandbox.judge`.

    Args:
        spawn: starts a job in a child.
        leave: called when both children sleep.
    """
    deadline = time.monotonic() + limits.seconds
    one, other = socket.socketpair()
    roomy = replace(limits, output=1 << 20, memory=max(limits.memory, 512 << 20))
    with one, other:
        program = spawn("program", {"code": code}, limits, extra=[one.fileno()], silent=True)
        try:
            channel = [other.fileno()]
            trusted = spawn(
                "tests", tests.task(), roomy, extra=channel, partner=program, on_sleep=leave
            )
        except OSError:
            program.let_go()
            raise
    try:
        ended = trusted.follow(deadline)
        end = _end(program, ended, limits)
    finally:
        trusted.let_go()
        program.let_go()
    results = _lines(trusted)
    verdict = _verdict(trusted, results, ended, end, len(tests.sources))
    again = [i for i, r in enumerate(results) if r[0] is False and r[2]]
    if (trusted.facts or {}).get("late") and shares(ast.parse("\n".join(tests.sources))):
        # perhaps threads of the tests wait for one another
        again += range(len(results), len(tests.sources))
    elif verdict.status == "timeout":
        again = []
    if verdict.decided and again and not _forged(results):
        beside = _beside(
            spawn, code, tests, replace(roomy, seconds=max(1.0, deadline - time.monotonic()))
        )
        if any(beside[i : i + 1] == [True] for i in again):
            message = f"passes beside its tests, but not apart from them: {verdict.message}"
            return replace(verdict, status="invalid", message=message)
    return verdict


def _beside(
    spawn: Callable[..., Child], code: str, tests: ProgramTests, limits: ProgramLimits
) -> list[bool]:
    """Which tests pass in the program's own process. The program may forge this."""
    key = secrets.token_hex(8)
    child = spawn("beside", tests.task(code=code, key=key), limits)
    child.follow(time.monotonic() + limits.seconds)
    child.let_go()
    return [
        r[1] is True for r in _lines(child) if isinstance(r, list) and len(r) == 2 and r[0] == key
    ]


def _lines(child: Child) -> list[Any]:
    """A child's output, a JSON value a line, up to the first line that is not JSON."""
    values = []
    for line in bytes(next(iter(child.streams.values()))).splitlines(keepends=True):
        try:
            values.append(json.loads(line if line.endswith(b"\n") else b""))
        except ValueError:
            break
    return values


def _end(program: Child, ended: bool, limits: ProgramLimits) -> str:
    """The end of the program: "timeout", "died", or "" if it ended by itself."""
    if not ended:
        return "timeout"
    program.follow(time.monotonic() + GRACE)
    facts = program.facts or {}
    code = facts.get("code", 0)
    if code < 0 and (facts.get("late") or facts.get("cpu", 0.0) > limits.cpu_seconds - 1):
        return "timeout"
    return "" if code == 0 else "died"


def _forged(results: list[Any]) -> bool:
    return any(r[2] == FORGED for r in results)


def _verdict(
    trusted: Child, results: list[Any], ended: bool, end: str, total: int
) -> ProgramVerdict:
    passed = sum(r[0] is True for r in results)
    faults = [r[1] for r in results if r[0] is None]
    if faults and not _forged(results):
        return ProgramVerdict(passed, total, "invalid", faults[0])
    if passed == total:
        return ProgramVerdict(passed, total, "ok")
    wrong = next((r[1] for r in results if r[0] is False), "")
    if not ended or (trusted.facts or {}).get("late"):
        return ProgramVerdict(
            passed, total, "timeout", wrong or f"test {len(results) + 1} does not end"
        )
    if not trusted.facts:
        return ProgramVerdict(passed, total, "failed", "the sandbox ended before the tests")
    return ProgramVerdict(
        passed, total, end or "wrong", wrong or "the tests ended early on what the program answered"
    )

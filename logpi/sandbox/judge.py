"""A program against its tests: two children that talk to each other, and a verdict from the one
that is trusted.

Only the tests' process holds the pipe on which verdicts come. So a program has nothing to print,
and does not pass by leaving early: tests that got no answer have not passed.

What passes across the wall is right. What fails across it may be the wall's doing where tests and
program share more than values (objects of the program's classes, files, streams, seeds, patched
modules). There the same tests run once more beside the program, and one that passes there leaves no
verdict. A program can forge that second run; it gains the loss of its verdict. Left out: what is
under test (`tests.py`).
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

# seconds in which a program that left is expected to have ended
GRACE = 0.25


@dataclass(frozen=True)
class ProgramTests:
    """The tests of a program.

    Attributes:
        sources: Python, each a test. setup: Python that comes before them.
        entry_point: the name under test, if there is one; it is the program's whatever else has it.
        classes: names of classes of the program, beside those that the sources use as such.
            Instances that the tests make of these may say themselves how they compare with plain
            data (`mirrors.py`).
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
    """See `LocalSandbox.judge`. spawn: starts a job in a child. leave: called once all sleep."""
    deadline = time.monotonic() + limits.seconds
    one, other = socket.socketpair()
    roomy = replace(limits, output=1 << 20, memory=max(limits.memory, 512 << 20))
    with one, other:
        program = spawn("program", {"code": code}, limits, extra=[one.fileno()], silent=True)
        try:
            trusted = spawn(
                "tests",
                tests.task(),
                roomy,
                extra=[other.fileno()],
                partner=program,
                on_sleep=leave,
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
        # threads of the tests that wait for one another, perhaps
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
    """Which tests pass in the program's own process, as far as it lets them say."""
    key = secrets.token_hex(8)
    child = spawn("beside", tests.task(code=code, key=key), limits)
    child.follow(time.monotonic() + limits.seconds)
    child.let_go()
    return [
        r[1] is True for r in _lines(child) if isinstance(r, list) and len(r) == 2 and r[0] == key
    ]


def _lines(child: Child) -> list[Any]:
    """What a child wrote, a JSON value a line, up to the first line that is none."""
    values = []
    for line in bytes(next(iter(child.streams.values()))).splitlines(keepends=True):
        try:
            values.append(json.loads(line if line.endswith(b"\n") else b""))
        except ValueError:
            break
    return values


def _end(program: Child, ended: bool, limits: ProgramLimits) -> str:
    """How the program ended, if it did before the tests let it: "", timeout or died."""
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

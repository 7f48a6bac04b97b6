"""Judges a program by its unit tests. The program runs in a sandbox and cannot see the tests.

A program that hangs, dies or breaks a limit has failed. There is no verdict only if the tests or
the sandbox are at fault. Left out: reading tests (`unit_tests.py`), finding the program in a
completion (`programs.py`), other languages (`command.py`), and packages beyond the standard
library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from logpi.distributed import cores
from logpi.errors import UserError, row_place
from logpi.rewards.programs import parses, program_of, prompt_code, same_output
from logpi.rewards.text import text_of
from logpi.rewards.unit_tests import UnitTests
from logpi.rewards.workers.processes import Failure
from logpi.rewards.workers.worker import describe
from logpi.runs.user_code import from_user_code, is_user_code
from logpi.sandbox import ProgramLimits, ProgramVerdict, Sandbox, SandboxError, shared

COLUMNS = ("tests", "test", "test_list", "input_output")
SETUPS = ("setup", "test_setup_code")
SOLUTIONS = ("canonical_solution", "solution", "code")
# seconds of wall clock for each second of CPU time
PATIENCE = 3
# the number of the data set's solutions that a trial runs
TRIED = 8
_UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class Code:
    """1 if the program passes every test, else 0 (or the share that it passes).

    Attributes:
        tests: the column of the tests; "" for the first of tests, test, test_list, input_output.
        partial: the reward is the share of passed tests (a policy learns to pass the easy ones).
        seconds, memory: the limits of CPU time and of memory in MiB of one program on all its tests
            (or on each input, up to the first that takes too long). It may sleep as long. The limit
            of wall-clock time is three times as long, for busy machines.
        sandbox: auto, bubblewrap, landlock, unsafe (your own rights, no confinement), FILE.py:NAME,
            or any object of the protocol `logpi.sandbox.Sandbox`.
        budget: the wall-clock seconds of one call on all programs; those left over have no verdict.

    Raises:
        ValueError: at the start, if no sandbox works here, or no row has tests.
    """

    tests: str = ""
    partial: bool = False
    seconds: float = 10.0
    memory: int = 512
    sandbox: str | Sandbox = "auto"
    name: str = "code"
    budget: float = 600.0

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.tests,) if self.tests else ()

    def __call__(
        self, prompts, completions, completion_ids=None, **columns
    ) -> list[float | Failure | None]:
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        end = [time.monotonic() + self.budget] * len(rows)
        threads = getattr(self._sandbox, "threads", 0) or cores()
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._one, prompts, map(text_of, completions), rows, end))

    @property
    def _sandbox(self) -> Sandbox:
        return _named(self.sandbox) if isinstance(self.sandbox, str) else self.sandbox

    def unit_tests(self, row: Mapping[str, Any], prompt: str) -> UnitTests | None:
        """The row's tests, or None.

        Raises:
            ValueError: unreadable tests, or tests that every program would pass.
        """
        names = (self.tests,) if self.tests else COLUMNS
        present = [row[c] for c in names if row.get(c) is not None]
        if not present:
            return None
        value = next((v for v in present if len(v)), None)
        if value is None:
            raise ValueError("the tests are empty")
        entry = str(row.get("entry_point") or "")
        setup = next((str(row[s]) for s in SETUPS if row.get(s)), "")
        # the prompt's helpers belong to the tests, so the program cannot change them
        if entry and f"def {entry.rpartition('.')[2]}" in prompt and parses(prompt):
            setup = f"{prompt}\n{setup}"
        return UnitTests.of(value, setup, entry, prompt)

    def _one(
        self, prompt: Any, text: str, row: Mapping[str, Any], end: float
    ) -> float | Failure | None:
        code = prompt_code(prompt, str(row.get("entry_point") or ""))
        try:
            tests = self.unit_tests(row, code)
        except _UNREADABLE as error:
            return Failure("invalid", str(error))
        if tests is None:
            return None
        program = program_of(text, code, tests.entry_point, tests.names)
        try:
            verdict = self.judge(program, tests, end)
        except Exception as error:
            return Failure("failed", f"the sandbox: {describe(error)}")
        if not verdict.decided:
            return Failure(verdict.status, verdict.message)
        share = verdict.passed / verdict.total
        return share if self.partial else float(verdict.passed == verdict.total)

    def judge(self, program: str, tests: UnitTests, end: float = math.inf) -> ProgramVerdict:
        """Run a program against tests, at most until `end` of the monotonic clock."""
        if tests.pairs:
            return self._judge_outputs(program, tests, end)
        limits = self._limits(end)
        if limits is None:
            return self._late(tests)
        verdict = self._sandbox.judge(
            program, tests.sources, tests.setup, tests.entry_point, limits, tests.classes
        )
        late = verdict.status == "timeout" and time.monotonic() >= end
        return self._late(tests) if late else verdict

    def _judge_outputs(self, program: str, tests: UnitTests, end: float) -> ProgramVerdict:
        """Compare the output for each input with the expected one."""
        passed, status, message = 0, "ok", ""
        for stdin, expected in tests.pairs:
            limits = self._limits(end, 2 * len(expected.encode(errors="replace")))
            if limits is None:
                return self._late(tests)
            result = self._sandbox.run(program, stdin, limits)
            if result.status == "failed":
                return ProgramVerdict(passed, len(tests.pairs), "failed", "the sandbox ended")
            if result.status == "timeout" and time.monotonic() >= end:
                return self._late(tests)
            if result.status == "ok" and same_output(result.stdout, expected):
                passed += 1
                continue
            if not message:
                status = result.status.replace("ok", "wrong")
                message = f"on {stdin[:60]!r}: {result.stdout[:60]!r}"
            # after a timeout the other inputs would take as long
            if not self.partial or result.status == "timeout":
                break
        return ProgramVerdict(passed, len(tests.pairs), status, message)

    def _limits(self, end: float, output: int = 0) -> ProgramLimits | None:
        """The limits of one program; None if the time is up. output: extra bytes of output."""
        left = end - time.monotonic()
        if left <= 0:
            return None
        return ProgramLimits(
            seconds=min(PATIENCE * self.seconds, left),
            memory=self.memory << 20,
            output=ProgramLimits.output + output,
            cpu=self.seconds,
            idle=self.seconds,
        )

    def _late(self, tests: UnitTests) -> ProgramVerdict:
        message = f"the {self.budget:g} s for all programs of a step were over"
        return ProgramVerdict(0, len(tests.pairs or tests.sources), "late", message)

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[UnitTests | None]:
        """The tests of every row.

        Raises:
            UserError: names the first row with unreadable tests, or with tests that every program
                would pass.
        """
        tests = []
        for i, row in enumerate(rows):
            try:
                tests.append(self.unit_tests(row, _prompt(row)))
            except _UNREADABLE as error:
                problem = f"{row_place(row, f'row {i}')}: reward 'code' refuses its tests: {error}"
                raise UserError(problem) from None
        return tests

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Try the sandbox, read every row's tests, and run a few of the data set's own solutions.

        Raises:
            ValueError: no sandbox, no row with tests, or tests that refuse the data set's own
                solutions.
            UserError: tests that every program would pass.
        """
        self._try_sandbox()
        tests = self.read_rows(rows)
        if not any(tests):
            columns = self.tests or ", ".join(COLUMNS)
            raise ValueError(
                f"reward 'code': no row has tests in {columns}; name their column:"
                ' code(tests="NAME")'
            )
        pairs = [(i, r, t) for i, (r, t) in enumerate(zip(rows, tests, strict=True)) if t]
        verdicts = [(i, self._own(row, t)) for i, row, t in pairs[:TRIED]]
        refused = [(i, v) for i, v in verdicts if v is not None and v.status != "ok"]
        known = sum(v is not None for _, v in verdicts)
        if refused and 2 * len(refused) > known:
            row, verdict = refused[0]
            raise ValueError(
                f"reward 'code' disagrees with itself: {len(refused)} of {known} of the data set's"
                f" own solutions fail their tests (row {row}: {verdict.message}); do the tests need"
                " packages or a set-up?"
            )

    def _try_sandbox(self) -> None:
        try:
            result = self._sandbox.run("print(6 * 7)")
        except SandboxError:
            raise
        except Exception as error:
            raise ValueError(f"reward 'code': the sandbox fails: {describe(error)}") from None
        if result.status != "ok" or result.stdout.strip() != "42":
            last = (result.stderr.strip() or result.status).splitlines()[-1]
            raise ValueError(f"reward 'code': the sandbox does not run programs: {last}")

    def _own(self, row: Mapping[str, Any], tests: UnitTests) -> ProgramVerdict | None:
        """The verdict on the data set's own solution, if it has one."""
        own = next((str(row[c]) for c in SOLUTIONS if row.get(c)), None)
        if own is None:
            return None
        return self.judge(program_of(own, _prompt(row), tests.entry_point, tests.names), tests)


@lru_cache
def _named(word: str) -> Sandbox:
    """The sandbox that a word names. A user's class is instantiated once."""
    if not is_user_code(word):
        return shared(word)
    value = from_user_code(word)
    return value() if isinstance(value, type) else value


def _prompt(row: Mapping[str, Any]) -> str:
    return prompt_code(row.get("prompt"), str(row.get("entry_point") or ""))

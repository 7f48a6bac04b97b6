"""Does a program pass its unit tests? Run in the sandbox, where it cannot see the tests (`logpi.sandbox`).

    tests                                        example data sets
    a text with asserts or `def check(f)`        HumanEval (`test`, `entry_point`, `prompt`)
    a list of asserts                            MBPP (`test_list`, `test_setup_code`)
    {"inputs": […], "outputs": […]}              APPS, TACO (`fn_name`: a function's arguments and value; else stdin, stdout)
    [{"input": …, "output": …}, …]               the same, one by one

A program that hangs, dies, or uses too much has failed; only tests that are at fault themselves, or a sandbox that is, leave no
verdict. Left out: other languages (`command.py`), packages beyond the standard library, and the quality of code.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from logpi.rewards.processes import Failure
from logpi.rewards.text import text_of
from logpi.sandbox import Limits, Sandbox, Verdict, shared

__all__ = ["Code", "Demands", "program_of"]

COLUMNS = ("tests", "test", "test_list", "input_output")
SETUPS = ("setup", "test_setup_code")
PATIENCE = 3  # wall clock over CPU time
SOLUTIONS = ("canonical_solution", "solution", "code")
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def program_of(text: str, prompt: str = "", entry_point: str = "") -> str:
    r"""The program in a completion: the last fenced Python block (that defines `entry_point`, if one does), else all of it.

    If the prompt begins the function `entry_point` and the completion does not, the completion is its body.

    >>> program_of("So:\n```python\ndef f(x):\n    return x\n```\nDone.")
    'def f(x):\n    return x\n'
    >>> program_of("    return x\n\nprint(f(1))", prompt="def f(x):\n", entry_point="f")
    'def f(x):\n    return x\n\n'
    """
    text = text.rpartition("</think>")[2]
    blocks = [body for language, body in _FENCE.findall(text) if language.lower() in ("", "python", "python3", "py")]
    start = f"def {entry_point}"
    program = next((b for b in reversed(blocks) if entry_point and start in b), blocks[-1] if blocks else text)
    if entry_point and start not in program and start in prompt:
        return prompt + _body(program)
    return program


def _body(text: str) -> str:
    """The indented lines at the start: what follows them is no longer the function."""
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and kept:
            break
        kept.append(line)
    return "".join(kept)


@dataclass(frozen=True)
class Demands:
    """What a row demands of its program.

    Attributes:
        sources: Python tests. pairs: standard input and the output expected for it. setup: Python that comes before the tests.
        entry_point: the function under test, if it has one name.
    """

    sources: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    setup: str = ""
    entry_point: str = ""

    @classmethod
    def of(cls, value: Any, setup: str = "", entry_point: str = "") -> Demands:
        """From a data set's column (see this module's first lines).

        Raises:
            ValueError: none of these forms.
        """
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = json.loads(value)
        if isinstance(value, str):
            called = f"\ncheck({entry_point})" if entry_point and "def check(" in value else ""
            return cls((value + called,), (), setup, entry_point)
        if isinstance(value, Mapping) and {"inputs", "outputs"} <= set(value):
            name = value.get("fn_name") or ""
            pairs = list(zip(value["inputs"], value["outputs"], strict=True))
            if name:
                return cls(tuple(f"assert {name}(*{list(i)!r}) == {o!r}" for i, o in pairs), (), setup, name)
            return cls((), tuple((_lines(i), _lines(o)) for i, o in pairs))
        if isinstance(value, Sequence) and value and all(isinstance(v, str) for v in value):
            return cls(tuple(value), (), setup, entry_point)
        if isinstance(value, Sequence) and value and all(isinstance(v, Mapping) for v in value):
            return cls((), tuple((_lines(v["input"]), _lines(v["output"])) for v in value))
        raise ValueError(f"expected asserts, or inputs and outputs, got {str(value)[:60]!r}")


def _lines(text: Any) -> str:
    return text if isinstance(text, str) else "\n".join(map(str, text))


@dataclass(frozen=True)
class Code:
    """1 if the program passes every test, else 0 (or the share that it passes).

    Attributes:
        tests: the column that holds them; "" for the first of tests, test, test_list, input_output.
        partial: pay for the share of tests passed (a policy learns to pass the easy ones).
        seconds, memory: CPU seconds and MiB of one program on all its tests (each input, where there are inputs); it may wait, or
            be kept waiting by a busy machine, three times as long.
        sandbox: auto, bubblewrap, landlock, or unsafe (your own rights, no walls).

    Raises:
        ValueError: at the start, if nothing here can hold a program, or no row has tests.
    """

    tests: str = ""
    partial: bool = False
    seconds: float = 10.0
    memory: int = 512
    sandbox: str = "auto"
    name: str = "code"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.tests,) if self.tests else ()

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None | Failure]:
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        with ThreadPoolExecutor(self._box.workers) as threads:
            return list(threads.map(self._one, prompts, map(text_of, completions), rows))

    @property
    def _box(self) -> Sandbox:
        return shared(self.sandbox)

    def demanded(self, row: Mapping[str, Any], prompt: str) -> Demands | None:
        """The row's tests, or None."""
        column = self.tests or next((c for c in COLUMNS if row.get(c)), "")
        if not row.get(column):
            return None
        entry = str(row.get("entry_point") or "")
        setup = next((str(row[s]) for s in SETUPS if row.get(s)), "")
        if entry and f"def {entry}" in prompt and _parses(prompt):
            setup = f"{prompt}\n{setup}"  # helpers of the tests' own, out of the program's reach
        return Demands.of(row[column], setup, entry)

    def _one(self, prompt: Any, text: str, row: Mapping[str, Any]) -> float | None | Failure:
        begun = prompt if isinstance(prompt, str) else ""
        try:
            tests = self.demanded(row, begun)
        except (ValueError, KeyError, TypeError) as error:
            return Failure("invalid", f"tests: {error}")
        if tests is None:
            return None
        verdict = self.judge(program_of(text, begun, tests.entry_point), tests)
        if not verdict.decided:
            return Failure(verdict.status, verdict.message)
        return verdict.passed / verdict.total if self.partial else float(verdict.passed == verdict.total)

    def judge(self, program: str, tests: Demands) -> Verdict:
        """Run a program against tests."""
        limits = Limits(PATIENCE * self.seconds, self.memory << 20, cpu=self.seconds)
        if not tests.pairs:
            return self._box.judge(program, tests.sources, tests.setup, tests.entry_point, limits)
        passed, wrong = 0, ("wrong", "")
        for given, wanted in tests.pairs:
            result = self._box.run(program, given, limits)
            if result.status == "failed":
                return Verdict(passed, len(tests.pairs), "failed", "the sandbox ended")
            if result.status == "ok" and _same_output(result.stdout, wanted):
                passed += 1
                continue
            wrong = (
                wrong
                if wrong[1]
                else (result.status.replace("ok", "wrong"), f"on {given[:60]!r}: {result.stdout[:60]!r}")
            )
            if not self.partial:
                break
        return Verdict(passed, len(tests.pairs), *(("ok", "") if passed == len(tests.pairs) else wrong))

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Start the sandbox; read every row's tests; run a few of the data set's own solutions.

        Raises:
            ValueError: no sandbox, rows without tests, or solutions of the data set that its own tests refuse.
        """
        self._box.start()
        tests = [self.demanded(row, row["prompt"] if isinstance(row.get("prompt"), str) else "") for row in rows]
        if not any(tests):
            columns = self.tests or ", ".join(COLUMNS)
            raise ValueError(f"reward 'code': no row has tests in {columns}; name their column: code(tests=\"NAME\")")
        tried = [(i, self._own(row, t)) for i, (row, t) in enumerate(zip(rows, tests, strict=True)) if t][:8]
        refused = [(i, v) for i, v in tried if v is not None and v.status != "ok"]
        known = sum(v is not None for _, v in tried)
        if refused and 2 * len(refused) > known:
            row, verdict = refused[0]
            raise ValueError(
                f"reward 'code' disagrees with itself: {len(refused)} of {known} of the data set's own solutions fail their tests "
                f"(row {row}: {verdict.message}); do the tests need packages or a set-up?"
            )

    def _own(self, row: Mapping[str, Any], tests: Demands) -> Verdict | None:
        """The verdict on the data set's own solution, if it has one."""
        own = next((str(row[c]) for c in SOLUTIONS if row.get(c)), None)
        begun = row["prompt"] if isinstance(row.get("prompt"), str) else ""
        return None if own is None else self.judge(program_of(own, begun, tests.entry_point), tests)


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _same_output(out: str, wanted: str) -> bool:
    """White space at the ends of lines and of the whole aside."""
    return [line.rstrip() for line in out.rstrip().split("\n")] == [
        line.rstrip() for line in wanted.rstrip().split("\n")
    ]

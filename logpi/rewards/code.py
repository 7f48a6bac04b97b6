"""Does a program pass its unit tests? Run in the sandbox, where it cannot see the tests
(`logpi.sandbox`).

`demands.py` has the forms in which tests are read. A program that hangs, dies, or uses too much has
failed; only tests that are at fault themselves, or a sandbox that is, leave no verdict. Left out:
other languages (`command.py`), packages beyond the standard library, and the quality of code.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from logpi.errors import UserError
from logpi.rewards.demands import Demands
from logpi.rewards.text import content_text, text_of
from logpi.rewards.workers.processes import Failure
from logpi.sandbox import LocalSandbox, ProgramLimits, ProgramVerdict, shared

COLUMNS = ("tests", "test", "test_list", "input_output")
SETUPS = ("setup", "test_setup_code")
PATIENCE = 3  # wall clock over CPU time
SOLUTIONS = ("canonical_solution", "solution", "code")
_FENCE = re.compile(
    r"^(?P<before>[^`\n]+)?(?P<marks>```+|~~~+)[ \t]*(?P<language>[^\s`]*)[^`\n]*\n(?P<body>.*?)"
    r"(?:^(?(before)[ \t>]*| {0,3})(?P=marks)|\Z)",  # indented by four it is the program's own, in a docstring say
    re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PYTHON = ("python", "python3", "py", "py3", "python2")


def program_of(
    text: str, prompt: str = "", entry_point: str = "", names: Collection[str] = ()
) -> str:
    r"""The program in a completion: the last fenced Python block (that defines `entry_point` or one
    of `names`, if one does), else all of it.

    If the prompt begins the function `entry_point` and the completion does not, the completion is
    its body.

    >>> program_of("So:\n```python\ndef f(x):\n    return x\n```\nDone.")
    'def f(x):\n    return x\n'
    >>> program_of("    return x\n\nprint(f(1))", prompt="def f(x):\n", entry_point="f")
    'def f(x):\n    return x\n\n'
    """
    text = text.rpartition("</think>")[2]
    blocks = [(m["language"].lower().strip("{.}"), _outdented(m)) for m in _FENCE.finditer(text)]
    named = [body for language, body in blocks if language in _PYTHON]
    blocks = [b for b in named or [body for language, body in blocks if not language] if b.strip()]
    entry = entry_point.rpartition(".")[2]
    wanted = [rf"def[ \t]+{re.escape(entry)}\b"] if entry else []
    wanted += [rf"(?:def|class)[ \t]+{re.escape(n)}\b|^{re.escape(n)}[ \t]*=" for n in names]
    defines = re.compile("|".join(wanted) or r"(?!)", re.MULTILINE)
    program = next(
        (b for b in reversed(blocks) if defines.search(b)),
        blocks[-1] if blocks else _unfenced(text),
    )
    if not entry or f"def {entry}" not in prompt:
        return program
    return _imports(prompt) + program if defines.search(program) else prompt + _body(program)


def _unfenced(text: str) -> str:
    """A text without blocks: what stands between answer tags, if there are any."""
    opened, _, answer = text.rpartition("<answer>")
    return answer.partition("</answer>")[0] if opened or text.startswith("<answer>") else text


def _imports(prompt: str) -> str:
    """What the prompt imports is there for a program that goes on from it."""
    lines = (line for line in prompt.splitlines() if line.startswith(("import ", "from ")))
    return "".join(f"{line}\n" for line in lines if _parses(line))


def _outdented(fence: re.Match[str]) -> str:
    """A block without the indentation of its fence: in a list item that is where the item's text
    begins."""
    before = fence["before"] or ""
    inside = re.fullmatch(r"(?:[ \t>]|[-*+]|\d+[.)])*", before) is not None
    return (
        re.sub(rf"^[ \t>]{{1,{len(before)}}}", "", fence["body"], flags=re.MULTILINE)
        if inside and before
        else fence["body"]
    )


def _body(text: str) -> str:
    """The indented lines at the start: what follows them is no longer the function."""
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and kept:
            break
        kept.append(line)
    return "".join(kept)


@dataclass(frozen=True)
class Code:
    """1 if the program passes every test, else 0 (or the share that it passes).

    Attributes:
        tests: the column that holds them; "" for the first of tests, test, test_list, input_output.
        partial: pay for the share of tests passed (a policy learns to pass the easy ones).
        seconds, memory: CPU seconds and MiB of one program on all its tests (each input, where
            there are inputs, up to the first that takes too long); it may sleep as long, and be
            kept waiting by a busy machine three times as long.
        budget: wall-clock seconds of one call, however many programs; what is not judged by then
            has no verdict.
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
    budget: float = 600.0

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.tests,) if self.tests else ()

    def __call__(
        self, prompts, completions, completion_ids=None, **columns
    ) -> list[float | Failure | None]:
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        end = [time.monotonic() + self.budget] * len(rows)
        with ThreadPoolExecutor(self._box.threads) as threads:
            return list(threads.map(self._one, prompts, map(text_of, completions), rows, end))

    @property
    def _box(self) -> LocalSandbox:
        return shared(self.sandbox)

    def demanded(self, row: Mapping[str, Any], prompt: str) -> Demands | None:
        """The row's tests, or None.

        Raises:
            ValueError: they cannot be read, or would pass every program.
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
        if entry and f"def {entry.rpartition('.')[2]}" in prompt and _parses(prompt):
            setup = f"{prompt}\n{setup}"  # helpers of the tests' own, out of the program's reach
        return Demands.of(value, setup, entry, prompt)

    def _one(
        self, prompt: Any, text: str, row: Mapping[str, Any], end: float
    ) -> float | Failure | None:
        begun = _begun(prompt, str(row.get("entry_point") or ""))
        try:
            tests = self.demanded(row, begun)
        except _UNREADABLE as error:
            return Failure("invalid", str(error))
        if tests is None:
            return None
        verdict = self.judge(program_of(text, begun, tests.entry_point, tests.names), tests, end)
        if not verdict.decided:
            return Failure(verdict.status, verdict.message)
        return (
            verdict.passed / verdict.total
            if self.partial
            else float(verdict.passed == verdict.total)
        )

    def judge(self, program: str, tests: Demands, end: float = math.inf) -> ProgramVerdict:
        """Run a program against tests, until `end` (of the monotonic clock) at most."""
        if not tests.pairs:
            limits = self._limits(end)
            if limits is None:
                return self._unjudged(tests)
            verdict = self._box.judge(
                program, tests.sources, tests.setup, tests.entry_point, limits, tests.classes
            )
            return (
                self._unjudged(tests)
                if verdict.status == "timeout" and time.monotonic() >= end
                else verdict
            )
        passed, wrong = 0, ("ok", "")
        for given, wanted in tests.pairs:
            limits = self._limits(end, 2 * len(wanted.encode(errors="replace")))
            if limits is None:
                return self._unjudged(tests)
            result = self._box.run(program, given, limits)
            if result.status == "failed":
                return ProgramVerdict(passed, len(tests.pairs), "failed", "the sandbox ended")
            if result.status == "timeout" and time.monotonic() >= end:
                return self._unjudged(tests)
            if result.status == "ok" and _same_output(result.stdout, wanted):
                passed += 1
                continue
            if not wrong[1]:
                wrong = (
                    result.status.replace("ok", "wrong"),
                    f"on {given[:60]!r}: {result.stdout[:60]!r}",
                )
            if (
                not self.partial or result.status == "timeout"
            ):  # the other inputs would cost as much
                break
        return ProgramVerdict(passed, len(tests.pairs), *wrong)

    def _limits(self, end: float, output: int = 0) -> ProgramLimits | None:
        """Of one program; None if the time is up."""
        left = end - time.monotonic()
        wall = min(PATIENCE * self.seconds, left)
        room = max(ProgramLimits.output, ProgramLimits.output + output)
        return (
            None
            if left <= 0
            else ProgramLimits(wall, self.memory << 20, room, cpu=self.seconds, idle=self.seconds)
        )

    def _unjudged(self, tests: Demands) -> ProgramVerdict:
        total = len(tests.pairs or tests.sources)
        return ProgramVerdict(
            0, total, "late", f"the {self.budget:g} s for all programs of a step were over"
        )

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[Demands | None]:
        """Every row's tests.

        Raises:
            UserError: names the first row whose tests cannot be read, or would pass every program.
        """
        read = []
        for i, row in enumerate(rows):
            try:
                read.append(self.demanded(row, _prompt(row)))
            except _UNREADABLE as error:
                where = getattr(row, "where", "") or f"row {i}"
                raise UserError(f"{where}: reward 'code' refuses its tests: {error}") from None
        return read

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Start the sandbox; read every row's tests; run a few of the data set's own solutions.

        Raises:
            ValueError: no sandbox, rows without tests, or solutions of the data set that its own
                tests refuse.
            UserError: tests that would pass every program.
        """
        self._box.start()
        tests = self.read_rows(rows)
        if not any(tests):
            columns = self.tests or ", ".join(COLUMNS)
            raise ValueError(
                f"reward 'code': no row has tests in {columns}; name their column:"
                ' code(tests="NAME")'
            )
        tried = [
            (i, self._own(row, t)) for i, (row, t) in enumerate(zip(rows, tests, strict=True)) if t
        ][:8]
        refused = [(i, v) for i, v in tried if v is not None and v.status != "ok"]
        known = sum(v is not None for _, v in tried)
        if refused and 2 * len(refused) > known:
            row, verdict = refused[0]
            raise ValueError(
                f"reward 'code' disagrees with itself: {len(refused)} of {known} of the data set's"
                f" own solutions fail their tests (row {row}: {verdict.message}); do the tests need"
                " packages or a set-up?"
            )

    def _own(self, row: Mapping[str, Any], tests: Demands) -> ProgramVerdict | None:
        """The verdict on the data set's own solution, if it has one."""
        own = next((str(row[c]) for c in SOLUTIONS if row.get(c)), None)
        if own is None:
            return None
        return self.judge(program_of(own, _prompt(row), tests.entry_point, tests.names), tests)


_UNREADABLE = (ValueError, KeyError, TypeError, RecursionError)


def _prompt(row: Mapping[str, Any]) -> str:
    return _begun(row.get("prompt"), str(row.get("entry_point") or ""))


def _begun(prompt: Any, entry_point: str) -> str:
    """The text of a prompt, of messages the last; of one with the function in a block of Markdown,
    that block."""
    if not isinstance(prompt, str):
        prompt = content_text(prompt[-1].get("content")) if prompt else ""
    blocks = [_outdented(m) for m in _FENCE.finditer(prompt)]
    start = f"def {entry_point.rpartition('.')[2]}"
    return next((b for b in blocks if start in b), prompt) if entry_point else prompt


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _same_output(out: str, wanted: str) -> bool:
    """White space at the ends of lines and of the whole aside; lines of numbers number by number
    (`_same_number`)."""
    lines, expected = out.rstrip().split("\n"), wanted.rstrip().split("\n")
    return len(lines) == len(expected) and all(map(_same_line, lines, expected))


def _same_line(line: str, wanted: str) -> bool:
    if line.rstrip() == wanted.rstrip():
        return True
    parts, expected = line.split(), wanted.split()
    return len(parts) == len(expected) and all(map(_same_number, parts, expected))


def _same_number(said: str, wanted: str) -> bool:
    """Whether both are numbers and equal: 3.0 is 3; where a fraction is expected, up to 1e-6 of
    what is below 1, 1e-6 above.

    >>> _same_number("0.30000000000000004", "0.3"), _same_number("3.1", "3"), _same_number("007", "7")
    (True, False, False)
    """
    if not (_NUMBER.fullmatch(said) and _NUMBER.fullmatch(wanted)):
        return False
    if not set(wanted) & set(".eE"):
        return said.partition(".")[0] == wanted and not said.partition(".")[2].strip("0")
    a, b = float(said), float(wanted)
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6 * min(1.0, abs(b)) + 1e-12)

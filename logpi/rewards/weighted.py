"""One reward with its weight and its name: a term of the sum.

A Python function runs in this process, on copies. Its exceptions and wrong results cost verdicts,
never the run; but nothing stops a function that hangs. Left out: the sum (`combine.py`), and
functions of a file, which run in a process of their own (`user.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from logpi.rewards.samples import Judgement, Samples, Verdict, judged
from logpi.rewards.user import UserReward
from logpi.rewards.workers import worker
from logpi.rewards.workers.processes import Failure

# a trial states the row's answer in each of these forms
TRIAL_FORMS = (
    "The answer is {}.",
    "<think>Well.</think><answer>{}</answer>",
    "So it is \\boxed{{{}}}",
    "#### {}",
)


@runtime_checkable
class FindsAnswer(Protocol):
    """A reward that can find the answer that it judges."""

    def find(self, text: str) -> str | None: ...


@runtime_checkable
class TriesRows(Protocol):
    """A reward with its own trial on rows before any work: it may not read their answers, or may
    reject them."""

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None: ...


@runtime_checkable
class ReadsRows(Protocol):
    """A reward that reads all rows before any work. It refuses rows that would give every answer
    the same verdict."""

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> Any: ...


@dataclass(frozen=True)
class Weighted:
    """One reward function, its weight in the sum and its name in the logs.

    Attributes:
        function: takes what its parameters are called (`workers/worker.py`): TRL's `f(prompts,
            completions, completion_ids, **columns)` or a part of it, or verl's `compute_score`;
            plain or async, also where an event loop runs already. A class stands for its object.

    Raises:
        ValueError: the function cannot be called.
    """

    function: Callable[..., Any]
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _name(self.function))
        try:
            object.__setattr__(self, "_call", worker.adapted(self.function))
        except Exception as error:
            problem = worker.describe(error)
            raise ValueError(f"reward {self.name!r} cannot be called: {problem}") from None

    def judge(self, samples: Samples) -> Judgement:
        """The function's judgement on the samples; never raises."""
        if isinstance(self.function, UserReward):
            return self.function.judge(samples)
        return judged(samples, self._ask, self._ask)

    def _ask(self, samples: Samples) -> Judgement | Failure:
        """One call in this process. The function may change its arguments, which are copies."""
        prompts, completions, ids, columns = samples.arguments
        try:
            prompts, completions, columns = deepcopy((prompts, completions, columns))
        except Exception as error:
            problem = worker.describe(error)
            return Failure("raised", f"the rows cannot be copied for it: {problem}")
        call = (prompts, completions, ids, columns)
        return Judgement.of(worker.answer(self._call, call, _verdict))  # type: ignore[attr-defined]

    def needs(self) -> Sequence[str]:
        """The columns that the function requires. Raises ValueError if its file does not load."""
        if isinstance(self.function, UserReward):
            return self.function.start()
        return worker.needs(self._call)  # type: ignore[attr-defined]

    def trial(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Call the function once, before any work, on four forms of the first rows' answers.

        A reward with a trial of its own (`TriesRows`) runs that one.

        Raises:
            ValueError: no completion got a verdict; with the reason, such as a missing column.
        """
        if isinstance(self.function, TriesRows):
            self.function.try_rows(rows)
            return
        verdicts = self.judge(_trial_samples(columns, rows)).verdicts
        if all(isinstance(v, Failure) for v in verdicts):
            have = ", ".join(sorted(columns)) or "none"
            raise ValueError(
                f"reward {self.name!r} judges none of {len(verdicts)} trial completions:"
                f" {verdicts[0]} (columns: {have})"
            )


def _trial_samples(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Samples:
    """A completion in each of `TRIAL_FORMS`, with the columns of a rollout."""
    used = [rows[i % len(rows)] for i in range(len(TRIAL_FORMS))]
    texts = [f.format(row.get("answer", "")) for f, row in zip(TRIAL_FORMS, used, strict=True)]
    prompts = [row.get("prompt", "") for row in used]
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    names = [c for c in columns if c not in ("prompt", "completion")]
    values: dict[str, list[Any]] = {c: [row.get(c) for row in used] for c in names}
    values |= {"step": [0] * len(used), "assistant_prefix": [""] * len(used)}
    if "turns" in columns:
        values |= {"turns": [[t] for t in texts], "step_reward": [0.0] * len(used)}
        values |= {"verdicts": [{"numbers": {}, "error": ""}] * len(used)}
    return Samples(prompts, completions, [list(range(len(t))) for t in texts], values)


def _name(function: Any) -> str:
    """The `name` of a reward, the name of a function, or the class of another callable."""
    if isinstance(function, partial):
        return _name(function.func)
    return getattr(function, "name", "") or getattr(function, "__name__", type(function).__name__)


def _verdict(value: Any) -> Verdict | dict[str, str]:
    """The verdict of a value. A reward of this process may return a `Failure` itself."""
    return value if isinstance(value, Failure) else worker.verdict(value)

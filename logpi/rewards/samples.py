"""The arguments and the result of a reward function: samples, and the judgement on them.

Left out: where the function runs (`weighted.py`: in this process; `user.py`: in one of its own).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logpi.rewards.workers.processes import Failure, call

Verdict = float | Failure | None
"""A number; the reason why there is none; or None if the reward does not apply."""


@dataclass(frozen=True)
class Samples:
    """B completions, their prompts and columns: the arguments of one call.

    Attributes:
        prompts, completions: B each, texts or lists of messages.
        completion_ids: B lists of token ids, or None.
        columns: the rows' other columns by name, B values each.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.completions)

    def one(self, number: int) -> Samples:
        """Sample `number` as a batch of its own."""
        at = slice(number, number + 1)
        ids = None if self.completion_ids is None else self.completion_ids[at]
        columns = {name: values[at] for name, values in self.columns.items()}
        return Samples(self.prompts[at], self.completions[at], ids, columns)

    @property
    def arguments(self) -> tuple[list[Any], list[Any], list[Any] | None, dict[str, Any]]:
        """The arguments as lists."""
        ids = None if self.completion_ids is None else [list(i) for i in self.completion_ids]
        return list(self.prompts), list(self.completions), ids, dict(self.columns)

    def pickled(self) -> bytes:
        """The bytes of the arguments, as a worker process reads them."""
        return call(*self.arguments)


@dataclass(frozen=True)
class Judgement:
    """The result of a reward function on B samples.

    Attributes:
        verdicts: B of them.
        metrics: the numbers that the function logged for the batch, by name.
        extras: the values that the function logged for each sample, by name.
    """

    verdicts: Sequence[Verdict]
    metrics: Mapping[str, float] = field(default_factory=dict)
    extras: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Judgement | Failure:
        """The judgement in a reply (`workers/worker.py`)."""
        if "failed" in reply:
            return Failure(**reply["failed"])
        verdicts = [Failure(**v) if isinstance(v, dict) else v for v in reply["verdicts"]]
        columns = reply.get("extras") or {}
        extras = [{k: v[i] for k, v in columns.items()} for i in range(len(verdicts))]
        return cls(verdicts, reply.get("metrics") or {}, extras)

    @classmethod
    def joined(cls, parts: Sequence[Judgement]) -> Judgement:
        """One judgement from those on single samples; each metric is the mean of its values."""
        values: dict[str, list[float]] = {}
        for part in parts:
            for name, value in part.metrics.items():
                values.setdefault(name, []).append(value)
        means = {name: math.fsum(v) / len(v) for name, v in values.items()}
        verdicts = [v for part in parts for v in part.verdicts]
        return cls(verdicts, means, [e for part in parts for e in part.extras or ({},)])


Ask = Callable[[Samples], Judgement | Failure]


def judged(samples: Samples, ask: Ask, ask_alone: Ask, patience: float = math.inf) -> Judgement:
    """The judgement on a batch.

    If the call on the whole batch fails, each sample gets a call of its own, so one bad sample
    costs one verdict. If the result has the wrong type or length, the whole batch has no verdict,
    because nobody knows which value belongs to which sample.

    Args:
        ask: calls the function on the batch.
        ask_alone: calls it on one sample.
        patience: the number of killed processes after which the other samples are given up.
    """
    whole = ask(samples)
    if isinstance(whole, Judgement):
        return whole
    if whole.of_function:
        return Judgement([whole] * len(samples))
    parts: list[Judgement] = []
    killed = 0
    for number in range(len(samples)):
        if killed >= patience:
            given_up = Failure("given_up", f"after {killed} killed processes in this batch")
            parts.append(Judgement([given_up]))
            continue
        one = ask_alone(samples.one(number))
        killed += isinstance(one, Failure) and one.kind in ("hung", "died")
        parts.append(Judgement([one]) if isinstance(one, Failure) else one)
    return Judgement.joined(parts)

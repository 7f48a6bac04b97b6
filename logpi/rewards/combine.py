"""Adds several rewards to one number for each completion, and keeps every part.

    total = Σₖ weightₖ · rewardₖ   over the parts that gave a number

None means that a part does not apply to the row: the sum leaves it out. If all parts give None, or
if any part fails, the row has *no* total, and the trainer drops it. A missing verdict is not a
zero. Left out: groups and baselines (the objective's), and where a function runs (`weighted.py`,
`user.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from logpi.rewards.model import ModelReward
from logpi.rewards.samples import Judgement, Samples
from logpi.rewards.weighted import FindsAnswer, ReadsRows, Weighted
from logpi.rewards.workers.processes import Failure

if TYPE_CHECKING:
    from logpi.policies.reward_model import RewardModel
    from logpi.rewards.text import Completion


@dataclass(frozen=True)
class RewardScore:
    """The score of one completion.

    Attributes:
        total: the weighted sum, or None: no verdict. Such a row is dropped, never read as zero.
        parts: each reward's unweighted number by name; None if it does not apply or failed.
        errors: each failure by name, as `kind: message`.
        metrics: the values that functions logged for the whole batch (`log_metric`).
        extras: the values that functions logged for this completion (`log_extra`).
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rewards:
    """A weighted sum of rewards.

    Built-in rewards and Python functions run in this process, and nothing stops one that hangs. A
    function of a file (`user_reward`) runs in a process of its own, which can be killed. If a
    function raises on the batch, it is called on each sample alone, so one bad sample costs one
    verdict. If it returns another number of values, the whole batch has no verdict.

    Attributes:
        parts: the rewards; their names must differ.

    >>> from logpi.rewards import Number, ThinkAnswer
    >>> sum_ = Rewards((Weighted(Number()), Weighted(ThinkAnswer(), 0.1)))
    >>> sum_.score(["3+4?"], ["<think>3+4</think><answer>7</answer>"], columns={"answer": ["7"]})
    [RewardScore(total=1.1, parts={'number': 1.0, 'think_answer': 1.0}, errors={}, metrics={},
    extras={})]
    """

    parts: tuple[Weighted, ...]

    def __post_init__(self) -> None:
        twice = [name for name, n in Counter(p.name for p in self.parts).items() if n > 1]
        if twice or not self.parts:
            raise ValueError(
                f"two rewards are called {twice[0]!r}: rename one, as Weighted(f, weight, name)"
                if twice
                else "no rewards: give at least one"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parts)

    @property
    def models(self) -> list[RewardModel]:
        """The reward models among them."""
        return [p.function.model for p in self.parts if isinstance(p.function, ModelReward)]

    def in_shards(self, shard: Any) -> Rewards:
        """The same, with reward models that are named by a path laid out over the ranks as `shard`
        says."""
        parts = [
            replace(p, function=replace(p.function, shard=shard))
            if shard and isinstance(p.function, ModelReward) and not p.function.in_memory
            else p
            for p in self.parts
        ]
        return replace(self, parts=tuple(parts))

    @property
    def find_answer(self) -> Callable[[str], str | None] | None:
        """The function by which the first reward finds the answer in a text, for majority votes; or
        None."""
        function = self.parts[0].function
        return function.find if isinstance(function, FindsAnswer) else None

    def check(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]] = (),
        every: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Refuse, before any work, rewards that cannot judge the rows.

        Args:
            columns: the columns of the rows and those that the rollout fills in; a reward may need
                others.
            rows: some rows for a trial: a function may judge nothing, a verifier may not read the
                answers or may reject them.
            every: all rows, if they are a list: a reward may give every answer the same verdict.

        Raises:
            ValueError: names the reward, the column, and the columns of the rows; or the error of
                the user's file or function.
        """
        for part in self.parts:
            needs = part.needs()
            if both := [n for n in needs if columns.count(n) > 1]:
                raise ValueError(
                    f"reward {part.name!r} reads the column {both[0]!r}, which the rows have and"
                    " the rollout fills in itself: rename it in the rows"
                )
            if missing := [n for n in needs if n not in columns]:
                have = ", ".join(sorted(columns)) or "no columns"
                raise ValueError(
                    f"reward {part.name!r} needs the column {missing[0]!r}; the rows have: {have}"
                )
            if rows:
                part.trial(columns, rows)
            if isinstance(every, list) and isinstance(part.function, ReadsRows):
                part.function.read_rows(every)

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[RewardScore]:
        """Judge B completions.

        Args:
            prompts, completions: B each; strings or lists of messages.
            completion_ids: B lists of token ids, for rewards that count tokens.
            columns: the rows' other columns, B values each.
        """
        given = ("prompts", "completions", "completion_ids")
        others = {k: v for k, v in (columns or {}).items() if k not in given}
        samples = Samples(prompts, completions, completion_ids, others)
        judgements = [part.judge(samples) for part in self.parts]
        return [self._score(judgements, i) for i in range(len(samples))]

    def _score(self, judgements: Sequence[Judgement], number: int) -> RewardScore:
        """The score of one completion."""
        verdicts = [(p, j.verdicts[number]) for p, j in zip(self.parts, judgements, strict=True)]
        errors = {p.name: str(v) for p, v in verdicts if isinstance(v, Failure)}
        parts = {p.name: None if isinstance(v, Failure) else v for p, v in verdicts}
        terms = [p.weight * v for p, v in verdicts if isinstance(v, float)]
        metrics: dict[str, float] = {}
        extras: dict[str, Any] = {}
        for judgement in judgements:
            metrics |= judgement.metrics
            extras |= judgement.extras[number] if judgement.extras else {}
        return RewardScore(
            sum(terms) if terms and not errors else None, parts, errors, metrics, extras
        )


def failures(scores: Sequence[RewardScore]) -> dict[str, int]:
    """The numbers of missing verdicts by `reward/kind`; `none` counts rows to which no reward
    applies.

    >>> hung = RewardScore(None, {"f": None}, {"f": "hung: no answer in 10 s"})
    >>> failures([hung, RewardScore(None, {"f": None})])
    {'f/hung': 1, 'none': 1}
    """
    counts = Counter(
        f"{name}/{e.partition(':')[0]}" for s in scores for name, e in s.errors.items()
    )
    nothing = sum(s.total is None and not s.errors for s in scores)
    return dict(counts) | ({"none": nothing} if nothing else {})

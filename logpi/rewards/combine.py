"""Several rewards as one number for each completion, every part kept.

    total = Σₖ weightₖ · rewardₖ   over the parts that gave a number

A part that says None does not apply to the row and is left out of its sum. If all parts say None,
or any part failed, the row has *no* total: a missing verdict is not a zero, and the trainer drops
    the row. Left out: groups and baselines
(an objective's business), and where functions run (`user.py` for the user's own).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from logpi.rewards.user import UserReward
from logpi.rewards.workers import worker
from logpi.rewards.workers.processes import Failure

if TYPE_CHECKING:
    from logpi.rewards.text import Completion

Verdict = float | None | Failure
TRIED = (
    "The answer is {}.",
    "<think>Well.</think><answer>{}</answer>",
    "So it is \\boxed{{{}}}",
    "#### {}",
)


@runtime_checkable
class FindsAnswer(Protocol):
    """A reward that can say which answer it would judge."""

    def find(self, text: str) -> str | None: ...


@runtime_checkable
class TriesRows(Protocol):
    """A reward that can try itself on rows before any work is done: can it read them, does it agree
    with itself?"""

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None: ...


@runtime_checkable
class ReadsRows(Protocol):
    """A reward that can read rows, all that there are, and refuse those on which it would be wrong
    for every answer."""

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> Any: ...


@dataclass(frozen=True)
class RewardScore:
    """What one completion earned.

    Attributes:
        total: the weighted sum, or None: no verdict, the row must be dropped and never read as
            zero.
        parts: each reward's own number by name, unweighted; None where it does not apply or failed.
        errors: what went wrong by name, as `kind: message`.
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighted:
    """One reward function (TRL's signature, plain or async), its weight in the sum and its name in
    the logs."""

    function: Callable[..., Any]
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _name(self.function))

    def verdicts(
        self, prompts, completions, completion_ids, columns: Mapping[str, Sequence[Any]]
    ) -> list[Verdict]:
        """One verdict for each completion; what the function raises becomes a `Failure` of the
        guilty samples."""
        if isinstance(self.function, UserReward):
            return self.function(prompts, completions, completion_ids, **columns)
        whole = _call(self.function, prompts, completions, completion_ids, columns)
        if isinstance(whole, list):
            return whole
        if whole.of_function:
            return [whole] * len(completions)
        verdicts: list[Verdict] = []
        for i in range(len(completions)):
            one = slice(i, i + 1)
            ids = None if completion_ids is None else completion_ids[one]
            alone = _call(
                self.function,
                prompts[one],
                completions[one],
                ids,
                {k: v[one] for k, v in columns.items()},
            )
            verdicts.append(alone[0] if isinstance(alone, list) else alone)
        return verdicts

    def needs(self) -> Sequence[str]:
        """The columns that the function cannot do without. Raises ValueError if its file does not
        load."""
        if isinstance(self.function, UserReward):
            return self.function.start()
        return getattr(self.function, "needs", None) or worker.needs(self.function)

    def trial(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Call the function once, before any work is done, on made-up completions of the first
        rows: four forms of the answer. A reward that has a trial of its own (`TriesRows`) has that
            one.

        Raises:
            ValueError: not one of them got a verdict, and why: no list of numbers, a missing
                column, ….
        """
        if isinstance(self.function, TriesRows):
            return self.function.try_rows(rows)
        some = [rows[i % len(rows)] for i in range(len(TRIED))]
        texts = [form.format(row.get("answer", "")) for form, row in zip(TRIED, some, strict=True)]
        chat = [not isinstance(row.get("prompt", ""), str) for row in some]
        said = [
            [{"role": "assistant", "content": t}] if c else t
            for t, c in zip(texts, chat, strict=True)
        ]
        given = {
            c: [row.get(c) for row in some] for c in columns if c not in ("prompt", "completion")
        }
        given |= {
            "step": [0] * len(TRIED),
            "assistant_prefix": [""] * len(TRIED),
        }  # as a rollout does
        if "turns" in columns:
            given |= {"turns": [[t] for t in texts], "step_reward": [0.0] * len(TRIED)}
        found = self.verdicts(
            [r.get("prompt", "") for r in some], said, [list(range(len(t))) for t in texts], given
        )
        if all(isinstance(v, Failure) for v in found):
            have = ", ".join(sorted(columns)) or "none"
            raise ValueError(
                f"reward {self.name!r} judges none of {len(found)} trial completions: {found[0]}"
                f" (columns: {have})"
            )
        return None


def _name(function: Callable[..., Any]) -> str:
    """A built-in's own name, a function's, or the class of another callable."""
    return getattr(function, "name", "") or getattr(function, "__name__", type(function).__name__)


def _call(
    function: Callable[..., Any], prompts, completions, completion_ids, columns
) -> list[Verdict] | Failure:
    """A function called in this process, on copies that it may change: its verdicts, or why there
    are none."""
    try:
        prompts, completions, columns = deepcopy((list(prompts), list(completions), dict(columns)))
    except Exception as error:
        return Failure("raised", f"the rows cannot be copied for it: {worker.describe(error)}")
    ids = None if completion_ids is None else [list(i) for i in completion_ids]
    found = worker.answer(function, (prompts, completions, ids, columns), _verdict)
    return Failure(**found["failed"]) if "failed" in found else found["verdicts"]


def _verdict(value: Any) -> Verdict:
    """A reward of this process may say itself that it has none, and why."""
    found = value if isinstance(value, Failure) else worker.verdict(value)
    return Failure(**found) if isinstance(found, dict) else found


@dataclass(frozen=True)
class Rewards:
    """A weighted sum of rewards.

    A built-in reward, or any function given from Python, runs in this process and cannot be stopped
    if it hangs; a function named by file (`user_reward`) runs in its own and can. A function that
    raises on the batch is called again on each sample alone, so one bad sample costs one sample;
    one that does not return a value for each leaves none a verdict.

    Attributes:
        parts: the rewards; their names must differ.

    >>> from logpi.rewards import Number, ThinkAnswer
    >>> sum_ = Rewards((Weighted(Number()), Weighted(ThinkAnswer(), 0.1)))
    >>> sum_.score(["3+4?"], ["<think>3+4</think><answer>7</answer>"], columns={"answer": ["7"]})
    [RewardScore(total=1.1, parts={'number': 1.0, 'think_answer': 1.0}, errors={})]
    """

    parts: tuple[Weighted, ...]

    def __post_init__(self) -> None:
        twice = [name for name, n in Counter(p.name for p in self.parts).items() if n > 1]
        if twice or not self.parts:
            rename = (
                f"two rewards are called {twice[0]!r}: rename one, as Weighted(f, weight, name)"
                if twice
                else ""
            )
            raise ValueError(rename or "no rewards: give at least one")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parts)

    @property
    def find_answer(self) -> Callable[[str], str | None] | None:
        """What reads the final answer out of a text for the first reward (for majority votes), or
        None if it cannot."""
        function = self.parts[0].function
        return function.find if isinstance(function, FindsAnswer) else None

    def check(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]] = (),
        every: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Refuse rows that lack a column which a reward needs, files that do not load, and, given
        some `rows`, functions that judge nothing in a trial and answers that a verifier cannot read
        or does not accept as their own, before any work is done. Of `every` row (a list: generated
        ones are without end) those are refused on which a reward would say the same of every
        answer.

        Raises:
            ValueError: names the reward, the column, and the columns there are; or why the user's
                file or function fails.
        """
        for part in self.parts:
            missing = [n for n in part.needs() if n not in columns]
            if missing:
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
        columns = {
            k: v
            for k, v in (columns or {}).items()
            if k not in ("prompts", "completions", "completion_ids")
        }
        judged = [p.verdicts(prompts, completions, completion_ids, columns) for p in self.parts]
        return [self._combine(row) for row in zip(*judged, strict=True)]

    def _combine(self, row: Sequence[Verdict]) -> RewardScore:
        named = list(zip(self.parts, row, strict=True))
        errors = {p.name: str(v) for p, v in named if isinstance(v, Failure)}
        parts = {p.name: None if isinstance(v, Failure) else v for p, v in named}
        terms = [p.weight * v for p, v in named if v is not None and not isinstance(v, Failure)]
        return RewardScore(sum(terms) if terms and not errors else None, parts, errors)


def failures(scores: Sequence[RewardScore]) -> dict[str, int]:
    """How many verdicts are missing, by `reward/kind`; `none` counts rows to which no reward
    applies.

    >>> failures([RewardScore(None, {"f": None}, {"f": "hung: no answer in 10 s"}), RewardScore(None, {"f": None})])
    {'f/hung': 1, 'none': 1}
    """
    counts = Counter(
        f"{name}/{e.partition(':')[0]}" for s in scores for name, e in s.errors.items()
    )
    nothing = sum(s.total is None and not s.errors for s in scores)
    return dict(counts) | ({"none": nothing} if nothing else {})

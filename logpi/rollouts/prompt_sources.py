"""Prompt sources: they choose the next prompts of a rollout.

    TaskPrompts   the items of a task, pass after pass
    Curriculum    prefers prompts that the policy answers right sometimes, not always or never
    Mixture       mixes in a second source from a given prompt on (R1's last stage adds general
                  prompts only towards the end)

A source is any object with `take(n)`, `learn(rows, rates)` and a state. Left out: making problems
easier or harder (the task does that), and dropping groups after sampling (`ops/selection.py` has
`MixedOutcomes`, which samples groups that it drops; a curriculum avoids that cost).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from logpi.envs.task import Row, Split, Task


class PromptSource(Protocol):
    """Where a rollout's prompts come from; its state can be saved and restored exactly."""

    def take(self, n: int) -> list[Row]:
        """The next `n` items."""
        ...

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        """Learn each item's pass rate, in [0, 1]; None: no verdict."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TaskPrompts:
    """An endless walk over a task's items; its state is one integer. In each pass over a file the
    training items have a new order; test items keep theirs."""

    def __init__(self, task: Task, seed: int = 0, split: Split = "train") -> None:
        self.task, self.seed, self.split, self.cursor = task, seed, split, 0
        self._pass = -1
        self._rows: Sequence[Row] = ()

    def take(self, n: int) -> list[Row]:
        """The next `n` items."""
        return [self._next() for _ in range(n)]

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        """Does nothing: the order does not depend on the responses."""

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cursor = state["cursor"]

    def _next(self) -> Row:
        number, place = divmod(self.cursor, len(self._rows) or len(self._items(0)))
        if number != self._pass:
            self._pass, self._rows = number, self._items(number)
        self.cursor += 1
        return self._rows[place]

    def _items(self, number: int) -> Sequence[Row]:
        """The items of a pass."""
        if self.split == "test":
            return self.task.rows("test")
        return self.task.rows("train", self.seed + number)


def _key(row: Row) -> str:
    """A prompt's key in the state: 16 characters, the same in every run."""
    return blake2b(
        json.dumps(row["prompt"], sort_keys=True, default=str).encode(), digest_size=8
    ).hexdigest()


class Curriculum:
    """Draws a prompt whose pass rate is p with weight

        floor + 4 p (1 − p),  in [floor, 1 + floor]

    p (1 − p) is the variance of a right-or-wrong reward: 0 where a group has no gradient and
    largest at 1/2 (Foster & Foerster, "Learning to reason at the frontier of learnability",
    arXiv:2502.12272). From each window of `lookahead` · n items of the source, n are drawn without
    replacement; the rest return on the next pass. A prompt's p is a moving average of its own pass
    rates. A new prompt takes the p of its level (column `level`), or ½ if its level is new too.

    Divergence: the paper samples all prompts again every few steps to measure p; here p comes from
    training samples alone.

    Args:
        source: the items in their plain order. seed: of the draw. lookahead: ≥ 1; 1 changes only
            the order.
        floor: > 0, so that every prompt can return. rate: in (0, 1], how fast p follows the last
            pass rate.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        source: PromptSource,
        seed: int = 0,
        *,
        lookahead: int = 4,
        floor: float = 0.05,
        rate: float = 0.5,
    ) -> None:
        if lookahead < 1 or floor <= 0 or not 0 < rate <= 1:
            raise ValueError(
                f"a curriculum needs lookahead ≥ 1, floor > 0 and 0 < rate ≤ 1, got {lookahead},"
                f" {floor} and {rate}"
            )
        self.source, self.seed, self.lookahead = source, seed, lookahead
        self.floor, self.rate = floor, rate
        self.passed: dict[str, float] = {}
        self.levels: dict[str, float] = {}
        self.takes = 0

    def take(self, n: int) -> list[Row]:
        window = self.source.take(n * self.lookahead)
        rng = Random(f"{self.seed}/{self.takes}")
        self.takes += 1
        # Efraimidis & Spirakis: the n largest of u^(1/w) are a weighted draw without replacement
        keys = [rng.random() ** (1 / self.weight(row)) for row in window]
        order = sorted(range(len(window)), key=lambda i: -keys[i])
        # a prompt that stands in the window twice is drawn once, if the others are enough
        first: dict[str, int] = {}
        for i in order:
            first.setdefault(_key(window[i]), i)
        chosen = list(dict.fromkeys([*first.values(), *order]))[:n]
        return [window[i] for i in sorted(chosen)]

    def weight(self, row: Row) -> float:
        """The weight of a prompt in the draw."""
        p = self.pass_rate(row)
        return self.floor + 4 * p * (1 - p)

    def pass_rate(self, row: Row) -> float:
        """The estimate of p, the prompt's share of right responses."""
        return self.passed.get(_key(row), self.levels.get(str(row.get("level")), 0.5))

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        for row, rate in zip(rows, rates, strict=True):
            if rate is not None:
                self._follow(self.passed, _key(row), rate, self.rate)
                # a level averages over many prompts, so it moves more slowly
                self._follow(self.levels, str(row.get("level")), rate, self.rate / 4)
        self.source.learn(rows, rates)

    @staticmethod
    def _follow(table: dict[str, float], name: str, value: float, rate: float) -> None:
        table[name] = table[name] + rate * (value - table[name]) if name in table else value

    def state_dict(self) -> dict[str, Any]:
        return {
            "source": self.source.state_dict(),
            "passed": dict(self.passed),
            "levels": dict(self.levels),
            "takes": self.takes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state["source"])
        self.passed, self.levels = dict(state["passed"]), dict(state["levels"])
        self.takes = state["takes"]


class Mixture:
    """Items of `main`, with a share of `other` among them from the `start`-th item on.

    Items count when they are taken: with P prompts an update, start = P·N lets the other join at
    update N + 1 (earlier where groups are resampled). Every take has the share as nearly as whole
    items allow, and carries the remainder over. share = .4, start = 2:

        item       0 1   2 3 4 5 6   7 8 9 …
        source     m m   m m o m o   m m o …     ⌊(k+1)·.4⌋ > ⌊k·.4⌋ at k = 2, 4, 7, …

    Args:
        main, other: sources. share: of other, in [0, 1]. start: items before it joins.

    Raises:
        ValueError: a share outside [0, 1].
    """

    def __init__(
        self, main: PromptSource, other: PromptSource, *, share: float = 0.5, start: int = 0
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of a mixture lies between 0 and 1, not {share}")
        self.main, self.other, self.share, self.start = main, other, share, start
        self.taken = 0

    def take(self, n: int) -> list[Row]:
        due = [self._of_other(self.taken + i) for i in range(n)]
        self.taken += n
        main, other = iter(self.main.take(due.count(False))), iter(self.other.take(due.count(True)))
        return [next(other) if d else next(main) for d in due]

    def _of_other(self, place: int) -> bool:
        """Whether item number `place` comes from `other`: ⌊(k+1)·share⌋ > ⌊k·share⌋ for the k-th
        item since the start."""
        k = place - self.start
        return k >= 0 and int((k + 1) * self.share + 1e-9) > int(k * self.share + 1e-9)

    def learn(self, rows: Sequence[Row], rates: Sequence[float | None]) -> None:
        """Only the main source learns: the other's items may have no right answer."""
        self.main.learn(rows, rates)

    def state_dict(self) -> dict[str, Any]:
        return {
            "main": self.main.state_dict(),
            "other": self.other.state_dict(),
            "taken": self.taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.main.load_state_dict(state["main"])
        self.other.load_state_dict(state["other"])
        self.taken = state["taken"]

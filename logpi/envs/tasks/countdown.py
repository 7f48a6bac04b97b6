"""Countdown: make a target from given numbers with + - * / and parentheses.

The task of TinyZero, generated: it builds a solution first and reads the target off it, so every
problem has one. Left out: the judge, which accepts any solution (`rewards.CountdownReward`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, NamedTuple

from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.rewards import CountdownReward, Rewards, Weighted


class _Term(NamedTuple):
    """A number of the pool: its value, and how to write it (`loose`: it needs parentheses inside a
    product)."""

    value: int
    text: str
    loose: bool = False

    def inside(self) -> str:
        return f"({self.text})" if self.loose else self.text


def _join(a: _Term, b: _Term, op: int) -> _Term:
    """a and b as one term: a sum, a difference, a product, or a quotient where it is exact and
    useful."""
    if a.value < b.value:
        a, b = b, a
    if op == 3 and b.value > 1 and a.value % b.value == 0:
        return _Term(a.value // b.value, f"{a.inside()}/{_divisor(b)}")
    if op >= 2:
        return _Term(a.value * b.value, f"{a.inside()}*{b.inside()}")
    if op == 1 and a.value > b.value:
        return _Term(a.value - b.value, f"{a.text}-{b.inside()}", True)
    return _Term(a.value + b.value, f"{a.text}+{b.text}", True)


def _divisor(term: _Term) -> str:
    return term.text if term.text.isdigit() else f"({term.text})"


@dataclass(frozen=True)
class Countdown(GeneratedTask):
    """Make `target` from `count` numbers, each used exactly once.

    A row: prompt `3 4 7=40:`, columns `numbers` [3, 4, 7] and `target` 40, answer `40`, and as
    demonstration a solution, its steps first: `7+3=10,10*4=40#(7+3)*4`. Other solutions are right
    too. The same numbers, whatever the target, are on one side of the split.

    Attributes:
        count: numbers given, 2 to 6.
        largest: of the numbers, ≥ 2.
        limit: of the target and of every number on the way to it.
        prompt: a template with {numbers} (separated by spaces) and {target}.

    Raises:
        ValueError: an option out of its range.
    """

    count: int = 3
    largest: int = 20
    limit: int = 999
    prompt: str = "{numbers}={target}:"
    characters: ClassVar[str] = "0123456789 +-*/()=,#"
    name: str = field(default="countdown", init=False, repr=False)
    reward: Rewards = field(
        default=Rewards((Weighted(CountdownReward("#")),)), init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 6:
            raise ValueError(f"countdown: count must be between 2 and 6, got {self.count}")
        if self.largest < 2 or self.limit < self.count * self.largest:
            least = self.count * max(self.largest, 2)
            raise ValueError(
                f"countdown: needs largest ≥ 2 and limit ≥ {least}, got {self.largest} and"
                f" {self.limit}"
            )
        check_template(self.name, self.prompt, "numbers", "target")

    def draw(self, rng: Random) -> tuple[str, list[int]]:
        numbers = [1 + int(rng.random() * self.largest) for _ in range(self.count)]
        return " ".join(map(str, sorted(numbers))), numbers

    def _solve(self, numbers: list[int], rng: Random) -> tuple[int, str]:
        """A target that the numbers make, and the demonstration that makes it.

        pool 3 4 7: 7+3=10 leaves 4 10; 10*4=40 leaves 40, the target.
        """
        pool, steps = [_Term(n, str(n)) for n in numbers], []
        while len(pool) > 1:
            a, b = (pool.pop(int(rng.random() * len(pool))) for _ in range(2))
            term = _join(a, b, int(rng.random() * 4))
            # above the limit: take a quotient or a difference, which is smaller
            if term.value > self.limit:
                term = _join(a, b, 3 if a.value == b.value else 1)
            steps.append(self._step(a, b, term))
            pool.append(term)
        return pool[0].value, f"{','.join(steps)}#{pool[0].text}"

    @staticmethod
    def _step(a: _Term, b: _Term, term: _Term) -> str:
        """The step in values: `10*4=40`."""
        x, y = max(a.value, b.value), min(a.value, b.value)
        op = next(
            o
            for o, v in (("+", x + y), ("-", x - y), ("*", x * y), ("/", x / y))
            if v == term.value
        )
        return f"{x}{op}{y}={term.value}"

    def row(self, problem: list[int], rng: Random) -> Row:
        target, solution = self._solve(problem, rng)
        return {
            "prompt": self.prompt.format(numbers=" ".join(map(str, problem)), target=target),
            "answer": str(target),
            "completion": solution,
            "level": self.count,
            "numbers": problem,
            "target": target,
        }

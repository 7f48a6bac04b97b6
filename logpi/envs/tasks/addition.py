"""Addition. Some demonstrations work the sum out, others guess: the demo of why thinking pays.

A model trained on both answers in both styles. Only worked answers are right, so a policy gradient
on the answer alone makes working more frequent, and responses grow: the observation of
DeepSeek-R1-Zero (arXiv:2501.12948, fig. 3) in two minutes on two cores. Left out: negative numbers,
more than two terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.rewards import ExactAnswer, Rewards, Weighted


def work(a: int, b: int, digits: int) -> str:
    """The sum digit by digit from the right, each with the carry from the one before.

    >>> work(47, 85, 2)
    '7+5=12,4+8+1=13'
    """
    steps, carry = [], 0
    for _ in range(digits):
        (a, x), (b, y) = divmod(a, 10), divmod(b, 10)
        total = x + y + carry
        steps.append(f"{x}+{y}+1={total}" if carry else f"{x}+{y}={total}")
        carry = total // 10
    return ",".join(steps)


@dataclass(frozen=True)
class Addition(GeneratedTask):
    """Sums of two numbers of `digits` digits.

    A row: prompt `47+85=`, answer `132`, and a demonstration in one of two styles,

        worked   7+5=12,4+8+1=13#132    right; two digits: 16.5 characters on average, 19 at most
        blurt    #134                   no work, and always a near miss: one to three too many

    Blurts err on one side only. Errors on both sides, or in one digit at a time, have the sum at
    their middle: a model that learned them would answer right by taking the likeliest, and working
    would not pay.

    a + b and b + a are one problem, so training never shows a test sum's mirror image.

    Attributes:
        digits: of both numbers, ≥ 1; no leading zeros.
        worked: share of worked demonstrations, in [0, 1]. RL uses no demonstrations.
        prompt: a template with {a} and {b}, e.g. "What is {a}+{b}?" for a chat model (with the
            reward `number`).

    Raises:
        ValueError: an option out of its range.

    >>> Addition(worked=1.0).rows("train", seed=1)[0]["completion"]
    '2+5=7,6+2=8#87'
    """

    digits: int = 2
    worked: float = 1.0
    prompt: str = "{a}+{b}="
    characters: ClassVar[str] = "0123456789+=,#"
    name: str = field(default="addition", init=False, repr=False)
    reward: Rewards = field(default=Rewards((Weighted(ExactAnswer("#")),)), init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 100:
            raise ValueError(f"addition: digits must be between 1 and 100, got {self.digits}")
        if not 0 <= self.worked <= 1:
            raise ValueError(f"addition: worked is a share between 0 and 1, got {self.worked}")
        check_template(self.name, self.prompt, "a", "b")

    def draw(self, rng: Random) -> tuple[str, tuple[int, int]]:
        low, high = 10 ** (self.digits - 1) if self.digits > 1 else 0, 10**self.digits
        a, b = rng.randrange(low, high), rng.randrange(low, high)
        return f"{min(a, b)}+{max(a, b)}", (a, b)

    def row(self, problem: tuple[int, int], rng: Random) -> Row:
        a, b = problem
        show = rng.random() < self.worked
        return {
            "prompt": self.prompt.format(a=a, b=b),
            "answer": str(a + b),
            "completion": f"{work(a, b, self.digits)}#{a + b}"
            if show
            else f"#{a + b + rng.randint(1, 3)}",
            "level": self.digits,
        }

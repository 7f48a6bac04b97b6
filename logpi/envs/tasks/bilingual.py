"""Sums with untidy answers in two languages, which stand for a base model's texts in the story of
R1.

A model trained on these texts answers like them: it thinks or guesses, in English, in Chinese or in
both by turns, with tags or without. Reinforcement learning on accuracy and format (R1-Zero) makes
it think and close its tags, but leaves the languages mixed, for no reward asks for one language;
`logpi r1` cleans that up. Left out: real prose; there are a dozen words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.rewards import Rewards, TagAnswer, Weighted

ENGLISH = {
    "places": ("ones", "tens", "hundreds", "thousands"),
    "carry": " carry",
    "wait": " wait ",
    "check": "check",
    "guess": "guess",
    "so": "so ",
}
CHINESE = {
    "places": ("个", "十", "百", "千"),
    "carry": "进",
    "wait": "等",
    "check": "查",
    "guess": "猜",
    "so": "得",
}
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Bilingual(GeneratedTask):
    """Sums of two numbers of 1 … `digits` digits, the level, with an untidy demonstration.

    A row: prompt `47+85=`, answer `132`, and a demonstration, for example: worked in English, tidy;
    mixed, and worked twice; a slip that is corrected, a missing tag; a guess, one to three too
    many; no tags.

        <think>ones 7+5=12 carry,tens 4+8+1=13</think><answer>132</answer>
        <think>个 7+5=12进,tens 4+8+1=13,check,ones …</think><answer>132</answer>
        <think>ones 7+5=11 wait 12 carry,tens 4+8+1=13<answer>132</answer>
        <think>猜</think><answer>134</answer>
        so 132

    Attributes:
        digits: at most, 1 … 4. worked, tidy, english, chinese: shares of demonstrations, in [0, 1];
            those neither English nor Chinese change language from step to step. slips: share of
            worked ones with a wrong step, half of which are corrected.

    Raises:
        ValueError: an option out of its range.

    >>> tidy = Bilingual(worked=1, tidy=1, english=1, chinese=0, slips=0)
    >>> tidy.rows("train", seed=1)[0]["completion"]
    '<think>ones 5+6=11 carry,tens 2+1+1=4</think><answer>41</answer>'
    """

    digits: int = 3
    worked: float = 0.4
    tidy: float = 0.35
    english: float = 0.3
    chinese: float = 0.3
    slips: float = 0.3
    prompt: str = "{a}+{b}="
    characters: ClassVar[str] = "0123456789+=, " + "".join("".join(v) for v in CHINESE.values())
    name: str = field(default="bilingual", init=False, repr=False)
    reward: Rewards = field(default=Rewards((Weighted(TagAnswer()),)), init=False, repr=False)
    words: ClassVar[tuple[str, ...]] = (
        *TAGS,
        *ENGLISH["places"],
        *(str(ENGLISH[k]).strip() for k in ("carry", "wait", "check", "guess", "so")),
    )

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 4:
            raise ValueError(f"bilingual: digits must be between 1 and 4, got {self.digits}")
        for share in ("worked", "tidy", "english", "chinese", "slips"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(
                    f"bilingual: {share} is a share between 0 and 1, got {getattr(self, share)}"
                )
        if self.english + self.chinese > 1:
            raise ValueError(
                "bilingual: english and chinese are shares of one whole; together they exceed 1"
            )
        check_template(self.name, self.prompt, "a", "b")

    def draw(self, rng: Random) -> tuple[str, tuple[int, int, int]]:
        digits = rng.randint(1, self.digits)
        low, high = 10 ** (digits - 1) if digits > 1 else 0, 10**digits
        a, b = rng.randrange(low, high), rng.randrange(low, high)
        return f"{min(a, b)}+{max(a, b)}", (a, b, digits)

    def row(self, problem: tuple[int, int, int], rng: Random) -> Row:
        a, b, digits = problem
        kind = rng.random()
        tongues = (
            (ENGLISH,)
            if kind < self.english
            else (CHINESE,)
            if kind < self.english + self.chinese
            else (ENGLISH, CHINESE)
        )
        if rng.random() < self.worked:
            thought, answer = self._work(a, b, digits, tongues, rng)
        else:
            thought, answer = str(rng.choice(tongues)["guess"]), a + b + rng.randint(1, 3)
        return {
            "prompt": self.prompt.format(a=a, b=b),
            "answer": str(a + b),
            "level": digits,
            "completion": self._written(thought, str(answer), tongues, rng),
        }

    def _work(
        self, a: int, b: int, digits: int, tongues: tuple[Mapping, ...], rng: Random
    ) -> tuple[str, int]:
        """The work, digit by digit from the right, perhaps with a slip, perhaps twice; and its
        sum."""
        slip = rng.randrange(digits) if rng.random() < self.slips else -1
        steps, result, carry = [], 0, 0
        for place in range(digits):
            (a, x), (b, y) = divmod(a, 10), divmod(b, 10)
            total, tongue = x + y + carry, rng.choice(tongues)
            value = str(total)
            if place == slip:
                wrong = max(0, total + rng.choice((-1, 1)))
                is_corrected = rng.random() < 0.5
                value, total = (
                    (f"{wrong}{tongue['wait']}{total}", total)
                    if is_corrected
                    else (str(wrong), wrong)
                )
            steps.append(
                f"{tongue['places'][place]}"
                f" {x}+{y}{'+1' if carry else ''}={value}{tongue['carry'] if total > 9 else ''}"
            )
            result += total % 10 * 10**place
            carry = total // 10
        again = [str(rng.choice(tongues)["check"]), *steps] if rng.random() < 0.25 else []
        return ",".join([*steps, *again]), result + carry * 10**digits

    def _written(self, thought: str, answer: str, tongues: tuple[Mapping, ...], rng: Random) -> str:
        """Thought and answer in the tags, or in one of four untidy forms."""
        if rng.random() < self.tidy:
            return f"<think>{thought}</think><answer>{answer}</answer>"
        return rng.choice(
            (
                f"{thought} {rng.choice(tongues)['so']}{answer}",
                f"<think>{thought}<answer>{answer}</answer>",
                f"<think>{thought}</think>{answer}",
                (
                    f"<think>{thought}</think><answer>{answer}</answer>"
                    f" {rng.choice(tongues)['so']}{answer}"
                ),
            )
        )

r"""Rewards that compare a final answer with the row's `answer` column: 1.0 if equal, else 0.0.

They differ in the place that they read (after a marker, the last number, the last \boxed{}, the
last <answer>) and in what counts as equal. A missing answer (None, NaN, empty) gives no verdict.
Left out: symbolic equivalence ($2\sqrt{3}$ against $\sqrt{12}$), units, and partial credit.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from logpi.rewards.notation import plain
from logpi.rewards.text import (
    after,
    as_number,
    given_answers,
    last_boxed,
    last_number,
    last_tag,
    squeeze,
    text_of,
)


class _FinalAnswer(ABC):
    """The base: the completion's answer must be one of the row's. None (not applicable) if the row
    has no answer in normal form."""

    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer=None, **columns
    ) -> list[float | None]:
        verdicts: list[float | None] = []
        answers = answer or [None] * len(completions)
        for completion, given in zip(completions, answers, strict=True):
            golds = [g for g in map(self.normal, given_answers(given)) if g is not None]
            verdicts.append(float(self.find(text_of(completion)) in golds) if golds else None)
        return verdicts

    @abstractmethod
    def find(self, text: str) -> str | None:
        """The answer of `text` in normal form, or None. Equal answers are equal strings."""

    def normal(self, answer: str | None) -> str | None:
        """The normal form: a rational number in lowest terms, or the text without LaTeX spacing."""
        value = as_number(answer or "")
        return str(value) if value is not None else answer and plain(answer)


@dataclass(frozen=True)
class ExactAnswer(_FinalAnswer):
    """1 if the text after the last `marker` is the answer. White space does not count.

    Attributes:
        marker: precedes the final answer: "#" in the built-in tasks, "####" in GSM8K. "" takes the
            whole completion.

    >>> ExactAnswer()(prompts=["47+85="], completions=["7+5=12,4+8+1=13#132"], answer=["132"])
    [1.0]
    """

    marker: str = "#"
    name: str = "exact"

    def find(self, text: str) -> str | None:
        return self.normal(after(text, self.marker))

    def normal(self, answer: str | None) -> str | None:
        return answer and squeeze(answer)


@dataclass(frozen=True)
class Number(_FinalAnswer):
    """1 if the last number of the completion equals the answer, compared as exact rational numbers.

    Reads thousands separators, decimals and simple fractions (`text.as_number`): 1,250.50 = 2501/2.
    A row whose answer is not a number gives None (not applicable). A right number for a wrong
    reason counts too: use a marker (`ExactAnswer`) if the policy learns to end with any number.

    >>> Number()(prompts=["?"], completions=["1,250.50 in all."], answer=["1250.5"])
    [1.0]
    """

    name: str = "number"

    def find(self, text: str) -> str | None:
        number = last_number(text)
        return None if number is None else str(number)

    def normal(self, answer: str | None) -> str | None:
        number = as_number(answer or "")
        return None if number is None else str(number)


@dataclass(frozen=True)
class Boxed(_FinalAnswer):
    r"""1 if the content of the last \boxed{…} equals the answer, as a number or as text.

    >>> Boxed()(prompts=["?"], completions=[r"so \boxed{\dfrac{1}{2}}"], answer=["0.5"])
    [1.0]
    """

    name: str = "boxed"

    def find(self, text: str) -> str | None:
        return self.normal(last_boxed(text))


@dataclass(frozen=True)
class TagAnswer(_FinalAnswer):
    """1 if the content of the last <answer>…</answer> equals the answer, as a number or as text.

    >>> said = "<think>..</think><answer> 7 </answer>"
    >>> TagAnswer()(prompts=["?"], completions=[said], answer=["7"])
    [1.0]
    """

    tag: str = "answer"
    name: str = "tag_answer"

    def find(self, text: str) -> str | None:
        return self.normal(last_tag(text, self.tag))


@dataclass(frozen=True)
class Corrected(_FinalAnswer):
    """1 if the completion is the answer after its corrections: a character before `word` is
    replaced by the one after it. White space does not count.

    Attributes:
        word: announces a correction.
        first: take each first character instead, as if nothing had been corrected.

    >>> said = ["hg wait k", "hk wait g"]
    >>> Corrected()(["?"] * 2, said, answer=["hk"] * 2)
    [1.0, 0.0]
    >>> Corrected(first=True)(["?"] * 2, said, answer=["hk"] * 2)
    [0.0, 1.0]
    """

    word: str = " wait "
    first: bool = False
    name: str = "corrected"

    def find(self, text: str) -> str | None:
        word = re.escape(self.word)
        return self.normal(re.sub(f"{word}." if self.first else f".{word}(?=.)", "", text))

    def normal(self, answer: str | None) -> str | None:
        return answer and squeeze(answer)

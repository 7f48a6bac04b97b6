r"""Rewards that compare a final answer with the row's `answer` column: 1.0 if equal, else 0.0.

They differ only in where they look (after a marker, the last number, the last \boxed{}, the last
<answer>) and in what they call equal; what is missing (None, NaN, empty) is no answer. Left out:
symbolic equivalence ($2\sqrt{3}$ against $\sqrt{12}$), units, and partial credit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.rewards.notation import plain
from logpi.rewards.text import (
    Completion,
    after,
    as_number,
    given_answers,
    last_boxed,
    last_number,
    last_tag,
    squeeze,
    text_of,
)


def _grade(
    completions: Sequence[Completion],
    answers: Sequence[Any] | None,
    find: Callable[[str], str | None],
    canonical: Callable[[str], str | None],
) -> list[float | None]:
    """One verdict for each completion; None (not applicable) without an answer that `canonical` can
    read."""
    verdicts: list[float | None] = []
    for completion, answer in zip(completions, answers or [None] * len(completions), strict=True):
        golds = [g for g in map(canonical, given_answers(answer)) if g is not None]
        verdicts.append(float(find(text_of(completion)) in golds) if golds else None)
    return verdicts


def _plain(text: str) -> str:
    """The one way to write an answer: a rational number in lowest terms, or the text without LaTeX
    spacing."""
    value = as_number(text)
    return str(value) if value is not None else plain(text)


@dataclass(frozen=True)
class ExactAnswer:
    """1 if what follows the last `marker` is the answer, white space aside; the answer must end the
    completion.

    Attributes:
        marker: what announces the final answer: "#" in the built-in tasks, "####" in GSM8K, "" for
            all of it.

    >>> ExactAnswer()(prompts=["47+85="], completions=["7+5=12,4+8+1=13#132"], answer=["132"])
    [1.0]
    """

    marker: str = "#"
    name: str = "exact"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer=None, **columns
    ) -> list[float | None]:
        return _grade(completions, answer, self.find, squeeze)

    def find(self, text: str) -> str | None:
        """The answer that `text` gives, or None; equal answers are equal strings. So in every class
        here."""
        answer = after(text, self.marker)
        return None if answer is None else squeeze(answer)


@dataclass(frozen=True)
class Number:
    """1 if the last number of the completion equals the answer, compared as exact rational numbers.

    Reads thousands separators, decimals and simple fractions (`text.as_number`): 1,250.50 = 2501/2.
    A row whose answer is no number gives None (not applicable). What it cannot see: a right number
    for a wrong reason; ask for a marker (`ExactAnswer`) where the policy learns to end with any
    number.

    >>> Number()(prompts=["?"], completions=["1,250.50 in all."], answer=["1250.5"])
    [1.0]
    """

    name: str = "number"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer=None, **columns
    ) -> list[float | None]:
        return _grade(completions, answer, self.find, self._gold)

    def find(self, text: str) -> str | None:
        number = last_number(text)
        return None if number is None else str(number)

    @staticmethod
    def _gold(answer: str) -> str | None:
        number = as_number(answer)
        return None if number is None else str(number)


@dataclass(frozen=True)
class Boxed:
    r"""1 if the content of the last \boxed{…} equals the answer, as text without LaTeX spacing or
    as a number.

    >>> Boxed()(prompts=["?"], completions=[r"so \boxed{\dfrac{1}{2}}"], answer=["0.5"])
    [1.0]
    """

    name: str = "boxed"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer=None, **columns
    ) -> list[float | None]:
        return _grade(completions, answer, self.find, _plain)

    def find(self, text: str) -> str | None:
        answer = last_boxed(text)
        return None if answer is None else _plain(answer)


@dataclass(frozen=True)
class TagAnswer:
    """1 if the content of the last <answer>…</answer> equals the answer, as text or as a number.

    >>> said = "<think>..</think><answer> 7 </answer>"
    >>> TagAnswer()(prompts=["?"], completions=[said], answer=["7"])
    [1.0]
    """

    tag: str = "answer"
    name: str = "tag_answer"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer=None, **columns
    ) -> list[float | None]:
        return _grade(completions, answer, self.find, _plain)

    def find(self, text: str) -> str | None:
        answer = last_tag(text, self.tag)
        return None if answer is None else _plain(answer)

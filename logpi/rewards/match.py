r"""Rewards that compare a final answer with the row's `answer` column: 1.0 if equal, else 0.0.

They differ only in where they look (after a marker, the last number, the last \boxed{}, the last <answer>) and in what
they call equal. Left out: symbolic equivalence ($2\sqrt{3}$ against $\sqrt{12}$), units, and partial credit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.rewards.text import Completion, after, as_number, last_boxed, last_number, last_tag, squeeze, text_of

__all__ = ["Boxed", "ExactAnswer", "Number", "TagAnswer"]

_LATEX_NOISE = re.compile(r"\\left|\\right|\\[!,;: ]|\\text\s*|\\mathrm\s*|\\d?isplaystyle|[\s{}$]")


def _golds(answer: Any) -> list[str]:
    return [str(a) for a in answer] if isinstance(answer, list | tuple) else [str(answer)]


def _grade(
    completions: Sequence[Completion],
    answers: Sequence[Any] | None,
    right: Callable[[str, str], bool | None],
) -> list[float | None]:
    """One verdict for each completion. No answer, or none that `right` can judge (it said None): not applicable."""
    verdicts: list[float | None] = []
    for completion, answer in zip(completions, answers or [None] * len(completions), strict=True):
        judged = [] if answer is None else [right(text_of(completion), gold) for gold in _golds(answer)]
        known = [v for v in judged if v is not None]
        verdicts.append(float(any(known)) if known else None)
    return verdicts


def _same(found: str | None, gold: str) -> bool:
    """Equal as text once LaTeX spacing is gone, or equal as rational numbers."""
    if found is None:
        return False
    value = as_number(found)
    if value is not None and value == as_number(gold):
        return True
    return _LATEX_NOISE.sub("", found).replace("dfrac", "frac") == _LATEX_NOISE.sub("", gold).replace("dfrac", "frac")


@dataclass(frozen=True)
class ExactAnswer:
    """1 if what follows the last `marker` is the answer, white space aside; the answer must end the completion.

    Attributes:
        marker: what announces the final answer: "#" in the built-in tasks, "####" in GSM8K, "" for all of it.

    >>> ExactAnswer()(prompts=["47+85="], completions=["7+5=12,4+8+1=13#132"], answer=["132"])
    [1.0]
    """

    marker: str = "#"
    name: str = "exact"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(self, prompts, completions, completion_ids=None, *, answer=None, **columns) -> list[float | None]:
        return _grade(completions, answer, self._right)

    def find(self, text: str) -> str | None:
        found = after(text, self.marker)
        return None if found is None else squeeze(found)

    def _right(self, text: str, gold: str) -> bool:
        return self.find(text) == squeeze(gold)


@dataclass(frozen=True)
class Number:
    """1 if the last number of the completion equals the answer, compared as exact rational numbers.

    Reads thousands separators, decimals and simple fractions (`text.as_number`): 1,250.50 = 2501/2. A row whose answer
    is no number gives None (not applicable). What it cannot see: a right number for a wrong reason; ask for a marker
    (`ExactAnswer`) where the policy learns to end with any number.

    >>> Number()(prompts=["?"], completions=["1,250.50 in all."], answer=["1250.5"])
    [1.0]
    """

    name: str = "number"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(self, prompts, completions, completion_ids=None, *, answer=None, **columns) -> list[float | None]:
        return _grade(completions, answer, self._right)

    def find(self, text: str) -> str | None:
        number = last_number(text)
        return None if number is None else str(number)

    def _right(self, text: str, gold: str) -> bool | None:
        expected = as_number(gold)
        return None if expected is None else last_number(text) == expected


@dataclass(frozen=True)
class Boxed:
    r"""1 if the content of the last \boxed{…} equals the answer, as text without LaTeX spacing or as a number.

    >>> Boxed()(prompts=["?"], completions=[r"so \boxed{\dfrac{1}{2}}"], answer=["0.5"])
    [1.0]
    """

    name: str = "boxed"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(self, prompts, completions, completion_ids=None, *, answer=None, **columns) -> list[float | None]:
        return _grade(completions, answer, lambda text, gold: _same(self.find(text), gold))

    def find(self, text: str) -> str | None:
        return last_boxed(text)


@dataclass(frozen=True)
class TagAnswer:
    """1 if the content of the last <answer>…</answer> equals the answer, as text or as a number.

    >>> TagAnswer()(prompts=["?"], completions=["<think>..</think><answer> 7 </answer>"], answer=["7"])
    [1.0]
    """

    tag: str = "answer"
    name: str = "tag_answer"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(self, prompts, completions, completion_ids=None, *, answer=None, **columns) -> list[float | None]:
        return _grade(completions, answer, lambda text, gold: _same(self.find(text), gold))

    def find(self, text: str) -> str | None:
        return last_tag(text, self.tag)

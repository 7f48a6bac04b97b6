"""Rewards for short answers to questions: exact match and token F1 after SQuAD's normalisation. The
best of the row's answers counts.

    normalise = lower case → no punctuation → no a, an, the → single spaces
                                                    (Rajpurkar et al. 2016, arXiv:1606.05250)

They judge only what the policy wrote, so an answer in the prompt or in a retrieved document earns
nothing. Left out: aliases beyond the row's, numbers as numbers, judgement by a model.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.rewards.text import last_tag, text_of

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """SQuAD's normal form: two answers are equal if their normal forms are.

    A text of articles alone ("The The") keeps them.

    >>> normalise("The  Beatles!") == normalise("beatles")
    True
    """
    words = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split() or text.lower().split()
    return " ".join(words)


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of the precision and the recall of normalised words, with multiplicity.

    Yes, no and noanswer earn all or nothing (HotpotQA's rule). Two empty answers earn 1.

    >>> round(f1("the tall Eiffel tower", "Eiffel Tower"), 3), f1("no way", "no")
    (0.8, 0.0)
    """
    ours, theirs = normalise(answer), normalise(gold)
    if ours == theirs:
        return 1.0
    if {ours, theirs} & {"yes", "no", "noanswer"}:
        return 0.0
    a, b = ours.split(), theirs.split()
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


def _golds(answer: Any) -> list[str]:
    """The row's answers; [] if the column is missing there (None, NaN)."""
    every = answer if isinstance(answer, list | tuple) else [answer]
    return [str(a) for a in every if a is not None and a == a]


@dataclass(frozen=True)
class AnswerMatch:
    """1 if the last <answer>…</answer> is one of the row's answers after normalisation: Search-R1's
    reward (arXiv:2503.09516, eq. 4).

    Attributes:
        tag: the tag around the answer; "" takes the whole completion.

    >>> said, golds = "<answer> The Beatles </answer>", ["beatles", "The Fab Four"]
    >>> AnswerMatch()(prompts=["?"], completions=[said], answer=[golds])
    [1.0]
    """

    tag: str = "answer"
    name: str = "qa_em"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer: Sequence[Any], **columns
    ) -> list[float | None]:
        return [self._judge(text_of(c), a) for c, a in zip(completions, answer, strict=True)]

    def _judge(self, text: str, answer: Any) -> float | None:
        golds, own = _golds(answer), self.find(text)
        if not golds:
            return None
        return 0.0 if own is None else max(self._score(own, gold) for gold in golds)

    def _score(self, answer: str, gold: str) -> float:
        return float(answer == normalise(gold))

    def find(self, text: str) -> str | None:
        """The normalised answer of `text`, or None."""
        answer = last_tag(text, self.tag) if self.tag else text
        return None if answer is None else normalise(answer)


@dataclass(frozen=True)
class AnswerF1(AnswerMatch):
    """The token F1 of the last <answer>…</answer> with the nearest of the row's answers, in [0, 1].

    >>> said, golds = "<answer>Fab Four</answer>", ["beatles", "The Fab Four band"]
    >>> AnswerF1()(prompts=["?"], completions=[said], answer=[golds])
    [0.8]
    """

    name: str = "qa_f1"

    def _score(self, answer: str, gold: str) -> float:
        return f1(answer, gold)

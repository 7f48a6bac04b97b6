"""Laws of a language model with its tokenizer and chat template, and the report on a model.

    model_text.py       training, sampling and judging use the tokens that the template makes of the
                        conversation
    model_template.py   thoughts, tools, results and system messages in the template
    model_numbers.py    packed or padded, alone or beside others, sampled or evaluated, saved or
                        loaded: the numbers are the same

Wherever possible the right value comes from `transformers`: its `apply_chat_template`, forward
pass, `generate` and loading. Left out: the quality of the model.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logpi.testing.model_numbers import NUMBERS
from logpi.testing.model_template import TEMPLATE
from logpi.testing.model_text import ASK, SAY, TEXT
from logpi.testing.subject import LawFinding, LawVerdict, Subject, absent, fail, limited

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.reward_model import RewardModel

__all__ = ["LAWS", "Law", "ModelReport", "check"]

PACKAGE = str(Path(__file__).parent.parent)
WIDTH = 150  # characters of a detail in the table


@dataclass(frozen=True)
class Law:
    """One law.

    Attributes:
        name: in the table. meaning: what must be true. find: checks it on a model.
        words: its texts are English.
    """

    name: str
    meaning: str
    find: Callable[[Subject], LawFinding]
    words: bool = False

    def __call__(self, subject: Subject, known: set[str]) -> LawFinding:
        """The finding. An exception is a broken law, a warning of logpi's is a limit.

        Args:
            known: details of earlier findings, whose warnings are not repeated; this finding's are
                added.
        """
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            try:
                finding = self.find(subject)
            except Exception as error:  # models may raise anything
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                finding = fail(reason)
        if finding.verdict is LawVerdict.FAIL and self.words and (lack := _untried(subject)):
            finding = absent(f"not tried: {lack}")
        ours = [str(w.message) for w in record if w.filename.startswith(PACKAGE)]
        fresh = [m for m in ours if not any(m in detail for detail in known)]
        known.update(fresh, [finding.detail])
        return limited(fresh[0]) if fresh and finding.verdict is LawVerdict.OK else finding


LAWS = tuple(
    Law(f.__name__.replace("_", " "), " ".join((f.__doc__ or "").split()), f, f not in NUMBERS)
    for f in (*TEXT, *TEMPLATE, *NUMBERS)
)


@dataclass(frozen=True)
class ModelReport:
    """The findings of all laws."""

    findings: tuple[tuple[Law, LawFinding], ...]

    @property
    def passed(self) -> bool:
        return not any(f.verdict is LawVerdict.FAIL for _, f in self.findings)

    def __getitem__(self, name: str) -> LawFinding:
        """The finding of the law with this name."""
        return next(f for law, f in self.findings if law.name == name)

    def __str__(self) -> str:
        return "\n".join(
            f"{law.name:<16}{f.verdict.value:<16}{_short(f.detail)}" for law, f in self.findings
        )

    def explained(self) -> str:
        """Each law with its meaning and its full finding."""
        return "\n".join(
            f"{law.name}: {law.meaning}\n    {f.verdict.value}: {f.detail}"
            for law, f in self.findings
        )

    def verdict(self) -> str:
        """One line."""
        if broken := [law.name for law, f in self.findings if f.verdict is LawVerdict.FAIL]:
            total = len(self.findings)
            return f"FAIL: {len(broken)} of {total} laws do not hold: {', '.join(broken)}"
        count = Counter(f.verdict for _, f in self.findings)
        return (
            f"ok: {count[LawVerdict.OK]} laws hold, {count[LawVerdict.LIMITED]} hold within limits"
            f" that are said above, {count[LawVerdict.ABSENT]} do not apply"
        )


def _untried(subject: Subject) -> str:
    """Why a vocabulary cannot show the texts of the laws, in words; "" if it can."""
    return subject.template.lack(ASK + SAY + "".join(subject.template.controls))


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def check(policy: CausalLM | RewardModel) -> ModelReport:
    """See `logpi.testing.check_model`."""
    subject, known = Subject(policy), set[str]()
    return ModelReport(tuple((law, law(subject, known)) for law in LAWS))

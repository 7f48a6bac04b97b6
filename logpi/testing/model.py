"""Laws of a language model with its tokenizer and chat template, and the report on a model.

    model_text.py       what is learned, sampled and judged are the tokens that the template makes
                        of the conversation
    model_template.py   what it makes of thoughts, tools, results, system messages
    model_numbers.py    packed or padded, alone or beside others, sampled or evaluated, saved or
                        loaded: the same numbers

The right value comes from elsewhere wherever it can: from `transformers`' own
`apply_chat_template`, forward pass, `generate` and loading.
Left out: whether the model is any good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logpi.testing.model_numbers import NUMBERS
from logpi.testing.model_template import TEMPLATE
from logpi.testing.model_text import TEXT
from logpi.testing.subject import LawFinding, LawVerdict, Subject, fail, limited

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.reward_model import RewardModel

__all__ = ["LAWS", "Law", "ModelReport", "check"]

PACKAGE = str(Path(__file__).parent.parent)
WIDTH = 150  # characters of a detail in the table


@dataclass(frozen=True)
class Law:
    """name: in the table. meaning: what must be true. find: what is true of a model."""

    name: str
    meaning: str
    find: Callable[[Subject], LawFinding]

    def __call__(self, subject: Subject, known: set[str]) -> LawFinding:
        """The finding: an exception is a broken law, a warning of logpi's a limit.

        known: details of the findings before; a warning among them is not repeated. It grows.
        """
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            try:
                finding = self.find(subject)
            except Exception as error:  # models raise whatever their author thought of
                return fail(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        ours = [str(w.message) for w in record if w.filename.startswith(PACKAGE)]
        fresh = [m for m in ours if not any(m in detail for detail in known)]
        known.update(fresh, [finding.detail])
        return limited(fresh[0]) if fresh and finding.verdict is LawVerdict.OK else finding


LAWS = tuple(
    Law(f.__name__.replace("_", " "), " ".join((f.__doc__ or "").split()), f)
    for f in (*TEXT, *TEMPLATE, *NUMBERS)
)


@dataclass(frozen=True)
class ModelReport:
    """Each law's finding."""

    findings: tuple[tuple[Law, LawFinding], ...]

    @property
    def passed(self) -> bool:
        return not any(f.verdict is LawVerdict.FAIL for _, f in self.findings)

    def __getitem__(self, name: str) -> LawFinding:
        """Of the law with this name."""
        return next(f for law, f in self.findings if law.name == name)

    def __str__(self) -> str:
        return "\n".join(
            f"{law.name:<16}{f.verdict.value:<16}{_short(f.detail)}" for law, f in self.findings
        )

    def explained(self) -> str:
        """Each law with what it means, and what was found in full."""
        return "\n".join(
            f"{law.name}: {law.meaning}\n    {f.verdict.value}: {f.detail}"
            for law, f in self.findings
        )

    def verdict(self) -> str:
        """One line."""
        count = {v: [law.name for law, f in self.findings if f.verdict is v] for v in LawVerdict}
        if count[LawVerdict.FAIL]:
            return (
                f"FAIL: {len(count[LawVerdict.FAIL])} of {len(self.findings)} laws do not hold:"
                f" {', '.join(count[LawVerdict.FAIL])}"
            )
        kept, limits, rest = (
            len(count[v]) for v in (LawVerdict.OK, LawVerdict.LIMITED, LawVerdict.ABSENT)
        )
        return (
            f"ok: {kept} laws hold, {limits} hold within limits that are said above, {rest} do not"
            " apply"
        )


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def check(policy: CausalLM | RewardModel) -> ModelReport:
    """See `logpi.testing.check_model`."""
    subject, known = Subject(policy), set[str]()
    return ModelReport(tuple((law, law(subject, known)) for law in LAWS))

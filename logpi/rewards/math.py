r"""Is the final answer of a mathematical solution the right one? Three tiers, each taken only where the one before is silent.

    1  the same text, LaTeX spacing aside                        > 100,000 answers a second
    2  both are exact rational numbers (`rational.py`): equal or not, and that is final
    3  math-verify, in worker processes with a deadline and a memory limit (`apart/symbolic.py`); verdicts are remembered

The answer is the last \boxed{…}, else what follows the last ####, else the last <answer>…</answer>, else the last number.
What no tier can decide (a verifier that hangs or dies) is a `Failure`, never a zero. Left out: proofs, and partial credit.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from logpi.rewards.processes import Failure, Workers, call
from logpi.rewards.rational import rational, tidy
from logpi.rewards.text import after, last_boxed, last_number, last_tag, text_of

__all__ = ["Math", "final_answer"]

MAX_ANSWER = 1_000  # characters; what is longer is no final answer
REMEMBERED = 100_000
_SPACING = re.compile(r"[\s{}\u2063]|\\(?:text|mathrm)\b")
_WORD = re.compile(r"[\W_]*[^\W\d_]{4,}[\W_]*(?:[\W_]+[^\W\d_]+)*[\W_]*")
_ALGEBRA = re.compile(r"[0-9].*[^0-9\s.,]|[^0-9\s.,].*[0-9]|[\\√∞π]|pi|sqrt", re.DOTALL)
_CHOICE = re.compile(r"(?i:answer)\s{0,3}(?:(?i:is)|:)\s{0,3}\(?([A-H])\)?(?![A-Za-z0-9])")
_SYMBOLIC = Path(__file__).with_name("apart") / "symbolic.py"


def final_answer(text: str, number: bool = True) -> str | None:
    r"""The final answer that `text` states, or None: the last box, `####`, `<answer>`, or (if `number`) number.

    A last box that is never closed is no answer, whatever stands before it. The content of `####` and `<answer>` may be
    boxed itself, and may be `$…$`.

    >>> final_answer(r"first \boxed{1}, no, \boxed{\frac{3}{4}}."), final_answer("#### 18"), final_answer("<answer> 7 </answer>")
    ('\\frac{3}{4}', '18', '7')
    """
    if "\\boxed{" in text:
        return last_boxed(text)
    marked = after(text, "####")
    if marked:
        return marked.split("\n", 1)[0].strip()
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return tagged
    choice = _CHOICE.findall(text[-200:])
    if choice:
        return choice[-1]
    found = last_number(text) if number else None
    return None if found is None else str(found)


@dataclass(frozen=True)
class _Answer:
    """An answer as tiers 1 and 2 see it."""

    text: str
    plain: str

    @property
    def rational(self) -> Any:
        return rational(self.text)


@lru_cache(1 << 16)
def _read(text: str) -> _Answer:
    return _Answer(text, _SPACING.sub("", tidy(text)).rstrip("."))


def _quick(gold: str, answer: str) -> bool | None:
    """The verdict of tiers 1 and 2, or None: ask further."""
    if gold == answer:
        return True
    if len(answer) > MAX_ANSWER:
        return False
    wanted, value = rational(gold), rational(answer)
    if wanted is not None and value is not None:
        return wanted.equals(value)
    if wanted is not None and not _ALGEBRA.search(answer):
        return False  # digits that are no number (1 1), or no digit and no command: not this number
    a, b = _read(gold).plain, _read(answer).plain
    if a.strip("()") == b.strip("()") and ("," not in a or a == b):
        return True
    if _is_word(gold):  # else algebra takes Monday for a product of letters
        return a.casefold() == b.casefold()
    if len(a.strip("()")) == 1 and a.strip("()").isupper() and a.isascii():  # a choice: (A), A., \text{A}, A) 5
        return bool(re.match(rf"\(?{re.escape(a.strip('()'))}(?:[).:]|$)", b))
    return None


def _is_word(gold: str) -> bool:
    r"""Monday, yes and no: not `\infty`, not abc."""
    return "\\" not in tidy(gold) and _WORD.fullmatch(tidy(gold)) is not None


@lru_cache
def _workers(count: int, memory: int) -> Workers:
    return Workers(str(_SYMBOLIC), "equal", count, memory)


_verdicts: dict[tuple[str, str], bool] = {}
_lock = threading.Lock()


def _symbolic_there() -> bool:
    return find_spec("math_verify") is not None


@dataclass(frozen=True)
class Math:
    r"""1 if the final answer equals the row's `answer` (one of them, if it is a list), else 0.

    Accepted though not the same: 25% for 25 and for 0.25; decimals that agree with an irrational number to six places
    (3.464102 for 2\sqrt{3}; never for a rational one); a missing or added unit; `x = 5` for 5; an interval for the inequality
    that describes it. docs/verifiers.md has the table. Without math-verify (the extra `math`) a rational answer is compared
    exactly, another as text, and a text that differs has no verdict.

    Attributes:
        number: take the last number of a solution that announces no answer.
        seconds: for one pair of answers in tier 3. memory: MiB of a worker. workers: processes; 0 for one a core, at most 4.

    >>> Math()(prompts=["?"] * 3, completions=[r"\boxed{\frac{1}{2}}", "#### 0.5", "so 3/6"], answer=["1/2"] * 3)
    [1.0, 1.0, 1.0]
    """

    number: bool = True
    seconds: float = 4.0
    memory: int = 2048
    workers: int = 0
    name: str = "math"
    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, answer: Sequence[Any], **columns
    ) -> list[float | None | Failure]:
        found = [final_answer(text_of(c), self.number) for c in completions]
        golds = [None if a is None else _golds(a) for a in answer]
        pairs = dict.fromkeys((g, f) for gs, f in zip(golds, found, strict=True) if f is not None for g in gs or ())
        verdicts = self.equal(list(pairs))
        return [_best(gs, f, verdicts) for gs, f in zip(golds, found, strict=True)]

    def find(self, text: str) -> str | None:
        """The answer that `text` gives; equal rational numbers are equal strings."""
        found = final_answer(text, self.number)
        if found is None:
            return None
        value = rational(found)
        return str(value.value) + "%" * value.percent if value else _read(found).plain

    def equal(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool | Failure]:
        """Whether the second of each pair equals the first, the right answer."""
        verdicts: dict[tuple[str, str], bool | Failure] = {}
        further = []
        for pair in pairs:
            quick = _quick(*pair)
            quick = _verdicts.get(pair) if quick is None else quick
            if quick is None:
                further.append(pair)
            else:
                verdicts[pair] = quick
        return verdicts | self._symbolic(further) if further else verdicts

    def _symbolic(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool | Failure]:
        """Tier 3, over the workers."""
        if not _symbolic_there():
            missing = Failure(
                "unavailable", "no number and not the same text: pip install 'logpi[math]' to compare algebra"
            )
            return {(g, a): False if rational(g) else missing for g, a in pairs}
        verdicts = {pair: _verdict(reply) for pair, reply in zip(pairs, self._ask(pairs), strict=True)}
        with _lock:
            if len(_verdicts) > REMEMBERED:
                _verdicts.clear()
            _verdicts.update({pair: v for pair, v in verdicts.items() if isinstance(v, bool)})
        return verdicts

    def _ask(self, pairs: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
        """The workers' replies."""
        pool = _workers(self.workers or min(4, os.cpu_count() or 1), self.memory << 20)
        return pool.map([call([None], [a], None, {"gold": [g]}) for g, a in pairs], self.seconds)

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse answers that do not equal themselves, that nobody could give, or that are not there.

        Raises:
            ValueError: names the first of these rows and what to do.
        """
        golds = [(i, g) for i, row in enumerate(rows) for g in _golds(row.get("answer"))]
        unread = [(i, g) for i, g in golds if not g.strip() or len(g) > MAX_ANSWER]
        if len(unread) == len(golds):
            raise ValueError(
                f"reward 'math': no row has an answer that can be read, among {_named(unread) or 'the rows'}"
            )
        algebra = [(i, g) for i, g in golds if (i, g) not in unread and rational(g) is None]
        if algebra and not _symbolic_there():
            warnings.warn(
                f"math-verify is not installed: {len(algebra)} of {len(golds)} answers ({_named(algebra)}) are compared as "
                "text; pip install 'logpi[math]'",
                stacklevel=2,
            )
            return
        replies = self._ask([(g, None) for _, g in algebra])
        wrong = [
            (i, g)
            for (i, g), reply in zip(algebra, replies, strict=True)
            if _verdict(reply) is not True and not _is_word(g)
        ]
        if len(wrong) * 2 > len(golds):
            raise ValueError(
                f"reward 'math' disagrees with itself: {len(wrong)} of {len(golds)} answers do not equal themselves "
                f"({_named(wrong)}); give short final answers in the column 'answer', or another reward"
            )
        if wrong:
            warnings.warn(
                f"{len(wrong)} of {len(golds)} answers are compared as text alone ({_named(wrong)})", stacklevel=2
            )


def _golds(answer: Any) -> list[str]:
    r"""The right answers of a row. GSM8K's column holds the whole solution: what counts is its own final answer."""
    if isinstance(answer, str) and len(answer) < 20 and "#" not in answer and "\\" not in answer:
        return [answer.strip()]  # nearly always
    several = answer if isinstance(answer, list | tuple) else [] if answer is None else [answer]
    texts = [str(a).strip() for a in several]
    return [final_answer(t, number=False) or t if "####" in t or "\\boxed{" in t else t for t in texts]


def _named(rows: Sequence[tuple[int, str]]) -> str:
    shown = ", ".join(f"row {i}: {g[:40]!r}" for i, g in rows[:3])
    return shown + (", …" if len(rows) > 3 else "")


def _best(golds: list[str] | None, found: str | None, verdicts: Mapping[tuple[str, str], bool | Failure]):
    """1 if the answer equals any gold one; a failure only if it might have."""
    if not golds:
        return None
    if found is None:
        return 0.0
    each = [verdicts[g, found] for g in golds]
    if True in each:
        return 1.0
    return next((v for v in each if isinstance(v, Failure)), 0.0)


def _verdict(reply: Mapping[str, Any]) -> bool | Failure:
    if "failed" in reply:
        return Failure(**reply["failed"])
    value = reply["verdicts"][0]
    return (
        Failure("hung", "math-verify did not finish, or cannot read the row's answer")
        if value is None
        else value == 1.0
    )

r"""Judges the final answer of a mathematical solution in three tiers. Each decides what the one
before leaves open.

    1  equal texts, without LaTeX spacing (`notation.plain`): > 100,000 answers a second
    2  exact rational numbers, and lists, points and units of them (`answers.py`, `equality.py`)
    3  values with enough digits, letters at random points, sets: in worker processes with a limit
       on CPU time and memory

An unreadable answer is compared as text. `text.final_answer` finds the answer. An answer that uses
up its CPU time has no verdict, a `Failure`, never a zero. Left out: proofs, and partial credit.
docs/verifiers.md has the rules.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from logpi.distributed import cores
from logpi.rewards.answers import MAX_ANSWER, read, readable
from logpi.rewards.equality import Equality
from logpi.rewards.notation import plain
from logpi.rewards.text import final_answer, given_answers, text_of
from logpi.rewards.trees import Unreadable
from logpi.rewards.values import Calculator, NeedsDigits, Undefined
from logpi.rewards.workers.processes import Failure, Workers, call

REMEMBERED = 100_000
_WHOLE = re.compile(r"[-+]?[0-9]{1,30}")
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_CHOICE = re.compile(r"(?:[Oo]ption |[Cc]hoice )?\(?([A-J])(?:[).:]|$)")
_SYMBOLIC = Path(__file__).with_name("workers") / "symbolic.py"


def _quick(gold: str, answer: str) -> bool | None:
    """The verdict of tiers 1 and 2; None if tier 3 decides."""
    if gold == answer:
        return True
    if len(answer) > MAX_ANSWER:
        return False
    if _WHOLE.fullmatch(gold) and _WHOLE.fullmatch(answer):
        return int(gold) == int(answer)
    a, b = plain(gold), plain(answer)
    if a == b or (_folds(a) and _folds(b) and a.casefold() == b.casefold()):
        return True
    # (A), A., \text{A}, A) 5
    choice, chosen = _CHOICE.match(a), _CHOICE.match(b)
    if choice and (len(a) <= 3 or a[0] == "("):
        return bool(chosen and chosen[1] == choice[1])
    try:
        return Equality(exact=True).same(read(gold), read(answer))
    except (Unreadable, RecursionError):
        return False
    except NeedsDigits:
        return None


def _folds(text: str) -> bool:
    """Whether capitals do not matter: in Monday, YES and no, but not in Ab or AaBb."""
    words = text.split()
    usual = all(w.islower() or w.isupper() or w.istitle() for w in words)
    return bool(_WORD.fullmatch(text)) and usual and (len(text) > 2 or text.lower() == "no")


@lru_cache
def _workers(count: int, memory: int) -> Workers:
    return Workers(str(_SYMBOLIC), "equal", count, memory)


_verdicts: dict[tuple[str, str], bool] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Math:
    r"""1 if the final answer equals the row's `answer` (one of them, if it is a list), else 0.

    Also right: 25% for 25 and for 0.25; a decimal of seven digits or more to which an irrational
    number rounds (3.464102 for 2\sqrt{3}; never for a rational one); a missing unit, or an unknown
    one; `x = 5` for 5; an interval for the inequality that describes it. docs/verifiers.md has the
    rules.

    Attributes:
        number: take the last number of a solution that states no answer.
        seconds: the limit of CPU time of a pair of answers in tier 3.
        memory: the limit of a worker's memory, in MiB.
        workers: worker processes; 0 for one a core, at most 4.

    >>> said = [r"\boxed{\frac{1}{2}}", "#### 0.5", "so 3/6"]
    >>> Math()(prompts=["?"] * 3, completions=said, answer=["1/2"] * 3)
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
    ) -> list[float | Failure | None]:
        finals = [final_answer(text_of(c), self.number) for c in completions]
        rows = list(zip([_golds(a) for a in answer], finals, strict=True))
        pairs = dict.fromkeys((g, f) for golds, f in rows if f is not None for g in golds)
        verdicts = self.equal(list(pairs))
        return [_best(golds, final, verdicts) for golds, final in rows]

    def find(self, text: str) -> str | None:
        """The answer of `text`. Equal rational numbers are equal strings."""
        final = final_answer(text, self.number)
        if final is None:
            return None
        try:
            tree = read(final)
            percent = tree.kind == "percent"
            value = Calculator({}, exact=True).value(tree.parts[0] if percent else tree)
            return f"{value}{'%' * percent}"
        except (Unreadable, Undefined, NeedsDigits):
            return plain(final)

    def equal(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool | Failure]:
        """Whether the second of each pair equals the first, the right answer."""
        verdicts: dict[tuple[str, str], bool | Failure] = {}
        further = []
        for pair in pairs:
            quick = _verdicts.get(pair)
            quick = _quick(*pair) if quick is None else quick
            if quick is None:
                further.append(pair)
            else:
                verdicts[pair] = quick
        return verdicts | self._symbolic(further) if further else verdicts

    def _symbolic(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool | Failure]:
        """The verdicts of tier 3, from the workers."""
        pool = _workers(self.workers or min(4, cores()), self.memory << 20)
        calls = [call([None], [a], None, {"gold": [g]}) for g, a in pairs]
        replies = pool.map(calls, self.seconds)
        verdicts = {
            pair: Failure(**reply["failed"]) if "failed" in reply else reply["verdicts"][0] == 1.0
            for pair, reply in zip(pairs, replies, strict=True)
        }
        with _lock:
            if len(_verdicts) > REMEMBERED:
                _verdicts.clear()
            _verdicts.update({pair: v for pair, v in verdicts.items() if isinstance(v, bool)})
        return verdicts

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse data without answers, or with mostly unreadable ones; warn of unreadable ones.

        Raises:
            ValueError: names the first of these rows and what to do.
        """
        golds = [(i, g) for i, row in enumerate(rows) for g in _golds(row.get("answer")) or [""]]
        missing = [(i, g) for i, g in golds if not g or len(g) > MAX_ANSWER]
        if len(missing) == len(golds):
            raise ValueError(
                "reward 'math': no row has an answer that can be read, among"
                f" {_named(missing) or 'the rows'}"
            )
        strange = [
            (i, g)
            for i, g in golds
            if (i, g) not in missing and not readable(g) and not _folds(plain(g))
        ]
        if len(strange) * 2 > len(golds):
            raise ValueError(
                f"reward 'math': {len(strange)} of {len(golds)} answers cannot be read"
                f" ({_named(strange)}); give short final answers in the column 'answer', or another"
                " reward"
            )
        if strange:
            warnings.warn(
                f"{len(strange)} of {len(golds)} answers are compared as text alone"
                f" ({_named(strange)})",
                stacklevel=2,
            )


def _golds(answer: Any) -> list[str]:
    r"""The right answers of a row: of a whole solution, as in GSM8K's column, its final answer."""
    texts = given_answers(answer)
    return [
        final_answer(t, number=False) or t if "####" in t or "\\boxed" in t else t for t in texts
    ]


def _named(rows: Sequence[tuple[int, str]]) -> str:
    shown = ", ".join(f"row {i}: {g[:40]!r}" for i, g in rows[:3])
    return shown + (", …" if len(rows) > 3 else "")


def _best(golds: list[str], final: str | None, verdicts: Mapping[tuple[str, str], bool | Failure]):
    """1 if the answer equals a gold one, else a failure if there is one, else 0."""
    if not golds:
        return None
    if final is None:
        return 0.0
    each = [verdicts[g, final] for g in golds]
    if True in each:
        return 1.0
    return next((v for v in each if isinstance(v, Failure)), 0.0)

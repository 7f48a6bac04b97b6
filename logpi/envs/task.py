"""Tasks, and the endless, seeded rows of generated tasks.

Row i is a pure function of (seed, split, i): a data cursor is one integer, and a resumed run
continues exactly. Train and test problems are disjoint: a hash of a problem's canonical form, which
no seed changes, decides its side. With a share of 0.1:

    problem   canonical   hash / 2⁶⁴   side
    47+85     47+85       0.83         train
    85+47     47+85       0.83         train: the same problem
    12+30     12+30       0.04         test

Left out: the problems themselves (`tasks/`) and users' files (`data.py`).
"""

from __future__ import annotations

import json
import re
import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, overload, runtime_checkable

if TYPE_CHECKING:
    from logpi.rewards import Rewards

Row = dict[str, Any]
"""One item: `prompt` (str or messages), `answer` (str), perhaps `completion` (a demonstration),
`level`, other columns. Reward functions get all columns but the prompt."""


class PlacedRow(Row):
    """A row of a file, with its place: "rows.jsonl, line 3"."""

    where: str = ""

    def __init__(self, row: Row, where: str) -> None:
        super().__init__(row)
        self.where = where

    def __or__(self, other: Any) -> PlacedRow:
        return PlacedRow({**self, **other}, self.where)


Split = Literal["train", "test"]
TEST_SHARE = 0.1
MAX_DRAWS = 10_000


@runtime_checkable
class Task(Protocol):
    """Rows to train and test on, and the default reward."""

    @property
    def name(self) -> str: ...

    @property
    def reward(self) -> Rewards: ...

    def rows(self, split: Split = "train", seed: int = 0) -> Sequence[Row]:
        """The rows of a split; row i is the same at every call."""
        ...


def check_split(split: str) -> None:
    """Raises ValueError unless `split` is "train" or "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"no split is called {split!r}: there are train and test")


def in_test(canonical: str, share: float = TEST_SHARE) -> bool:
    """True for a fixed `share` of all problems, by hash; the same in every run, process and Python
    version."""
    return (
        int.from_bytes(blake2b(canonical.encode(), digest_size=8).digest(), "big") < share * 2**64
    )


def parted(
    rows: Sequence[Row], split: Split, seed: int, share: float, source: str, by: str = "prompt"
) -> list[Row]:
    """The rows of a split, for a file without splits. Rows that are equal in column `by` are on one
    side; train rows are shuffled.

    Raises:
        ValueError: the split is empty.
    """
    check_split(split)
    part = [
        r
        for r in rows
        if in_test(re.sub(r"\s+", " ", json.dumps(r[by])), share) == (split == "test")
    ]
    if not part:
        raise ValueError(f"{source}: its {split} split is empty; choose another test_share")
    if split == "train":
        Random(seed).shuffle(part)
    return part


@dataclass(frozen=True)
class GeneratedRows(Sequence[Row]):
    """Generated rows: each `rows[i]` is generated when it is read.

    Problems are drawn with replacement: small problem spaces repeat (two-digit sums: 4,095
    unordered pairs).

    Attributes:
        size: the length. It may be any number: the rows do not depend on it.
    """

    generator: GeneratedTask
    split: Split = "train"
    seed: int = 0
    size: int = 1_000_000

    def __post_init__(self) -> None:
        check_split(self.split)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(f"row {index} of {self.size}")
        rng = Random(f"{self.seed}/{self.split}/{index % self.size}")
        for _ in range(MAX_DRAWS):
            canonical, problem = self.generator.draw(rng)
            if in_test(canonical) == (self.split == "test"):
                return self.generator.row(problem, rng)
        raise ValueError(
            f"{self.generator} has too few problems for a {self.split} split; make it larger"
        )


@dataclass(frozen=True, kw_only=True)
class GeneratedTask(ABC):
    """A task that draws its problems.

    Attributes:
        test_size: rows of the test split.
        prompt: the template, if the task has one. characters: those of prompts and demonstrations
            that are not the template's.
    """

    test_size: int = 1_000
    characters: ClassVar[str] = ""

    @property
    def alphabet(self) -> str:
        """Every character of prompts and demonstrations, sorted, for a character tokenizer. Words
        that are tokens of their own (`words`, if the task has them) do not count."""
        template = string.Formatter().parse(getattr(self, "prompt", ""))
        return "".join(sorted({*self.characters, *(c for text, *_ in template for c in text)}))

    @abstractmethod
    def draw(self, rng: Random) -> tuple[str, Any]:
        """A problem's canonical form, and the problem. Problems whose answers tell each other have
        equal forms."""

    @abstractmethod
    def row(self, problem: Any, rng: Random) -> Row:
        """The problem as a row."""

    def rows(self, split: Split = "train", seed: int = 0) -> GeneratedRows:
        return GeneratedRows(self, split, seed, self.test_size if split == "test" else 1_000_000)


def check_template(task: str, template: str, *fields: str) -> None:
    """Raises ValueError unless `template` has exactly these `{fields}`."""
    try:
        names = {name for _, name, *_ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"{task}: the prompt {template!r} is no template: {error}") from None
    if names != set(fields):
        expected = ", ".join(f"{{{f}}}" for f in fields)
        raise ValueError(
            f"{task}: the prompt must hold {expected} and no other field, got {template!r}"
        )

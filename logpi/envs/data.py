"""Rows from the user's own data: JSONL, JSON, CSV (each also .gz), Parquet, a directory of these,
what `save_to_disk` of `datasets` wrote, or a hub data set.

Every known layout is brought to one (`Row`), and every row is checked, before any work is done:

    prompt + answer | solution | ground_truth     verifiable items      question, problem are read as prompt
    question + answer "… #### 42"                 GSM8K: answer 42, the working is the demonstration
    prompt + reward_model.ground_truth            verl's Parquet files; data_source and extra_info are kept
    prompt + completion, messages, text           demonstrations (SFT); messages as OpenAI and ShareGPT have them too
    prompt + chosen + rejected, completion + label   preferences; without a prompt, it is what chosen and rejected share

All other columns are kept as they are. Left out: chat templates and tokens (a policy's business),
streaming of data that do not fit into memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from logpi.envs.files import is_single, read_raw
from logpi.envs.implicit_prompts import implicit_prompt
from logpi.envs.messages import (
    completion_of,
    has_content,
    in_one_form,
    messages_of,
    split_demonstration,
)
from logpi.envs.task import PlacedRow, Row, Split, check_split, in_test
from logpi.rewards import NAMES as REWARDS
from logpi.rewards import Rewards, Weighted
from logpi.rewards.text import final_answer, last_boxed

_PROMPTS = ("prompt", "question", "problem")
_ANSWERS = ("answer", "solution", "ground_truth")
_GSM8K_NOTE = re.compile(r"<<[^<>\n]*>>")
_THOUSANDS = re.compile(
    r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])"
)  # 1,234, but neither 3,5 nor 1,2,345


def _rename(row: Row, columns: Mapping[str, str], where: str) -> Row:
    for ours, theirs in columns.items():
        if theirs not in row:
            raise ValueError(
                f"{where}: no column {theirs!r} (for {ours!r}); found: {', '.join(map(str, row))}"
            )
    return row | {ours: row[theirs] for ours, theirs in columns.items()}


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row[n] for n in names if row.get(n) is not None), None)


def _answer(row: Row) -> tuple[Any, str | None]:
    """The final answer and, where the column held the whole working, the working."""
    model = row.get("reward_model")
    if isinstance(model, Mapping) and not _missing(model.get("ground_truth")):
        return model["ground_truth"], None
    value = _first(row, _ANSWERS)
    if (
        isinstance(value, str) and "####" in value
    ):  # GSM8K; or a solution with headings, which ends in a box
        stated = final_answer(value, number=False) or ""
        bracketed = any(b in stated for b in "([{")  # (1,234) is a point
        plain = stated if bracketed else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), stated)
        return plain, _GSM8K_NOTE.sub("", value)
    if (
        isinstance(value, str) and row.get("answer") is None and last_boxed(value)
    ):  # MATH: `solution` ends in a box
        return last_boxed(value), value
    return value, None


def _missing(value: Any) -> bool:
    """None, or NaN, which Parquet and pandas put where nothing is."""
    return value is None or (isinstance(value, float) and value != value)


def _as_answer(value: Any, where: str) -> str | list[str] | None:
    """The answer, or answers, as text; None where there is none."""
    several = [v for v in (value if isinstance(value, list) else [value]) if not _missing(v)]
    if not several:
        return None
    if any(isinstance(v, bool) or not isinstance(v, str | int | float) for v in several):
        raise ValueError(
            f"{where}: 'answer' must be a text, a number or a list of them, got"
            f" {type(value).__name__}"
        )
    plain = [str(int(v) if isinstance(v, float) and v.is_integer() else v).strip() for v in several]
    return plain if isinstance(value, list) else plain[0]


def _shape(raw: Any, columns: Mapping[str, str], where: str) -> Row:
    """One row in our layout. Raises ValueError with its place, what was found and what was
    expected."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{where}: expected an object with named columns, got {type(raw).__name__}"
        )
    row = _rename({k: v for k, v in raw.items() if not _missing(v)}, columns, where)
    row = in_one_form(row, where)
    prompt, completion = _first(row, _PROMPTS), row.get("completion")
    if prompt is None and "messages" in row:
        prompt, completion = split_demonstration(
            messages_of(row["messages"], "messages", where), where
        )
    elif prompt is None and "text" in row:
        prompt, completion = "", row["text"]
    elif prompt is None and "chosen" in row:
        row |= implicit_prompt(row["chosen"], row.get("rejected"))
        prompt = row.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        prompt = messages_of(prompt, "prompt", where)
    answer, working = _answer(row)
    completion = working if completion is None else completion
    if completion is not None and not isinstance(completion, str):
        completion = completion_of(messages_of(completion, "completion", where), prompt, where)
    if (
        completion is not None
        and not has_content(completion)
        and not has_content(row.get("messages", "")[-1:])
    ):
        raise ValueError(f"{where}: the completion is empty; there is nothing to learn from it")
    if answer is not None:
        answer = _as_answer(answer, where)
    if answer is None:
        row.pop("answer", None)
    made = {"prompt": prompt, "answer": answer, "completion": completion}
    return row | {k: v for k, v in made.items() if v is not None} | _label(row, where)


def _label(row: Row, where: str) -> Row:
    """A `label` as the truth value it names, as CSV files and tables of numbers have it; nothing
    for other labels."""
    names = {"true": True, "1": True, "false": False, "0": False}
    named = str(row.get("label")).lower().removesuffix(".0")
    if "completion" not in row or not (isinstance(row.get("label"), str) or named in names):
        return {}
    if named not in names:
        raise ValueError(f"{where}: 'label' must be true or false, got {row['label']!r}")
    return {"label": names[named]}


def load_rows(
    path_or_name: str,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    need: Sequence[str] = ("prompt",),
    reshape: Callable[[Any, str], Any] = lambda raw, where: raw,
) -> list[Row]:
    """All rows of a file, of one split of a directory, or of a hub data set (`owner/name`,
    `owner/name:subset`).

    Args:
        columns: our name → the file's name, for columns called otherwise: `{"prompt": "query"}`.
        need: columns that every row must have in the end: `("prompt", "answer")` for verifiable
            items, `("prompt", "completion")` for demonstrations, `("prompt", "chosen", "rejected")`
            for preferences.
        reshape: makes a known layout of a raw row (and its place) first.

    Raises:
        ValueError: a missing file, bad JSON (with its line), a missing column (with the row, what
            was found and what was expected), an empty completion, a file without rows.
    """
    rows = []
    for where, raw in read_raw(path_or_name, split):
        row = _shape(reshape(raw, where), columns or {}, where)
        missing = [n for n in need if n not in row]
        if missing and missing[0] in raw:
            raise ValueError(f"{where}: nothing in the column {missing[0]!r}")
        if missing:
            raise ValueError(
                f"{where}: no column {missing[0]!r}; found: {', '.join(map(str, raw))}; "
                f"if it has another name, say columns={{{missing[0]!r}: NAME}}"
            )
        rows.append(PlacedRow(row, where))
    return rows


@dataclass(frozen=True)
class FileTask:
    """The user's own rows as a task.

    A directory with `train.*` and `test.*` files, or `test_path`, gives the splits as they are; a
    single file is split by a hash of the prompt, so equal prompts fall on one side, whatever the
    order of rows. The train rows are shuffled by the seed; test rows keep their order. A hub data
    set needs its own `test` split, or `test_path`.

    Attributes:
        path: what `load_rows` takes.
        test_path: the test rows, if they are elsewhere.
        test_share: of a single file, in (0, 1).
        columns: our name → the file's name, for columns called otherwise.
        need: columns that every row must have.
        rewards: the default reward, by a built-in's name ("number", "exact", "boxed", …).

    Raises:
        ValueError: as `load_rows`; an option out of its range.
    """

    path: str
    test_path: str | None = None
    test_share: float = 0.1
    columns: Mapping[str, str] = field(default_factory=dict)
    need: Sequence[str] = ("prompt",)
    rewards: str = "number"

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError(
                f"{self.path}: test_share must lie between 0 and 1, got {self.test_share}"
            )
        if self.rewards not in REWARDS:
            raise ValueError(
                f"{self.path}: no reward is called {self.rewards!r}: there are {', '.join(REWARDS)}"
            )

    @property
    def name(self) -> str:
        return Path(self.path).name.partition(".")[0]

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(REWARDS[self.rewards]()),))

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        check_split(split)
        rows = list(self._test if split == "test" else self._train)
        if not rows:
            raise ValueError(
                f"{self.path}: its {split} split is empty; give more rows, or a directory with"
                " train and test files"
            )
        if split == "train":
            Random(seed).shuffle(rows)
        return rows

    @property
    def _is_split(self) -> bool:
        """True if train and test rows come from different places."""
        return self.test_path is not None or not is_single(self.path)

    @cached_property
    def _all(self) -> list[Row]:
        return load_rows(self.path, "train", self.columns, self.need)

    @cached_property
    def _train(self) -> list[Row]:
        return self._all if self._is_split else [r for r in self._all if not self._held_out(r)]

    @cached_property
    def _test(self) -> list[Row]:
        if self._is_split:
            return load_rows(self.test_path or self.path, "test", self.columns, self.need)
        return [r for r in self._all if self._held_out(r)]

    def _held_out(self, row: Row) -> bool:
        return in_test(json.dumps(row.get("prompt"), sort_keys=True, default=str), self.test_share)

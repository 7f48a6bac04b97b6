"""The user's own rows, from files, the hub (`files.py`) and objects in memory (`objects.py`).

Every known layout becomes one (`Row`), and every row is checked before any work:

    prompt + answer | solution | ground_truth   items to verify; question, problem: other names
                                                of prompt
    question + answer "… #### 42"               GSM8K: the answer is 42, the whole text the
                                                demonstration
    prompt + reward_model.ground_truth          verl's files; data_source, extra_info stay
    prompt + completion | messages | text       demonstrations (SFT); messages as OpenAI and
                                                ShareGPT write them
    prompt + chosen + rejected                  preferences; a missing prompt is the common
                                                beginning of the two responses
    prompt + completion + label                 labelled responses

All other columns stay as they are. A file whose columns have other names is
`rows(prompt=THEIRS, answer=THEIRS):FILE`. Left out: chat templates and tokens (`rollouts/`),
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

from logpi.envs.implicit_prompts import implicit_prompt
from logpi.envs.messages import (
    completion_of,
    has_content,
    in_one_form,
    messages_of,
    split_demonstration,
)
from logpi.envs.objects import is_single, label, raw_rows
from logpi.envs.task import PlacedRow, Row, Split, check_split, in_test
from logpi.rewards import NAMES as REWARDS
from logpi.rewards import Rewards, Weighted
from logpi.rewards.text import final_answer, last_boxed
from logpi.runs.words import parse_call

_PROMPTS = ("prompt", "question", "problem")
_ANSWERS = ("answer", "solution", "ground_truth")
_GSM8K_NOTE = re.compile(r"<<[^<>\n]*>>")
_NAMED = re.compile(r"(rows\(.*?\)):(.+)", re.DOTALL)
# 1,234, but neither 3,5 nor 1,2,345
_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])")


def named_columns(source: Any) -> tuple[Any, dict[str, str]]:
    """The source itself, and our names for its columns.

    Raises:
        ValueError: names that are no words.

    >>> named_columns("rows(prompt=query, answer='a b'):my.csv"), named_columns("my.csv")
    (('my.csv', {'prompt': 'query', 'answer': 'a b'}), ('my.csv', {}))
    """
    match = _NAMED.fullmatch(source) if isinstance(source, str) else None
    if not match:
        return source, {}
    _, args, names = parse_call(match[1])
    if args or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{match[1]}: write OURS=THEIRS for each column, e.g. prompt=question")
    return match[2], names


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
    """The final answer and, if the column holds a whole solution, the solution. GSM8K, MATH:

    {"answer": "6*200=<<6*200=1200>>1200 #### 1,200"}  -> "1200", "6*200=1200 #### 1,200"
    {"solution": "so it is \\\\boxed{42}."}              -> "42", "so it is \\\\boxed{42}."
    """
    model = row.get("reward_model")
    if isinstance(model, Mapping) and not _missing(model.get("ground_truth")):
        return model["ground_truth"], None
    value = _first(row, _ANSWERS)
    if isinstance(value, str) and "####" in value:
        stated = final_answer(value, number=False) or ""
        is_point = any(bracket in stated for bracket in "([{")  # (1,234) has two coordinates
        plain = stated if is_point else _THOUSANDS.sub(lambda m: m[0].replace(",", ""), stated)
        return plain, _GSM8K_NOTE.sub("", value)
    if isinstance(value, str) and row.get("answer") is None and last_boxed(value):
        return last_boxed(value), value
    return value, None


def _missing(value: Any) -> bool:
    """None, or NaN, which stands for a missing value in Parquet and pandas."""
    return value is None or (isinstance(value, float) and value != value)


def _as_answer(value: Any, where: str) -> str | list[str] | None:
    """The answer, or answers, as text; None for a missing one."""
    answers = [v for v in (value if isinstance(value, list) else [value]) if not _missing(v)]
    if not answers:
        return None
    if any(isinstance(v, bool) or not isinstance(v, str | int | float) for v in answers):
        raise ValueError(
            f"{where}: 'answer' must be a text, a number or a list of them, got"
            f" {type(value).__name__}"
        )
    plain = [str(int(v) if isinstance(v, float) and v.is_integer() else v).strip() for v in answers]
    return plain if isinstance(value, list) else plain[0]


def _one_layout(raw: Any, columns: Mapping[str, str], where: str) -> Row:
    """A raw row in the layout of `Row`. Raises ValueError with its place, its columns and the
    expected ones."""
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
    answer, solution = _answer(row)
    completion = solution if completion is None else completion
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
    columns_of_ours = {"prompt": prompt, "answer": answer, "completion": completion}
    return row | {k: v for k, v in columns_of_ours.items() if v is not None} | _label(row, where)


def _label(row: Row, where: str) -> Row:
    """A `label` as a truth value: CSV files write "True", tables of numbers 1.0. Empty for other
    numbers, which mean something else."""
    values = {"true": True, "1": True, "false": False, "0": False}
    word = str(row.get("label")).lower().removesuffix(".0")
    if "completion" not in row or not (isinstance(row.get("label"), str) or word in values):
        return {}
    if word not in values:
        raise ValueError(f"{where}: 'label' must be true or false, got {row['label']!r}")
    return {"label": values[word]}


def load_rows(
    source: Any,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    need: Sequence[str] = ("prompt",),
    reshape: Callable[[Any, str], Any] = lambda raw, where: raw,
) -> list[Row]:
    """All rows of a source, or of one split of it.

    Args:
        source: a file, a directory, a hub data set (`owner/name`, `owner/name:subset`), one of
            these with names (`named_columns`), `FILE.py:NAME`, or an object: a list of dicts, a
            `datasets.Dataset`, a pandas DataFrame, a dict of these by split.
        columns: our name → the source's name: `{"prompt": "query"}`.
        need: columns of every finished row: `("prompt", "answer")` for verifiable items,
            `("prompt", "completion")` for demonstrations, `("prompt", "chosen", "rejected")` for
            preferences.
        reshape: turns a raw row (and its place) into a known layout first.

    Raises:
        ValueError: a missing file, bad JSON (with its line), a missing column (with the row and its
            columns), an empty completion, a source without rows.

    >>> load_rows([{"question": "1+1=", "answer": 2}])
    [{'question': '1+1=', 'answer': '2', 'prompt': '1+1='}]
    """
    rows = []
    source, names = named_columns(source)
    names |= columns or {}
    for where, raw in raw_rows(source, split):
        row = _one_layout(reshape(raw, where), names, where)
        missing = [n for n in need if n not in row]
        if missing and missing[0] in raw:
            raise ValueError(f"{where}: nothing in the column {missing[0]!r}")
        if missing:
            raise ValueError(
                f"{where}: no column {missing[0]!r}; found: {', '.join(map(str, raw))}; "
                f"if it has another name, say 'rows({missing[0]}=NAME):FILE'"
            )
        rows.append(PlacedRow(row, where))
    return rows


@dataclass(frozen=True, repr=False, eq=False)
class RowsTask:
    """The user's own rows as a task.

    A source with splits (a directory with `train.*` and `test.*`, a DatasetDict), or `test_path`,
    gives the splits as they are. A single table (a file, a list) is split by a hash of the prompt:
    equal prompts are on one side, whatever the order of rows. The train rows are shuffled by the
    seed; test rows keep their order. A hub data set needs its own `test` split, or `test_path`.

    Attributes:
        source: what `load_rows` takes.
        test_path: a source of test rows, also as `load_rows` takes it.
        test_share: of a single table, in (0, 1).
        columns: our name → the source's name. need: columns that every row must have.
        rewards: the default reward, by a built-in's name ("number", "exact", "boxed", …).

    Raises:
        ValueError: as `load_rows`; an option out of its range.

    >>> RowsTask([{"prompt": "1+1=", "answer": "2"}], test_share=0.01).rows("train")
    [{'prompt': '1+1=', 'answer': '2'}]
    """

    source: Any
    test_path: Any = None
    test_share: float = 0.1
    columns: Mapping[str, str] = field(default_factory=dict)
    need: Sequence[str] = ("prompt",)
    rewards: str = "number"

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError(
                f"{self.place}: test_share must lie between 0 and 1, got {self.test_share}"
            )
        if self.rewards not in REWARDS:
            raise ValueError(
                f"{self.place}: no reward is called {self.rewards!r}: there are"
                f" {', '.join(REWARDS)}"
            )

    def __repr__(self) -> str:
        return f"RowsTask({self.place})"

    @property
    def place(self) -> str:
        """The source's name in messages."""
        return label(self.source)

    @property
    def name(self) -> str:
        file = named_columns(self.source)[0]
        return Path(file).name.partition(".")[0] if isinstance(file, str) else "rows"

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(REWARDS[self.rewards]()),))

    def rows(self, split: Split = "train", seed: int = 0) -> list[Row]:
        check_split(split)
        rows = list(self._test if split == "test" else self._train)
        if not rows:
            raise ValueError(
                f"{self.place}: its {split} split is empty; give more rows, or a directory with"
                " train and test files"
            )
        if split == "train":
            Random(seed).shuffle(rows)
        return rows

    @property
    def _is_split(self) -> bool:
        """Whether train and test rows come from different places."""
        return self.test_path is not None or not is_single(named_columns(self.source)[0])

    @cached_property
    def _all(self) -> list[Row]:
        return load_rows(self.source, "train", self.columns, self.need)

    @cached_property
    def _train(self) -> list[Row]:
        return self._all if self._is_split else [r for r in self._all if not self._held_out(r)]

    @cached_property
    def _test(self) -> list[Row]:
        if self._is_split:
            source = self.source if self.test_path is None else self.test_path
            return load_rows(source, "test", self.columns, self.need)
        return [r for r in self._all if self._held_out(r)]

    def _held_out(self, row: Row) -> bool:
        return in_test(json.dumps(row.get("prompt"), sort_keys=True, default=str), self.test_share)

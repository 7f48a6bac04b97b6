"""Responses of a run by step, reward, part, stop, length or text; best, worst, longest first.

The index is made while one looks: a request reads further for half a second at most, answers with
what it knows (`complete: false`), and the next request goes on. The newest files come first. Text
is searched for in the bytes of those responses that pass every other filter. Left out: one response
(`sample_page.py`).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from logpi.runs.summary import number
from logpi.viewer.files import Folders, ViewError
from logpi.viewer.samples_file import COLUMNS, Names, SamplesFile
from logpi.viewer.samples_lines import (
    has_responses,
    mean_advantage,
    record,
    responses,
    short_record,
    text,
)

# seconds of a request; less where the newest files already fill the page
BUDGET, AT_ONCE = 0.5, 0.15
NEEDLES = 4
PREVIEWS = 4000
SORTS = ("newest", "best", "worst", "longest", "shortest")
TOO_LONG = "too long to show: the line is longer than 16 MB"


@dataclass(frozen=True)
class Query:
    """Which responses are wanted. A bound that is None does not hold; each includes its ends.

    Attributes:
        kind: "step" (of training) or "eval". part: a part of the reward, for the bounds of it.
        text: in the prompt or in what the policy wrote, upper and lower case alike (in ASCII).
        sort: one of `SORTS`. offset, limit: the page.
    """

    kind: str = "step"
    steps: tuple[int | None, int | None] = (None, None)
    reward: tuple[float | None, float | None] = (None, None)
    part: str = ""
    part_reward: tuple[float | None, float | None] = (None, None)
    length: tuple[int | None, int | None] = (None, None)
    stop: str = ""
    text: str = ""
    sort: str = "newest"
    offset: int = 0
    limit: int = 50

    @property
    def plain(self) -> bool:
        """The newest responses, all of them."""
        bounds = (*self.reward, *self.part_reward, *self.length)
        filtered = self.stop or self.text or any(b is not None for b in bounds)
        return self.sort == "newest" and not filtered


@dataclass(frozen=True)
class Table:
    """The columns of several files one behind the other, [N] each. file: number of the file."""

    file: np.ndarray
    row: np.ndarray
    columns: Mapping[str, np.ndarray]
    parts: Mapping[str, np.ndarray]


@dataclass
class Search:
    """What is known of one text: of each row of a file 1 (has it), -1 (has it not) or 0."""

    states: dict[Path, tuple[int, np.ndarray]] = field(default_factory=dict)


class SamplesIndex:
    """The responses of one run."""

    def __init__(self, folders: Folders, run: Path) -> None:
        self.folders, self.run = folders, run
        self.stops = Names()
        self.files: dict[Path, SamplesFile] = {}
        self.lock = RLock()
        self._table: tuple[Any, Table] | None = None
        self._searches: OrderedDict[tuple[str, str], Search] = OrderedDict()
        self._holding: dict[str, bool] = {}
        self._opened: tuple[Any, BinaryIO] | None = None
        self._previews: OrderedDict[Any, dict[str, Any]] = OrderedDict()

    # ----------------------------------------------------------------------- files

    def kinds(self) -> dict[str, list[int]]:
        """The steps that have responses, ascending, of each kind."""
        with self.lock:
            self._look()
            steps: dict[str, list[int]] = {"step": [], "eval": []}
            for file in self.files.values():
                steps[file.kind].append(file.step)
            return {k: sorted(v) if v and self._readable(k) else [] for k, v in steps.items()}

    def _readable(self, kind: str) -> bool:
        """Whether the files of a kind hold responses, by one of them."""
        if not self._holding.get(kind):
            first = next(file for file in self.files.values() if file.kind == kind)
            with suppress(ViewError), self.folders.open(first.path) as file:
                self._holding[kind] = has_responses(file)
        return self._holding.get(kind, False)

    def of_kind(
        self, kind: str, steps: tuple[int | None, int | None] = (None, None)
    ) -> list[SamplesFile]:
        """The files of a kind and of a range of steps, newest first."""
        self._look()
        some = [f for f in self.files.values() if f.kind == kind and _within(f.step, steps)]
        return sorted(some, key=lambda f: f.step, reverse=True)

    def file(self, kind: str, step: int, row: int | None = None) -> SamplesFile:
        """The file of a step, indexed to its end, or to a row. Raises ViewError."""
        files = self.of_kind(kind, (step, step))
        if not files:
            raise ViewError(f"there are no samples of step {step} (any more)")
        if not files[0].complete and (row is None or len(files[0]) <= row):
            files[0].read_on(self.folders, monotonic() + 10 * BUDGET, row)
        if row is not None and not 0 <= row < len(files[0]):
            raise ViewError(f"step {step} has {len(files[0])} responses: row 0 …")
        return files[0]

    def _look(self) -> None:
        """Which files are there, and which of them changed."""
        there = dict(self._named())
        self.files = {p: f for p, f in self.files.items() if p in there}
        for path, (kind, step) in there.items():
            file = self.files.get(path) or SamplesFile(path, kind, step, self.stops)
            with suppress(OSError):
                file.check()
                self.files[path] = file

    def _named(self) -> Iterator[tuple[Path, tuple[str, int]]]:
        with suppress(OSError):
            for path in (self.run / "samples").iterdir():
                if named := re.fullmatch(r"(step|eval)-([0-9]{1,12})\.jsonl", path.name):
                    yield path, (named[1], int(named[2]))
        if (path := self.run / "responses.jsonl").is_file():
            yield path, ("eval", 0)

    def read_on(self, files: Sequence[SamplesFile], query: Query, start: float) -> bool:
        """Index further, newest first. Returns whether all is indexed."""
        rows = 0
        for file in files:
            budget = AT_ONCE if query.plain and rows >= query.offset + query.limit else BUDGET
            if not file.complete and monotonic() < start + budget:
                file.read_on(self.folders, start + budget)
            rows += len(file)
        return all(file.complete for file in files)

    def table(self, files: Sequence[SamplesFile]) -> Table:
        """The columns of files; kept until one of them changes."""
        key = [(file.path, file.version) for file in files]
        if self._table is None or self._table[0] != key:
            self._table = (key, _table(files))
        return self._table[1]

    # ----------------------------------------------------------------------- queries

    def answer(self, query: Query) -> dict[str, Any]:
        """One page of the responses that are wanted, as JSON."""
        with self.lock:
            start = monotonic()
            files = self.of_kind(query.kind, query.steps)
            complete = self.read_on(files, query, start)
            table = self.table(files)
            order = self._ordered(query, table)
            untested = 0
            if query.text:
                order, untested = self._with_text(query, files, table, order, start + BUDGET)
            page = order[query.offset : query.offset + query.limit]
            return {
                "rows": self.rows(files, table, page),
                "matched": len(order),
                "scanned": len(table.row) - untested,
                "of": _estimated(files),
                "complete": complete and not untested,
                "parts": list(dict.fromkeys(n for f in files for n in f.parts)),
                "stops": list(self.stops.numbers),
            }

    def _ordered(self, query: Query, table: Table) -> np.ndarray:
        """The rows that pass every filter but the text's, in order."""
        columns = table.columns
        keep = _bounded(columns["reward"], query.reward) & _bounded(columns["tokens"], query.length)
        if query.part:
            values = table.parts.get(query.part, np.full(len(table.row), np.nan))
            keep &= _bounded(values, query.part_reward)
        if query.stop:
            keep &= columns["stop"] == self.stops.numbers.get(query.stop, -2)
        [rows] = keep.nonzero()
        if query.sort == "newest":
            return rows
        longest = query.sort in ("longest", "shortest")
        values = columns["tokens" if longest else "reward"][rows].astype(np.float64)
        values = values if query.sort in ("worst", "shortest") else -values
        # NaN is sorted last; the sort is stable, so that the newest are first among equals
        return rows[np.argsort(values, kind="stable")]

    def _with_text(
        self,
        query: Query,
        files: Sequence[SamplesFile],
        table: Table,
        order: np.ndarray,
        deadline: float,
    ) -> tuple[np.ndarray, int]:
        """Of these rows the ones that are known to hold the text; and how many are not tested."""
        search = self._search(query)
        states = np.concatenate([np.zeros(0, np.int8), *(_states(search, f) for f in files)])
        for row in order[states[order] == 0]:
            if monotonic() > deadline:
                break
            file = files[int(table.file[row])]
            found = self._holds(file, int(table.row[row]), query.text)
            states[row] = search.states[file.path][1][table.row[row]] = 1 if found else -1
        return order[states[order] == 1], int((states[order] == 0).sum())

    def _search(self, query: Query) -> Search:
        key = (query.kind, query.text)
        search = self._searches.setdefault(key, Search())
        self._searches.move_to_end(key)
        while len(self._searches) > NEEDLES:
            self._searches.popitem(last=False)
        return search

    def _holds(self, file: SamplesFile, row: int, needle: str) -> bool:
        """Whether a response, or its prompt, holds a text. A quick look at the bytes first."""
        if file.columns["part"][row] < 0:
            return False
        data = self._line(file, row)
        spelled = json.dumps(needle, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")
        if spelled.lower() not in data.lower():
            return False
        response = self._response(file, row, data, short=True)
        if response is None:
            return False
        turns = response.get("turns")
        turns = turns if isinstance(turns, list) else []
        shown = [t.get("shown") for t in turns if isinstance(t, dict)]
        texts = (response.get("prompt"), response.get("completion"), *shown)
        return any(needle.lower() in text(t).lower() for t in texts)

    # ----------------------------------------------------------------------- rows

    def rows(
        self, files: Sequence[SamplesFile], table: Table, page: Sequence[int] | np.ndarray
    ) -> list[dict[str, Any]]:
        """These rows of a table as JSON."""
        places = [(files[table.file[i]], int(table.row[i])) for i in page]
        rows = (self.shown(file, row) for file, row in places)
        return [row for row in rows if row is not None]

    def shown(self, file: SamplesFile, row: int) -> dict[str, Any] | None:
        """A response in a list, as JSON; None if it is gone."""
        key = (file.path, file.columns["offset"][row], file.columns["length"][row], row)
        if key not in self._previews:
            response = self.response(file, row, short=True)
            if response is None:
                return None
            self._previews[key] = preview(response, file, row)
            while len(self._previews) > PREVIEWS:
                self._previews.popitem(last=False)
        return self._previews[key]

    def response(self, file: SamplesFile, row: int, short: bool = False) -> dict[str, Any] | None:
        """A response as it was recorded; None if it is gone. short: without numbers of tokens."""
        if file.columns["part"][row] < 0:
            return {"completion": TOO_LONG, "too_long": True}
        try:
            data = self._line(file, row)
        except ViewError:
            return None
        return self._response(file, row, data, short)

    def _line(self, file: SamplesFile, row: int) -> bytes:
        """The line of a row. The file that was read last stays open, for a search reads its rows
        one by one."""
        key = (file.path, file.generation)
        if self._opened is None or self._opened[0] != key:
            if self._opened is not None:
                self._opened[1].close()
                self._opened = None
            self._opened = (key, self.folders.open(file.path))
        return file.line(row, self._opened[1])

    def _response(
        self, file: SamplesFile, row: int, data: bytes, short: bool
    ) -> dict[str, Any] | None:
        line = short_record(data) if short else record(data)
        every, part = responses(line) if line else [], file.columns["part"][row]
        return every[part] if part < len(every) else None


def preview(response: Mapping[str, Any], file: SamplesFile, row: int) -> dict[str, Any]:
    """A response in a list, as JSON."""
    rewards, turns = response.get("rewards"), response.get("turns")
    return {
        "kind": file.kind,
        "step": file.step,
        "row": row,
        "group": response.get("group"),
        "reward": number(response.get("reward")),
        "rewards": rewards if isinstance(rewards, dict) else {},
        "advantage": mean_advantage(response.get("advantage")),
        "stop": response.get("stop"),
        "tokens": response.get("tokens"),
        "turns": len(turns) if isinstance(turns, list) else 1,
        "right": response.get("right"),
        "greedy": bool(response.get("greedy")),
        "too_long": bool(response.get("too_long")),
        "preview": text(response.get("completion"))[:200],
        "prompt_preview": text(response.get("prompt"))[:120],
    }


def _within(value: int, bounds: tuple[int | None, int | None]) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)


def _bounded(values: np.ndarray, bounds: tuple[float | None, float | None]) -> np.ndarray:
    """Which values are within bounds, [N]; NaN is within none."""
    low, high = bounds
    keep = np.ones(len(values), bool)
    if low is not None:
        keep &= values >= low
    if high is not None:
        keep &= values <= high
    return keep


def _states(search: Search, file: SamplesFile) -> np.ndarray:
    """What is known of a file's rows, [rows]; rows that were added are not tested."""
    begin = file.columns["offset"]
    version, known = search.states.get(file.path, (-1, np.zeros(0, np.int8)))
    if version != file.generation or len(known) > len(begin):
        known = np.zeros(0, np.int8)
    known = np.concatenate([known, np.zeros(len(begin) - len(known), np.int8)])
    search.states[file.path] = (file.generation, known)
    return known


def _table(files: Sequence[SamplesFile]) -> Table:
    counts = [len(file) for file in files]
    numbers = np.arange(len(files))
    columns = {
        name: np.concatenate([np.zeros(0, code), *(np.array(f.columns[name]) for f in files)])
        for name, code in COLUMNS.items()
    }
    parts = {
        name: np.concatenate([_part(f, name) for f in files])
        for name in dict.fromkeys(n for f in files for n in f.parts)
    }
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])
    return Table(np.repeat(numbers, counts), rows, columns, parts)


def _part(file: SamplesFile, name: str) -> np.ndarray:
    """A part of the reward for each row of a file, NaN where it has none."""
    values = np.array(file.parts.get(name, []), dtype=np.float64)
    return np.concatenate([values, np.full(len(file) - len(values), np.nan)])


def _estimated(files: Sequence[SamplesFile]) -> int:
    """The number of all responses: those that are indexed, and by the size of the files the
    rest."""
    known = sum(len(f) for f in files)
    left = sum(0 if f.complete else f.size - f.end for f in files)
    indexed = sum(f.end for f in files)
    return known + (round(left * known / indexed) if indexed else 0)

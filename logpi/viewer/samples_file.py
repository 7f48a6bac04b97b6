"""The index of one samples file: where each response is, and its numbers, in compact arrays.

    row        0   1   2        ordinal of the response among the file's readable ones
    offset     0   812 1630     of its line
    reward     1.0 0.0 nan      nan: no verdict

A file that is still written is read on from where the index ends; one that was replaced or cut is
indexed anew. About 90 bytes a response. Left out: queries (`samples_index.py`).
"""

from __future__ import annotations

import hashlib
import math
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO

from logpi.runs.summary import number
from logpi.viewer.files import ViewError
from logpi.viewer.samples_lines import lines, mean_advantage, responses, short_record, text

if TYPE_CHECKING:
    from logpi.viewer.files import Folders

# column -> the type code of its array
COLUMNS = {
    "offset": "q",
    "length": "q",
    "part": "l",
    "reward": "d",
    "advantage": "d",
    "tokens": "q",
    "stop": "l",
    "group": "q",
    "prompt": "q",
}
LARGEST = 2**62


class Names:
    """Words by number, as columns hold them; -1: none."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, name: Any) -> int:
        return self.numbers.setdefault(name, len(self.numbers)) if isinstance(name, str) else -1

    def name(self, number: int) -> str | None:
        return [*self.numbers, None][number]


class SamplesFile:
    """The index of one file.

    Attributes:
        path, kind, step: which. columns: by name. parts: one column for each part of the reward.
        end: bytes that are indexed; size: bytes in all. version: grows with each change;
            generation: with each that is no addition.
    """

    def __init__(self, path: Path, kind: str, step: int, stops: Names) -> None:
        self.path, self.kind, self.step, self._stops = path, kind, step, stops
        self.version = self.generation = 0
        self.size = 0
        self._inode = -1
        self._clear()

    def _clear(self) -> None:
        self.columns = {name: array(code) for name, code in COLUMNS.items()}
        self.parts: dict[str, array[float]] = {}
        self.end = 0
        self._stuck = -1
        self.version += 1
        self.generation += 1

    def __len__(self) -> int:
        return len(self.columns["offset"])

    @property
    def complete(self) -> bool:
        """Every finished line is indexed."""
        return self.size in (self.end, self._stuck)

    def check(self) -> None:
        """Look whether the file grew, or is another one. Raises OSError."""
        status = os.stat(self.path)
        if status.st_ino != self._inode or status.st_size < self.end:
            if len(self) or self.end:
                self._clear()
            self._inode = status.st_ino
        self.size = status.st_size

    def read_on(self, folders: Folders, deadline: float, until: int | None = None) -> None:
        """Index further lines until a time, or until row `until` is there; none of a file that
        cannot be read."""
        try:
            opened = folders.open(self.path)
        except ViewError:
            self._stuck = self.size
            return
        with opened as file:
            for line in lines(file, self.end):
                self._add(line.offset, line.length, line.data)
                self.end = line.offset + line.length
                if monotonic() > deadline or (until is not None and len(self) > until):
                    return
        # what is left is an unfinished line
        self._stuck = self.size

    def line(self, row: int, file: BinaryIO) -> bytes:
        """The line of a row in the open file."""
        file.seek(self.columns["offset"][row])
        return file.read(self.columns["length"][row])

    def _add(self, offset: int, length: int, data: bytes | None) -> None:
        self.version += 1
        if data is None:
            self._append({"completion": None}, offset, length, -1)
            return
        record = short_record(data)
        for i, response in enumerate(responses(record) if record else ()):
            self._append(response, offset, length, i)

    def _append(self, response: Mapping[str, Any], offset: int, length: int, part: int) -> None:
        columns, before = self.columns, len(self)
        reward, advantage = (
            number(response.get("reward")),
            mean_advantage(response.get("advantage")),
        )
        columns["offset"].append(offset)
        columns["length"].append(length)
        columns["part"].append(part)
        columns["reward"].append(math.nan if reward is None else reward)
        columns["advantage"].append(math.nan if advantage is None else advantage)
        columns["tokens"].append(_whole(response.get("tokens"), 0))
        columns["stop"].append(self._stops.number(response.get("stop")))
        columns["group"].append(_whole(response.get("group"), -1))
        columns["prompt"].append(prompt_key(response.get("prompt")))
        rewards = response.get("rewards")
        for name, value in rewards.items() if isinstance(rewards, dict) else ():
            column = self.parts.setdefault(name, array("d"))
            column.extend([math.nan] * (before - len(column)))
            known = number(value)
            column.append(math.nan if known is None else known)


def _whole(value: Any, otherwise: int) -> int:
    return value if type(value) is int and abs(value) < LARGEST else otherwise


def prompt_key(prompt: Any) -> int:
    """A number for a prompt: equal prompts have equal ones."""
    data = text(prompt).encode("utf-8", "backslashreplace")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

"""JSON lines: one record on each line, appended, readable after any crash.

    {"step": 10, "reward": 0.53, "kl": "nan"}

A number that JSON lacks (nan, inf, -inf) is a string, so every line stays valid JSON and keeps what
happened. Only metrics for which `is_time` holds may differ between two runs of the same arguments
and seed. Left out: which files there are (`directory.py`), and other places that metrics go to
(`trackers.py`).
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from logpi.runs import disk

notices = logging.getLogger("logpi")
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def is_time(name: str) -> bool:
    """Whether a metric measures time, and so may differ between identical runs."""
    return name.startswith(("time/", "step_time"))


def encode(record: Mapping[str, Any]) -> bytes:
    """One line. Tensors, NumPy values, paths and the like become plain; text stays readable."""
    return (json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    # Tensors and NumPy arrays, which this module need not import.
    to_list = getattr(value, "tolist", None)
    return _plain(to_list()) if to_list else str(value)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a file of JSON lines; after a kill it is whole or missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, b"".join(map(encode, rows)))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, torn lines (their writer was killed) left out. A missing file has
    none."""
    return (record for _, record in _lines(path) if record is not None)


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """A run's metrics, in order: `step` and the numbers logged with it."""
    rows = (row for row in read_rows(Path(run) / "metrics.jsonl") if _of_a_step(row))
    return [
        {k: _NUMBERS.get(v, v) if isinstance(v, str) else v for k, v in row.items()} for row in rows
    ]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    if path.exists():
        with open(path, "rb") as file:
            yield from ((line, _record(line)) for line in file)


def _record(line: bytes) -> dict[str, Any] | None:
    """The record on a line, or None for a torn one."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _of_a_step(record: Mapping[str, Any]) -> bool:
    return type(record.get("step")) is int


def mend(path: Path, sound: Callable[[dict[str, Any]], bool] = _of_a_step) -> None:
    """Take out what is no `sound` record.

    The unfinished last line of a killed writer goes without a word; anything else is said, and the
    file as it was is kept beside it.
    """
    lines = list(_lines(path))
    bad = {i for i, (_, record) in enumerate(lines) if record is None or not sound(record)}
    last = lines[-1][0] if lines else b""
    torn = {len(lines) - 1} if last.startswith(b"{") and not last.endswith(b"\n") else set()
    if bad - torn:
        copy = disk.damaged_name(path)
        shutil.copyfile(path, copy)
        notices.warning(
            "%s: %d of %d lines are garbled and left out; as it was, it is kept as %s",
            path,
            len(bad),
            len(lines),
            copy.name,
        )
    if bad:
        disk.write(path, b"".join(line for i, (line, _) in enumerate(lines) if i not in bad))


def keep_until(path: Path, step: int) -> None:
    """Drop every record after `step`."""
    lines = list(_lines(path))
    kept = [
        line
        for line, record in lines
        if record is not None and _of_a_step(record) and record["step"] <= step
    ]
    if len(kept) < len(lines):
        disk.write(path, b"".join(kept))


def names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every metric's name, in the order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record if name != "step"))

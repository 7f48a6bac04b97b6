"""JSON lines: one record on each line, appended, readable after any crash.

    {"step": 10, "reward": 0.53, "kl": "nan"}

A number that JSON lacks (nan, inf, -inf) is a string, so every line stays valid JSON and keeps what happened. Only
metrics for which `is_time` holds may differ between two runs of the same arguments and seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from logpi.runs.disk import write

__all__ = ["cut_torn_line", "encode", "is_time", "keep_until", "read_metrics", "read_rows"]

_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def is_time(name: str) -> bool:
    """Whether a metric measures time, and so may differ between identical runs."""
    return name.startswith(("time/", "step_time"))


def encode(record: Mapping[str, Any]) -> bytes:
    """One line. Tensors, NumPy values, paths and the like become plain; text stays readable."""
    return (json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    to_list = getattr(value, "tolist", None)  # tensors and NumPy arrays, which this module need not import
    return _plain(to_list()) if to_list else str(value)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; a torn last line (the writer was killed) is left out. A missing file has none."""
    for _, record in _lines(path):
        yield record


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """A run's metrics, in order: `step` and the numbers logged with it."""
    rows = read_rows(Path(run) / "metrics.jsonl")
    return [{k: _NUMBERS.get(v, v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if not isinstance(record, dict):
                return  # nothing after a torn line was written by us
            yield line, record


def cut_torn_line(path: Path) -> None:
    """Take off what a killed writer left unfinished."""
    whole = sum(len(line) for line, _ in _lines(path))
    if path.exists() and path.stat().st_size > whole:
        with open(path, "rb+") as file:
            file.truncate(whole)


def keep_until(path: Path, step: int) -> None:
    """Drop every record after `step`."""
    lines = list(_lines(path))
    kept = [line for line, record in lines if record.get("step", 0) <= step]
    if len(kept) < len(lines):
        write(path, b"".join(kept))


def names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every metric's name, in the order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record if name != "step"))

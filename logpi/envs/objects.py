"""Rows from objects in memory, each with its place ("row 7 of the list"):

    [{"prompt": "1+1=", "answer": "2"}, …]             one table
    datasets.Dataset, IterableDataset (a finite one)   one table
    pandas.DataFrame                                   one table; NaN, NA and NaT are missing values
    datasets.DatasetDict, {"train": …, "test": …}      tables by the names of their splits
    FILE.py:NAME                                       one of these, or a function that returns one

`raw_rows` reads these and files (`files.py`) alike. Left out: the meaning of columns (`data.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from logpi.calls.messages import from_arrow
from logpi.envs import files
from logpi.runs.user_code import from_user_code, is_user_code

MOST = 10_000_000
"""Rows of a data set: an IterableDataset may have no end."""


def is_rows(value: Any) -> bool:
    """Whether a value holds rows. A word that names rows holds none.

    >>> is_rows([{"prompt": "p"}]), is_rows("rows.jsonl"), is_rows({"train": [], "test": []})
    (True, False, True)
    """
    return isinstance(value, list | tuple | Mapping) or _is_dataset(value) or _is_frame(value)


def label(source: Any) -> str:
    """A source's name in messages: a word as it is, an object by its type.

    >>> label("rows.jsonl"), label([])
    ('rows.jsonl', 'the list')
    """
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def is_single(source: Any) -> bool:
    """Whether a source is one table without splits."""
    source = _resolved(source)
    if isinstance(source, str | Path):
        return files.is_single(str(source))
    return not isinstance(source, Mapping)


def raw_rows(source: Any, split: str = "train") -> Iterator[tuple[str, Any]]:
    """Each raw row with its place.

    Args:
        source: a path, a hub name, `FILE.py:NAME`, or an object of rows (see the module's
            docstring). split: of a source that has splits.

    Raises:
        ValueError: as `files.read_raw`; an object of another kind, a split that is missing, no
            rows. UserError: as `from_user_code`.
    """
    table = _resolved(source)
    if isinstance(table, str | Path):
        yield from files.read_raw(str(table), split)
        return
    if not is_rows(table):
        raise ValueError(
            f"{label(source)}: rows are a list of dicts, a Dataset, a DataFrame, or these by split,"
            f" not {type(table).__name__}"
        )
    name = label(source if isinstance(source, str) else table)
    if isinstance(table, Mapping):
        if split not in table:
            raise ValueError(f"{name}: no split {split!r}; found: {', '.join(map(str, table))}")
        name, table = f"the {split} split of {name}", table[split]
    number = 0
    for number, row in enumerate(_records(table, name), 1):
        yield files.encodable_row(f"row {number} of {name}", row)
    if not number:
        raise ValueError(f"{name}: no rows")


def _resolved(source: Any) -> Any:
    """The object behind `FILE.py:NAME`, and the result of a function; other sources as they
    are."""
    if isinstance(source, str) and is_user_code(source):
        source = from_user_code(source)
    return _returned(source) if callable(source) else source


@cache
def _returned(function: Callable[[], Any]) -> Any:
    """The function's result. It is called once: train and test rows must be parts of one table."""
    return function()


def _records(table: Any, name: str) -> Iterable[Any]:
    """The rows of one table as Python's own values."""
    if _is_frame(table):
        files.distinct(name, [str(column) for column in table.columns])
        return map(_plain, table.to_dict("records"))
    if not _is_dataset(table):
        return map(_plain, table)
    rows = list(islice(table, MOST + 1))
    if len(rows) > MOST:
        raise ValueError(f"{name}: more than {MOST:,} rows: take a part of it, with .take(n)")
    return (from_arrow(dict(row)) for row in rows)


def _plain(value: Any) -> Any:
    """Arrays as lists, NumPy's numbers as numbers, pandas' missing values as None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if type(value).__module__.partition(".")[0] == "numpy":
        return _plain(value.tolist())
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _is_frame(value: Any) -> bool:
    return _has_class(value, "pandas", "DataFrame")


def _is_dataset(value: Any) -> bool:
    return _has_class(value, "datasets", "Dataset", "IterableDataset")


def _has_class(value: Any, package: str, *names: str) -> bool:
    """Whether a value is of one of these classes of a package, without importing it."""
    return any(
        c.__name__ in names and c.__module__.partition(".")[0] == package
        for c in type(value).__mro__
    )

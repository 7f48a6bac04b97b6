"""Files of rows as plain dicts, each row with its place: JSONL, JSON, CSV (each also .gz), Parquet,
a directory of these (shards, and files below `data/`, as in the hub's data sets), a directory that
`save_to_disk` of `datasets` wrote, or a hub data set.

An unreadable file gives an error of one line, with the file's line where it is known. Left out: the
meaning of columns (`data.py`), streaming of data that do not fit into memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from logpi.calls.messages import from_arrow
from logpi.policies.hub import answers, check_name

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def _open(path: Path) -> io.TextIOBase:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def encodable_row(where: str, row: Any) -> tuple[str, Any]:
    """The row with its place. Refuses half of a character in a text (`\\ud83d` alone), which no
    tokenizer takes."""
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = (
            str(error.object[error.start : error.start + 1])
            .encode("ascii", "backslashreplace")
            .decode()
        )
        raise ValueError(
            f"{where}: {half} alone is half of a character (a torn emoji, say): repair the text"
        ) from None
    return where, row


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}, line {number}: {_problem(error)}: {line.strip()[:60]!r}"
                ) from None
            where = f"{path}, line {number}"
            yield encodable_row(where, row) if "\\ud" in line.lower() else (where, row)


def _problem(error: ValueError | RecursionError) -> str:
    """Why JSON cannot be read. Python refuses whole numbers of more than 4,300 digits."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg})"
    if isinstance(error, RecursionError):
        return "not valid JSON (nested too deep)"
    return "not valid JSON (a number has too many digits)"


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    """A list of objects; or, as many files named .json are, one object a line."""
    with _open(path) as file:
        start = file.read(1_000).lstrip()[:1]
    if start != "[":
        yield from _json_lines(path)
        return
    with _open(path) as file:
        text = file.read()
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else _long_number(text)
        raise ValueError(
            f"{path}: {_problem(error)}, line {text.count(chr(10), 0, at) + 1}"
        ) from None
    yield from (encodable_row(f"{path}, row {i}", row) for i, row in enumerate(rows, 1))


def _long_number(text: str) -> int:
    """The place of the first number with more digits than Python reads."""
    match = re.search(rf"\d{{{sys.get_int_max_str_digits() + 1}}}", text)
    return match.start() if match else 0


def distinct(table: str | Path, names: Sequence[str]) -> None:
    """Refuse a table of which one column would hide another."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise ValueError(
            f"{table}: {names.count(twice[0])} columns are called {twice[0]!r}: rename or drop one"
        )


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    """Cells are text; an empty one, or the NaN that tools write for one, is a missing value."""
    csv.field_size_limit(2**31 - 1)
    with _open(path) as file:
        reader = csv.DictReader(file)
        distinct(path, reader.fieldnames or ())
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise ValueError(
                    f"{where}: more fields than the header has; quote those that hold a comma"
                )
            yield where, {k: None if v in ("", "nan", "NaN") else v for k, v in row.items()}


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            distinct(path, file.schema_arrow.names)
            rows = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
    yield from ((f"{path}, row {i}", from_arrow(row)) for i, row in enumerate(rows, 1))


def _saved(path: Path, split: str) -> Iterator[tuple[str, Any]]:
    """A directory that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # of Arrow, of JSON, of the library: a torn file raises any
        raise ValueError(f"{path}: cannot be read as what save_to_disk writes: {error}") from None
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise ValueError(f"{path}: no split {split!r}; found: {', '.join(map(str, table))}")
        table = table[split]
    yield from ((f"{path}, row {i}", from_arrow(dict(row))) for i, row in enumerate(table, 1))


def _hub(name: str, split: str) -> Iterator[tuple[str, Any]]:
    repository, _, subset = name.partition(":")
    check_name(repository)
    answers()  # before the import: the library reads the hub's settings then
    import datasets

    try:
        rows = datasets.load_dataset(repository, subset or None, split=split)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{name}: no such file or directory here, and as a hub data set it fails: {reason[0]}"
        ) from None
    yield from ((f"{name}, row {i}", from_arrow(dict(row))) for i, row in enumerate(rows, 1))


_READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _kind(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _read(path_or_name: str, split: str) -> Iterator[tuple[str, Any]]:
    path = Path(path_or_name).expanduser()
    if _is_saved(path):
        yield from _saved(path, split)
    elif path.exists():
        for file in _shards(path, split) if path.is_dir() else [path]:
            if _kind(file) not in _READERS:
                raise ValueError(
                    f"{file}: cannot tell its format; name it with one of {', '.join(SUFFIXES)}"
                    " (also .gz)"
                )
            yield from _READERS[_kind(file)](file)
    elif _kind(path) in _READERS or "/" not in path_or_name:
        raise ValueError(f"{path_or_name}: no such file")
    else:
        yield from _hub(path_or_name, split)


def _readable(name: str, rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """`rows`, with errors of reading as one line."""
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: not UTF-8 text ({error.reason} at byte {error.start}); convert it first"
        ) from None
    except (OSError, EOFError, csv.Error) as error:
        raise ValueError(f"{name}: cannot be read: {error}") from None


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


# "train-00001-of-00003-9f86d081884c7d65" is shard 1 of 3 of "train-"; "train_2" is shard 2 of an
# unknown number.
_SHARD = re.compile(r"(|.+?[-_.])(\d+)(?:-of-(\d+))?(?:-[0-9a-f]{8,})?")


def _shards(path: Path, split: str) -> list[Path]:
    """The file of `split` in a directory, or its shards in their order.

    The layout is that of the hub's data sets: `train.jsonl` or `train-00000-of-00002.parquet` in
    the directory itself or below `data/`, else any files below `train/` or `data/train/`.

    Raises:
        ValueError: no file; several that are no shards of one file; a missing shard.
    """
    places = (path, path / "data", path / split, path / "data" / split)
    files = [
        sorted(f for f in place.glob("*") if f.is_file() and _kind(f) in _READERS)
        for place in places
    ]
    named = [
        [f for f in some if re.match(rf"{split}(?![A-Za-z0-9])", f.name)] for some in files[:2]
    ]
    candidates = next((some for some in (*named, *files[2:]) if some), [])
    shards = candidates if len(candidates) == 1 else _in_order(candidates)
    if not shards:
        names = (
            ", ".join(f.name for f in candidates)
            or f"none among {', '.join(f.name for f in sorted(path.iterdir())[:20])}"
        )
        raise ValueError(
            f"{path}: expected one file named {split}.jsonl (.json, .csv, .parquet), or all shards"
            f" of one, found {names}"
        )
    return shards


def _in_order(files: Sequence[Path]) -> list[Path]:
    """The shards of one file by their numbers; empty unless each shard is there once.

    >>> _in_order([Path("train_10.jsonl"), Path("train_2.jsonl")])
    [PosixPath('train_2.jsonl'), PosixPath('train_10.jsonl')]
    >>> _in_order([Path("train_prefs.jsonl"), Path("train_sft.jsonl")])
    []
    """
    parts = [_SHARD.fullmatch(f.name.removesuffix(".gz").rpartition(".")[0]) for f in files]
    numbered = {
        int(m[2]): (f, m[1], m[3], _kind(f)) for f, m in zip(files, parts, strict=True) if m
    }
    kinds = {about[1:] for about in numbered.values()}
    if len(numbered) < len(files) or len(kinds) != 1:
        return []
    [(_, total, _)] = kinds
    whole = total is None or sorted(numbered) == list(range(int(total)))
    return [numbered[i][0] for i in sorted(numbered)] if whole else []


def read_raw(path_or_name: str, split: str = "train") -> Iterator[tuple[str, Any]]:
    """Each raw row of a file, a directory's split or a hub data set, with its place ("rows.jsonl,
    line 3").

    Raises:
        ValueError: a missing file, one that cannot be read, or one without rows.
    """
    rows = _readable(path_or_name, _read(path_or_name, split))
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path_or_name}: no rows")
    yield first
    yield from rows


def is_single(path_or_name: str) -> bool:
    """Whether this is one table without splits: a file, or a directory that `Dataset.save_to_disk`
    wrote."""
    path = Path(path_or_name).expanduser()
    return path.is_file() or (path / "state.json").is_file()

"""Records of a long measurement, appended to a file shard by shard. A kill loses one shard at most.

Items are numbered; a shard is `every` items in their order, each with `kinds` records. Left out:
what is measured (`jobs/options/items.py`, `jobs/compute.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from logpi.distributed.world import current
from logpi.runs import disk
from logpi.runs.metrics import encode, mend, read_rows, write_rows

Record = dict[str, Any]
"""Has the number of its item in `item`, and the verdicts on it in `right`."""


def saved(
    path: Path,
    shards: Callable[[int], Iterable[list[Record]]],
    total: int,
    every: int,
    kinds: int = 1,
) -> list[Record]:
    """All records of `total` items: those in `path`, and the new ones that `shards(items done)`
    yields, which are appended to it. Of several ranks the first one does the
    reading and writing.

    Raises:
        RunError: the disk failed.
    """
    world = current()

    def append(shard: list[Record]) -> None:
        with disk.reported(f"write {path}", "mend the disk and go on with --resume"):
            disk.append(path, b"".join(encode(r) for r in shard))

    records = world.by_first(lambda: kept(path, kinds, every, total))
    for shard in shards(len(records) // kinds):
        world.by_first(lambda shard=shard: append(shard))
        records += shard
    return records


def kept(path: Path, kinds: int, every: int, total: int) -> list[Record]:
    """The records of a stopped measurement of `total` items that belong to whole shards; the others
    are cut off the file.

    Shards of 2 items, 1 record each, killed in the third shard:  items 0 1 | 2 3 | 4  →  0 1 2 3
    """
    with disk.reported(
        f"read {path}", "nothing was changed; mend the disk and go on with --resume"
    ):
        if not path.exists():
            return []
        mend(path, lambda r: type(r.get("item")) is int and isinstance(r.get("right"), list))
        records = list(read_rows(path))
    count = Counter(r["item"] for r in records)
    done = next(i for i in range(len(count) + 1) if count[i] < kinds)
    done -= done % every if done < total else 0
    whole = [r for r in records if r["item"] < done]
    if len(whole) < len(records):
        with disk.reported(f"write {path}", "mend the disk and go on with --resume"):
            write_rows(path, whole)
    return whole

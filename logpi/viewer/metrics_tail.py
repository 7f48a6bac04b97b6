"""Metrics of a run that may still be written: read on from where the last reading ended.

    records, end, rewound = read_on(file, after=0)      # then after=end

`end` is a bookmark: the place in the file and, above it, a mark of the file itself. So a file that
was replaced (a resumed run goes back) is noticed even if it is as long as before. The unfinished
last line waits for the next reading. Left out: what the metrics mean (`runs/metric_table.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from logpi.runs.summary import number

# bytes of one reading: some ten thousand records
AT_ONCE = 32 * 2**20
# A bookmark is below 2⁵³, which JavaScript holds exactly: 40 bits of place, 12 bits of mark.
PLACE = 40
MARKS = 2**12


class Reading(NamedTuple):
    """What one reading gave.

    Attributes:
        records: of the complete lines. end: the bookmark for the next reading. rewound: the file is
            another one or became shorter, so this reading began at its beginning.
        more: there are further lines.
    """

    records: list[dict[str, Any]]
    end: int
    rewound: bool
    more: bool


def read_on(file: BinaryIO, after: int = 0, at_once: int = AT_ONCE) -> Reading:
    """The records behind a bookmark (0: from the beginning), at most about `at_once` bytes."""
    status = os.fstat(file.fileno())
    mark = (status.st_ino % MARKS) << PLACE
    place = after % 2**PLACE
    rewound = after > 0 and (after - place != mark or place > status.st_size)
    place = 0 if rewound else place
    file.seek(place)
    data = file.read(at_once)
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == at_once:
        # a line that is longer than a reading is no record: pass over what was read
        whole = len(data)
    records = [r for line in data[:whole].split(b"\n") if (r := _record(line)) is not None]
    more = len(data) == at_once and place + whole < status.st_size
    return Reading(records, mark + place + whole, rewound, more)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(record, dict) and type(record.get("step")) is int
    return record if sound else None


def columns(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """`step` and one column for each name, None where a record has no finite number of it. Records
    that have none of the names are left out."""
    having = [r for r in records if any(name in r for name in names)]
    table = {name: [number(r.get(name)) for r in having] for name in names}
    return {"step": [r["step"] for r in having], "columns": table}

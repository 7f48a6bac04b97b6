"""Lines of a samples file, and the responses on a line.

A training step's line is one response; an evaluation's line is an item with several. Both come out
as the same plain record (`Run.samples` says what is in it). Lines are read one at a time and never
more than `LONGEST` of one, whatever a model wrote. Left out: which responses one looks for
(`samples_index.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from logpi.runs.summary import number

LONGEST = 16 * 2**20
HEAD = 2**16
# Numbers of each token: long, and not needed to find a response.
BY_TOKEN = (b'"ids"', b'"logp"', b'"entropy"', b'"ratio"')


class Line(NamedTuple):
    """A complete line. data is None if it is longer than `LONGEST`."""

    offset: int
    length: int
    data: bytes | None


def lines(file: BinaryIO, offset: int) -> Iterator[Line]:
    """The complete lines from a place on; what a writer has not finished yet is left for later."""
    file.seek(offset)
    while data := file.readline(LONGEST):
        long = not data.endswith(b"\n")
        end = offset + len(data)
        if long:
            end = _end_of_line(file) if len(data) == LONGEST else None
        if end is None:
            return
        yield Line(offset, end - offset, None if long else data)
        offset = end
        file.seek(offset)


def has_responses(file: BinaryIO) -> bool:
    """Whether a file holds responses, by the head of its first line; those of `logpi gym` hold
    returns of episodes."""
    head = file.read(HEAD).partition(b"\n")[0]
    return b'"prompt"' in head or b'"completion' in head


def _end_of_line(file: BinaryIO) -> int | None:
    """Where a long line ends; None: it is not finished."""
    while data := file.readline(2**20):
        if data.endswith(b"\n"):
            return file.tell()
    return None


def short_record(data: bytes) -> dict[str, Any] | None:
    """The record of a line without the numbers of each token, which take most of the time to read.
    None: it is no record.

    >>> short_record(b'{"reward": 1.0, "ids": [1, 2, 3], "tokens": 3}')
    {'reward': 1.0, 'tokens': 3}
    """
    cut = data
    for name in BY_TOKEN:
        cut = _without(cut, name)
    return record(cut) or record(data)


def _without(data: bytes, name: bytes) -> bytes:
    """A line without a list of numbers. `, "ids": [` cannot be inside a text, where quotes have
    backslashes."""
    begin = data.find(b", " + name + b": [")
    end = data.find(b"]", begin)
    return data if begin < 0 or end < 0 else data[:begin] + data[end + 1 :]


def record(data: bytes) -> dict[str, Any] | None:
    """The record of a line; None for a torn or garbled one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def responses(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The responses of a line, each as a step's record. Fields of older versions may be missing.

    >>> item = {"kind": "sampled", "item": 4, "prompt": "1+1=", "completions": ["2", "3"]}
    >>> item |= {"totals": [1.0, 0.0], "right": [True, False], "stop": ["eos", "eos"]}
    >>> [(r["completion"], r["reward"], r["right"], r["group"]) for r in responses(item)]
    [('2', 1.0, True, 4), ('3', 0.0, False, 4)]
    """
    texts = line.get("completions")
    if not isinstance(texts, list):
        return [dict(line)]
    shared = {k: line[k] for k in ("prompt", "answer", "prefix", "read") if k in line}
    shared |= {"group": line.get("item"), "greedy": line.get("kind") == "greedy"}
    every = []
    for i, text in enumerate(texts):
        own = {"completion": text}
        for name, key in PLURALS.items():
            values = line.get(key)
            if isinstance(values, list) and i < len(values):
                own[name] = values[i]
        talk = own.pop("conversation", None)
        every.append(shared | own | (talk if isinstance(talk, dict) else {}))
    return every


# a response's field -> the list of an item's line that holds it
PLURALS = {
    "reward": "totals",
    "rewards": "rewards",
    "errors": "errors",
    "stop": "stop",
    "tokens": "tokens",
    "right": "right",
    "conversation": "conversations",
}


def text(value: Any) -> str:
    """A prompt or a completion as one text; of messages the contents under their roles."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(
            f"{m.get('role', '')}: {m.get('content', '')}" if isinstance(m, Mapping) else str(m)
            for m in value
        )
    return "" if value is None else str(value)


def mean_advantage(value: Any) -> float | None:
    """The advantage of a response: the mean over its tokens; None if none was recorded.

    >>> mean_advantage([0.5, 1.5]), mean_advantage(0.25), mean_advantage(None)
    (1.0, 0.25, None)
    """
    if not isinstance(value, list):
        return number(value)
    known = [x for v in value if (x := number(v)) is not None]
    return sum(known) / len(known) if known else None

"""The types that cross between a program and its tests as copies, and how each is written and rebuilt.

Exact types alone: a subclass of the program's own is an object with this data (`mirrors.py`). Left out: None, booleans, numbers, texts
and lists, which JSON has itself.
"""

from __future__ import annotations

import array
import datetime
import pathlib
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

__all__ = ["PLAIN", "TAGS", "Unspeakable", "held", "is_plain", "rebuilt", "tagged"]


class Unspeakable(ValueError):
    """The tests want what cannot cross. Nothing that the program sends raises this: it is the tests' fault."""


def _items(d: Any) -> list[list[Any]]:
    return [list(i) for i in dict.items(d)]


def _pairs(items: list[Any]) -> Any:
    return ((k, v) for k, v in items)


def _default(d: Any) -> list[Any]:
    return [d.default_factory, _items(d)]


# type -> (its parts, or its text; the type from them)
PLAIN: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    tuple: (list, tuple),
    dict: (_items, lambda items: dict(_pairs(items))),
    set: (list, set),
    frozenset: (list, frozenset),
    deque: (lambda d: [d.maxlen, list(d)], lambda parts: deque(parts[1], parts[0])),
    range: (lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
    Counter: (_items, lambda items: Counter(dict(_pairs(items)))),
    OrderedDict: (_items, lambda items: OrderedDict(_pairs(items))),
    defaultdict: (_default, lambda parts: defaultdict(parts[0], _pairs(parts[1]))),
    bytes: (bytes.hex, bytes.fromhex),
    bytearray: (bytearray.hex, bytearray.fromhex),
    complex: (repr, complex),
    Decimal: (str, Decimal),
    Fraction: (lambda q: f"{q.numerator}/{q.denominator}", Fraction),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    datetime.timedelta: (lambda d: [d.days, d.seconds, d.microseconds], lambda parts: datetime.timedelta(*parts)),
    pathlib.PosixPath: (str, pathlib.PosixPath),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
    uuid.UUID: (str, uuid.UUID),
    array.array: (lambda a: [a.typecode, a.tolist()], lambda parts: array.array(*parts)),
    slice: (lambda s: [s.start, s.stop, s.step], lambda parts: slice(*parts)),
    type(...): (lambda _: [], lambda _: ...),
    type(NotImplemented): (lambda _: [], lambda _: NotImplemented),
}
# base -> what an instance of a class derived from it holds, whatever that class says of itself
_HELD: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    tuple: lambda t: tuple.__getitem__(t, slice(None)),
    list: list.copy,
    dict: lambda d: dict(dict.items(d)),
    set: lambda s: set().union(s),
    frozenset: lambda s: frozenset().union(s),
}
TAGS = {kind.__name__: kind for kind in PLAIN}


def tagged(value: Any) -> tuple[str, Any]:
    """The tag of a value's type, and its parts or text."""
    return type(value).__name__, PLAIN[type(value)][0](value)


def held(base: type, value: Any) -> Any:
    """The plain data of an instance of a class that is derived from a plain type."""
    return _HELD.get(base, base)(value)


def rebuilt(tag: str, parts: Any) -> Any:
    return PLAIN[TAGS[tag]][1](parts)


def is_plain(value: Any) -> bool:
    return value is None or type(value) in PLAIN or type(value) in (bool, int, float, str, list)

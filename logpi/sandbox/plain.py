"""Encodes values that cross between a program and its tests as copies, and names the classes that
both sides have.

    (1, "a")               {"tuple": [1, "a"]}
    {1: 2}                 {"dict": [[1, 2]]}
    Fraction(1, 3)         {"Fraction": "1/3"}
    deque([1], maxlen=2)   {"deque": [2, [1]]}

Exact types only: an instance of a program's subclass is an object with this data (`mirrors.py`).
Left out: None, booleans, numbers, texts and lists, which JSON has itself.
"""

from __future__ import annotations

import array
import datetime
import pathlib
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any


class Unspeakable(ValueError):
    """The tests need a value that cannot cross. This is the tests' fault; nothing that a program
    sends raises it."""


def _items(d: Any) -> list[list[Any]]:
    return [list(i) for i in dict.items(d)]


# not `dict(items)`, which would read a hostile item without an end
def _pairs(items: list[Any]) -> Any:
    return ((k, v) for k, v in items)


def _default(d: Any) -> list[Any]:
    return [d.default_factory, _items(d)]


# type -> (gives a value's parts or text, rebuilds the value from them)
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
    datetime.timedelta: (
        lambda d: [d.days, d.seconds, d.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    pathlib.PosixPath: (str, pathlib.PosixPath),
    pathlib.PurePosixPath: (str, pathlib.PurePosixPath),
    uuid.UUID: (str, uuid.UUID),
    array.array: (lambda a: [a.typecode, a.tolist()], lambda parts: array.array(*parts)),
    slice: (lambda s: [s.start, s.stop, s.step], lambda parts: slice(*parts)),
    type(...): (lambda _: [], lambda _: ...),
    type(NotImplemented): (lambda _: [], lambda _: NotImplemented),
}
# base -> the data in an instance of a derived class, read without that class's own methods
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
# `function` and other types that no module shows by name
_TYPES = {t.__name__: t for t in vars(types).values() if isinstance(t, type)}
TAGS = {kind.__name__: kind for kind in PLAIN}


def tagged(value: Any) -> tuple[str, Any]:
    """The tag of a value's type, and the value's parts or text."""
    return type(value).__name__, PLAIN[type(value)][0](value)


def held(base: type, value: Any) -> Any:
    """The plain data in an instance of a class that derives from a plain type."""
    return _HELD.get(base, base)(value)


def rebuilt(tag: str, parts: Any) -> Any:
    return PLAIN[TAGS[tag]][1](parts)


def is_plain(value: Any) -> bool:
    return value is None or type(value) in PLAIN or type(value) in (bool, int, float, str, list)


def shared_name(value: Any) -> str | None:
    """The name of a class of the language or its library; None for any other value."""
    if not isinstance(value, type):
        return None
    if _TYPES.get(value.__name__) is value:
        return f"types.{value.__name__}"
    name = f"{value.__module__}.{value.__qualname__}"
    try:
        return name if shared_type(name) is value else None
    except (ValueError, ImportError):
        return None


def shared_type(name: str) -> type:
    """The class of a name. Raises ValueError if there is none."""
    module, _, last = name.rpartition(".")
    if module == "types" and last in _TYPES:
        return _TYPES[last]
    if (
        module not in ("builtins", *sys.modules)
        or module.partition(".")[0] not in sys.stdlib_module_names
    ):
        raise ValueError(f"no class {name}")
    value = vars(sys.modules[module]).get(last)
    if not isinstance(value, type):
        raise ValueError(f"no class {name}")
    return value


def plain_base(kind: type) -> type | None:
    """The plain type that a class derives from, or None."""
    return next((b for b in kind.__mro__ if b in PLAIN or b in (int, float, str, list)), None)

"""Plain data and calls between a program and its tests, which do not trust each other.

What crosses is numbers, texts, bytes and the built-in containers of them, each rebuilt as exactly that type: no object of one
side ever lives in the other, so none can claim to equal everything. Whatever else a side holds stays there and is named by a
number (`Remote`); the tests may call it, index it, iterate over it; the program may only call what it was handed.

    frame     4 bytes of length, then JSON
    request   {"op": "call", "on": 3, "args": [...], "named": {...}}
    reply     {"value": ...} or {"raised": "ValueError", "message": "..."}

While one side waits for a reply it answers the other's requests. Standard library only. Left out: equality, order and arithmetic
of objects that stay (identity alone counts), and deadlines.
"""

from __future__ import annotations

import builtins
import datetime
import json
import os
import struct
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

__all__ = ["Gone", "Peer", "Remote", "Unspeakable"]

MAX_FRAME, MAX_DEPTH, MAX_OBJECTS = 8 << 20, 64, 100_000
_HEADER = struct.Struct(">I")
_MUTABLE = (list, dict, set, bytearray)


class Gone(BaseException):
    """The other side ended. Not an Exception: tests that catch everything must not go on without the program."""


class Unspeakable(ValueError):
    """The tests hand over what is no plain data. Nothing that the program sends raises this: it is the tests' fault."""


class Remote:
    """An object of the other side. Two are equal if they are the same object there, and none equals plain data."""

    __slots__ = ("_peer", "_number")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._peer.ask("call", self._number, list(args), named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.ask("get", self._number, [name])

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self._number, [name, value])

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("item", self._number, [key])

    def __contains__(self, key: Any) -> bool:
        return self._peer.ask("contains", self._number, [key]) is True

    def __iter__(self) -> Any:
        return self._peer.ask("iter", self._number)

    def __next__(self) -> Any:
        return self._peer.ask("next", self._number)

    def __len__(self) -> int:
        return self._peer.ask("len", self._number)

    def __bool__(self) -> bool:
        return self._peer.ask("bool", self._number) is True

    def __str__(self) -> str:
        return str(self._peer.ask("str", self._number))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def __repr__(self) -> str:
        return f"<object {self._number} of the program>"


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda thing, *args, **named: thing(*args, **named),
    "get": getattr,
    "set": setattr,
    "item": lambda thing, key: thing[key],
    "contains": lambda thing, key: bool(key in thing),
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
}


class Peer:
    """One end of the socket.

    Args:
        fd: the socket.
        open_handed: the other side may do more with our objects than call them, and look up names by `names`.
        names: what a name means to the other side.
    """

    def __init__(self, fd: int, open_handed: bool, names: Callable[[str], Any] | None = None) -> None:
        self.fd, self.open_handed, self.names = fd, open_handed, names
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    # --- the wire ---

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"a message of {len(body)} bytes (at most {MAX_FRAME})")
        data = memoryview(_HEADER.pack(len(body)) + body)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            raise Gone from None

    def receive(self) -> dict[str, Any]:
        (size,) = _HEADER.unpack(self._read(_HEADER.size))
        if size > MAX_FRAME:
            raise Gone
        try:
            message = json.loads(self._read(size))
        except (ValueError, RecursionError):
            raise Gone from None
        if not isinstance(message, dict):
            raise Gone
        return message

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = os.read(self.fd, min(size - len(data), 1 << 20))
            except OSError:
                more = b""
            if not more:
                raise Gone
            data += more
        return data

    # --- asking ---

    def name(self, name: str) -> Any:
        """What `name` means on the other side. Raises NameError."""
        return self.ask("name", 0, [name])

    def ask(self, op: str, number: int, args: list[Any] | None = None, named: dict[str, Any] | None = None) -> Any:
        """Do something with an object of the other side; mutable arguments that it changed are changed here too."""
        args = args or []
        values = [self.encode(a) for a in args]
        self.send(
            {"op": op, "on": number, "args": values, "named": {k: self.encode(v) for k, v in (named or {}).items()}}
        )
        while "op" in (reply := self.receive()):
            self.answer(reply)
        if "raised" in reply:
            raise _exception(reply)
        for at, value in (reply.get("changed") or {}).items():
            _overwrite(args[int(at)], self.decode(value))
        return self.decode(reply.get("value"))

    # --- answering ---

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            self.answer(self.receive())

    def answer(self, request: dict[str, Any]) -> None:
        try:
            reply = self._do(request)
            self.send(reply)
        except Gone:
            raise
        except BaseException as error:
            self.send(_describe(error))

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        op, values = request["op"], request["args"]
        if not self.open_handed and op != "call":
            raise PermissionError("objects of the tests may be called and nothing else")
        args = [self.decode(v) for v in values]
        if op == "name" and self.names:
            return {"value": self.encode(self.names(args[0]))}
        named = {k: self.decode(v) for k, v in request["named"].items()}
        result = _OPERATIONS[op](self.objects[request["on"]], *args, **named)
        after = {i: self.encode(a) for i, a in enumerate(args) if type(a) in _MUTABLE}
        return {"value": self.encode(result), "changed": {i: v for i, v in after.items() if v != values[i]}}

    # --- values ---

    def encode(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON; what is no plain data as a number that stands for it."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            value = int(value)
            return value if -(1 << 63) < value < 1 << 63 else {"int": hex(value)}
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, list):
            return [self.encode(v, depth + 1) for v in value]
        for tag, (kind, parts, _) in _PLAIN.items():
            if isinstance(value, kind):
                return {tag: [self.encode(v, depth + 1) for v in parts(value)]}
        for tag, (kind, text, _) in _TEXT.items():
            if isinstance(value, kind):
                return {tag: text(value)}
        return self._reference(value)

    def _reference(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"yours": value._number}
        if not self.open_handed and getattr(value, "__module__", "") == "builtins" and callable(value):
            return {"builtin": value.__name__}
        if not self.open_handed and not callable(value):
            raise Unspeakable(f"the tests hand over a {type(value).__name__}, which is no plain data")
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.objects) >= MAX_OBJECTS:
                raise ValueError("too many objects")
            number = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return {"mine": number}

    def decode(self, value: Any, depth: int = 0) -> Any:
        """The value that JSON stands for, made of exact built-in types and `Remote`s. ValueError and the like if none."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self.decode(v, depth + 1) for v in value]
        if not isinstance(value, dict):
            return value
        [(tag, body)] = value.items()
        if tag in _PLAIN:
            return _PLAIN[tag][2](self.decode(v, depth + 1) for v in body)
        if tag in _TEXT:
            return _TEXT[tag][2](body)
        if tag == "int":
            return int(body, 16)
        if tag == "mine":
            return Remote(self, body)
        if tag == "yours":
            return self.objects[body]
        if tag == "builtin" and self.open_handed:
            return getattr(builtins, body)
        raise ValueError(f"unknown value {tag!r}")


# tag -> (type, its parts, the type from its parts) and (type, its text, the type from its text); subclasses are made plain
_PLAIN: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, tuple.__iter__, tuple),
    "dict": (dict, lambda d: [list(i) for i in dict.items(d)], lambda items: dict((k, v) for k, v in items)),
    "set": (set, set.__iter__, set),
    "frozenset": (frozenset, frozenset.__iter__, frozenset),
    "deque": (deque, deque.__iter__, deque),
    "range": (range, lambda r: [r.start, r.stop, r.step], lambda parts: range(*parts)),
}
_TEXT: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, lambda b: bytes(b).hex(), bytes.fromhex),
    "bytearray": (bytearray, lambda b: bytes(b).hex(), bytearray.fromhex),
    "complex": (complex, lambda z: repr(complex(z)), complex),
    "decimal": (Decimal, lambda d: str(Decimal(d)), Decimal),
    "fraction": (Fraction, lambda q: f"{q.numerator}/{q.denominator}", Fraction),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
}


def _describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data: the nearest built-in class, and its text."""
    kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
    try:
        text = str(error)[:500]
    except BaseException:
        text = ""
    return {"raised": kind.__name__, "message": text}


def _exception(reply: dict[str, Any]) -> BaseException:
    """The built-in exception that a reply names. What would end the tests (SystemExit, …) is a RuntimeError here."""
    kind = getattr(builtins, str(reply["raised"]), RuntimeError)
    message = str(reply.get("message", ""))
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind, message = RuntimeError, f"{reply['raised']}: {message}"
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and the like want more arguments
        return RuntimeError(f"{reply['raised']}: {message}")


def _overwrite(target: Any, value: Any) -> None:
    """Make a mutable argument what the call left of it."""
    if type(target) is not type(value):
        return
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, dict | set):
        target.clear()
        target.update(value)

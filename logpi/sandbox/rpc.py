"""Values and calls between a program and its tests, which do not trust each other.

What crosses as a copy is numbers, texts, bytes and the built-in containers of them, each rebuilt as
exactly that type: no object of one side ever lives in the other, so none can claim to equal
    everything. Whatever else a side holds stays there, is named by a
number, and has a mirror on the other side (`mirrors.py`).

    frame     4 bytes of length, then JSON
    request   {"op": "call", "on": 3, "args": [...], "named": {...}}
    reply     {"value": ...} or {"raised": value of the exception}

While one side waits for a reply it answers the other's requests. Standard library only. Left out:
what becomes of a container that crossed and is changed later (arguments of the call that changes
them aside), and deadlines.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from logpi.sandbox.mirror_classes import class_of, mirror_of
from logpi.sandbox.mirrors import SPECIALS, Mirror
from logpi.sandbox.operations import operate
from logpi.sandbox.plain import (
    PLAIN,
    TAGS,
    Unspeakable,
    held,
    plain_base,
    rebuilt,
    shared_name,
    shared_type,
    tagged,
)

MAX_FRAME, MAX_DEPTH, MAX_OBJECTS = 64 << 20, 2000, 1_000_000
_HEADER = struct.Struct(">I")
_MUTABLE = (list, dict, set, bytearray)
_SAID = (
    "__name__",
    "__qualname__",
    "__doc__",
    "__module__",
)  # what a program may know of a function of the tests


class Gone(BaseException):
    """The other side ended. Not an Exception: tests that catch everything must not go on without
    the program."""


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """Room for values nested as deep as the language itself compares them."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 12 * MAX_DEPTH))
    try:
        yield
    finally:
        with contextlib.suppress(RecursionError):
            sys.setrecursionlimit(before)


class Connection:
    """One end of the socket.

    Args:
        fd: the socket.
        exposed: the other side may do anything with our objects, and look up names by `names`.
        names: what a name means to the other side. printed: takes what this side printed since, for
            the other to print.

    Attributes:
        asked: how often the other side was asked to do something. met: whether an object, and no
            plain data, was among the answers.
        believed: classes whose instances may answer for themselves beside plain data
            (`mirrors.py`).
        doubt: what rests on a program's word alone, if something does. forged: whether a word of it
            was seen to be false.
    """

    def __init__(
        self,
        fd: int,
        exposed: bool,
        names: Callable[[str], Any] | None = None,
        printed: Callable[[], str] | None = None,
    ) -> None:
        self.fd, self.exposed, self.names, self.printed = fd, exposed, names, printed
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.mirrors: dict[int, Any] = {}
        self.asked, self.met, self.doubt, self.forged = 0, False, "", False
        self.believed: set[type] = set()
        self.library: dict[type, type] = {}
        self.newest: Any = None
        self.tasks: Any = None  # what awaits for the other side
        self._lock = threading.RLock()

    # --- the wire ---

    def send(self, message: dict[str, Any]) -> None:
        with _deep():
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
            with _deep():
                message = json.loads(self._read(size))
        except (ValueError, RecursionError):
            raise Gone from None
        if not isinstance(message, dict):
            raise Gone
        return message

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            try:
                more = os.read(self.fd, min(size, 1 << 20))
            except OSError:
                more = b""
            if not more:
                raise Gone
            parts.append(more)
            size -= len(more)
        return b"".join(parts)

    # --- asking ---

    def name(self, name: str) -> Any:
        """What `name` means on the other side. Raises NameError."""
        before = self.met
        found = self.ask("name", 0, [name])
        self.met = before or not isinstance(found, FunctionType)  # functions are what tests expect
        self.asked += not callable(found)
        return found

    def ask(
        self,
        op: str,
        number: int,
        args: list[Any] | None = None,
        named: dict[str, Any] | None = None,
    ) -> Any:
        """Do something with an object of the other side; mutable arguments that it changed are
        changed here too."""
        args = args or []
        with self._lock:
            values = [self.encode(a) for a in args]
            more = {k: self.encode(v) for k, v in (named or {}).items()}
            self.asked += op != "name"
            self.send({"op": op, "on": number, "args": values, "named": more})
            while "op" in (reply := self.receive()):
                self.answer(reply)
            if "out" in reply:
                sys.stdout.write(str(reply["out"]))
            try:
                if "raised" in reply:
                    raise self._exception(reply["raised"])
                for at, value in (reply.get("changed") or {}).items():
                    _overwrite(args[int(at)], self.decode(value))
                if "argument" in reply:  # the program gave back what it was given
                    return args[int(reply["argument"])]
                return self.decode(reply.get("value"))
            except (LookupError, TypeError, AttributeError) as error:
                if "raised" in reply:
                    raise
                raise ValueError(f"an answer that makes no sense: {error}") from None

    def _exception(self, value: Any) -> BaseException:
        """What the other side raised, marked as its own. What is a word of this side's own test
        runner is a RuntimeError here."""
        try:
            error = self.decode(value)
        except Exception as bad:
            error = RuntimeError(f"an exception that makes no sense: {bad}")
        runner = any(c.__module__.startswith("unittest") for c in type(error).__mro__)
        if not isinstance(error, BaseException) or isinstance(error, GeneratorExit) or runner:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(Exception):
            BaseException.__setattr__(error, "_logpi_theirs", True)
        return error

    # --- answering ---

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            self.answer(self.receive())

    def answer(self, request: dict[str, Any]) -> None:
        try:
            reply: dict[str, Any] = self._do(request)
        except Gone:
            raise
        except BaseException as error:
            reply = {"raised": self._raised(error)}
        if self.printed is not None and (out := self.printed()):
            reply["out"] = out
        try:
            self.send(reply)
        except ValueError as error:  # too long
            self.send({"raised": self._raised(error)})

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        op, values, on = request["op"], request["args"], request["on"]
        args = [self.decode(v) for v in values]
        if op == "name" and self.names:
            return {"value": self.encode(self.names(args[0]))}
        named = {k: self.decode(v) for k, v in request["named"].items()}
        if not self.exposed:
            self._allow(op, self.objects[on], args)
        result = operate(self, op, self.objects[on], args, named)
        after = {i: self.encode(a) for i, a in enumerate(args) if type(a) in _MUTABLE}
        changed = {"changed": {i: v for i, v in after.items() if v != values[i]}}
        same = next((i for i in after if args[i] is result), None)
        return changed | ({"value": self.encode(result)} if same is None else {"argument": same})

    def _allow(self, op: str, thing: Any, args: list[Any]) -> None:
        """What a program may do with an object of the tests: call it; see and use what is public of
        a thing they made."""
        name = args[0] if args and isinstance(args[0], str) else ""
        own = _is_own(thing)
        if op == "call" or (op == "special" and (own or _is_iterator(thing))):
            return
        if op in ("get", "set") and own and not name.startswith("_"):
            return
        if op == "get" and callable(thing) and name in _SAID:
            return
        raise AttributeError(f"{op} {name}: the tests do not show it")

    # --- values ---

    def encode(self, value: Any) -> Any:
        """A value as JSON; what is no plain data as a number that stands for it."""
        with _deep():
            return self._encode(value, 0)

    def _encode(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is str:
            return value
        if kind is int:
            return value if -(1 << 63) < value < 1 << 63 else {"int": hex(value)}
        if kind is list:
            return [self._encode(v, depth + 1) for v in value]
        if kind in PLAIN:
            tag, parts = tagged(value)
            return {
                tag: parts
                if isinstance(parts, str)
                else [self._encode(v, depth + 1) for v in parts]
            }
        if isinstance(value, Mirror) and value._logpi_connection is self:
            return {"yours": value._logpi_number}
        if (shared := shared_name(value)) is not None:
            return {"std": shared}
        base = plain_base(kind)
        if base is not None and not self.exposed:
            return self._encode(
                held(base, value), depth
            )  # the program has no use for a class of the tests
        if isinstance(value, BaseException):
            return self._raised(value)
        return self._reference(value, base, depth)

    def _reference(self, value: Any, base: type | None, depth: int) -> dict[str, Any]:
        if not self.exposed and getattr(value, "__module__", "") == "builtins" and callable(value):
            return {"builtin": value.__name__}
        if not self.exposed and not (callable(value) or _is_own(value) or _is_iterator(value)):
            raise Unspeakable(
                f"the tests hand over a {type(value).__name__}, which is no plain data"
            )
        known = id(value) in self.numbers
        described: dict[str, Any] = {"mine": self._number(value)}
        if isinstance(value, type) and self.exposed:
            return described if known else described | {"class": class_of(self, value)}
        described["of"] = self._encode(type(value), depth) if self.exposed else None
        if not self.exposed:
            described["class"] = class_of(self, type(value))
        if base is not None:
            described["data"] = self._encode(held(base, value), depth + 1)
        return described

    def _number(self, value: Any) -> int:
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.objects) >= MAX_OBJECTS:
                raise ValueError("too many objects")
            number = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return number

    def _raised(self, error: BaseException) -> dict[str, Any]:
        """An exception: its class, its arguments as far as they can cross, and itself if it is of a
        class of its own."""
        if isinstance(error, Mirror) and error._logpi_connection is self:
            return {"yours": error._logpi_number}
        near = next(c for c in type(error).__mro__ if shared_name(c))
        value: dict[str, Any] = {"error": [], "of": {"std": shared_name(near)}}
        try:
            value["error"] = [self.encode(a) for a in error.args]
            if self.exposed and near is not type(error):
                value |= {"of": self.encode(type(error)), "mine": self._number(error)}
        except BaseException:  # an argument that cannot cross, or an object made to break this
            pass
        return value

    def decode(self, value: Any) -> Any:
        """The value that JSON stands for, made of exact built-in types and mirrors. ValueError and
        the like if none."""
        with _deep():
            return self._decode(value, 0)

    def _decode(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, list):
            return [self._decode(v, depth + 1) for v in value]
        if not isinstance(value, dict):
            return value
        if "mine" in value or "error" in value:
            self.met = self.met or "mine" in value
            return mirror_of(self, value, lambda v: self._decode(v, depth + 1))
        [(tag, body)] = value.items()
        if tag in TAGS:
            return rebuilt(
                tag, body if isinstance(body, str) else [self._decode(v, depth + 1) for v in body]
            )
        if tag == "int":
            return int(body, 16)
        if tag == "yours":
            return self.objects[body]
        if tag == "std":
            return shared_type(body)
        if tag == "builtin" and self.exposed:
            return getattr(builtins, body)
        raise ValueError(f"unknown value {tag!r}")


def _is_own(value: Any) -> bool:
    """Whether it is a thing with a public face that the tests made: an instance of a class of
    theirs, or a text stream."""
    kind = type(value)
    if callable(value) or (
        kind.__module__ != "__main__" and kind.__name__ not in ("StringIO", "BytesIO")
    ):
        return False
    public = [
        n
        for n in (*vars(kind), *getattr(value, "__dict__", ()))
        if not n.startswith("_") or n in SPECIALS
    ]
    return bool(public)


def _is_iterator(value: Any) -> bool:
    return getattr(type(value), "__next__", None) is not None


def _overwrite(target: Any, value: Any) -> None:
    """Make a mutable argument what the call left of it."""
    if type(target) is not type(value):
        return
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, dict | set):
        target.clear()
        target.update(value)

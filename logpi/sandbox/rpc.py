"""Remote calls between two processes: a program and its tests use each other's objects over a
socket.

Plain data crosses as a copy, any other object as a number. Here the tests run `s = Stack()`,
`s.push([1, 2])` and `s == 3` with a program's class:

    tests                                               program
    {"op": "name", "on": 0, "args": ["Stack"]}      ─▶  finds the class, gives it the number 0
                                                    ◀─  {"value": {"mine": 0, "class": {…}}}
    {"op": "call", "on": 0, "args": []}             ─▶  makes an instance, gives it the number 1
                                                    ◀─  {"value": {"mine": 1, "of": {"mine": 0}}}
    {"op": "get", "on": 1, "args": ["push"]}        ─▶  a bound method, number 2
    {"op": "call", "on": 2, "args": [[1, 2]]}       ─▶  pushes, and empties the list it was given
                                                    ◀─  {"value": null, "changed": {"0": []}}
    {"op": "special", "on": 1, "args": ["__eq__", 3]} ─▶ {"value": false}

Values in JSON: `3` and `[1, "a"]` are themselves; `{"tuple": [1, 2]}` has a tag (`plain.py`);
`{"mine": 1}` is the sender's object 1, `{"yours": 1}` the receiver's; `{"std": "builtins.int"}` is
a class that both have; `{"error": [args], "of": …}` is an exception. A side that waits for a reply
answers the other's requests. Standard library only. Left out: the socket (`wire.py`), changes of
containers after they crossed (except of a call's own arguments), and deadlines.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
from collections.abc import Callable
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
from logpi.sandbox.wire import MAX_DEPTH, Gone, Wire, deep

MAX_OBJECTS = 1_000_000
_MUTABLE = (list, dict, set, bytearray)
# the attributes of the tests' functions that a program may read
_READABLE = ("__name__", "__qualname__", "__doc__", "__module__")


class Connection(Wire):
    """One end of the socket.

    Args:
        fd: the socket.
        exposed: this is the program's end: the other side may do anything with its objects, and
            look up names by `names`.
        names: gives the object of a name.
        printed: takes the text that this side has printed since the last reply.

    Attributes:
        requests: the number of requests for an action.
        met: whether a reply contained an object other than plain data.
        believed: classes whose instances may decide how they compare with plain data
            (`mirrors.py`).
        doubt: the comparison that only the program decided; "" if there is none.
        forged: whether the program has answered falsely.
        objects: the objects of this side that the other knows, by number.
        mirrors: the mirrors of the other side's objects, by number. newest: the last one made.
        mirror_types: mirror classes for instances of classes that both sides have.
        tasks: the event loop and the tasks that the other side awaits.
    """

    def __init__(
        self,
        fd: int,
        exposed: bool,
        names: Callable[[str], Any] | None = None,
        printed: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(fd)
        self.exposed, self.names, self.printed = exposed, names, printed
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.mirrors: dict[int, Any] = {}
        self.requests, self.met, self.doubt, self.forged = 0, False, "", False
        self.believed: set[type] = set()
        self.mirror_types: dict[type, type] = {}
        self.newest: Any = None
        self.tasks: Any = None
        self._lock = threading.RLock()

    # --- requests ---

    def name(self, name: str) -> Any:
        """The other side's object of a name. Raises NameError."""
        before = self.met
        value = self.ask("name", 0, [name])
        # functions are what tests expect
        self.met = before or not isinstance(value, FunctionType)
        self.requests += not callable(value)
        return value

    def ask(
        self,
        op: str,
        number: int,
        args: list[Any] | None = None,
        named: dict[str, Any] | None = None,
    ) -> Any:
        """Request an operation on the other side's object `number`, and return its result.

        Mutable arguments that it changes there change here too.
        """
        args = args or []
        with self._lock:
            values = [self.encode(a) for a in args]
            more = {k: self.encode(v) for k, v in (named or {}).items()}
            self.requests += op != "name"
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
                # the program returned one of its arguments
                if "argument" in reply:
                    return args[int(reply["argument"])]
                return self.decode(reply.get("value"))
            except (LookupError, TypeError, AttributeError) as error:
                if "raised" in reply:
                    raise
                raise ValueError(f"an answer that makes no sense: {error}") from None

    def _exception(self, value: Any) -> BaseException:
        """The other side's exception, marked as such. An exception of unittest, which would steer
        the test runner, becomes a RuntimeError."""
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

    # --- replies ---

    def serve(self) -> None:
        """Answer requests until the other side has gone."""
        while True:
            self.answer(self.receive())

    def answer(self, request: dict[str, Any]) -> None:
        """Carry out a request and send the reply."""
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
        # the reply is too long
        except ValueError as error:
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
        """Raise AttributeError for an operation that a program may not do with an object of the
        tests.

        It may call an object, and use the public attributes of an instance of the tests' classes.
        """
        name = args[0] if args and isinstance(args[0], str) else ""
        own = _is_own(thing)
        if op == "call" or (op == "special" and (own or _is_iterator(thing))):
            return
        if op in ("get", "set") and own and not name.startswith("_"):
            return
        if op == "get" and callable(thing) and name in _READABLE:
            return
        raise AttributeError(f"{op} {name}: the tests do not show it")

    # --- values ---

    def encode(self, value: Any) -> Any:
        """A value as JSON: plain data as itself, any other object as its number."""
        with deep():
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
            # the program cannot use a class of the tests
            return self._encode(held(base, value), depth)
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
        """An exception as JSON: its class, the arguments that can cross, and its number if the
        class is the program's own."""
        if isinstance(error, Mirror) and error._logpi_connection is self:
            return {"yours": error._logpi_number}
        near = next(c for c in type(error).__mro__ if shared_name(c))
        value: dict[str, Any] = {"error": [], "of": {"std": shared_name(near)}}
        try:
            value["error"] = [self.encode(a) for a in error.args]
            if self.exposed and near is not type(error):
                value |= {"of": self.encode(type(error)), "mine": self._number(error)}
        # an argument that cannot cross, or a hostile object
        except BaseException:
            pass
        return value

    def decode(self, value: Any) -> Any:
        """The value of JSON, made of exact built-in types and mirrors.

        Raises ValueError, TypeError, LookupError or AttributeError for other JSON.
        """
        with deep():
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
    """Whether a value is a stream or an instance of the tests' classes, with public attributes."""
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
    """Give a mutable argument its contents after the call."""
    if type(target) is not type(value):
        return
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, dict | set):
        target.clear()
        target.update(value)

"""Mirrors: proxies on one side for objects of the other. Each operation on a mirror asks the other
side.

    the program's process                    the tests' process
    class Stack; s = Stack()   object 7  ◀── mirror 7:   s.push(3)  →  {"op": "get", "on": 7, …}
                                                         len(s)     →  {"op": "special", "on": 7, …}

The program decides a mirror's answers. This is harmless between two objects of the program, and for
plain data that it returns. It is harmful when tests compare with plain data of their own
(`f(x) == 3`, `f(x) - 3`, `3 in f(x)`), as a program could answer "equal" to anything. There the
answer counts only for an instance that the tests made of a class that they know
(`Connection.believed`). Questions about random values catch an object that claims to equal
everything. Any other case leaves a doubt, and so no verdict. Left out: making mirrors
(`mirror_classes.py`), and the operations on the other side (`operations.py`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from logpi.sandbox.plain import Unspeakable, held, is_plain

_BINARY = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and or xor".split()
COMPARED = {f"__{n}__" for n in ("eq", "ne", "lt", "le", "gt", "ge")} | {"__contains__"}
_CLAIMS = COMPARED | {f"__{side}{n}__" for n in _BINARY for side in ("", "r")}
SPECIALS = _CLAIMS | {f"__i{n}__" for n in _BINARY if n != "divmod"}
SPECIALS |= {
    f"__{n}__"
    for n in (
        "len bool str repr iter next reversed hash int float complex index neg pos abs invert bytes"
        " trunc floor ceil enter exit aenter aexit aiter anext call getitem setitem delitem format"
        " round length_hint fspath"
    ).split()
}
_VERDICTS = {
    n
    for kind in (str, frozenset)
    for n in dir(kind)
    if n.startswith(("is", "startswith", "endswith"))
}
IMMUTABLE = (int, float, str, tuple, bytes, frozenset, complex)
MUTABLE = (list, dict, set, bytearray, deque)


class MirrorType(type):
    """The type of mirrored classes. A call makes an instance on the other side. Attributes are
    those of the class there."""

    _logpi_class: tuple[Any, int] | None

    def __call__(cls, *args: Any, **named: Any) -> Any:
        connection, number = cls._logpi_class  # type: ignore[misc]
        instance = connection.ask("call", number, list(args), named)
        if cls in connection.believed and instance is connection.newest:
            set_private(instance, "_logpi_made", True)
        return instance

    def __getattr__(cls, name: str) -> Any:
        place = cls.__dict__.get("_logpi_class")
        if (
            place is None
            or name.startswith("_logpi")
            or name in ("__abstractmethods__", "__isabstractmethod__")
        ):
            raise AttributeError(name)
        return place[0].ask("get", place[1], [name])

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):
            return type.__setattr__(cls, name, value)
        connection, number = cls._logpi_class  # type: ignore[misc]
        connection.ask("set", number, [name, value])

    def __bool__(cls) -> bool:
        return True

    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(cls, instance) or cls._logpi_asks("isinstance", instance)

    def __subclasscheck__(cls, other: Any) -> bool:
        return type.__subclasscheck__(cls, other) or cls._logpi_asks("issubclass", other)

    def _logpi_asks(cls, op: str, other: Any) -> bool:
        """The answer of a program's abstract class or protocol about another object of its own."""
        if not cls.__dict__.get("_logpi_virtual") or not isinstance(type(other), type(MirrorType)):
            return False
        known = issubclass(type(type(other)), MirrorType) or issubclass(type(other), MirrorType)
        if not known or cls._logpi_class is None:
            return False
        connection, number = cls._logpi_class
        return connection.ask(op, number, [other]) is True


def set_private(mirror: Any, name: str, value: Any) -> None:
    setter = BaseException.__setattr__ if isinstance(mirror, BaseException) else object.__setattr__
    setter(mirror, name, value)


class Mirror(metaclass=MirrorType):
    """The mirror of an object of the other side.

    Attributes (all begin with `_logpi`; any other name is the object's own):
        connection: the connection to the other side.
        number: the object's number there.
        made: whether the tests made it of a class that they know.
    """

    __slots__ = ()
    _logpi_class = None
    _logpi_connection: Any
    _logpi_number: int
    _logpi_made: bool

    def __init_subclass__(cls) -> None:
        if "_logpi_class" not in cls.__dict__ and cls.__module__ != __name__:
            raise Unspeakable("the tests derive a class from one of the program's")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_logpi"):
            raise AttributeError(name)
        if name in _VERDICTS and not self._logpi_made:
            self._logpi_connection.doubt = (
                f"an object of the program's own class says itself what .{name} is of it"
            )
        return self._logpi_connection.ask("get", self._logpi_number, [name])

    def __setattr__(self, name: str, value: Any) -> None:
        # the interpreter sets these on an exception
        if name.startswith("__"):
            return set_private(self, name, value)
        self._logpi_connection.ask("set", self._logpi_number, [name, value])

    def __delattr__(self, name: str) -> None:
        self._logpi_connection.ask("del", self._logpi_number, [name])

    def __dir__(self) -> Any:
        return self._logpi_connection.ask("dir", self._logpi_number)

    def __copy__(self) -> Any:
        return self._logpi_connection.ask("copy", self._logpi_number)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._logpi_connection.ask("deepcopy", self._logpi_number)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise Unspeakable("the tests pickle an object of the program")


class Thing(Mirror):
    """A mirror without data."""

    __slots__ = ("__weakref__", "_logpi_connection", "_logpi_made", "_logpi_number")


def forward(name: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any, **named: Any) -> Any:
        return _special(self, name, args, named)

    special.__name__ = name
    return special


def _special(self: Any, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    place, made = self._logpi_class, False
    if not isinstance(self, MirrorType):
        place, made = (self._logpi_connection, self._logpi_number), self._logpi_made
    connection, number = place
    if name == "__call__":
        return connection.ask("call", number, list(args), named)
    if name in ("__exit__", "__aexit__"):
        # a traceback does not cross
        args = (*args[:2], None)
    try:
        result = connection.ask("special", number, [name, *args])
    except Unspeakable:
        if name in _CLAIMS:
            # then the other operand decides, such as `approx`
            return NotImplemented
        raise
    if name == "__enter__" and result is self:
        set_private(self, "_logpi_made", made)
    if name in _CLAIMS and not made and not connection.exposed and is_plain(args[0]):
        _doubt(connection, self, number, name, args[0], result)
    return result


def _doubt(connection: Any, mirror: Any, number: int, name: str, beside: Any, result: Any) -> None:
    """Record a doubt: the program decided a comparison with plain data of the tests.

    Raises:
        AssertionError: the object claims to equal everything.
    """
    if result is NotImplemented or (name in COMPARED and not result):
        return
    # `sum` begins with 0
    if name == "__radd__" and beside == 0:
        return
    if (
        name == "__eq__"
        and isinstance(mirror, IMMUTABLE)
        and held(data_base(type(mirror)), mirror) == beside
    ):
        return
    if name in ("__eq__", "__contains__") and all(
        _says_yes(connection, number, name, x) for x in _unknown_values()
    ):
        connection.forged = True
        raise AssertionError("an object of the program claims to equal everything")
    connection.doubt = (
        "an object of the program's own class says itself how it compares with"
        f" {str(beside)[:40]!r}"
    )


def _unknown_values() -> list[Any]:
    """Random values, which no program can expect."""
    number = random.SystemRandom().getrandbits(60)
    return [number, -number / 7, f"x{number}", [number]]


def _says_yes(connection: Any, number: int, name: str, beside: Any) -> bool:
    try:
        answer = connection.ask("special", number, [name, beside])
        return answer is not NotImplemented and bool(answer)
    except Exception:
        return False


def data_base(kind: type) -> Any:
    """The built-in container or number that a class derives from, or None."""
    return next((b for b in kind.__mro__ if b in IMMUTABLE or b in MUTABLE), None)

"""What stands on one side for an object of the other: a mirror, which asks for everything that it
is asked.

A class of the program is mirrored by a class, with mirrors of its bases, so that isinstance,
`except`, `with`, +, <, repr, await, sets and sorting work as they would beside the program; an
instance of a subclass of tuple, int, … has the plain data besides.

A mirror answers what the program wants it to answer, which is harmless between two objects of the
program and for what comes back as plain data. It is not where the tests hold it against plain data
of their own (`f(x) == 3`, `f(x) - 3`, `3 in f(x)`): a program could answer "equal" there. Such a
word is believed only of an instance that the tests themselves made of a class that they know to be
one (`Connection.believed`); one that claims to equal everything is told by asking about things that
nobody named; the rest is doubt. Left out: what is done there with the object (`operations.py`), and
classes that tests derive from the program's.
"""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from logpi.sandbox.plain import PLAIN, Unspeakable, held, is_plain, shared_name

_BINARY = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and or xor".split()
_COMPARED = {f"__{n}__" for n in ("eq", "ne", "lt", "le", "gt", "ge")} | {"__contains__"}
_CLAIMS = _COMPARED | {f"__{side}{n}__" for n in _BINARY for side in ("", "r")}
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
_IMMUTABLE = (int, float, str, tuple, bytes, frozenset, complex)
_MUTABLE = (list, dict, set, bytearray, deque)


# --- the class of a mirror ---


def class_of(connection: Any, kind: type) -> dict[str, Any]:
    """A class as plain data: its name, which operators it has, and (of the program alone) its
    bases."""
    told = {"name": kind.__name__, "specials": _specials(kind)}
    if connection.exposed:
        told["bases"] = [connection.encode(b) for b in kind.__bases__ if b is not object]
        told["meta"] = _specials(type(kind)) if type(kind) is not type else []
        told["virtual"] = type(kind) is not type
        told["awaits"] = getattr(kind, "__await__", None) is not None
        told |= {k: str(getattr(kind, f"__{k}__", "")) for k in ("module", "qualname")}
    return told


def _kept(base: type) -> bool:
    """Whether a class of the library is a base of the mirror too."""
    return issubclass(base, BaseException) or base in _IMMUTABLE or base in _MUTABLE


def _base(base: type) -> type | None:
    """What the mirror of a class derived from `base` is derived from."""
    return (
        base if isinstance(base, _MirrorType) else next((k for k in base.__mro__ if _kept(k)), None)
    )


def _specials(kind: type) -> list[str]:
    """The operators that a class does not have from `object` or from a base that its mirror has
    too; "-" before one that it forbids."""
    found = []
    for name in sorted(SPECIALS):
        origin = next((c for c in kind.__mro__ if name in vars(c)), object)
        if origin is object or origin is type or (_kept(origin) and shared_name(origin)):
            continue
        found.append(name if getattr(kind, name, None) is not None else f"-{name}")
    return found


class _MirrorType(type):
    """The type of mirrored classes: a call makes an instance there, attributes are those there."""

    _logpi_class: tuple[Any, int] | None

    def __call__(cls, *args: Any, **named: Any) -> Any:
        connection, number = cls._logpi_class  # type: ignore[misc]
        made = connection.ask("call", number, list(args), named)
        if cls in connection.believed and made is connection.newest:
            _set(made, "_logpi_made", True)
        return made

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
        """What an abstract class or protocol of the program says of another thing of the
        program."""
        if not cls.__dict__.get("_logpi_virtual") or not isinstance(type(other), type(_MirrorType)):
            return False
        known = issubclass(type(type(other)), _MirrorType) or issubclass(type(other), _MirrorType)
        return known and cls._logpi_class[0].ask(op, cls._logpi_class[1], [other]) is True  # type: ignore[index]


def _set(mirror: Any, name: str, value: Any) -> None:
    setter = BaseException.__setattr__ if isinstance(mirror, BaseException) else object.__setattr__
    setter(mirror, name, value)


class Mirror(metaclass=_MirrorType):
    """An object of the other side. Attributes that it lacks are asked for."""

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
        if name.startswith("__"):  # what the interpreter notes of an exception
            return _set(self, name, value)
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


class _Thing(Mirror):
    """A mirror without data."""

    __slots__ = ("__weakref__", "_logpi_connection", "_logpi_made", "_logpi_number")


def _forward(name: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any, **named: Any) -> Any:
        return _special(self, name, args, named)

    special.__name__ = name
    return special


def _special(self: Any, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    place, made = self._logpi_class, False
    if not isinstance(self, _MirrorType):
        place, made = (self._logpi_connection, self._logpi_number), self._logpi_made
    connection, number = place
    if name == "__call__":
        return connection.ask("call", number, list(args), named)
    if name in ("__exit__", "__aexit__"):
        args = (*args[:2], None)  # a traceback is nothing for others
    try:
        result = connection.ask("special", number, [name, *args])
    except Unspeakable:
        if name in _CLAIMS:
            return NotImplemented  # `approx` and the like know better
        raise
    if name == "__enter__" and result is self:
        _set(self, "_logpi_made", made)
    if name in _CLAIMS and not made and not connection.exposed and is_plain(args[0]):
        _doubt(connection, self, number, name, args[0], result)
    return result


def _doubt(connection: Any, mirror: Any, number: int, name: str, beside: Any, result: Any) -> None:
    """The program has answered for an object that stood beside plain data of the tests."""
    if result is NotImplemented or (name in _COMPARED and not result):
        return
    if name == "__radd__" and beside == 0:  # where `sum` begins
        return
    if (
        name == "__eq__"
        and isinstance(mirror, _IMMUTABLE)
        and held(_data_base(type(mirror)), mirror) == beside
    ):
        return
    if name in ("__eq__", "__contains__") and all(
        _says_yes(connection, number, name, x) for x in _unheard_of()
    ):
        connection.forged = True
        raise AssertionError("an object of the program claims to equal everything")
    connection.doubt = (
        "an object of the program's own class says itself how it compares with"
        f" {str(beside)[:40]!r}"
    )


def _unheard_of() -> list[Any]:
    number = random.SystemRandom().getrandbits(60)
    return [number, -number / 7, f"x{number}", [number]]


def _says_yes(connection: Any, number: int, name: str, beside: Any) -> bool:
    try:
        answer = connection.ask("special", number, [name, beside])
        return answer is not NotImplemented and bool(answer)
    except Exception:
        return False


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **named: Any) -> Any:
        return self._logpi_connection.ask("method", self._logpi_number, [name, *args], named)

    return method


def _by_data(name: str) -> Callable[..., Any]:
    """A comparison of a mutable container that the program left as it is: of what it holds now, and
    made here."""

    def compare(self: Any, other: Any) -> Any:
        if isinstance(other, _MUTABLE) and isinstance(other, Mirror):
            other = other._logpi_connection.ask("data", other._logpi_number)
        return getattr(self._logpi_connection.ask("data", self._logpi_number), name)(other)

    return compare


def _members(specials: list[str], bases: tuple[type, ...]) -> dict[str, Any]:
    """The methods of a mirrored class."""
    space: dict[str, Any] = {}
    mutable = next((m for b in bases for m in b.__mro__ if m in _MUTABLE), None)
    if mutable is not None:
        for name in dir(mutable):
            if name in _COMPARED:
                space[name] = _by_data(name)
            elif name in SPECIALS and getattr(mutable, name) not in (
                None,
                getattr(object, name, 0),
            ):
                space[name] = _forward(name)
            elif not name.startswith("_"):
                space[name] = _method(name)
    for name in specials:
        space[name.lstrip("-")] = None if name.startswith("-") else _forward(name)
    if "__eq__" in space:
        space.setdefault("__hash__", None)
    return space


def _new_class(
    connection: Any, number: int, told: dict[str, Any], decode: Callable[[Any], Any]
) -> type:
    """The mirror of a class."""
    bases = [k for b in map(decode, told.get("bases", ())) for k in [_base(b)] if k is not None]
    real = any(_kept(b) or not issubclass(b, _Thing) for b in bases)
    if not any(isinstance(b, _MirrorType) for b in bases):
        bases.insert(0, Mirror if real else _Thing)
    name, meta = str(told["name"]), _MirrorType
    own = [
        s
        for s in told.get("meta", ())
        if s in SPECIALS and s not in ("__call__", "__bool__", "__hash__", "__eq__")
    ]
    if own:
        meta = type("_MirrorType", (_MirrorType,), {s: _forward(s) for s in own})
    space = {
        "_logpi_class": (connection, number),
        "__module__": str(told.get("module", "")),
        **({} if real else {"__slots__": ()}),
    }
    space["__qualname__"] = str(told.get("qualname") or name)
    space["_logpi_virtual"] = bool(told.get("virtual"))
    specials = [s for s in told["specials"] if s.lstrip("-") in SPECIALS]
    if told.get("awaits"):
        space["__await__"] = _await
    try:
        return meta(name, tuple(bases), space | _members(specials, tuple(bases)))
    except TypeError:  # bases that do not go together here
        return meta(name, (_Thing,), space | {"__slots__": ()} | _members(specials, ()))


def _library_class(connection: Any, real: type) -> type:
    """The mirror class of instances of a class that both sides have (functions, generators,
    matches, …)."""
    found = connection.library.get(real)
    if found is None:
        space = {"_logpi_class": (connection, -1), "__slots__": (), "__module__": real.__module__}
        space |= _members(_specials(real), ()) | (
            {"__await__": _await} if getattr(real, "__await__", None) else {}
        )
        if not (_kept(real) or real in PLAIN or real is bool):
            space["__class__"] = property(lambda self: real)
        found = connection.library[real] = _MirrorType(real.__name__, (_Thing,), space)
    return found


# --- mirrors ---


def mirror_of(connection: Any, value: dict[str, Any], decode: Callable[[Any], Any]) -> Any:
    """The mirror for a reference, an exception for an exception."""
    if "error" in value:
        return _exception(connection, value, decode)
    number = int(value["mine"])
    mirror = connection.mirrors.get(number)
    if mirror is None:
        if "class" in value and "of" not in value:
            mirror = _new_class(connection, number, value["class"], decode)
        else:
            mirror = _instance(connection, number, value, decode)
        connection.mirrors[number] = connection.newest = mirror
    elif not isinstance(mirror, type):
        _set(
            mirror, "_logpi_made", False
        )  # what the program hands back is no longer what the tests made
    if (
        type(mirror).__dict__.get("__class__")
        and getattr(mirror, "__class__", None) is types.CoroutineType
    ):
        return _awaiting(mirror)
    return mirror


def _instance(
    connection: Any, number: int, value: dict[str, Any], decode: Callable[[Any], Any]
) -> Any:
    kind = (
        _new_class(connection, -1, value["class"], decode)
        if "class" in value
        else decode(value["of"])
    )
    if not isinstance(kind, _MirrorType):
        kind = _library_class(connection, kind)
    base: Any = _data_base(kind)
    if base is None and issubclass(kind, BaseException):
        base = next(b for b in kind.__mro__ if not isinstance(b, _MirrorType))
    data = [decode(value["data"])] if "data" in value and base is not None else []
    mirror = (base or object).__new__(kind, *(data if base in _IMMUTABLE else ()))
    if base in _MUTABLE:
        base.__init__(mirror, *data)  # type: ignore[misc]
    for name, what in (("connection", connection), ("number", number), ("made", False)):
        _set(mirror, f"_logpi_{name}", what)
    return mirror


def _data_base(kind: type) -> Any:
    return next((b for b in kind.__mro__ if b in _IMMUTABLE or b in _MUTABLE), None)


def _exception(
    connection: Any, value: dict[str, Any], decode: Callable[[Any], Any]
) -> BaseException:
    kind, args = decode(value["of"]), [decode(a) for a in value["error"]]
    if not issubclass(kind, BaseException):
        return RuntimeError(f"{kind.__name__}: {args}"[:500])
    real = next(b for b in kind.__mro__ if not isinstance(b, _MirrorType))
    error = real.__new__(kind, *args)
    try:
        real.__init__(error, *args)
    except TypeError:  # JSONDecodeError and the like are made of other things than their `args`
        BaseException.__setattr__(error, "args", tuple(args))
    if isinstance(kind, _MirrorType):
        for name, what in (
            ("connection", connection),
            ("number", int(value["mine"])),
            ("made", False),
        ):
            _set(error, f"_logpi_{name}", what)
    return error


# --- awaiting ---


def _await(self: Any) -> Any:
    """Run there what is awaited here, a little at a time, so that others here have their turn."""
    connection = self._logpi_connection
    number = connection.ask("start", self._logpi_number)
    try:
        while True:
            done, value = connection.ask("poll", self._logpi_number, [number])
            if done:
                number = None
                return value
            yield
    finally:
        if number is not None:
            connection.ask("cancel", self._logpi_number, [number])


async def _awaiting(mirror: Any) -> Any:
    return await mirror

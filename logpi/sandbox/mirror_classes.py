"""Makes mirrors: their classes, instances and exceptions, and awaits them.

    from the program       {"name": "Stack", "specials": ["__len__", "-__hash__"], "bases": […], …}
    in the tests           class Stack(Thing): __len__ asks the program; __hash__ = None

The mirror of a class is a class with mirrors of its bases. So isinstance, `except`, `with`, +, <,
repr, await, sets and sorting work as in one process. The mirror of an instance of a subclass of
tuple, int, … also has the plain data. Left out: the behaviour of a mirror (`mirrors.py`), and
classes that tests derive from the program's.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from logpi.sandbox.mirrors import (
    COMPARED,
    IMMUTABLE,
    MUTABLE,
    SPECIALS,
    Mirror,
    MirrorType,
    Thing,
    data_base,
    forward,
    set_private,
)
from logpi.sandbox.plain import PLAIN, shared_name

# --- classes ---


def class_of(connection: Any, kind: type) -> dict[str, Any]:
    """A class as plain data: its name, the operators it has and, from the program, its bases."""
    description = {"name": kind.__name__, "specials": _specials(kind)}
    if connection.exposed:
        description["bases"] = [connection.encode(b) for b in kind.__bases__ if b is not object]
        description["meta"] = _specials(type(kind)) if type(kind) is not type else []
        description["virtual"] = type(kind) is not type
        description["awaits"] = getattr(kind, "__await__", None) is not None
        description |= {k: str(getattr(kind, f"__{k}__", "")) for k in ("module", "qualname")}
    return description


def _kept(base: type) -> bool:
    """Whether a class of the library is a base of the mirror itself."""
    return issubclass(base, BaseException) or base in IMMUTABLE or base in MUTABLE


def _base(base: type) -> type | None:
    """The base of a mirror whose class derives from `base`."""
    return (
        base if isinstance(base, MirrorType) else next((k for k in base.__mro__ if _kept(k)), None)
    )


def _specials(kind: type) -> list[str]:
    """The operators of a class that its mirror does not inherit from `object` or the library; "-"
    before one that the class sets to None."""
    names = []
    for name in sorted(SPECIALS):
        origin = next((c for c in kind.__mro__ if name in vars(c)), object)
        if origin is object or origin is type or (_kept(origin) and shared_name(origin)):
            continue
        names.append(name if getattr(kind, name, None) is not None else f"-{name}")
    return names


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **named: Any) -> Any:
        return self._logpi_connection.ask("method", self._logpi_number, [name, *args], named)

    return method


def _by_data(name: str) -> Callable[..., Any]:
    """A comparison of a program's container by the container's own rule, computed on this side from
    the current contents."""

    def compare(self: Any, other: Any) -> Any:
        if isinstance(other, MUTABLE) and isinstance(other, Mirror):
            other = other._logpi_connection.ask("data", other._logpi_number)
        return getattr(self._logpi_connection.ask("data", self._logpi_number), name)(other)

    return compare


def _members(specials: list[str], bases: tuple[type, ...]) -> dict[str, Any]:
    """The methods of a mirrored class."""
    space: dict[str, Any] = {}
    mutable = next((m for b in bases for m in b.__mro__ if m in MUTABLE), None)
    if mutable is not None:
        for name in dir(mutable):
            if name in COMPARED:
                space[name] = _by_data(name)
            elif name in SPECIALS and getattr(mutable, name) not in (
                None,
                getattr(object, name, 0),
            ):
                space[name] = forward(name)
            elif not name.startswith("_"):
                space[name] = _method(name)
    for name in specials:
        space[name.lstrip("-")] = None if name.startswith("-") else forward(name)
    if "__eq__" in space:
        space.setdefault("__hash__", None)
    return space


def _new_class(
    connection: Any, number: int, description: dict[str, Any], decode: Callable[[Any], Any]
) -> type:
    """The mirror of a class."""
    bases = [
        k for b in map(decode, description.get("bases", ())) for k in [_base(b)] if k is not None
    ]
    real = any(_kept(b) or not issubclass(b, Thing) for b in bases)
    if not any(isinstance(b, MirrorType) for b in bases):
        bases.insert(0, Mirror if real else Thing)
    name, meta = str(description["name"]), MirrorType
    own = [
        s
        for s in description.get("meta", ())
        if s in SPECIALS and s not in ("__call__", "__bool__", "__hash__", "__eq__")
    ]
    if own:
        meta = type("MirrorType", (MirrorType,), {s: forward(s) for s in own})
    space = {
        "_logpi_class": (connection, number),
        "__module__": str(description.get("module", "")),
        **({} if real else {"__slots__": ()}),
    }
    space["__qualname__"] = str(description.get("qualname") or name)
    space["_logpi_virtual"] = bool(description.get("virtual"))
    specials = [s for s in description["specials"] if s.lstrip("-") in SPECIALS]
    if description.get("awaits"):
        space["__await__"] = _await
    try:
        return meta(name, tuple(bases), space | _members(specials, tuple(bases)))
    # the bases do not combine on this side
    except TypeError:
        return meta(name, (Thing,), space | {"__slots__": ()} | _members(specials, ()))


def _library_class(connection: Any, real: type) -> type:
    """The mirror class for instances of a class that both sides have (functions, generators,
    matches, …)."""
    mirror_class = connection.mirror_types.get(real)
    if mirror_class is None:
        space = {"_logpi_class": (connection, -1), "__slots__": (), "__module__": real.__module__}
        space |= _members(_specials(real), ()) | (
            {"__await__": _await} if getattr(real, "__await__", None) else {}
        )
        if not (_kept(real) or real in PLAIN or real is bool):
            space["__class__"] = property(lambda self: real)
        mirror_class = connection.mirror_types[real] = MirrorType(real.__name__, (Thing,), space)
    return mirror_class


# --- objects ---


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
        # once the program returns an object, it no longer counts as made by the tests
        set_private(mirror, "_logpi_made", False)
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
    if not isinstance(kind, MirrorType):
        kind = _library_class(connection, kind)
    base: Any = data_base(kind)
    if base is None and issubclass(kind, BaseException):
        base = next(b for b in kind.__mro__ if not isinstance(b, MirrorType))
    data = [decode(value["data"])] if "data" in value and base is not None else []
    mirror = (base or object).__new__(kind, *(data if base in IMMUTABLE else ()))
    if base in MUTABLE:
        base.__init__(mirror, *data)  # type: ignore[misc]
    for name, what in (("connection", connection), ("number", number), ("made", False)):
        set_private(mirror, f"_logpi_{name}", what)
    return mirror


def _exception(
    connection: Any, value: dict[str, Any], decode: Callable[[Any], Any]
) -> BaseException:
    kind, args = decode(value["of"]), [decode(a) for a in value["error"]]
    if not issubclass(kind, BaseException):
        return RuntimeError(f"{kind.__name__}: {args}"[:500])
    real = next(b for b in kind.__mro__ if not isinstance(b, MirrorType))
    error = real.__new__(kind, *args)
    try:
        real.__init__(error, *args)
    # JSONDecodeError and others take other arguments than their `args`
    except TypeError:
        BaseException.__setattr__(error, "args", tuple(args))
    if isinstance(kind, MirrorType):
        for name, what in (
            ("connection", connection),
            ("number", int(value["mine"])),
            ("made", False),
        ):
            set_private(error, f"_logpi_{name}", what)
    return error


# --- awaiting ---


def _await(self: Any) -> Any:
    """Let the other side run an awaitable in short slices, so that other tasks here take their
    turn."""
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

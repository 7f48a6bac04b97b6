"""The record of an object in a run's arguments. A resumed run compares it with the object that it
gets.

    {"object": "function score", "fingerprint": "9f2c31d0a4b7e856"}

The same script makes the same fingerprints in another process; other source text, data, weights or
settings make others. Left out: objects without any of these are told apart by their class alone.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

SAMPLED = 1024
"""Numbers of each weight that count: enough to tell two models apart, without reading all."""


def recorded(value: Any) -> dict[str, str]:
    """The record of an object."""
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(piece.encode() + b"\0")
    return {"object": described(value), "fingerprint": digest.hexdigest()[:16]}


def is_record(value: Any) -> bool:
    """Whether a saved value stands for an object."""
    return isinstance(value, Mapping) and value.keys() == {"object", "fingerprint"}


def has_record(value: Any) -> bool:
    """Whether a saved value, or an item of a saved list, stands for an object."""
    return any(map(is_record, value if isinstance(value, list) else [value]))


def described(value: Any) -> str:
    """A description for people: `function score`, `Dataset of 120 rows`."""
    if inspect.isroutine(value) or inspect.isclass(value):
        kind = "class" if inspect.isclass(value) else "function"
        return f"{kind} {value.__name__}"
    if isinstance(value, partial):
        return f"partial of {described(value.func)}"
    size = f" of {len(value)} rows" if isinstance(value, list) or _is_table(value) else ""
    return f"{type(value).__name__}{size}"


def shown(saved: Any) -> str:
    """A saved value for people; objects by what they are and their fingerprints."""
    if isinstance(saved, list):
        return "[" + ", ".join(map(shown, saved)) + "]"
    return f"{saved['object']} ({saved['fingerprint']})" if is_record(saved) else repr(saved)


def _pieces(value: Any) -> Iterator[str]:
    """Texts that tell an object from others of its kind."""
    yield type(value).__qualname__
    if isinstance(value, partial):
        yield from _pieces([value.func, list(value.args), value.keywords])
    elif inspect.isroutine(value) or inspect.isclass(value):
        yield from _code(value)
    elif isinstance(value, str | int | float | bool | None):
        yield repr(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, set | frozenset):
        yield from sorted("\n".join(_pieces(item)) for item in value)
    elif isinstance(value, Mapping):
        yield json.dumps(value, default=lambda v: "\n".join(_pieces(v)), sort_keys=True)
    elif callable(getattr(value, "state_dict", None)):
        yield from _weights(value.state_dict())
    elif _is_table(value):
        yield from _rows(value)
    elif callable(getattr(value, "to_dict", None)):
        # a configuration of transformers or peft
        yield from _pieces(value.to_dict())
    elif " at 0x" not in (text := repr(value)):
        yield text


def _code(value: Callable[..., Any]) -> Iterator[str]:
    """A function's or class's name, source text and bound values."""
    yield f"{getattr(value, '__module__', '')}.{value.__qualname__}".replace("__main__", "")
    try:
        yield inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        yield repr((code.co_code, code.co_consts)) if code is not None else ""
    for cell in getattr(value, "__closure__", None) or ():
        bound = cell.cell_contents
        yield repr(bound) if isinstance(bound, str | int | float | bool | None) else ""


def _weights(state: Mapping[str, Any]) -> Iterator[str]:
    for name, weight in state.items():
        yield name
        if callable(getattr(weight, "detach", None)):
            flat = weight.detach().flatten()
            few = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED]
            yield f"{tuple(weight.shape)} {few.double().cpu().numpy().tobytes().hex()}"


def _is_table(value: Any) -> bool:
    has = set(dir(type(value)))
    return "__len__" in has and bool({"column_names", "to_dict"} & has)


def _rows(value: Any) -> Iterator[str]:
    """A `datasets.Dataset` knows its own fingerprint; a frame is read row by row."""
    own = getattr(value, "_fingerprint", None)
    if isinstance(own, str):
        yield own
    else:
        yield str(value.to_dict())

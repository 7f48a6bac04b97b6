"""Whether a value is of the kind that an annotation names, so that a setting given as text is refused in words and not in the midst of work.

    misfit("float | None", "abc")      -> "a number, or null for none"

Leaves out ranges: what numbers mean is known where they are used.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

__all__ = ["misfit"]

_WORDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "text", "None": "null for none",
    "tuple[int, ...]": "widths like [64,64]",
}  # fmt: skip


def misfit(kind: str, value: Any) -> str | None:
    """What a value should have been, or None if it fits. Kinds that are not in `_WORDS` are classes, whose objects only Python gives.

    >>> misfit("int | None", 2.5), misfit("int | None", None), misfit("Weight", "TokenMean")
    ('a whole number, or null for none', None, 'an object of the class Weight, which only Python code can give')
    """
    kinds = [k.strip() for k in kind.split("|")]
    if any(_fits(k, value) for k in kinds):
        return None
    objects = [f"an object of the class {k}, which only Python code can give" for k in kinds if k not in _WORDS]
    return ", or ".join([*objects, *(_WORDS[k] for k in kinds if k in _WORDS)])


def _fits(kind: str, value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)  # Python's bools are ints
    match kind:
        case "None":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return number and isinstance(value, Integral)
        case "float":
            return number and value == value  # not NaN
        case "str":
            return isinstance(value, str)
        case "tuple[int, ...]":
            return isinstance(value, list | tuple) and all(_fits("int", x) for x in value)
    return not isinstance(value, str | Real | list | tuple | dict | None)

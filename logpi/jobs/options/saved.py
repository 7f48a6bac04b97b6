"""Options as plain values, to be saved with a run and to come back whole (`fields.py`).

Left out: the file they are saved in (`runs/directory.py`), and files that people write
(`config.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from logpi.errors import UserError, did_you_mean
from logpi.jobs.options.fields import OptionField, option_fields, pairs
from logpi.jobs.options.fingerprint import has_record, recorded

T = TypeVar("T")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        # JSON has no tuples for keys: the grid world's {(3, 1): 5.0} becomes {"(3, 1)": 5.0}
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float | bool | None):
        return value
    return _part(value) or recorded(value)


def _part(value: Any) -> str | None:
    """The word of an algorithm's part, which stands for it wherever the run is resumed."""
    from logpi.algorithms.parts import word_of

    return word_of(value)


def _word(value: Any) -> Any:
    """An option's word, or the record of the object in its place."""
    if isinstance(value, tuple):
        return [_word(v) for v in value]
    return value if isinstance(value, str | int | float | None) else recorded(value)


def to_json(arguments: Any) -> dict[str, Any]:
    """The arguments as plain JSON values, complete: a run can be repeated from them after defaults
    have changed. Objects are recorded by their fingerprints."""
    fields = [f for f in option_fields(type(arguments)) if f.saved]
    return {f.name: (_word if f.objects else _plain)(getattr(arguments, f.name)) for f in fields}


def from_json(cls: type[T], saved: Mapping[str, Any], source: str = "saved arguments") -> T:
    """The arguments that `to_json` saved. What is missing (an older version's run) takes its
    default.

    Raises:
        UserError: an unknown name, a value of the wrong type, a required one missing, or values
            that do not go together.
    """
    values = values_of(cls, saved, source)
    for field in option_fields(cls):
        if field.required and field.name not in values:
            raise UserError(f"{source} lack {field.name!r}")
    try:
        return cls(**values)
    except (UserError, ValueError) as error:  # from the dataclass's own checks
        raise UserError(f"{source}: {error}") from None


def values_of(cls: type, saved: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Plain values as those of the dataclass's fields; an alias is its field.

    Raises:
        UserError: an unknown name or a value of the wrong type.
    """
    fields = {name: f for f in option_fields(cls) for name in (f.name, *f.aliases)}
    for name in saved:
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise UserError(f"{source} have an unknown option {name!r}{hint}")
    return {
        fields[name].name: restored(fields[name], value, source)
        for name, value in saved.items()
        if fields[name].saved
    }


def restored(field: OptionField, value: Any, source: str = "saved arguments") -> Any:
    """One option's value from a plain one.

    Raises:
        UserError: it is of the wrong type or out of bounds.
    """
    kind = field.kind
    if field.objects and has_record(value):
        raise UserError(
            f"the run was begun from Python with an object as its {field.name}: resume it from the"
            " same script, with resume=PATH"
        )
    try:
        if value is None and kind.optional:
            return None
        if kind.named:
            return pairs(value)
        if not kind.many:
            return field.read(str(_scalar(value)))
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list")
        return tuple(field.read(str(_scalar(v))) for v in value)
    except ValueError as error:
        raise UserError(f"{source}: {field.name}: {error}") from None


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a text or a number")
    return value

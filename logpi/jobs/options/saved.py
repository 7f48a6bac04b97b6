"""Options as plain values, to be saved with a run and to come back whole (`fields.py`).

Left out: the file they are saved in (`runs/directory.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from logpi.errors import UserError, did_you_mean
from logpi.jobs.options.fields import OptionField, option_fields
from logpi.jobs.options.fingerprint import is_record, recorded

T = TypeVar("T")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else recorded(value)


def to_json(arguments: Any) -> dict[str, Any]:
    """The arguments as plain JSON values, complete: a run can be repeated from them after defaults
    have changed. Objects are recorded by their fingerprints."""
    return {
        o.name: _plain(getattr(arguments, o.name))
        for o in option_fields(type(arguments))
        if o.saved
    }


def from_json(cls: type[T], saved: Mapping[str, Any]) -> T:
    """The arguments that `to_json` saved. What is missing (an older version's run) takes its
    default.

    Raises:
        UserError: an unknown name, a value of the wrong type, a required one missing, or values
            that do not go together.
    """
    options = {o.name: o for o in option_fields(cls)}
    for name in saved:
        if name not in options:
            raise UserError(
                f"saved arguments have an unknown option {name!r}{did_you_mean(name, options)}"
            )
    for o in options.values():
        if o.required and o.name not in saved:
            raise UserError(f"saved arguments lack {o.name!r}")
    values = {
        name: _restored(options[name], value)
        for name, value in saved.items()
        if options[name].saved
    }
    try:
        return cls(**values)
    except ValueError as error:  # from the dataclass's own checks
        raise UserError(f"saved arguments: {error}") from None


def restored(cls: type, name: str, value: Any) -> Any:
    """One saved argument, by its name. Raises UserError as `from_json`."""
    return _restored(next(o for o in option_fields(cls) if o.name == name), value)


def _restored(option: OptionField, value: Any) -> Any:
    if any(is_record(v) for v in (value if isinstance(value, list) else [value])):
        raise UserError(
            f"the run was begun from Python with an object as its {option.name}: go on with it from"
            " the same script, with resume=PATH"
        )
    try:
        if value is None and option.kind.optional:
            return None
        if option.kind.many:
            if not isinstance(value, list):
                raise ValueError(f"{value!r} is not a list")
            value = [_scalar(v) for v in value]
            return tuple(option.read(str(v)) for v in value)
        return option.read(str(_scalar(value)))
    except ValueError as error:
        raise UserError(f"saved arguments: {option.name}: {error}") from None


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a text or a number")
    return value

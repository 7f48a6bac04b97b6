"""A job's options as keyword arguments of its class: words as on the command line, or the objects
that they stand for.

    RL(model=model, task=dataset, rewards=[score, "think_answer:0.1"], beta=0, learning_rate=1e-5)

An algorithm's own settings (`beta`) and other libraries' names (`learning_rate`) are taken as flags
are. Left out: what an object must be able to do, which is said where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logpi.errors import UserError, did_you_mean
from logpi.jobs.options.fields import OptionField, option_fields


def from_keywords(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Field values of the job class `cls`.

    Raises:
        UserError: an unknown name, or a value of another type than the option's.
    """
    fields = {o.name: o for o in option_fields(cls)}
    recipe = getattr(cls, "RECIPES", {}).get(keywords.get("recipe"), {})
    values: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in {**recipe, **keywords}.items():
        known = name if name in fields else _other_libraries(name)
        if known in fields:
            values[known] = coerced(fields[known], value)
        else:
            own[name] = value
    if own:
        _check_settings(cls, fields, values, own)
        values["options"] = (*values.get("options", ()), *(_written(k, v) for k, v in own.items()))
    return values


JOB_NAMES = {"learning_rate": "lr", "output_dir": "out"}


def _other_libraries(name: str) -> str:
    return JOB_NAMES.get(name, name)


def _check_settings(
    cls: type, fields: Mapping[str, OptionField], values: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Raises UserError for a name that neither the job nor its algorithm has."""
    names = set(fields)
    row = next(
        (values.get(x, fields[x].default) for x in ("algorithm", "objective") if x in fields), None
    )
    if "options" in fields and isinstance(row, str):
        from logpi.algorithms import known_as, options

        names |= set(getattr(cls, "SETTINGS", ()))
        names |= {getattr(o, "name", o) for o in options(row)}
        if all(known_as(row, name) in names for name in own):
            return
    elif "options" in fields:
        raise UserError(
            f"{', '.join(own)}: an algorithm that is an object has its settings already"
        )
    unknown = next(name for name in own if name not in names)
    raise UserError(f"{cls.__name__} has no option {unknown!r}{did_you_mean(unknown, names)}")


def _written(name: str, value: Any) -> str:
    """A setting as `--options` has it."""
    try:
        return f"{name}={json.dumps(value, allow_nan=False)}"
    except (TypeError, ValueError):
        raise UserError(
            f"{name}={value!r}: a setting is a number, a text or true and false; give others with"
            " algorithm=logpi.algorithm(NAME, …)"
        ) from None


def coerced(option: OptionField, value: Any) -> Any:
    """A value as the field holds it: a word read as on the command line, or an object as it is.

    Raises:
        UserError: it is neither, or out of the option's range.
    """
    try:
        if option.kind.many:
            many = value if isinstance(value, list | tuple) else (value,)
            return None if value is None else tuple(_one(option, item) for item in many)
        return _one(option, value)
    except ValueError as error:
        raise UserError(f"{option.name}: {error}") from None


def _one(option: OptionField, value: Any) -> Any:
    if value is None and (option.kind.optional or option.default is None):
        return None
    if isinstance(value, str | Path) or (isinstance(value, int | float) and not option.objects):
        return option.read(str(value))
    if not option.objects:
        raise ValueError(f"{value!r} is not {option.kind.expected}")
    return value

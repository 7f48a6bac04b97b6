"""How a job appears in Python: its signature, its documentation and its repr.

    >>> import logpi
    >>> logpi.SFT(model="my-model", task=[{"prompt": "1+1=", "completion": "2"}], lr=1e-4)
    SFT(model='my-model', task=<list of 1 rows>, lr=0.0001)

Left out: `--help` (`command_line.py`).
"""

from __future__ import annotations

import inspect
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from logpi.jobs.options.fields import OptionField, option_fields
from logpi.jobs.options.fingerprint import described

# Options of the command line alone.
COMMANDS_OWN = ("repeat", "seeds", "at_once")


def ordered(cls: type) -> list[OptionField]:
    """A job's options, those that people set first in front."""
    first = getattr(cls, "FIRST", "").split()
    fields = [f for f in option_fields(cls) if f.name not in COMMANDS_OWN]
    return sorted(fields, key=lambda f: first.index(f.name) if f.name in first else len(first))


def signature(cls: type) -> Signature:
    """Names and defaults, and that an algorithm's own settings are taken too."""
    options = [
        Parameter(
            f.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if f.required else f.default,
        )
        for f in ordered(cls)
    ]
    own = any(f.name == "options" for f in ordered(cls))
    rest = [Parameter("settings", Parameter.VAR_KEYWORD)] if own else []
    return Signature([*options, *rest])


def documentation(cls: type) -> str:
    """A line for each option."""
    lines = [f"    {f.name}: {_in_python(f)}" for f in ordered(cls)]
    own = any(f.name == "options" for f in ordered(cls))
    rest = "\n    settings: of the algorithm, such as beta=0; see `logpi describe NAME`"
    return "\n".join(["Options:", *lines]) + (rest if own else "")


def _in_python(option: OptionField) -> str:
    """What an option does, what it may be, and whether an object may stand for it."""
    # a function of choices would import what a job needs only when it runs
    words = [repr(a) for a in (() if callable(option.choices) else option.choices or ()) if a]
    notes = ["one of " + ", ".join(words)] if words else []
    notes += ["or an object"] if option.objects and not option.hidden else []
    return f"{option.help} ({'; '.join(notes)})" if notes else option.help


def text(job: Any) -> str:
    """A job as it would be written, without what stands at its default; objects by their kind."""
    values = [(f, getattr(job, f.name)) for f in ordered(type(job))]
    chosen = (f"{f.name}={_value(v)}" for f, v in values if not _is_default(f, v))
    name = getattr(job, "PUBLIC", type(job).__name__)
    return f"{name}({', '.join(chosen)})"


def _is_default(option: OptionField, value: Any) -> bool:
    # an object may compare oddly (arrays, frames), a word never does
    return type(value) is type(option.default) and _is_word(value) and value == option.default


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_value(v)}" for k, v in value.items()) + "}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    if _is_word(value):
        return repr(value) if isinstance(value, str | int | float | None) else repr(str(value))
    return f"<{described(value)}>"


def _is_word(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_word, value))
    if isinstance(value, dict):
        return all(map(_is_word, value.values()))
    return isinstance(value, str | int | float | Path | None)

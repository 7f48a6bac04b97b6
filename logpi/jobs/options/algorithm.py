"""An algorithm's own settings as flags of a job: `logpi rl --algorithm dapo --high 0.3`, and its
parts: `--advantage "GroupNorm(ddof=0)"`.

The list is `logpi.algorithms.options`, what other libraries call them `logpi.algorithms.names`.
Left out: what only Python can give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from logpi.jobs.options.fields import READERS, FieldType, OptionField

if TYPE_CHECKING:
    from logpi.algorithms import Option

# Settings that a job chooses itself.
DECIDED = ("recorded", "sampled")
OF = "settings of "
KINDS = {kind.__name__: kind for kind in READERS}


def flags_of_algorithm(known: Mapping[str, Any]) -> list[OptionField]:
    """The settings of the chosen algorithm as options; none without a name, so that a plain
    `--help` loads nothing.

    Raises:
        ValueError, UserError: there is no such algorithm.
    """
    name = known.get("algorithm")
    return fields_of(name) if isinstance(name, str) else []


def fields_of(name: str) -> list[OptionField]:
    """The settings of an algorithm that a command line can give, as options."""
    from logpi.algorithms import options

    heading = OF + name
    return [_field(o, heading) for o in options(name) if o.is_word and o.name not in DECIDED]


def no_such_part(flag: str, settings: Iterable[OptionField]) -> str:
    """Why a flag that chooses a part of some algorithms is none of this one; "" if it chooses no
    part."""
    from logpi.algorithms.parts import AXES

    name = flag.lstrip("-").replace("-", "_")
    algorithm = next((f.heading.removeprefix(OF) for f in settings if f.heading.startswith(OF)), "")
    return f"{algorithm} has no part called {name}" if algorithm and name in AXES else ""


def _field(setting: Option, heading: str) -> OptionField:
    kinds = [k.strip() for k in setting.kind.split("|")]
    # a part is a word, which the algorithm reads
    item = str if setting.axis else next(KINDS[k] for k in kinds if k in KINDS)
    kind = FieldType(item, optional="None" in kinds)
    # A number must be finite; the algorithm checks the rest.
    least = -math.inf if kind.item in (int, float) else None
    return OptionField(
        setting.name,
        kind,
        setting.default,
        heading,
        setting.help,
        least=least,
        aliases=setting.aliases,
    )


def without(fields: Iterable[OptionField], names: Iterable[str]) -> list[OptionField]:
    """The fields that have none of these names."""
    return [f for f in fields if f.name not in set(names)]

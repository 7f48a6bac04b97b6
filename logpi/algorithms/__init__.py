"""Algorithms: named compositions, by name, from a user's file or as a value.

    algorithm("dapo", high=0.3)    the value            describe("dapo")    the same as mathematics
    options("dapo")                every option that `algorithm("dapo", …)` accepts

    composition.py   `Algorithm`, the value
    table.py, group_rows.py, preference_rows.py    THE TABLE: the parts of each method
    names.py         other libraries' names of methods, options and settings
    option_list.py   the options of a method
    by_name.py       from a name to a value
    parts.py         the parts of an algorithm by word
    description.py   an algorithm as mathematics
    texts.py         where the three texts have a method
    choosing.py      what one has decides the method

Everything is imported when it is first used, so `names` alone loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Algorithm": "composition",
    "NAMES": "table",
    "TABLE": "table",
    "learning_from": "table",
    "Option": "option_list",
    "known_as": "option_list",
    "options": "option_list",
    "algorithm": "by_name",
    "describe": "by_name",
}
__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from logpi.algorithms.by_name import algorithm, describe
    from logpi.algorithms.composition import Algorithm
    from logpi.algorithms.option_list import Option, known_as, options
    from logpi.algorithms.table import NAMES, TABLE, learning_from


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(f"logpi.algorithms.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'logpi.algorithms' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

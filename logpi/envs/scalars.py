"""Reads an environment's reward as one number and the end of an episode as true or false; other
values are an error of one line.

Left out: observations (`control/spaces.py`), and Gymnasium itself, which text environments do not
need.
"""

from __future__ import annotations

from typing import Any

from logpi.errors import UserError

OLD = (
    "old Gym's environments are wrapped by the package shimmy, your own need a few lines: "
    "gymnasium.farama.org, migration guide"
)


def number(reward: Any) -> float:
    """A reward as a number. Raises UserError if it is none, or several."""
    value = reward if isinstance(reward, float | int) else _single(reward)
    if value is None:
        raise UserError(
            f"the environment gave a reward that is not one number: {str(reward)[:60]!r}"
        )
    return float(value)


def flag(over: Any, name: str) -> bool:
    """Whether an episode is over. Raises UserError if `over` is neither true nor false."""
    value = over if isinstance(over, bool) else _single(over)
    if value not in (0, 1):
        raise UserError(
            f"the environment's step gave {str(over)[:60]!r} as {name}, which is true or false:"
            f" {OLD}"
        )
    return bool(value)


def _single(value: Any) -> float | None:
    """The number of a NumPy scalar or an array of one number; None for other values."""
    # imported here: text environments rarely need it
    import numpy as np

    array = np.asarray(value)
    return array.item() if array.size == 1 and array.dtype.kind in "biuf" else None

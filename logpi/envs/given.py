"""Rewards and ends of episodes as environments give them, of numbers or of text: one number, true or false, or one line that says what.

Left out: observations (`spaces.py`), and Gymnasium itself, which text environments do without.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from logpi.errors import UserError

__all__ = ["OLD", "flag", "number"]

OLD = "old Gym's environments are wrapped by the package shimmy, your own need a few lines: gymnasium.farama.org, migration guide"


def number(reward: Any) -> float:
    """A reward as a number. Raises UserError if it is none, or several."""
    if isinstance(reward, float | int):
        return float(reward)
    found = np.asarray(reward)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise UserError(f"the environment gave a reward that is not one number: {str(reward)[:60]!r}")
    return float(found.item())


def flag(over: Any, name: str) -> bool:
    """Whether an episode is over. Raises UserError if that is neither true nor false."""
    if isinstance(over, bool | np.bool_):
        return bool(over)
    found = np.asarray(over)
    if found.size != 1 or found.dtype.kind not in "biuf" or found.item() not in (0, 1):
        raise UserError(f"the environment's step gave {str(over)[:60]!r} as {name}, which is true or false: {OLD}")
    return bool(found.item())

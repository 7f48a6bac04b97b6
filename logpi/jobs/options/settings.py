"""Settings written `NAME=VALUE`, as words of a command line.

Left out: which settings there are (`logpi.algorithms.options`, `envs/control/presets.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from logpi.errors import UserError


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["high=0.3", "whiten=true"]` as a dictionary; values are JSON (numbers are finite) where
    they parse as such, else plain text.

    >>> settings(["high=0.3", "whiten=true", "kl_estimator=k2"])
    {'high': 0.3, 'whiten': True, 'kl_estimator': 'k2'}
    """
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"an option is NAME=VALUE, not {pair!r}")
        try:
            out[name.replace("-", "_")] = json.loads(
                value, parse_float=_finite, parse_constant=_finite
            )
        except (ValueError, RecursionError):
            out[name.replace("-", "_")] = value
    return out

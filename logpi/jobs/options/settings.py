"""Settings written `NAME=VALUE`, as words of a command line.

Left out: which settings there are (`logpi.algorithms.options`, `envs/control/presets.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def setting(pair: str) -> tuple[str, Any]:
    """A name and its value, which is JSON (a number is finite) where it parses as such, else text.

    Raises ValueError if the word is no pair.

    >>> setting("high=0.3"), setting("kl-estimator=k2")
    (('high', 0.3), ('kl_estimator', 'k2'))
    """
    name, equals, text = pair.partition("=")
    if not equals:
        raise ValueError(f"an option is NAME=VALUE, not {pair[:60]!r}")
    return name.replace("-", "_"), value(text)


def pairs(given: Any) -> dict[str, Any]:
    """Settings as a mapping: of a mapping, or of words NAME=VALUE. Raises ValueError for others."""
    if isinstance(given, Mapping):
        return {str(k).replace("-", "_"): v for k, v in given.items()}
    words = [given] if isinstance(given, str) else given
    if isinstance(words, list | tuple) and all(isinstance(word, str) for word in words):
        return dict(setting(word) for word in words)
    raise ValueError(f"{given!r} is not a list of NAME=VALUE, nor a mapping")


def value(text: str) -> Any:
    """What a text stands for: `0.3`, `true` and `[64,64]` are JSON, everything else is itself."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return text

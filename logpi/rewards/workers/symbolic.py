"""Equality of two answers that takes many digits, as a worker process works it out: one pair a
call.

What runs too long is ended from outside, by CPU time (`processes.py`). Left out: what exact
rational numbers decide at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# a checkout that is not installed, or another one than that
if (ROOT := str(Path(__file__).parents[3])) not in sys.path:
    sys.path.insert(1, ROOT)

from logpi.rewards.answers import read
from logpi.rewards.equality import Equality


def equal(prompts: list[Any], completions: list[str], *, gold: list[str]) -> list[float]:
    """1.0 or 0.0 for each pair of answers that can be read."""
    return [
        float(Equality().same(read(g), read(c))) for g, c in zip(gold, completions, strict=True)
    ]

"""Compares answers by values of many digits, in a worker process: one pair a call.

The parent limits the CPU time of a call (`processes.py`). Left out: pairs that exact rational
numbers decide at once (`math.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# the checkout of this file may not be the installed one
if (ROOT := str(Path(__file__).parents[3])) not in sys.path:
    sys.path.insert(1, ROOT)

from logpi.rewards.answers import read
from logpi.rewards.equality import Equality


def equal(prompts: list[Any], completions: list[str], *, gold: list[str]) -> list[float]:
    """1.0 or 0.0 for each pair of readable answers."""
    pairs = zip(gold, completions, strict=True)
    return [float(Equality().same(read(g), read(c))) for g, c in pairs]

"""Several processes: who they are, how work is dealt to them, and weights in shards."""

from __future__ import annotations

import os
import sys

__all__ = ["cores", "ranks"]


def ranks() -> int:
    """The number of processes that a launcher (torchrun, `logpi launch`) has started."""
    said = os.environ.get("WORLD_SIZE", "1")
    return int(said) if said.isdecimal() else 1


def cores() -> int:
    """The cores that this process may use: its share where several ranks are on one machine."""
    here = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    said = os.environ.get("LOCAL_WORLD_SIZE", "1")
    ranks_here = int(said) if said.isdecimal() else 1
    return max(1, here // max(1, ranks_here))

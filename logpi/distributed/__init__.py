"""Several processes: who they are, how work is dealt to them, and weights in shards."""

from __future__ import annotations

import os

__all__ = ["ranks"]


def ranks() -> int:
    """The number of processes that a launcher (torchrun, `logpi launch`) has started."""
    said = os.environ.get("WORLD_SIZE", "1")
    return int(said) if said.isdecimal() else 1

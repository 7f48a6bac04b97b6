"""Several processes: who they are, how work is dealt to them, and weights in shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

__all__ = ["cores", "quiet_ranks", "rank", "ranks"]


def ranks() -> int:
    """The number of processes that a launcher (torchrun, `logpi launch`) has started."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among them, from 0."""
    return _number("RANK", 0) if ranks() > 1 else 0


def cores() -> int:
    """The cores that this process may use: its share where several ranks are on one machine."""
    here = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, here // max(1, _number("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def quiet_ranks() -> Iterator[None]:
    """The first rank speaks for all: the others print nothing meanwhile."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        yield


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else otherwise

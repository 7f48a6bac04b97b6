"""Several processes: who they are, how work is dealt to them, and weights in shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from logpi.distributed.processors import Processors, allowed, quota

__all__ = ["cores", "number_of", "quiet_ranks", "rank", "ranks"]


def ranks() -> int:
    """The number of processes that a launcher (torchrun, `logpi launch`) has started."""
    return number_of("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among them, from 0."""
    return number_of("RANK", 0) if ranks() > 1 else 0


def cores() -> int:
    """The cores that this process may use, by its affinity and its container's quota: its share
    where several ranks are on one machine."""
    here = Processors(len(allowed()), quota())
    return max(1, here.limit // max(1, number_of("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def quiet_ranks() -> Iterator[None]:
    """The first rank speaks for all: the others print nothing meanwhile."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        yield


def number_of(variable: str, otherwise: int, environ: Mapping[str, str] | None = None) -> int:
    """The whole number that an environment variable holds."""
    text = (os.environ if environ is None else environ).get(variable, "")
    return int(text) if text.isdecimal() else otherwise

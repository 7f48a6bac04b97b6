"""Runs: what goes to disk and to the eyes. A run's directory, its checkpoints, trackers, progress
and pictures.

Left out: when any of it happens (`logpi.train`). Nothing here knows what a policy or an algorithm
is. What loads torch is imported when it is first used: a command's `--help` needs none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.runs.directory import Run, read_arguments
    from logpi.runs.metrics import is_time, read_metrics
    from logpi.runs.progress import Progress
    from logpi.runs.rng import load_rng_state, rng_state, seed

_WHERE = {
    "Progress": "progress",
    "Run": "directory",
    "RunView": "reading",
    "is_time": "metrics",
    "load_rng_state": "rng",
    "open_run": "reading",
    "read_arguments": "directory",
    "read_metrics": "metrics",
    "rng_state": "rng",
    "seed": "rng",
}
__all__ = [
    "Progress",
    "Run",
    "is_time",
    "load_rng_state",
    "read_arguments",
    "read_metrics",
    "rng_state",
    "seed",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"logpi.runs.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'logpi.runs' has no attribute {name!r}")

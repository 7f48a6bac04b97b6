"""Runs: what goes to disk and to the eyes. A run's directory, its checkpoints, trackers, progress and pictures.

Left out: when any of it happens (`logpi.train`). Nothing here knows what a policy or an algorithm is.
"""

from __future__ import annotations

from logpi.runs.directory import Run, read_arguments
from logpi.runs.metrics import is_time, read_metrics
from logpi.runs.progress import Progress
from logpi.runs.rng import load_rng_state, rng_state, seed

__all__ = ["Progress", "Run", "is_time", "load_rng_state", "read_arguments", "read_metrics", "rng_state", "seed"]

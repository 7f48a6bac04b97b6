"""The states of all global random generators as plain data. With them in its checkpoint a resumed
run draws the same numbers.

Left out: generators that parts own (a sampler's `torch.Generator`, an environment's); those are in
their own state.
"""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch


def seed(value: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(value)
    numpy.random.seed(value % 2**32)
    torch.manual_seed(value)


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's global generators (CUDA's too, once CUDA is in
    use)."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if used else [],
    }


def load_rng_state(state: dict[str, Any]) -> None:
    """Set the generators to what `rng_state` returned."""
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    here = range(torch.cuda.device_count())  # a run may be resumed on another machine
    for device, saved in zip(here, state["cuda"], strict=False):
        torch.cuda.set_rng_state(saved, device)

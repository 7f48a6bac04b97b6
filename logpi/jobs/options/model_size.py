"""Options that a job takes from its model's size where the user gave none: learning rates, and how
many prompts an update of reinforcement learning samples.

    parameters      rl: lr, warmup, prompts    sft lr    prefer lr    reward-model lr
    below 10 M      3e-4, 5, 32                1e-3      1e-4         1e-3
    below 300 M     5e-6, 5,  8                1e-4      5e-6         1e-4
    more            1e-6, 0, 32                2e-5      1e-6         1e-5

With LoRA every rate is ten times that (Schulman et al. 2025, LoRA Without Regret), but none above
1e-3. Groups have 8 responses whatever the model.

Sources. The first two lines are this project's own measurements (docs/results.md, docs/r1.md):
models of 0.15 and 1.2 M, and SmolLM2-135M, which with 64 responses an update gains at 5e-6 and
drifts at 1e-5. The third is published: 1e-6 in DAPO (arXiv:2503.14476, 32 B), Dr. GRPO
(arXiv:2503.20783, 1.5 and 7 B, 8 responses) and TRL's defaults (8 responses); 32 prompts in
DeepSeek-R1 (Nature 645, 633). SFT and DPO: TRL's defaults. Reward models: between R1's 6e-6 and
TRL's 1e-4.

Left out: the KL coefficient, which is the algorithm's own (`logpi describe`), whatever the model.
"""

from __future__ import annotations

import sys
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from logpi.jobs.job import Setup

J = TypeVar("J", bound=Any)

LORA = 10.0
LARGEST_LORA = 1e-3

# a model with fewer parameters than the first of these is of size 0, than the second of size 1
BOUNDS = (10e6, 300e6)
# of each command, for models of size 0, 1 and 2
SETTINGS: dict[str, dict[str, tuple[float, float, float]]] = {
    "rl": {"lr": (3e-4, 5e-6, 1e-6), "warmup": (5, 5, 0), "prompts": (32, 8, 32)},
    "sft": {"lr": (1e-3, 1e-4, 2e-5)},
    "prefer": {"lr": (1e-4, 5e-6, 1e-6)},
    "reward-model": {"lr": (1e-3, 1e-4, 1e-5)},
}


def size(parameters: float) -> int:
    """
    >>> size(9_999_999), size(10e6), size(135e6), size(7e9)
    (0, 1, 1, 2)
    """
    return bisect(BOUNDS, parameters)


def by_size(command: str, parameters: float, lora: bool = False) -> dict[str, float]:
    """The settings of a command for a model with this many parameters.

    >>> by_size("rl", 135e6), by_size("sft", 7e9, lora=True)
    ({'lr': 5e-06, 'warmup': 5, 'prompts': 8}, {'lr': 0.0002})
    """
    settings = {k: values[size(parameters)] for k, values in SETTINGS[command].items()}
    if lora:
        settings["lr"] = min(settings["lr"] * LORA, LARGEST_LORA)
    return settings


def settled(job: J, model: nn.Module, set_up: Callable[[J], Setup]) -> Setup:
    """What `set_up` makes of the job, with what its user left open filled in from the size of its
    model as it was loaded. A line says so, after `set_up`, which may refuse the job. The run
    records these values, so a resumed run keeps them."""
    number = parameters(model)
    known = by_size(job.COMMAND, number, lora=bool(job.lora))
    settings = {k: v for k, v in known.items() if getattr(job, k) is None}
    whole = replace(job, **settings)
    setup = set_up(whole)
    if settings:
        words = ", ".join(f"{k} {v:g}" for k, v in settings.items())
        print(f"{_count(number)} parameters, so by default: {words}", file=sys.stderr)
    return replace(setup, settled=whole)


def parameters(model: nn.Module) -> int:
    """The number of a model's parameters. A weight of 4 bits counts as what it was packed from:
    bitsandbytes keeps two numbers in a byte, and the shape that they had in `quant_state`."""
    packed = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if state is None else prod(state.shape) for p, state in packed)


def said(command: str, name: str) -> str:
    """An option's defaults as words of its help.

    >>> said("rl", "prompts")
    'by the model: 32 below 10 M parameters, 8 below 300 M, else 32'
    """
    first, second, last = (f"{x:g}" for x in SETTINGS[command][name])
    few, many = (f"{x / 1e6:g} M" for x in BOUNDS)
    lora = f"; with --lora {LORA:g} times that, at most {LARGEST_LORA:g}" if name == "lr" else ""
    return f"by the model: {first} below {few} parameters, {second} below {many}, else {last}{lora}"


def _count(parameters: int) -> str:
    """Three digits: 812 k, 135 M, 7.24 G."""
    for below, unit, name in ((1e6, 1e3, "k"), (1e9, 1e6, "M"), (float("inf"), 1e9, "G")):
        if parameters < below:
            return f"{parameters / unit:.3g} {name}"
    raise AssertionError

"""Options that a job takes from its model's size where the user gave none: learning rates, and how
many prompts an update of reinforcement learning samples.

    parameters      rl: lr, warmup, prompts    sft lr    prefer lr    reward-model lr
    below 10 M      3e-4, 5, 32                1e-3      1e-4         1e-3
    below 300 M     5e-6, 5,  8                1e-4      5e-6         1e-4
    more            1e-6, 0, 32                2e-5      1e-6         1e-5

With LoRA every rate is ten times that (Schulman et al. 2025, LoRA Without Regret), but none above
1e-3. Groups have 8 responses whatever the model.

Sources. The first two lines are this project's own measurements (docs/results.md, docs/r1.md):
models of 0.15 and 0.8 M, and SmolLM2-135M, which with 64 responses an update gains at 5e-6 and
drifts at 1e-5. The third is published: 1e-6 in DAPO (arXiv:2503.14476, 32 B), Dr. GRPO
(arXiv:2503.20783, 1.5 and 7 B, 8 responses) and TRL's defaults (8 responses); 32 prompts in
DeepSeek-R1 (Nature 645, 633). SFT and DPO: TRL's defaults. Reward models: between R1's 6e-6 and
TRL's 1e-4.

Left out: the KL coefficient, which is the algorithm's own (`logpi describe`), whatever the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

J = TypeVar("J", bound=Any)

LORA = 10.0
LARGEST_LORA = 1e-3


@dataclass(frozen=True)
class Size:
    """What fits models of fewer than `below` parameters: settings of each command."""

    below: float
    commands: Mapping[str, Mapping[str, float]]


SIZES = (
    Size(
        10e6,
        {
            "rl": {"lr": 3e-4, "warmup": 5, "prompts": 32},
            "sft": {"lr": 1e-3},
            "prefer": {"lr": 1e-4},
            "reward-model": {"lr": 1e-3},
        },
    ),
    Size(
        300e6,
        {
            "rl": {"lr": 5e-6, "warmup": 5, "prompts": 8},
            "sft": {"lr": 1e-4},
            "prefer": {"lr": 5e-6},
            "reward-model": {"lr": 1e-4},
        },
    ),
    Size(
        float("inf"),
        {
            "rl": {"lr": 1e-6, "warmup": 0, "prompts": 32},
            "sft": {"lr": 2e-5},
            "prefer": {"lr": 1e-6},
            "reward-model": {"lr": 1e-5},
        },
    ),
)


def by_size(command: str, parameters: float, lora: bool = False) -> dict[str, float]:
    """The settings of a command for a model with this many parameters.

    >>> by_size("rl", 135e6), by_size("sft", 7e9, lora=True)
    ({'lr': 5e-06, 'warmup': 5, 'prompts': 8}, {'lr': 0.0002})
    """
    size = next(s for s in SIZES if parameters < s.below)
    settings = dict(size.commands[command])
    if lora:
        settings["lr"] = min(settings["lr"] * LORA, LARGEST_LORA)
    return settings


def settled(job: J, model: nn.Module) -> J:
    """The job with what its user left open filled in from the model's size. The run records these
    values, so a resumed run keeps them."""
    settings = by_size(job.COMMAND, _parameters(model), lora=bool(job.lora))
    return replace(job, **{k: v for k, v in settings.items() if getattr(job, k) is None})


def note(job: Any, settled: Any, model: nn.Module) -> str:
    """A line that says what was filled in; "" if nothing was."""
    names = [n for n in SIZES[0].commands[job.COMMAND] if getattr(job, n) is None]
    words = ", ".join(f"{n} {getattr(settled, n):g}" for n in names)
    return f"{_count(_parameters(model))} parameters, so by default: {words}" if names else ""


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def said(command: str, name: str) -> str:
    """An option's defaults as words of its help.

    >>> said("sft", "lr")
    'by the model: 0.001 below 10 M parameters, 0.0001 below 300 M, else 2e-05'
    """
    values = [s.commands[command][name] for s in SIZES]
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    words = [
        f"{v:g}" + (f" below {s.below / 1e6:g} M" if s is not SIZES[-1] else "")
        for v, s in zip(values, SIZES, strict=True)
    ]
    first, *middle, last = words
    return ", ".join([f"by the model: {first} parameters", *middle, f"else {last}"])


def _count(parameters: int) -> str:
    """Three digits: 812 k, 135 M, 7.24 G."""
    for below, unit, name in ((1e6, 1e3, "k"), (1e9, 1e6, "M"), (float("inf"), 1e9, "G")):
        if parameters < below:
            return f"{parameters / unit:.3g} {name}"
    raise AssertionError

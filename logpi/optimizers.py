"""The optimiser and its schedule, as values. What it is fed is not here (`update.py`)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from logpi.types import Policy

__all__ = ["AdamW", "Constant", "Cosine", "Linear", "Schedule"]


class Schedule(ABC):
    """Factor on the learning rate after a fraction of training; called with progress in [0, 1]."""

    @abstractmethod
    def __call__(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Constant(Schedule):
    """No decay."""

    def __call__(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Linear(Schedule):
    """Straight down to `end` times the learning rate."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return 1.0 + (self.end - 1.0) * progress


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine down to `end` times the learning rate (Loshchilov and Hutter 2017)."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class AdamW:
    """Decoupled weight decay Adam (arXiv:1711.05101) with linear warm-up and a schedule.

    Attributes:
        lr: peak learning rate. betas, eps, weight_decay: as in torch; matrices decay, vectors (norms, biases) do not.
        warmup: updates over which the rate climbs linearly from lr/warmup.
        schedule: decay after that, over the updates of the whole run.
    """

    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Schedule = Constant()

    def build(self, policy: Policy) -> torch.optim.Optimizer:
        """The optimiser over the policy's trainable parameters."""
        trained = [p for p in policy.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)
        kept = [g for g in groups if g["params"]]
        return torch.optim.AdamW(kept, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)

    def rate(self, update: int, progress: float) -> float:
        """Learning rate of the `update`-th update (from 0), at `progress` in [0, 1] of the run."""
        warm = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * warm * self.schedule(progress)

"""Watches a run for collapse: the reward was there and is going away. It says so while it happens;
it changes nothing.

A learning rate that is too high can take a policy to zero in ten steps, for good. Learning curves
show it afterwards; this is for the time in between. What is done about it (keep the best
checkpoint, stop) is the loop's and the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Collapse:
    """Compares the mean of the last few rewards with the best such mean.

    Attributes:
        window: steps of the moving mean.
        share: part of the best mean (above the first, or above 0) that must be lost for an alarm.
        patience: steps in a row below that line.
    """

    window: int = 4
    share: float = 0.5
    patience: int = 3
    recent: list[float] = field(default_factory=list)
    best: float = float("-inf")
    best_step: int = 0
    lowest: float = float("inf")
    below: int = 0
    warned: bool = False

    def __call__(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """A sentence when the policy is collapsing, once until it recovers; else None."""
        reward = metrics.get("reward", float("nan"))
        if reward != reward:
            return None
        self.recent = [*self.recent, reward][-self.window :]
        mean = sum(self.recent) / len(self.recent)
        self.lowest = min(self.lowest, mean)
        if mean >= self.best:
            self.best, self.best_step = mean, step
        floor = min(self.lowest, 0.0) if self.best > 0 else self.lowest
        lost = (
            self.best - mean > self.share * (self.best - floor) and len(self.recent) == self.window
        )
        self.below = self.below + 1 if lost else 0
        if not lost:
            self.warned = False
        if self.below < self.patience or self.warned:
            return None
        self.warned = True
        return self._sentence(step, mean, metrics)

    def _sentence(self, step: int, mean: float, metrics: Mapping[str, float]) -> str:
        signs = [
            f"{k} {metrics[k]:.3g}" for k in ("entropy", "grad_norm", "kl", "lr") if k in metrics
        ]
        return (
            f"step {step}: the policy is collapsing: mean reward {self.best:.3g} (step"
            f" {self.best_step}) -> {mean:.3g} ({', '.join(signs)}). The usual cause is the"
            " learning rate: start again with a third of it, or with --warmup; a lower clip or a"
            " KL penalty also helps. The best checkpoint is kept"
        )

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("window", "share", "patience")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: state[k] for k in self.state_dict()})

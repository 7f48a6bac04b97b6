"""An alarm when a run collapses: the reward was there and is going away.

A learning rate that is too high can take a policy to zero in ten steps, for good. Left out: what is
done about it; the loop keeps the best checkpoint, the user may stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OPTIONS = ("window", "share", "patience", "noise")


@dataclass
class Collapse:
    """Compares the mean of the last few rewards with the best such mean.

        floor = the least mean up to the best, or 0 if that is less and the best is above 0
        lost  = best − mean > share · (best − floor)       alarm after `patience` steps in a row

    Only means of a whole window count: the first rewards of an environment are those of its
    shortest episodes. What was gained, best − floor, must be more than `noise` standard errors of
    such a mean (from the changes between steps): one right answer in a hundred is no height.

    With a window of 1, share 0.5, patience 2, noise 0, and rewards that begin at 0.1:

        step      1     2     3     4     5     6
        mean     0.1   0.9   0.8   0.4   0.3   0.7
        best     0.1   0.9   0.9   0.9   0.9   0.9
        lost                       yes   yes          0.9 − 0.4 > 0.5 · (0.9 − 0)
        alarm                            yes          step 6 has recovered: a new alarm is possible

    Attributes:
        window: steps of the moving mean.
        share: part of the best mean (above the first, or above 0) that must be lost for an alarm.
        patience: steps in a row below that line.
        noise: standard errors of a mean that a gain exceeds.
    """

    window: int = 4
    share: float = 0.5
    patience: int = 3
    noise: float = 5.0
    recent: list[float] = field(default_factory=list)
    best: float = float("-inf")
    best_step: int = 0
    lowest: float = float("inf")
    floor: float = float("inf")
    below: int = 0
    warned: bool = False
    # sum of squared changes from step to step, and their number
    squares: float = 0.0
    changes: int = 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """A sentence when the policy is collapsing, once until it recovers; else None."""
        reward = metrics.get("reward", float("nan"))
        if reward != reward:
            return None
        if self.recent:
            self.squares += (reward - self.recent[-1]) ** 2
            self.changes += 1
        self.recent = [*self.recent, reward][-self.window :]
        if len(self.recent) < self.window:
            return None
        mean = sum(self.recent) / self.window
        self.lowest = min(self.lowest, mean)
        if mean >= self.best:
            self.best, self.best_step = mean, step
            self.floor = min(self.lowest, 0.0) if mean > 0 else self.lowest
        gained = self.best - self.floor
        lost = gained > self.noise * self._error() and self.best - mean > self.share * gained
        self.below = self.below + 1 if lost else 0
        if not lost:
            self.warned = False
        if self.below < self.patience or self.warned:
            return None
        self.warned = True
        return self._sentence(step, mean, metrics)

    def _error(self) -> float:
        """The standard error of a window's mean. Independent rewards of variance σ² change by 2σ²
        on average, and a slow climb changes that little."""
        return (self.squares / max(self.changes, 1) / 2 / self.window) ** 0.5

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
        return {k: v for k, v in self.__dict__.items() if k not in OPTIONS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: state.get(k, v) for k, v in self.state_dict().items()})

"""Surrogates: what is maximised at each action, given the ratio and the advantage.

Each is called with `(log_ratio, logp, advantage)`, all [B, T], and returns the objective of each
action [B, T] in units of advantage, carrying gradient. `slope` is the same with the derivative
written out, for updates that spend more time on autograd's calls than on numbers.
`cut`, called like the objective, is where the gradient is cut, for the logs. Left out: aggregation
(`weights.py`), penalties (`kl.py`), and surrogates without a clip (`gates.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = [
    "Clip",
    "ClippedScore",
    "DecayingClip",
    "DualClip",
    "ScoreFunction",
    "Surrogate",
    "Unclipped",
    "bounded_exp",
]

# In nats. e^30 is beyond every clip, and sums of it fit into float32; a product ratio may not.
LARGEST = 30.0
Slope = tuple[Tensor, Tensor]
"""A function's value and its derivative, [B, T] each, without gradient."""


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """ρ without overflow. An infinite ρ would become NaN in the gradient (0 · inf) of exactly those
    actions that a clip cuts off."""
    return log_ratio.clamp(max=LARGEST).exp()


def _exp_slope(log_ratio: Tensor) -> Slope:
    """`bounded_exp` and its derivative: ρ, and 0 beyond the largest ratio."""
    ratio = bounded_exp(log_ratio)
    return ratio, ratio * (log_ratio <= LARGEST)


class Surrogate(ABC):
    """An objective of one action; see the module's docstring for the contract.

    Attributes:
        uses_ratio: it reads the ratio. differs: from its source or from common code, a line each.
        of_actions: it reads the probability of an action now and before, so the ratio must be the
            action's own.
    """

    uses_ratio: ClassVar[bool] = True
    of_actions: ClassVar[bool] = False
    differs: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str]
    source: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A part with an objective of its own has not its parent's derivative.
        if "__call__" in vars(cls) and "slope" not in vars(cls):
            cls.slope = Surrogate.slope

    @abstractmethod
    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor: ...

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        """The objective and its derivative by log π, without gradient; None where nobody has
        written it out, so that autograd computes it."""
        return None

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        """[B, T] bool, True where this surrogate cuts the gradient."""
        return torch.zeros_like(log_ratio, dtype=torch.bool)

    def at(self, progress: float) -> Surrogate:
        """This surrogate when `progress` in [0, 1] of the run is done."""
        return self


def _distances(low: float, high: float | None) -> None:
    for name, x in (("low", low), ("high", high)):
        if x is not None and not x >= 0:
            raise ValueError(f"{name} is a distance from a ratio of 1, at least 0, not {x:g}")


@dataclass(frozen=True)
class ScoreFunction(Surrogate):
    """The score function: its gradient at θ is the policy gradient, its value is not the expected
    return.

    log π(aₜ|sₜ) · Âₜ
    """

    uses_ratio: ClassVar[bool] = False
    equation: ClassVar[str] = "log π(aₜ|sₜ) Âₜ"
    source: ClassVar[str] = "policy gradient theorem"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        return logp * advantage

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        return logp * advantage, advantage


@dataclass(frozen=True)
class Unclipped(Surrogate):
    """The importance-weighted advantage (TRPO, arXiv:1502.05477, eq. 14).

    ρₜ Âₜ
    """

    equation: ClassVar[str] = "ρₜ Âₜ"
    source: ClassVar[str] = "TRPO: Schulman et al. 2015, arXiv:1502.05477"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        return bounded_exp(log_ratio) * advantage

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        ratio, by_ratio = _exp_slope(log_ratio)
        return ratio * advantage, by_ratio * advantage


@dataclass(frozen=True)
class Clip(Surrogate):
    """PPO's pessimistic clip (arXiv:1707.06347, eq. 7), with separate bounds (DAPO's clip-higher,
    arXiv:2503.14476, eq. 10).

        min( ρₜ Âₜ , clip(ρₜ, 1 − low, 1 + high) Âₜ )

    Bounds are distances from 1, never the bound itself.

    Attributes:
        low, high: ≥ 0; infinite for no bound on that side. high=None means high = low.

    >>> ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1., -1., 1., -1.])
    >>> Clip(0.2)(ratio.log(), torch.zeros(4), advantage)
    tensor([ 1.2000, -1.5000,  0.5000, -0.8000])
    """

    low: float = 0.2
    high: float | None = None
    source: ClassVar[str] = "PPO: Schulman et al. 2017, arXiv:1707.06347"

    def __post_init__(self) -> None:
        _distances(self.low, self.high)

    @property
    def above(self) -> float:
        return self.low if self.high is None else self.high

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"min(ρₜ Âₜ, clip(ρₜ, 1−{self.low:g}, 1+{self.above:g}) Âₜ)"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        ratio = bounded_exp(log_ratio)
        near = ratio.detach().clamp(1 - self.low, 1 + self.above)
        # where the clipped term is the smaller one; it has no gradient
        cut = (ratio.detach() - near) * advantage > 0
        return torch.where(cut, near, ratio) * advantage

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        ratio, by_ratio = _exp_slope(log_ratio)
        free = ratio * advantage
        near = ratio.clamp_(1 - self.low, 1 + self.above).mul_(advantage)
        # ρ Â > clip(ρ) Â: the clipped term is the smaller one, and has no gradient
        return torch.minimum(free, near), by_ratio.mul_(advantage).mul_(free <= near)

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        return ((advantage > 0) & (ratio > 1 + self.above)) | (
            (advantage < 0) & (ratio < 1 - self.low)
        )


@dataclass(frozen=True)
class DecayingClip(Clip):
    """`Clip` whose bounds fall linearly to 0 over the run (RL-Zoo's `clip_range: lin_0.2`), so late
    updates change the policy less."""

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"{super().equation}, both bounds falling to 0 over the run"

    def at(self, progress: float) -> Clip:
        return Clip(self.low * (1 - progress), self.above * (1 - progress))


@dataclass(frozen=True)
class DualClip(Clip):
    """Clip, bounded below as well where the advantage is negative (Ye et al. 2020,
    arXiv:1912.09729, eq. 5).

        Âₜ < 0:  max( min(ρₜ Âₜ, clip(ρₜ) Âₜ), c Âₜ )

    Attributes:
        low, high: as in `Clip`.
        c: > 1, the largest ratio that still pushes a bad action down. verl uses 3 by default.
    """

    c: float = 3.0
    source: ClassVar[str] = "dual clip: Ye et al. 2020, arXiv:1912.09729"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.c > 1:
            raise ValueError(
                f"DualClip needs c > 1 (got {self.c:g}): it is the largest ratio kept where Â < 0"
            )

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"{super().equation}, and ≥ {self.c:g} Âₜ where Âₜ < 0"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        inner = super().__call__(log_ratio, logp, advantage)
        return torch.where(advantage < 0, torch.maximum(inner, self.c * advantage), inner)

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        inner = super().slope(log_ratio, logp, advantage)
        if inner is None:
            return None
        objective, by_logp = inner
        bound = self.c * advantage
        bounded = (advantage < 0) & (objective < bound)
        return torch.where(bounded, bound, objective), by_logp * ~bounded

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        bounded = (advantage < 0) & (log_ratio.exp() > self.c)
        return super().cut(log_ratio, logp, advantage) | bounded


@dataclass(frozen=True)
class ClippedScore(Surrogate):
    """The score function weighted by a clipped ratio that carries no gradient (CISPO,
    arXiv:2506.13585, eq. 4).

        stopgrad( clip(ρₜ, 1 − low, 1 + high) ) · log π(aₜ|sₜ) · Âₜ

    Every action keeps a gradient; only its weight is bounded. `high` is a distance from 1, as in
    `Clip`. In TRL the same name is the bound itself, so its default of 0.2 makes every weight 0.2.
    The paper's upper bound of 1 + ε with ε = 4 is high=4.

    Attributes:
        low: ≥ 0, infinite for no lower bound (the paper's setting).
        high: ≥ 0.
    """

    low: float = float("inf")
    high: float = 4.0
    source: ClassVar[str] = "CISPO: MiniMax-M1 2025, arXiv:2506.13585"
    differs: ClassVar[tuple[str, ...]] = (
        "`high` is a distance from 1; in TRL's CISPO the same name is the bound itself, and its"
        " default makes every weight 0.2.",
    )

    def __post_init__(self) -> None:
        _distances(self.low, self.high)

    @property
    def equation(self) -> str:  # type: ignore[override]
        low = "" if self.low == float("inf") else f"1−{self.low:g} ≤ "
        return f"stopgrad({low}ρₜ ≤ 1+{self.high:g}) log π(aₜ|sₜ) Âₜ"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        return bounded_exp(log_ratio.detach()).clamp(1 - self.low, 1 + self.high) * logp * advantage

    def slope(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Slope | None:
        by_logp = bounded_exp(log_ratio).clamp(1 - self.low, 1 + self.high) * advantage
        return by_logp * logp, by_logp

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        return ((ratio > 1 + self.high) | (ratio < 1 - self.low)) & (advantage != 0)

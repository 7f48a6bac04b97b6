"""Surrogates: what is maximised at each action, given the ratio and the advantage.

Each is called with `(log_ratio, logp, advantage)`, all [B, T], and returns the objective of each
action [B, T] in units of advantage, carrying gradient. `clipped(log_ratio, advantage)` is where the
gradient is cut, for the logs; `cut(log_ratio, logp, advantage)` also where that depends on π. Left
out: aggregation (`weights.py`) and penalties (`kl.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = [
    "BinaryKL",
    "BinaryTV",
    "Clip",
    "ClippedScore",
    "DecayingClip",
    "DualClip",
    "ScoreFunction",
    "SoftGate",
    "Surrogate",
    "Unclipped",
]

# In nats. e^30 is beyond every clip, and sums of it fit into float32; a product ratio may not.
LARGEST = 30.0


def _exp(log_ratio: Tensor) -> Tensor:
    """ρ without overflow. An infinite ρ would become NaN in the gradient (0 · inf) of exactly those
    actions that a clip cuts off."""
    return log_ratio.clamp(max=LARGEST).exp()


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

    @abstractmethod
    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor: ...

    def clipped(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """[B, T] bool, True where this surrogate cuts the gradient."""
        return torch.zeros_like(log_ratio, dtype=torch.bool)

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        """`clipped`, for a surrogate that reads the probability itself."""
        return self.clipped(log_ratio, advantage)

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


@dataclass(frozen=True)
class Unclipped(Surrogate):
    """The importance-weighted advantage (TRPO, arXiv:1502.05477, eq. 14).

    ρₜ Âₜ
    """

    equation: ClassVar[str] = "ρₜ Âₜ"
    source: ClassVar[str] = "TRPO: Schulman et al. 2015, arXiv:1502.05477"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        return _exp(log_ratio) * advantage


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
        ratio = _exp(log_ratio)
        near = ratio.detach().clamp(1 - self.low, 1 + self.above)
        # where the clipped term is the smaller one; it has no gradient
        cut = (ratio.detach() - near) * advantage > 0
        return torch.where(cut, near, ratio) * advantage

    def clipped(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
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

    def clipped(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        bounded = (advantage < 0) & (log_ratio.exp() > self.c)
        return super().clipped(log_ratio, advantage) | bounded


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
        return _exp(log_ratio.detach()).clamp(1 - self.low, 1 + self.high) * logp * advantage

    def clipped(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        return ((ratio > 1 + self.high) | (ratio < 1 - self.low)) & (advantage != 0)


@dataclass(frozen=True)
class SoftGate(Surrogate):
    """A sigmoid of the ratio in place of a clip (SAPO, arXiv:2511.20347).

        4/τ · sigmoid(τ (ρₜ − 1)) · Âₜ          τ = tau_pos where Âₜ > 0, tau_neg elsewhere

    At ρ = 1 the slope is Âₜ, as without a gate; away from 1 it fades, on both sides, and is nowhere
    cut to 0. The larger τ, the faster.

    Attributes:
        tau_pos, tau_neg: > 0, the temperatures τ. The paper's tau_neg is the larger one, because
            pushing a token down spreads its probability over many others.
    Raises:
        ValueError: a temperature that is not above 0.

    >>> SoftGate(1.0, 2.0)(torch.zeros(2), torch.zeros(2), torch.tensor([1., -1.]))
    tensor([ 2., -1.])
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05
    source: ClassVar[str] = "SAPO: Gao et al. 2025, arXiv:2511.20347"

    def __post_init__(self) -> None:
        if not min(self.tau_pos, self.tau_neg) > 0:
            raise ValueError(f"SoftGate needs temperatures above 0, got {self}")

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"4/τ sigmoid(τ (ρₜ − 1)) Âₜ, τ = {self.tau_pos:g} or, Âₜ < 0, {self.tau_neg:g}"

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        tau = torch.where(advantage > 0, self.tau_pos, self.tau_neg)
        return 4 / tau * torch.sigmoid(tau * (_exp(log_ratio) - 1)) * advantage


@dataclass(frozen=True)
class BinaryTV(Surrogate):
    """The importance-weighted advantage, masked where the probability of the token has moved too
    far (DPPO, arXiv:2602.04879, binary total variation).

        Mₜ ρₜ Âₜ     Mₜ = 0 where Âₜ > 0 and π − π_old > high, or Âₜ < 0 and π_old − π > low

    A ratio's clip is tight on rare tokens and loose on likely ones; |π − π_old| is, of "this token
    or another", the total variation itself. Needs the ratio of tokens.

    Attributes:
        low, high: ≥ 0, largest move of a token's probability, down and up. high=None means high =
            low. The paper's code has 0.15.

    >>> now, old = torch.tensor([0.02, 0.9, 0.2]), torch.tensor([0.01, 0.7, 0.4])
    >>> BinaryTV(0.15)((now / old).log(), now.log(), torch.tensor([1., 1., -1.]))
    tensor([2., 0., -0.])
    """

    low: float = 0.15
    high: float | None = None
    of_actions: ClassVar[bool] = True
    name: ClassVar[str] = "|π − π_old|"
    source: ClassVar[str] = "DPPO: Qi et al. 2026, arXiv:2602.04879"
    differs: ClassVar[tuple[str, ...]] = (
        "verl also truncates the ratio of DPPO, at 20 by default; here it is as it is.",
    )

    def __post_init__(self) -> None:
        if not min(self.low, self.above) >= 0:
            raise ValueError(f"low and high are divergences of a token, at least 0, not {self}")

    @property
    def above(self) -> float:
        return self.low if self.high is None else self.high

    @property
    def equation(self) -> str:  # type: ignore[override]
        both = f"{self.above:g}" if self.low == self.above else f"{self.above:g} up, {self.low:g}"
        return f"ρₜ Âₜ, 0 where Âₜ pushes π away from π_old and {self.name} > {both}"

    def distance(self, logp: Tensor, logp_old: Tensor) -> Tensor:
        """[B, T] between "this token or another" now and before."""
        return (logp.exp() - logp_old.exp()).abs()

    def __call__(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        far = self.cut(log_ratio, logp, advantage)
        return torch.where(far, 0.0, _exp(log_ratio)) * advantage

    def cut(self, log_ratio: Tensor, logp: Tensor, advantage: Tensor) -> Tensor:
        change, now = log_ratio.detach(), logp.detach()
        far = self.distance(now, now - change) > torch.where(change > 0, self.above, self.low)
        return far & (change * advantage > 0)


@dataclass(frozen=True)
class BinaryKL(BinaryTV):
    """`BinaryTV` with the divergence KL(π_old‖π) of "this token or another" (DPPO,
    arXiv:2602.04879).

        π_old log(π_old/π) + (1 − π_old) log((1 − π_old)/(1 − π))

    Attributes:
        low, high: ≥ 0, in nats. high=None means high = low. The paper's code has 0.05.
    """

    low: float = 0.05
    name: ClassVar[str] = "binary KL(π_old‖π)"

    def distance(self, logp: Tensor, logp_old: Tensor) -> Tensor:
        old, rest_old, rest = logp_old.exp(), -logp_old.expm1(), -logp.expm1()
        # 0 log 0 is 0; a token of probability 1 now leaves nothing to the others
        other = torch.xlogy(rest_old, rest_old) - torch.xlogy(rest_old, rest.clamp(min=1e-8))
        return old * (logp_old - logp) + other

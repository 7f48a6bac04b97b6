"""Surrogates without a clip of the ratio: a sigmoid gate, and masks by an action's own probability.

The contract is that of `surrogates.py`. Left out: the clips, which stand there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from logpi.ops.surrogates import Surrogate, bounded_exp

__all__ = ["BinaryKL", "BinaryTV", "SoftGate"]


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
        return 4 / tau * torch.sigmoid(tau * (bounded_exp(log_ratio) - 1)) * advantage


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
        return torch.where(far, 0.0, bounded_exp(log_ratio)) * advantage

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

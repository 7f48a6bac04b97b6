"""Importance ratios: how much likelier an action is now than when it was taken.

Each takes log-probabilities [B, T] that are 0 where `mask` is False, and returns the *log* ratio
[B, T], which is 0 there too and carries gradient. Left out: clipping (`surrogates.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from logpi.ops.time import own

__all__ = ["GeometricMeanRatio", "Ratio", "SequenceRatio", "TokenRatio"]


class Ratio(ABC):
    """log ρ of each action; called with (logp, logp_old, mask), all [B, T].

    Attributes:
        by_action: an action's ratio depends on that action alone, not on the rest of its row.
        differs: from its source or from common code, a line each.
    """

    by_action: ClassVar[bool] = False
    differs: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def __call__(self, logp: Tensor, logp_old: Tensor, mask: Tensor) -> Tensor: ...

    def toward(self, logp: Tensor, logp_old: Tensor, mask: Tensor, advantage: Tensor) -> Tensor:
        """log ρ where an advantage [B, T] pulls; another number only if the ratio is clipped on
        that side."""
        return self(logp, logp_old, mask)

    def cut(self, logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
        """[B, T] bool, True where this ratio cuts an action's gradient."""
        return torch.zeros_like(logp, dtype=torch.bool)


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """One ratio for each action (PPO, arXiv:1707.06347).

    ρₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ)
    """

    by_action: ClassVar[bool] = True
    equation: ClassVar[str] = "ρₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ)"
    source: ClassVar[str] = "PPO: Schulman et al. 2017, arXiv:1707.06347"

    def __call__(self, logp: Tensor, logp_old: Tensor, mask: Tensor) -> Tensor:
        return logp - logp_old


@dataclass(frozen=True)
class SequenceRatio(Ratio):
    """One ratio for the whole response, the same for each of its actions.

        mean=True    ρ = exp( 1/|y| Σₜ Δ log π )     GSPO, arXiv:2507.18071, eq. 7
        mean=False   ρ = exp(       Σₜ Δ log π )     the product: the true ratio of the response

    The gradient flows through every action of the row (GSPO, not GSPO-token). The product's spread
    grows with length.

    Attributes:
        mean: geometric mean over the row's own actions, or the product.
    """

    mean: bool = True
    source: ClassVar[str] = "GSPO: Zheng et al. 2025, arXiv:2507.18071"

    @property
    def equation(self) -> str:  # type: ignore[override]
        return "ρ = (π(y|x) / π_old(y|x))^(1/|y|)" if self.mean else "ρ = π(y|x) / π_old(y|x)"

    @property
    def differs(self) -> tuple[str, ...]:  # type: ignore[override]
        spread = (
            "The product ratio's spread grows with the length: with more than one step a batch,"
            " most long responses are clipped."
        )
        return () if self.mean else (spread,)

    def __call__(self, logp: Tensor, logp_old: Tensor, mask: Tensor) -> Tensor:
        total = own(logp - logp_old, mask).sum(1, keepdim=True)
        if self.mean:
            total = total / mask.sum(1, keepdim=True).clamp(min=1)
        return own(total.expand(mask.shape), mask)


@dataclass(frozen=True)
class GeometricMeanRatio(Ratio):
    """The geometric mean of a response's clipped token ratios, the same for each of its actions
    (GMPO, arXiv:2507.20673).

        ρ = exp( 1/|y| Σₜ dₜ ),   dₜ = min(Δ log π, high)  where Âₜ > 0
                                  dₜ = max(Δ log π, −low)  where Âₜ < 0

    GSPO clips the mean, this the tokens before the mean: a token that is cut off gives no gradient,
    the rest of its response does. The mean moves little, so the paper's bounds are wide.

    Attributes:
        low, high: ≥ 0, in nats of a token's log-ratio, not distances from a ratio of 1 (e^0.4 is
            1.49). high=None means high = low.
    Raises:
        ValueError: a bound below 0.

    >>> logp, old = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-2.0, -1.2]])
    >>> both = torch.ones(1, 2, dtype=torch.bool)
    >>> GeometricMeanRatio(0.4).toward(logp, old, both, torch.ones(1, 2))
    tensor([[0.3000, 0.3000]])
    """

    low: float = 0.4
    high: float | None = None
    source: ClassVar[str] = "GMPO: Zhao et al. 2025, arXiv:2507.20673"
    differs: ClassVar[tuple[str, ...]] = (
        "`low` bounds ratios from below and `high` from above, as in verl; the paper bounds the"
        " ratio to the power of Â's sign, which is the same if both are equal.",
    )

    def __post_init__(self) -> None:
        if not min(self.low, self.above) >= 0:
            raise ValueError(f"low and high are nats of a log-ratio, at least 0, not {self}")

    @property
    def above(self) -> float:
        return self.low if self.high is None else self.high

    @property
    def equation(self) -> str:  # type: ignore[override]
        return (
            f"log ρ = 1/|y| Σₜ dₜ,  dₜ = log π/π_old, ≤ {self.above:g} where Âₜ > 0 and"
            f" ≥ −{self.low:g} where Âₜ < 0"
        )

    def __call__(self, logp: Tensor, logp_old: Tensor, mask: Tensor) -> Tensor:
        return SequenceRatio(mean=True)(logp, logp_old, mask)

    def toward(self, logp: Tensor, logp_old: Tensor, mask: Tensor, advantage: Tensor) -> Tensor:
        change = logp - logp_old
        near = change.detach().clamp(-self.low, self.above)
        kept = torch.where(self.cut(logp, logp_old, advantage), near, change)
        return self(kept, torch.zeros_like(kept), mask)

    def cut(self, logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
        change = (logp - logp_old).detach()
        return ((advantage > 0) & (change > self.above)) | ((advantage < 0) & (change < -self.low))

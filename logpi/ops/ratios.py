"""Importance ratios: how much likelier an action is now than when it was taken.

Each takes log-probabilities [B, T] that are 0 where `mask` is False, and returns the *log* ratio
[B, T], which is 0 there too and carries gradient. Left out: clipping (`surrogates.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from logpi.ops.time import own

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ratio", "SequenceRatio", "TokenRatio"]


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

"""Corrections for a sampler whose numerics are not the learner's: a constant factor of each action.

    w ← w · c(π_old / π_sampler)

With logpi's own engine both are the same, and every factor is 1. Left out: the importance ratio of
the update itself, π/π_old (`ratios.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from logpi.ops.ratios import Ratio, SequenceRatio, TokenRatio
from logpi.ops.time import own

__all__ = ["Correction", "MaskedIS", "SequenceMaskedIS", "TruncatedIS"]


class Correction(ABC):
    """Factors [B, T] from the learner's and the sampler's log-probabilities; constant.

    Attributes:
        by_action: an action's factor depends on that action alone, not on the rest of its row.
        differs: from its source or from common code, a line each.
    """

    by_action: ClassVar[bool] = True
    differs: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def __call__(self, logp_old: Tensor, logp_sampler: Tensor, mask: Tensor) -> Tensor:
        """[B, T] factors, constant, 0 where `mask` is False."""

    @abstractmethod
    def cut(self, factor: Tensor) -> Tensor:
        """[B, T] bool, own actions whose factor is not their ratio."""


@dataclass(frozen=True)
class TruncatedIS(Correction):
    """Truncated importance sampling (Yao et al. 2025; Ionides 2008).

        w ← w · min(π_old / π_sampler, cap)

    Needed with another engine or dtype.

    Attributes:
        cap: > 0, the largest factor.
    """

    cap: float = 2.0
    source: ClassVar[str] = "truncated importance sampling: Yao et al. 2025; Ionides 2008"

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ValueError(f"cap is the largest weight of an action, above 0, not {self.cap:g}")

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"min(π_old/π_sampler, {self.cap:g})"

    def __call__(self, logp_old: Tensor, logp_sampler: Tensor, mask: Tensor) -> Tensor:
        factor = own(logp_old - logp_sampler, mask).exp().clamp(max=self.cap)
        # exp(0) = 1 where there is no action
        return own(factor, mask)

    def cut(self, factor: Tensor) -> Tensor:
        return factor >= self.cap


@dataclass(frozen=True)
class MaskedIS(Correction):
    """Masked importance sampling of tokens (IcePop: Ring-1T, arXiv:2510.18855).

        k = π_old / π_sampler          w ← w · k  where low ≤ k ≤ high,  0 elsewhere

    An action on which both engines disagree teaches nothing, in either direction; truncation would
    keep it. The weights of the others stay as they are: the number of actions that a mean divides
    by counts the masked ones too, as in TRL and verl.

    Attributes:
        low, high: 0 ≤ low ≤ 1 ≤ high, the bounds of k themselves (IcePop's α and β).
    Raises:
        ValueError: bounds that leave out a ratio of 1.

    >>> old = torch.tensor([[0.9, 0.9, 0.1]]).log()
    >>> MaskedIS()(old, torch.tensor([[0.8, 0.1, 0.9]]).log(), torch.ones(1, 3, dtype=torch.bool))
    tensor([[1.1250, 0.0000, 0.0000]])
    """

    low: float = 0.5
    high: float = 5.0
    ratio: ClassVar[Ratio] = TokenRatio()
    source: ClassVar[str] = "IcePop: Ling team 2025, arXiv:2510.18855"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= 1 <= self.high:
            raise ValueError(
                f"{type(self).__name__} needs 0 ≤ low ≤ 1 ≤ high, the bounds of π_old/π_sampler,"
                f" not {self.low:g} and {self.high:g}"
            )

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"(π_old/π_sampler if {self.low:g} ≤ it ≤ {self.high:g} else 0)"

    def __call__(self, logp_old: Tensor, logp_sampler: Tensor, mask: Tensor) -> Tensor:
        log_ratio = self.ratio(logp_old, logp_sampler, mask)
        low = math.log(self.low) if self.low else -math.inf
        kept = mask & (log_ratio >= low) & (log_ratio <= math.log(self.high))
        # beyond the bounds exp may overflow
        return torch.where(kept, log_ratio, -math.inf).exp()

    def cut(self, factor: Tensor) -> Tensor:
        return factor == 0


@dataclass(frozen=True)
class SequenceMaskedIS(MaskedIS):
    """Masked importance sampling of whole responses (Liu, Li et al. 2025, "When Speed Kills
    Stability"; TRL's `sequence_mask`).

        k = π_old(y|x) / π_sampler(y|x)          w ← w · k  where low ≤ k ≤ high,  0 elsewhere

    k is the product over the row's own actions, so its spread grows with the length: of long
    responses many are left out.

    Attributes:
        low, high: as in `MaskedIS`; TRL's defaults.
    """

    low: float = 0.0
    high: float = 3.0
    ratio: ClassVar[Ratio] = SequenceRatio(mean=False)
    by_action: ClassVar[bool] = False
    source: ClassVar[str] = "sequence-level masked importance sampling: Liu, Li et al. 2025"

    @property
    def equation(self) -> str:  # type: ignore[override]
        return super().equation.replace("π_old/π_sampler", "π_old(y|x)/π_sampler(y|x)")

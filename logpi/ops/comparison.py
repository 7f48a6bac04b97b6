"""Preferences, the mathematics: sides of a comparison, scores of a response, losses of a margin.

    sideᵢ = [i is best]/#best − [i is worst]/#worst      ±1 in a pair, 0 where all are equal
    h = Σᵢ sideᵢ s(yᵢ) = s(y⁺) − s(y⁻)

A method of the DPO family is a score s and a loss ℓ(h). Left out: the objectives that use them
(`logpi.objectives.preferences`), and the choice of pairs (`rollouts/preference_pairs.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from logpi.ops.groups import extremes, group_sum, total_reward
from logpi.ops.time import own

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = [
    "Hinge",
    "LogLikelihood",
    "LogOdds",
    "LogRatio",
    "Logistic",
    "Margin",
    "ResponseScore",
    "Robust",
    "Squared",
    "of_row",
    "sides",
]


# --- the rows of a batch as responses ---


def sides(batch: Batch) -> Tensor:
    """[B] the side of each row in the comparison of its group: positive for the best rows, negative
    for the worst, else 0.

    The positive sides of a group add up to 1 and the negative ones to −1 (equal rows share); rows
    without an own action have 0.

    >>> from logpi.testing import group
    >>> sides(group([0., 1., 1., 0.5]))
    tensor([-1.0000,  0.5000,  0.5000,  0.0000])
    """
    alive, total = batch.mask.any(1), total_reward(batch)
    worst, best = extremes(total, alive, batch.group)
    top, bottom = (((total == x) & alive).to(total.dtype) for x in (best, worst))
    shares = [x / group_sum(x, batch.group).clamp(min=1) for x in (top, bottom)]
    return torch.where(best > worst, 1.0, 0.0) * (shares[0] - shares[1])


def of_row(x: Tensor, mask: Tensor) -> Tensor:
    """[B] the number that all own actions of a row have in `x` [B, T]; 0 for rows without one."""
    return own(x, mask).gather(1, mask.long().argmax(1, keepdim=True)).squeeze(1)


# --- what is compared ---


class ResponseScore(ABC):
    """s(y), one number for each response. Called with logp, logp_ref [B, T] nats (0 where not own)
    and mask; gives [B]."""

    equation: ClassVar[str]
    source: ClassVar[str]
    reference: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, logp: Tensor, logp_ref: Tensor | None, mask: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LogRatio(ResponseScore):
    """s = Σₜ log π/π_ref, DPO's implicit reward without its β (arXiv:2305.18290, eq. 5); `mean`
    divides by |y|."""

    mean: bool = False
    reference: ClassVar[bool] = True
    source: ClassVar[str] = "implicit reward: DPO, arXiv:2305.18290, eq. 5"

    @property
    def equation(self) -> str:  # type: ignore[override]
        return "s(y) = Σₜ log π(yₜ)/π_ref(yₜ)" + (" / |y|" if self.mean else "")

    def __call__(self, logp: Tensor, logp_ref: Tensor | None, mask: Tensor) -> Tensor:
        assert logp_ref is not None
        ratio = (logp - logp_ref).sum(1)
        return ratio / mask.sum(1).clamp(min=1) if self.mean else ratio


@dataclass(frozen=True)
class LogLikelihood(ResponseScore):
    """s = Σₜ log π / |y|, without a reference (SimPO, arXiv:2405.14734, eq. 3)."""

    equation: ClassVar[str] = "s(y) = Σₜ log π(yₜ) / |y|"
    source: ClassVar[str] = "SimPO, arXiv:2405.14734, eq. 3"

    def __call__(self, logp: Tensor, logp_ref: Tensor | None, mask: Tensor) -> Tensor:
        return logp.sum(1) / mask.sum(1).clamp(min=1)


@dataclass(frozen=True)
class LogOdds(ResponseScore):
    """s = log p/(1 − p) with p the geometric mean of the tokens' probabilities (ORPO,
    arXiv:2403.07691, eqs. 3 to 5)."""

    equation: ClassVar[str] = "s(y) = log p − log(1 − p),  log p = Σₜ log π(yₜ) / |y|"
    source: ClassVar[str] = "odds: ORPO, arXiv:2403.07691, eqs. 3 to 5"

    def __call__(self, logp: Tensor, logp_ref: Tensor | None, mask: Tensor) -> Tensor:
        # p = 1 has no odds
        mean = (logp.sum(1) / mask.sum(1).clamp(min=1)).clamp(max=-1e-7)
        return mean - torch.log(-torch.expm1(mean))


# --- the loss of a margin ---


class Margin(ABC):
    """ℓ(h) for margins h = s(y⁺) − s(y⁻), elementwise. `scale` (β) turns scores into implicit
    rewards, for logs."""

    equation: ClassVar[str]
    source: ClassVar[str]

    @property
    @abstractmethod
    def scale(self) -> float: ...

    @abstractmethod
    def __call__(self, h: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Beta(Margin):
    """β > 0, how strongly a policy is held to the reference."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(
                f"beta must be positive, not {self.beta}: at 0 nothing would be learned"
            )

    @property
    def scale(self) -> float:
        return self.beta


@dataclass(frozen=True)
class Logistic(_Beta):
    """−(1 − ε) log σ(βh − γ) − ε log σ(γ − βh): Bradley–Terry with flipped labels (DPO; cDPO;
    SimPO's γ).

    Attributes:
        beta: > 0. smoothing: ε in [0, ½), share of labels that are assumed wrong. gamma: the
            margin by which the better response must win.
    """

    smoothing: float = 0.0
    gamma: float = 0.0
    equation: ClassVar[str] = "ℓ(h) = −(1 − ε) log σ(βh − γ) − ε log σ(γ − βh)"
    source: ClassVar[str] = "Bradley and Terry (1952); smoothing: cDPO (Mitchell 2023)"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_noise(self.smoothing)

    def __call__(self, h: Tensor) -> Tensor:
        z = self.beta * h - self.gamma
        return -(1 - self.smoothing) * logsigmoid(z) - self.smoothing * logsigmoid(-z)


@dataclass(frozen=True)
class Robust(_Beta):
    """[−(1 − ε) log σ(βh) + ε log σ(−βh)] / (1 − 2ε): unbiased if a share ε of labels is flipped,
    and not bounded below."""

    smoothing: float = 0.1
    equation: ClassVar[str] = "ℓ(h) = [−(1 − ε) log σ(βh) + ε log σ(−βh)] / (1 − 2ε)"
    source: ClassVar[str] = "robust DPO, arXiv:2403.00409, eq. 14"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_noise(self.smoothing)

    def __call__(self, h: Tensor) -> Tensor:
        z, e = self.beta * h, self.smoothing
        return (-(1 - e) * logsigmoid(z) + e * logsigmoid(-z)) / (1 - 2 * e)


@dataclass(frozen=True)
class Squared(_Beta):
    """(h − 1/(2β))²: the margin has a target, so certain labels do not push it to infinity."""

    equation: ClassVar[str] = "ℓ(h) = (h − 1/(2β))²"
    source: ClassVar[str] = "IPO, arXiv:2310.12036, eq. 17"

    def __call__(self, h: Tensor) -> Tensor:
        return (h - 1 / (2 * self.beta)) ** 2


@dataclass(frozen=True)
class Hinge(_Beta):
    """max(0, 1 − βh)."""

    equation: ClassVar[str] = "ℓ(h) = max(0, 1 − βh)"
    source: ClassVar[str] = "SLiC-HF, arXiv:2305.10425; RSO, arXiv:2309.06657"

    def __call__(self, h: Tensor) -> Tensor:
        return (1 - self.beta * h).clamp(min=0)


def _check_noise(smoothing: float) -> None:
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing is a share of wrong labels in [0, 0.5), not {smoothing}")

"""Advantage estimators: how much better an action was than expected.

Each is a frozen dataclass called with `(batch, value)` that returns [B, T] advantages in units of
return, 0 where `mask` is False, without gradient. Time counts the policy's own actions. Left out:
whitening, which comes after the critic's target and is a field of the objective, KL penalties,
which are already in the reward, and newer estimators of groups (`group_advantages.py`).

What an estimator needs is an attribute of its class, so a job can refuse a setting before it
starts:
    critic  it reads `value` [B, T+1]           greedy  it reads `batch.baseline` [B]
    group   least number of samples a prompt    on_policy  the data must come from the policy itself
    bootstraps  a critic values the state after a row that was cut off
    whole_batch its statistics are of all groups together
    differs     from its source or from common code, a line each
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from logpi.ops.groups import group_returns, group_sum, total_reward
from logpi.ops.time import check_discounts, next_value, own, spread, td_error, to_go

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = [
    "Advantage",
    "GAE",
    "GreedyBaseline",
    "GroupCenter",
    "GroupNorm",
    "LeaveOneOut",
    "NStep",
    "QValue",
    "RewardToGo",
    "TotalReward",
]


class Advantage(ABC):
    """An estimator of the advantage; see the module's docstring for the contract."""

    critic: ClassVar[bool] = False
    greedy: ClassVar[bool] = False
    group: ClassVar[int] = 1
    on_policy: ClassVar[bool] = True
    bootstraps: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = False
    differs: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        """[B, T] advantages in units of return."""

    def value_target(self, advantage: Tensor, value: Tensor | None, mask: Tensor) -> Tensor | None:
        """[B, T] what the critic is fitted to, in units of return; None without a critic."""
        return None


def _critic(value: Tensor | None, who: str) -> Tensor:
    if value is None:
        raise ValueError(
            f"{who} needs a critic, this policy has none: load it with critic=True, or use"
            " GroupCenter, LeaveOneOut or RewardToGo"
        )
    return value.detach()


@dataclass(frozen=True)
class TotalReward(Advantage):
    """The whole trajectory's reward for each of its actions (policy gradient theorem).

        Âₜ = R(τ) = Σₖ rₖ

    Unbiased, and the estimator of the highest variance: an action also gets the rewards of what
    came before it.

    >>> from logpi.testing import row
    >>> TotalReward()(row([-1., -1., -1., 5.]))
    tensor([[2., 2., 2., 2.]])
    """

    equation: ClassVar[str] = "Âₜ = R = Σₖ rₖ"
    source: ClassVar[str] = "policy gradient theorem: Sutton et al. 2000; Williams 1992"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        return spread(total_reward(batch), batch.mask)


@dataclass(frozen=True)
class RewardToGo(Advantage):
    """Return-to-go, the causal form of REINFORCE (Williams 1992; Sutton and Barto, 13.3).

        Âₜ = Gₜ = Σ_{k ≥ t} γ^{k−t} rₖ

    γ = 1 is unbiased; γ < 1 has bias and less variance. It does not bootstrap: a row that was cut
    off counts as if it had ended.

    Attributes:
        gamma: discount per own action, in [0, 1].
    Raises:
        ValueError: a discount outside.

    >>> from logpi.testing import row
    >>> RewardToGo()(row([-1., -1., -1., 5.]))
    tensor([[2., 3., 4., 5.]])
    """

    gamma: float = 1.0
    source: ClassVar[str] = "REINFORCE: Williams 1992"

    def __post_init__(self) -> None:
        check_discounts(gamma=self.gamma)

    @property
    def equation(self) -> str:  # type: ignore[override]
        return "Âₜ = Σ_{k≥t} rₖ" if self.gamma == 1 else f"Âₜ = Σ_{{k≥t}} {self.gamma:g}^(k−t) rₖ"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        return to_go(batch.reward, batch.mask, self.gamma)


@dataclass(frozen=True)
class GAE(Advantage):
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

        δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)          Âₜ = δₜ + γλ Âₜ₊₁

    Time counts the policy's own actions: tool output neither discounts nor bootstraps, and deleting
    it changes nothing (several libraries differ). λ = 1 gives RewardToGo − V; λ = 0 the one-step TD
    error. The last state is bootstrapped with V unless `terminated`; CleanRL treats time-outs as
    terminations. The critic's target is Âₜ + V(sₜ), the λ-return.

    Attributes:
        gamma: discount per own action, in [0, 1].
        lam: from bias (0) to variance (1), in [0, 1].
    Raises:
        ValueError: `value` is None; a discount outside.

    >>> from logpi.testing import row
    >>> GAE(gamma=1.0, lam=1.0)(row([0., 1.]), torch.zeros(1, 3))
    tensor([[1., 1.]])
    """

    gamma: float = 1.0
    lam: float = 1.0
    critic: ClassVar[bool] = True
    bootstraps: ClassVar[bool] = True
    source: ClassVar[str] = "GAE: Schulman et al. 2016, arXiv:1506.02438"

    def __post_init__(self) -> None:
        check_discounts(gamma=self.gamma, lam=self.lam)

    @property
    def equation(self) -> str:  # type: ignore[override]
        if self.gamma == self.lam == 1:
            return "Âₜ = Σ_{k≥t} rₖ − V(sₜ)"
        gamma = "" if self.gamma == 1 else f"{self.gamma:g} "
        return f"Âₜ = δₜ + {self.gamma * self.lam:g} Âₜ₊₁,  δₜ = rₜ + {gamma}V(sₜ₊₁) − V(sₜ)"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        delta = td_error(batch, _critic(value, "GAE"), self.gamma)
        return to_go(delta, batch.mask, self.gamma * self.lam)

    def value_target(self, advantage: Tensor, value: Tensor | None, mask: Tensor) -> Tensor | None:
        return own(advantage + _critic(value, "GAE")[:, :-1], mask)


@dataclass(frozen=True)
class NStep(Advantage):
    """The advantage from n rewards and then the critic (Sutton and Barto, 7.1; Mnih et al. 2016).

        Âₜ = Σ_{k<n} γᵏ rₜ₊ₖ + γⁿ V(sₜ₊ₙ) − V(sₜ) = Σ_{k<n} γᵏ δₜ₊ₖ

    n = 1 is the TD error, n = ∞ RewardToGo − V; the average of all n with weights (1−λ) λⁿ⁻¹ is
    GAE. With fewer than n actions left, V is that of the last state, 0 if `terminated`.

    Attributes:
        n: steps before the critic, at least 1, or infinity.
        gamma: discount per own action, in [0, 1].
    Raises:
        ValueError: `value` is None; a discount or an n outside.

    >>> from logpi.testing import row
    >>> NStep(2)(row([-1., -1., -1., 5.]), torch.tensor([[2., 2., 3., 4., 0.]]))
    tensor([[-1.,  0.,  1.,  1.]])
    """

    n: float = 1
    gamma: float = 1.0
    critic: ClassVar[bool] = True
    bootstraps: ClassVar[bool] = True
    source: ClassVar[str] = "n-step return: Watkins 1989; A3C: Mnih et al. 2016, arXiv:1602.01783"

    def __post_init__(self) -> None:
        check_discounts(gamma=self.gamma)
        if not (self.n >= 1 and (self.n == math.inf or self.n == int(self.n))):
            raise ValueError(f"n is a whole number of steps from 1, or infinity, not {self.n:g}")

    @property
    def equation(self) -> str:  # type: ignore[override]
        gamma, power = ("", "") if self.gamma == 1 else (f"{self.gamma:g}^k ", f"{self.gamma:g} ")
        steps = "k≥0" if self.n == math.inf else f"k<{self.n:g}"
        return f"Âₜ = Σ_{{{steps}}} {gamma}δₜ₊ₖ,  δₜ = rₜ + {power}V(sₜ₊₁) − V(sₜ)"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        delta = td_error(batch, _critic(value, "NStep"), self.gamma)
        steps = None if self.n == math.inf else int(self.n)
        return to_go(delta, batch.mask, self.gamma, steps)

    def value_target(self, advantage: Tensor, value: Tensor | None, mask: Tensor) -> Tensor | None:
        return own(advantage + _critic(value, "NStep")[:, :-1], mask)


@dataclass(frozen=True)
class QValue(Advantage):
    """The critic's action value, without a baseline (actor–critic; Sutton et al. 2000, Theorem 1).

        Âₜ = Q̂(sₜ, aₜ) = rₜ + γ V(sₜ₊₁)

    With tokens Q(s, a) is V of the state that follows, so a state-value critic is enough. Biased as
    far as V is wrong. The critic is fitted to the same one-step target.

    Attributes:
        gamma: discount per own action, in [0, 1].
    Raises:
        ValueError: `value` is None; a discount outside.
    """

    gamma: float = 1.0
    critic: ClassVar[bool] = True
    bootstraps: ClassVar[bool] = True
    source: ClassVar[str] = "policy gradient with Q values: Sutton et al. 2000"

    def __post_init__(self) -> None:
        check_discounts(gamma=self.gamma)

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"Âₜ = rₜ + {'' if self.gamma == 1 else f'{self.gamma:g} '}V(sₜ₊₁)"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        after = next_value(_critic(value, "QValue"), batch.mask, batch.terminated)
        return own(batch.reward + self.gamma * after, batch.mask)

    def value_target(self, advantage: Tensor, value: Tensor | None, mask: Tensor) -> Tensor | None:
        return advantage


@dataclass(frozen=True)
class GroupCenter(Advantage):
    """Return minus the group's mean (Dr. GRPO, arXiv:2503.20783).

        Âₜ = R − mean(R of the group)

    The mean includes the row itself, so the expected gradient is exactly (G−1)/G of the policy
    gradient. One number for all actions of a row. Rows without an own action do not count.

    Raises:
        ValueError: a group of one.

    >>> from logpi.testing import group
    >>> GroupCenter()(group([1., 0., 1., 0.]))[:, 0]
    tensor([ 0.5000, -0.5000,  0.5000, -0.5000])
    """

    group: ClassVar[int] = 2
    equation: ClassVar[str] = "Âₜ = R − mean_group(R)"
    source: ClassVar[str] = "Dr. GRPO: Liu et al. 2025, arXiv:2503.20783"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        return spread(group_returns(batch, self.group, "GroupCenter").centred, batch.mask)


@dataclass(frozen=True)
class GroupNorm(Advantage):
    """Return in standard deviations of its group (GRPO, arXiv:2402.03300, section 4.1.2).

        Âₜ = (R − mean(R)) / (std(R) + ε)          std with G − ddof

    One number for all actions of a row. A group whose returns are all equal has advantage exactly
    0, never NaN and never rounding noise over ε. Because of the division by the spread GRPO's
    direction differs from the policy gradient where prompts differ in difficulty (theory:
    1/√(p(1−p))). Rows without an own action do not count.

    Attributes:
        eps: added to the standard deviation, in units of return.
        ddof: 1 for the sample standard deviation (the common code), 0 for the population's.
    Raises:
        ValueError: a group of one; an ε below 0, or another ddof.

    >>> from logpi.testing import group
    >>> GroupNorm()(group([1., 0., 1., 0.]))[:, 0]
    tensor([ 0.8660, -0.8660,  0.8660, -0.8660])
    """

    eps: float = 1e-6
    ddof: int = 1
    group: ClassVar[int] = 2
    source: ClassVar[str] = "GRPO: Shao et al. 2024, arXiv:2402.03300"

    differs: ClassVar[tuple[str, ...]] = ("GRPO's std has no ε (TRL 1e-4, verl 1e-6).",)

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and self.ddof in (0, 1)):
            raise ValueError(f"GroupNorm needs eps of at least 0 and ddof 0 or 1, got {self}")

    @property
    def equation(self) -> str:  # type: ignore[override]
        return (
            f"Âₜ = (R − mean_group(R)) / (std_group(R) + {self.eps:g}), std over"
            f" G{'−1' if self.ddof else ''}"
        )

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "GroupNorm")
        off = torch.where(g.alive, g.centred, torch.zeros_like(g.total))
        std = (group_sum(off**2, batch.group) / (g.count - self.ddof).clamp(min=1)).sqrt()
        # ε may be 0
        scale = torch.where(g.uniform, torch.ones_like(std), std + self.eps)
        return spread(off / scale, batch.mask)


@dataclass(frozen=True)
class LeaveOneOut(Advantage):
    """Return minus the mean of the *other* samples of the prompt (RLOO: Kool et al. 2019;
    arXiv:2402.14740).

        Âₜ = Rᵢ − 1/(G−1) Σ_{l≠i} Rₗ

    Unbiased, because the baseline does not include the row itself. Equals GroupCenter · G/(G−1). A
    row without other rows in its group gets 0.

    Raises:
        ValueError: a group of one.

    >>> from logpi.testing import group
    >>> LeaveOneOut()(group([1., 0., 0., 0.]))[:, 0]
    tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    """

    group: ClassVar[int] = 2
    equation: ClassVar[str] = "Âₜ = R − mean of the other samples' R"
    source: ClassVar[str] = "RLOO: Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "LeaveOneOut")
        scale = g.count / (g.count - 1).clamp(min=1)
        return spread(g.centred * scale, batch.mask)


@dataclass(frozen=True)
class GreedyBaseline(Advantage):
    """Return-to-go minus the reward of the greedy response to the same prompt (ReMax,
    arXiv:2310.10505).

        Âₜ = Σ_{k≥t} rₖ − r(x, ŷ),   ŷ the greedy response

    Unbiased: the baseline does not depend on the sampled actions. Costs one greedy response for
    each prompt.

    Raises:
        ValueError: `batch.baseline` is None.
    """

    greedy: ClassVar[bool] = True
    equation: ClassVar[str] = "Âₜ = Σ_{k≥t} rₖ − r(x, greedy response)"
    source: ClassVar[str] = "ReMax: Li et al. 2023, arXiv:2310.10505"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        if batch.baseline is None:
            raise ValueError(
                "GreedyBaseline (ReMax) needs batch.baseline, the reward of one greedy response a"
                " prompt: let the rollout make it (greedy=True)"
            )
        return own(to_go(batch.reward, batch.mask, 1.0) - batch.baseline[:, None], batch.mask)

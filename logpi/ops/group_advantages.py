"""Newer advantages of groups: other baselines and scales than those of RLOO and GRPO, and pass@k.

The contract is that of `advantages.py`. Left out: the classical ones, which stand there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from logpi.ops.advantages import Advantage
from logpi.ops.groups import GroupReturns, group_index, group_returns, group_sum
from logpi.ops.time import spread

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = ["BatchScale", "LengthBaseline", "MaxAtK", "MeanScale", "PassAtK", "UnfitReturns"]


class UnfitReturns(ValueError):
    """Returns that an estimator is not defined for. One line."""


@dataclass(frozen=True)
class BatchScale(Advantage):
    """Return minus the group's mean, in standard deviations of all returns of the batch (Lite PPO,
    arXiv:2508.08221).

        Âₜ = (R − mean_group(R)) / std_batch(R)          std with B − 1

    One scale for all prompts, so none weighs more for being easy or hard: as the batch grows, the
    expected step is the policy gradient times a number. If all returns are equal, it is 0.

    Raises:
        ValueError: a group of one.

    >>> from logpi.testing import group
    >>> BatchScale()(group([1., 0., 1., 0.]))[:, 0]
    tensor([ 0.8660, -0.8660,  0.8660, -0.8660])
    """

    group: ClassVar[int] = 2
    whole_batch: ClassVar[bool] = True
    equation: ClassVar[str] = "Âₜ = (R − mean_group(R)) / std_batch(R), std over B−1"
    source: ClassVar[str] = "Lite PPO: Liu et al. 2025, arXiv:2508.08221"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "BatchScale")
        returns = g.total[g.alive]
        std = returns.std() if len(returns) > 1 else returns.new_zeros(())
        return spread(g.centred / torch.where(std > 0, std, 1.0), batch.mask)


@dataclass(frozen=True)
class LengthBaseline(Advantage):
    """Return minus the mean of the group's returns, weighted by their lengths (OPO,
    arXiv:2505.23585).

        Âₜ = R − Σⱼ |yⱼ| Rⱼ / Σⱼ |yⱼ|

    The baseline of least variance if every token's score has the same norm and those of different
    tokens are orthogonal: then ‖∇ log π(y)‖² grows as the length |y|. It contains the row itself,
    which is a bias that falls with the size of the group.

    Raises:
        ValueError: a group of one.

    Two rows of one action and of three: the mean is (1·1 + 3·0) / 4.

    >>> from logpi.testing import group
    >>> LengthBaseline()(group([1., 0.], lengths=[1, 3]))
    tensor([[ 0.7500,  0.0000,  0.0000],
            [-0.2500, -0.2500, -0.2500]])
    """

    group: ClassVar[int] = 2
    equation: ClassVar[str] = "Âₜ = R − Σ_group |y| R / Σ_group |y|"
    source: ClassVar[str] = "OPO: Hao et al. 2025, arXiv:2505.23585"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "LengthBaseline")
        length = batch.mask.sum(1).to(g.total.dtype)
        tokens = group_sum(length, batch.group).clamp(min=1)
        baseline = group_sum(length * g.total, batch.group) / tokens
        off = torch.where(g.uniform, torch.zeros_like(g.total), g.total - baseline)
        return spread(off, batch.mask)


@dataclass(frozen=True)
class MeanScale(Advantage):
    """Return in means of its group (MaxRL, arXiv:2602.02710).

        Âₜ = (R − mean(R)) / mean(R)          0 where mean(R) = 0

    With rewards of 0 and 1, of which a prompt gets a 1 with probability p, the expected step is
    exactly that of maximum likelihood, cut off after M − 1 terms:

        E[∇L̂] = −(1 + q + … + q^(M−2)) ∇p = −∇p (1 − q^(M−1)) / p,   q = 1 − p

    which tends to −∇ log p as the group grows: prompts that are hardly ever solved weigh more.

    Raises:
        ValueError: a group of one.
        UnfitReturns: a return below 0, by whose mean nothing can be divided.

    >>> from logpi.testing import group
    >>> MeanScale()(group([1., 0., 0., 0.]))[:, 0]
    tensor([ 3., -1., -1., -1.])
    """

    group: ClassVar[int] = 2
    equation: ClassVar[str] = "Âₜ = (R − mean_group(R)) / mean_group(R)"
    source: ClassVar[str] = "MaxRL: Tajwar et al. 2026, arXiv:2602.02710"
    differs: ClassVar[tuple[str, ...]] = (
        "The paper says that the expectation has M terms. That is so without a baseline; with it"
        " a group without a success is left out, and M − 1 terms remain.",
    )

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "MeanScale")
        if bool((low := g.total[g.alive]).lt(0).any()):
            raise UnfitReturns(
                f"MeanScale (MaxRL) divides by a group's mean return, so returns must be at least"
                f" 0, and one is {float(low.min()):.3g}: use rewards of 0 and 1, or another row"
            )
        return spread(g.centred / torch.where(g.mean > 0, g.mean, 1.0), batch.mask)


# --- the best of k ---


def _ascending(g: GroupReturns, group: Tensor) -> Iterator[Tensor]:
    """Of each group the numbers of its alive rows, the lowest return first."""
    index, groups = group_index(group)
    for i in range(groups):
        rows = ((index == i) & g.alive).nonzero().flatten()
        yield rows[g.total[rows].argsort(stable=True)]


def _best_other(n: int, k: int, like: Tensor) -> Tensor:
    """[n, n] the chance that, of k − 1 others of row i, the best is row m; rows in ascending order.

    Of the n − 1 others, m (or m − 1, if i is below m) are below row m, and k − 2 of those are taken
    beside it. n = 4, k = 3, so 2 of 3 others, which are 3 pairs:

        i = 0      –   0   1/3  2/3       the pair (1, 2), or one of (1, 3), (2, 3)
        i = 3      0  1/3  2/3   –
    """
    pairs = comb(n - 1, k - 1)
    above = like.new_tensor([comb(m - 1, k - 2) / pairs if m else 0.0 for m in range(n)])
    below = like.new_tensor([comb(m, k - 2) / pairs for m in range(n)])
    return below.expand(n, n).tril(-1) + above.expand(n, n).triu(1)


def _check_k(k: int, who: str) -> None:
    if k < 2:
        raise ValueError(f"{who} needs k of at least 2, not {k}: with k = 1 the best is the one")


@dataclass(frozen=True)
class MaxAtK(Advantage):
    """What a row adds to the best of k (PKPO, arXiv:2505.15201, its baseline of k − 1 samples).

        Âₜ = k · mean over k − 1 other samples J of max(0, R − max R_J)

    Exactly unbiased for the expected best of k samples, with any rewards and any number of samples
    from k on: E[∇L̂] = −∇E[max(R₁, …, R_k)], which is pass@k if rewards are 0 and 1. A wrong
    response then has 0, a right one k times the chance that k − 1 others are all wrong.

    Attributes:
        k: at least 2, at most the number of samples.
    Raises:
        ValueError: a k below 2, or a group of fewer than k.

    >>> from logpi.testing import group
    >>> MaxAtK(2)(group([1., 0., 0., 0.]))[:, 0]
    tensor([2., 0., 0., 0.])
    """

    k: int = 2
    source: ClassVar[str] = "PKPO: Walder and Karkhanis 2025, arXiv:2505.15201"

    def __post_init__(self) -> None:
        _check_k(self.k, "MaxAtK")

    @property
    def group(self) -> int:  # type: ignore[override]
        return self.k

    @property
    def equation(self) -> str:  # type: ignore[override]
        others = "the other sample" if self.k == 2 else f"{self.k - 1} other samples"
        return f"Âₜ = {self.k} mean(max(0, R − best R of {others}))"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "MaxAtK")
        gain = torch.zeros_like(g.total)
        for rows in _ascending(g, batch.group):
            if (n := len(rows)) >= self.k:
                x = g.total[rows]
                better = (x[:, None] - x).clamp(min=0)
                gain[rows] = self.k * (_best_other(n, self.k, x) * better).sum(1)
        return spread(gain, batch.mask)


@dataclass(frozen=True)
class PassAtK(Advantage):
    """The mean best of the k samples that a row is among, in standard deviations (Pass@k Training,
    arXiv:2508.10751, its analytic form).

        M_I = max of R over k samples I          Âₜ = (mean of M_I with the row − mean of M_I) / std

    Means and standard deviation are over all subsets of k samples of the group. With rewards of 0
    and 1 these are the paper's formulas, with R̄ = 1 − C(wrong, k) / C(all, k):

        right  (1 − R̄) / σ        wrong  (1 − R̄ − C(wrong − 1, k − 1) / C(all − 1, k − 1)) / σ

    A group in which every k samples have the same best one has 0. The division by σ = √(R̄(1 − R̄))
    turns the step away from ∇pass@k where prompts differ in difficulty; `MaxAtK` has none.

    Attributes:
        k: at least 2, below the number of samples.
    Raises:
        ValueError: a k below 2, or a group of k or fewer.

    One right sample of three: 2 of 3 pairs have it, R̄ = 2/3, σ = 0.4714.

    >>> from logpi.testing import group
    >>> PassAtK(2)(group([1., 0., 0.]))[:, 0]
    tensor([ 0.7071, -0.3536, -0.3536])
    """

    k: int = 2
    source: ClassVar[str] = "Pass@k Training: Chen et al. 2025, arXiv:2508.10751"

    def __post_init__(self) -> None:
        _check_k(self.k, "PassAtK")

    @property
    def group(self) -> int:  # type: ignore[override]
        return self.k + 1

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"Âₜ = (mean(M with the row) − mean(M)) / std(M), M the best R of {self.k} samples"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        g = group_returns(batch, self.group, "PassAtK")
        advantage = torch.zeros_like(g.total)
        for rows in _ascending(g, batch.group):
            x = g.total[rows]
            # else all subsets have the same best one, and a difference is only rounding
            if (n := len(rows)) > self.k and bool(x[self.k - 1] < x[-1]):
                chance, best = _best_other(n, self.k, x), torch.maximum(x[:, None], x)
                among = (chance * best).sum(1)
                # every subset is counted once for each of its k rows
                off = among - among.mean()
                var = (chance * (best - among.mean()) ** 2).sum(1).mean()
                advantage[rows] = off / var.sqrt()
        return spread(advantage, batch.mask)

"""Statistics of groups: the samples of one prompt (or one reset seed).

A row without an own action (a missing verdict, a masked-out truncation) counts in no mean, spread
or number. Left out: what is done with the statistics (`advantages.py`, `weights.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.ops.time import own

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = [
    "GroupReturns",
    "by_group",
    "extremes",
    "group_count",
    "group_index",
    "group_returns",
    "group_sum",
    "total_reward",
]


def total_reward(batch: Batch) -> Tensor:
    """R = Σₜ rₜ over the policy's own actions, [B]."""
    return own(batch.reward, batch.mask).sum(1)


def group_index(group: Tensor) -> tuple[Tensor, int]:
    """[B] the number of each row's group, from 0; and the number P of groups."""
    ids, index = torch.unique(group, return_inverse=True)
    return index, len(ids)


def group_count(mask: Tensor, group: Tensor) -> int:
    """Number of groups that have an own action, at least 1."""
    return max(1, torch.unique(group[mask.any(1)]).numel())


def by_group(x: Tensor, group: Tensor) -> Tensor:
    """[P] sums of `x` [B] over the rows of each group."""
    index, groups = group_index(group)
    return x.new_zeros(groups).index_add(0, index, x)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """[B] for each row the sum of `x` [B] over the rows of its group."""
    index, groups = group_index(group)
    return x.new_zeros(groups).index_add(0, index, x)[index]


def extremes(x: Tensor, alive: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """[B] for each row the least and the largest `x` [B] of its group's `alive` rows."""
    index, groups = group_index(group)
    low, high = x.new_full((groups,), torch.inf), x.new_full((groups,), -torch.inf)
    low.scatter_reduce_(0, index, x.where(alive, torch.inf), "amin")
    high.scatter_reduce_(0, index, x.where(alive, -torch.inf), "amax")
    return low[index], high[index]


@dataclass(frozen=True)
class GroupReturns:
    """Returns of each row and of its group; every tensor is [B].

    Attributes:
        total: R, the return of the row.
        alive: bool, the row has an own action.
        count: number of alive rows in the row's group.
        mean: mean return of the group's alive rows.
        uniform: bool, all alive returns of the group are exactly equal, so there is nothing to
            learn from it.
    """

    total: Tensor
    alive: Tensor
    count: Tensor
    mean: Tensor
    uniform: Tensor

    @property
    def centred(self) -> Tensor:
        """R − mean, exactly 0 in a uniform group."""
        return torch.where(self.uniform, torch.zeros_like(self.total), self.total - self.mean)


def group_returns(batch: Batch, minimum: int, who: str) -> GroupReturns:
    """The statistics that group baselines are made of.

    Raises:
        ValueError: a group has fewer than `minimum` rows.
    """
    size = group_sum(torch.ones_like(batch.group), batch.group)
    if int(size.min()) < minimum:
        raise ValueError(
            f"{who} needs at least {minimum} samples for each prompt, a group here has"
            f" {int(size.min())}: raise num_generations (or use an estimator with another baseline)"
        )
    alive = batch.mask.any(1)
    total = total_reward(batch)
    counted = alive.to(total.dtype)
    count = group_sum(counted, batch.group)
    mean = group_sum(total * counted, batch.group) / count.clamp(min=1)
    low, high = extremes(total, alive, batch.group)
    return GroupReturns(total, alive, count, mean, low >= high)

"""Statistics of a group: the samples of one prompt (or one reset seed).

A row without any own action (a missing verdict, a masked-out truncation) is not there: it moves no
mean, no spread, no count. Leaves out what is done with the statistics (`advantages.py`,
`weights.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.ops.time import own

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = ["GroupReturns", "group_returns", "group_sum", "total_reward"]


def total_reward(batch: Batch) -> Tensor:
    """R = Σₜ rₜ over the policy's own actions, [B]."""
    return own(batch.reward, batch.mask).sum(1)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """For each row the sum of `x` [B] over the rows of its group, [B]."""
    ids, index = torch.unique(group, return_inverse=True)
    return x.new_zeros(len(ids)).index_add(0, index, x)[index]


@dataclass(frozen=True)
class GroupReturns:
    """Returns of each row and of its group; every tensor is [B].

    Attributes:
        total: R, return of the row.
        alive: bool, the row has an own action and so takes part.
        count: number of alive rows in the row's group.
        mean: mean return of the group's alive rows.
        uniform: bool, all alive returns of the group are equal, exactly: there is nothing to learn
            from it.
    """

    total: Tensor
    alive: Tensor
    count: Tensor
    mean: Tensor
    uniform: Tensor


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
    here = alive.to(total.dtype)
    count = group_sum(here, batch.group)
    mean = group_sum(total * here, batch.group) / count.clamp(min=1)
    ids, index = torch.unique(batch.group, return_inverse=True)
    low = total.new_full((len(ids),), torch.inf).scatter_reduce(
        0, index, total.masked_fill(~alive, torch.inf), "amin"
    )
    high = total.new_full((len(ids),), -torch.inf).scatter_reduce(
        0, index, total.masked_fill(~alive, -torch.inf), "amax"
    )
    return GroupReturns(total, alive, count, mean, (low >= high)[index])

"""Advantages that read no reward: what the policy learns stands elsewhere, in the data or in a
penalty.

Left out: estimators from rewards (`advantages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from logpi.ops.advantages import Advantage

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = ["NoReward", "Uniform"]


@dataclass(frozen=True)
class NoReward(Advantage):
    """Rewards are measured and teach nothing: what the policy learns stands elsewhere in the
    objective, say a penalty to a teacher.

        Âₜ = 0

    >>> from logpi.testing import row
    >>> NoReward()(row([-1., -1., -1., 5.]))
    tensor([[0., 0., 0., 0.]])
    """

    equation: ClassVar[str] = "Âₜ = 0"
    source: ClassVar[str] = "no reward"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        return torch.zeros_like(batch.reward)


@dataclass(frozen=True)
class Uniform(Advantage):
    """Every own action has advantage 1: supervised learning is a policy gradient on someone else's
    trajectories.

    Âₜ = 1
    """

    on_policy: ClassVar[bool] = False
    equation: ClassVar[str] = "Âₜ = 1"
    source: ClassVar[str] = "maximum likelihood"

    def __call__(self, batch: Batch, value: Tensor | None = None) -> Tensor:
        return batch.mask.to(batch.logp.dtype)

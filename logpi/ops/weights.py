"""Aggregation: the weight of each action in the loss, a tensor made once for each optimiser batch.

    loss = −(weight · objective).sum()

So every split into micro-batches adds up exactly, and padding has no weight. Each is called with
`(mask [B, T], group [B])` and returns [B, T], 0 where `mask` is False. Rows without an own action
count in no mean. Left out: what is weighted (`surrogates.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from logpi.ops.groups import group_count, group_sum

__all__ = ["FixedLength", "GroupTokenMean", "SequenceMean", "SequenceSum", "TokenMean", "Weight"]


class Weight(ABC):
    """The weight of an action; the module's docstring has the contract.

    Attributes:
        by_action: every action of the batch counts the same, whatever row it is in.
        differs: from its source or from common code, a line each.
    """

    by_action: ClassVar[bool] = False
    differs: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def __call__(self, mask: Tensor, group: Tensor) -> Tensor: ...


def _rows(mask: Tensor) -> Tensor:
    return mask.any(1).sum().clamp(min=1)


@dataclass(frozen=True)
class TokenMean(Weight):
    """Every action has the same weight: mask / Σ mask. Long responses weigh more than short
    ones."""

    by_action: ClassVar[bool] = True
    equation: ClassVar[str] = "wₜ = 1 / all own actions of the batch"
    source: ClassVar[str] = "PPO: Schulman et al. 2017, arXiv:1707.06347"

    def __call__(self, mask: Tensor, group: Tensor) -> Tensor:
        return mask.to(torch.get_default_dtype()) / mask.sum().clamp(min=1)


@dataclass(frozen=True)
class GroupTokenMean(Weight):
    """All prompts have the same weight, and all actions of one prompt's samples (DAPO,
    arXiv:2503.14476, eq. 8).

    wₜ = 1 / (P · tokens of the prompt's group). DAPO's expectation is over prompts; common code
    takes the mean over the tokens of the whole batch instead, which is `TokenMean`.
    """

    equation: ClassVar[str] = "wₜ = 1 / (P · own actions of the prompt's group)"
    source: ClassVar[str] = "DAPO: Yu et al. 2025, arXiv:2503.14476"
    differs: ClassVar[tuple[str, ...]] = (
        "DAPO's common code takes the mean over the tokens of the whole batch (TokenMean).",
    )

    def __call__(self, mask: Tensor, group: Tensor) -> Tensor:
        tokens = group_sum(mask.sum(1), group).clamp(min=1)[:, None]
        return mask.to(torch.get_default_dtype()) / tokens / group_count(mask, group)


@dataclass(frozen=True)
class SequenceMean(Weight):
    """Mean over the actions of a response, then over responses (GRPO, arXiv:2402.03300, eq. 3).

    wₜ = 1 / (B · |y|). A token of a short response weighs more, so short right answers and long
    wrong ones are preferred.
    """

    equation: ClassVar[str] = "wₜ = 1 / (B · |y|)"
    source: ClassVar[str] = "GRPO: Shao et al. 2024, arXiv:2402.03300"

    def __call__(self, mask: Tensor, group: Tensor) -> Tensor:
        length = mask.sum(1, keepdim=True).clamp(min=1)
        return mask.to(torch.get_default_dtype()) / length / _rows(mask)


@dataclass(frozen=True)
class SequenceSum(Weight):
    """Sum over the actions of a response, mean over responses: the policy gradient theorem's own
    aggregation.

    wₜ = 1 / B.
    """

    equation: ClassVar[str] = "wₜ = 1 / B"
    source: ClassVar[str] = "policy gradient theorem"

    def __call__(self, mask: Tensor, group: Tensor) -> Tensor:
        return mask.to(torch.get_default_dtype()) / _rows(mask)


@dataclass(frozen=True)
class FixedLength(Weight):
    """Sum over a response's actions over a constant, mean over responses (Dr. GRPO,
    arXiv:2503.20783).

        wₜ = 1 / (B · length)

    The policy gradient's direction, at a scale that does not depend on the lengths of the batch.
    verl's default divides by the padded width.

    Attributes:
        length: > 0, usually the largest completion length. 1 gives SequenceSum.
    """

    length: int
    source: ClassVar[str] = "Dr. GRPO: Liu et al. 2025, arXiv:2503.20783"
    differs: ClassVar[tuple[str, ...]] = (
        "verl's default divides by the padded width of the batch instead of a constant.",
    )

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError(f"FixedLength needs a length above 0, got {self.length}")

    @property
    def equation(self) -> str:  # type: ignore[override]
        return f"wₜ = 1 / (B · {self.length})"

    def __call__(self, mask: Tensor, group: Tensor) -> Tensor:
        return mask.to(torch.get_default_dtype()) / (_rows(mask) * self.length)

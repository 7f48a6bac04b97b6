"""Which rows and groups of a rollout enter the batch: rows cut off by the length limit, and groups
whose returns are all equal.

Both are choices of an algorithm, made before a batch exists. Left out: how rows are sampled
(`rollouts`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from logpi.types import Trajectory

__all__ = [
    "GROUPS",
    "TRUNCATIONS",
    "Bootstrap",
    "CountAsFailure",
    "DropUniform",
    "Keep",
    "KeepAll",
    "MaskOut",
    "MixedOutcomes",
    "Truncation",
    "is_uniform",
]


class Truncation(ABC):
    """The treatment of a row that the length limit cut off."""

    @abstractmethod
    def __call__(self, row: Trajectory) -> Trajectory:
        """The row as it enters the batch; only called for rows that did not terminate."""


@dataclass(frozen=True)
class Bootstrap(Truncation):
    """Keep the row and its reward; a critic, if there is one, values its last state."""

    def __call__(self, row: Trajectory) -> Trajectory:
        return row


@dataclass(frozen=True)
class MaskOut(Truncation):
    """Learn nothing from the row: its mask is cleared, and it counts in no group statistic (TRL's
    mask_truncated_completions, DAPO's overlong filtering; in the code of both the row still counts
    in its group's mean and spread)."""

    def __call__(self, row: Trajectory) -> Trajectory:
        return replace(row, mask=torch.zeros_like(row.mask))


@dataclass(frozen=True)
class CountAsFailure(Truncation):
    """The row ends with this reward, whatever the reward functions return.

    Attributes:
        reward: in units of reward.
    """

    reward: float = 0.0

    def __call__(self, row: Trajectory) -> Trajectory:
        own = row.mask.nonzero().flatten()
        reward = torch.zeros_like(row.reward)
        if len(own):
            reward[own[-1]] = self.reward
        return replace(row, reward=reward, terminated=True)


def is_uniform(rows: Sequence[Trajectory]) -> bool:
    """All returns of the group's rows that have an own action are equal (or there is no such
    row)."""
    returns = {float(r.reward[r.mask].sum()) for r in rows if r.mask.any()}
    return len(returns) < 2


class Keep(ABC):
    """Which groups enter the batch. `refill`: sample other prompts for dropped groups, at most
    `rounds` times."""

    refill: ClassVar[bool] = False

    @property
    def rounds(self) -> int:
        return 1

    @abstractmethod
    def __call__(self, rows: Sequence[Trajectory]) -> bool:
        """Whether this group (all samples of one prompt) is kept."""


@dataclass(frozen=True)
class KeepAll(Keep):
    """Keep every group. One whose returns are all equal has advantage 0 under a group baseline and
    is not evaluated in the update."""

    def __call__(self, rows: Sequence[Trajectory]) -> bool:
        return True


@dataclass(frozen=True)
class DropUniform(Keep):
    """Drop groups whose returns are all equal; the batch is smaller, so the others weigh more."""

    def __call__(self, rows: Sequence[Trajectory]) -> bool:
        return not is_uniform(rows)


@dataclass(frozen=True)
class MixedOutcomes(DropUniform):
    """Drop groups whose returns are all equal, and sample other prompts until the batch is full
    (DAPO's dynamic sampling, arXiv:2503.14476, eq. 11).

    Attributes:
        max_rounds: how many times the batch's number of prompts may be sampled; then the batch has
            the groups that were found, and if there is none an error says why.
    """

    max_rounds: int = 10
    refill: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds must be at least 1, not {self.max_rounds}")

    @property
    def rounds(self) -> int:
        return self.max_rounds


TRUNCATIONS: dict[str, Truncation] = {
    "bootstrap": Bootstrap(),
    "mask": MaskOut(),
    "fail": CountAsFailure(),
}
"""The words of `--truncation`."""
GROUPS: dict[str, Keep] = {
    "keep": KeepAll(),
    "drop": DropUniform(),
    "resample": MixedOutcomes(),
}
"""The words of `--groups`."""

"""Rows become a batch: the only place that pads.

Left out: what the rows and the batch hold (`logpi.types`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from logpi.types import Batch, Trajectory

__all__ = ["collate"]


def collate(trajectories: Sequence[Trajectory]) -> Batch:
    """Stack ragged rows into a `Batch`, padded on the right with zeros.

    Raises:
        ValueError: no rows, or only some of them have a greedy baseline.

    >>> row = Trajectory(torch.arange(3), torch.arange(1, 3), torch.tensor([False, True]),
    ...                  torch.tensor([0., 1.]), torch.tensor([0., -.5]), terminated=True, group=0)
    >>> collate([row, row]).reward
    tensor([[0., 1.],
            [0., 1.]])
    """
    if not trajectories:
        raise ValueError("no trajectories to collate: the rollout brought nothing")
    width = max(1, max(len(t.action) for t in trajectories))
    baselines = [t.baseline for t in trajectories]
    if any(b is None for b in baselines) and any(b is not None for b in baselines):
        raise ValueError(
            "some trajectories have a greedy baseline and some do not; give it to all or to none"
        )
    by_action = ("action", "mask", "reward", "logp")
    return Batch(
        **{name: _pad([getattr(t, name) for t in trajectories], width) for name in by_action},
        obs=_pad([t.obs for t in trajectories], width + 1),
        terminated=torch.tensor([t.terminated for t in trajectories]),
        group=torch.tensor([t.group for t in trajectories]),
        baseline=None if baselines[0] is None else torch.tensor(baselines, dtype=torch.float32),
    )


def _pad(rows: list[Tensor], width: int) -> Tensor:
    blank = rows[0].new_zeros(width, *rows[0].shape[1:])
    return pad_sequence([*rows, blank], batch_first=True)[:-1]

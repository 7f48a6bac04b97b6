"""A small convolutional actor–critic for pixels.

The trunk is that of Mnih et al. (2015, "Nature") for frames of 36 pixels and more, and two small
layers for smaller ones. Frames are bytes [H, W, C] or [C, H, W]. The policy divides them by 255, so
that batches hold bytes, a quarter of the size. Left out: frame stacking and resizing, for which
environments have wrappers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from logpi.policies.fast.dense import orthogonal
from logpi.policies.mlp import ActorCritic

if TYPE_CHECKING:
    from logpi.policies.distributions import Distribution

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # (channels, kernel, stride)
SMALL = ((16, 3, 1), (32, 3, 1))


def _channels_last(shape: Sequence[int]) -> bool:
    """Whether the channels are the last axis: the one whose size is usual for them; if both or
    neither are, the smaller one.

    >>> [_channels_last(s) for s in ((84, 84, 3), (4, 84, 84), (12, 12, 1))]
    [True, False, True]
    >>> [_channels_last(s) for s in ((9, 9, 3), (3, 9, 9), (12, 10, 10))]
    [True, False, False]
    """
    first, last = (n in (1, 3, 4, 9, 12) for n in (shape[0], shape[2]))
    return last if first != last else shape[2] <= shape[0]


class Pixels(nn.Module):
    """[N, H, W, C] or [N, C, H, W] bytes -> [N, width] features."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.last = _channels_last(shape)
        channels, height, wide = (shape[2], shape[0], shape[1]) if self.last else tuple(shape)
        layers: list[nn.Module] = []
        for out, kernel, stride in NATURE if min(height, wide) >= 36 else SMALL:
            layers += [
                orthogonal(nn.Conv2d(channels, out, kernel, stride), math.sqrt(2)),
                nn.ReLU(),
            ]
            channels = out
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            size = self.convolutions(self._frames(torch.zeros(1, *shape))).shape[1]
        self.dense = nn.Sequential(orthogonal(nn.Linear(size, width), math.sqrt(2)), nn.ReLU())

    def _frames(self, x: Tensor) -> Tensor:
        x = x.float() / 255
        return x.movedim(-1, 1) if self.last else x

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolutions(self._frames(x)))


def cnn(
    shape: Sequence[int],
    kind: Distribution,
    *,
    width: int = 512,
    critic: bool = True,
    log_std: float = 0.0,
) -> ActorCritic:
    """Shared convolutions, a linear policy and a linear value on top.

    Args:
        shape: of a frame. width: of the features.
    Raises:
        ValueError: `shape` is not that of a frame of at least 5 × 5 pixels.
    """
    if len(shape) != 3 or sorted(shape)[1] < 5:
        raise ValueError(
            f"pixels need the shape [height, width, channels], at least 5 × 5, not {tuple(shape)}"
        )
    actor = nn.Sequential(orthogonal(nn.Linear(width, kind.outputs), 0.01))
    value = nn.Sequential(orthogonal(nn.Linear(width, 1), 1.0)) if critic else None
    return ActorCritic(kind, actor, value, trunk=Pixels(shape, width), log_std=log_std, axes=3)

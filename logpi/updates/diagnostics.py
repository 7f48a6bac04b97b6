"""The diagnostics of an optimiser step, combined from those of its micro-batches on all ranks.

It leaves out what they are: an objective says that (`objectives/policy_gradient.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from logpi.distributed.world import current

__all__ = ["diagnostic_means"]


def diagnostic_means(pieces: Sequence[tuple[Mapping[str, Tensor], Tensor]]) -> dict[str, float]:
    """The diagnostics of all micro-batches together.

    Token means are weighted by the number of tokens, `…/max` and `…/min` stay extremes, `+…` are
    sums, whose sign is dropped. All are read at once, so the GPU is waited for once.

    Args:
        pieces: of each micro-batch of this rank its diagnostics and its number of the policy's own
            actions.
    """
    world = current()
    if world.size > 1:
        mine = [({k: v.cpu() for k, v in metrics.items()}, n.cpu()) for metrics, n in pieces]
        pieces = list(chain.from_iterable(world.gather(mine)))
    names = list(dict.fromkeys(name for metrics, _ in pieces for name in metrics))
    combined = [
        _combined(name, [(metrics[name], tokens) for metrics, tokens in pieces if name in metrics])
        for name in names
    ]
    numbers = torch.stack(combined).tolist() if combined else []
    return dict(zip((name.removeprefix("+") for name in names), numbers, strict=True))


def _combined(name: str, pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0][0]
    values = torch.stack([value for value, _ in pieces])
    if name.startswith("+"):
        return values.sum()
    if name.endswith("/max"):
        return values.amax()
    if name.endswith("/min"):
        return values.amin()
    counts = torch.stack([tokens for _, tokens in pieces]).to(values.dtype)
    return (values * counts).sum() / counts.sum().clamp(min=1)

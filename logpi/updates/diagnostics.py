"""The diagnostics of an optimiser step, combined from those of its micro-batches.

It leaves out what they are: an objective says that (`objectives/policy_gradient.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["diagnostic_means", "read"]


def diagnostic_means(pieces: Sequence[tuple[Mapping[str, Tensor], Tensor]]) -> dict[str, float]:
    """The diagnostics of all micro-batches together.

    Token means are weighted by the number of tokens, `…/max` and `…/min` stay extremes, `+…` are
    sums, whose sign is dropped. All are read at once, so the GPU is waited for once.

    Args:
        pieces: of each micro-batch its diagnostics and its number of the policy's own actions.
    """
    names = list(dict.fromkeys(name for metrics, _ in pieces for name in metrics))
    combined = [
        _combined(name, [(metrics[name], tokens) for metrics, tokens in pieces if name in metrics])
        for name in names
    ]
    return dict(zip((name.removeprefix("+") for name in names), read(combined), strict=True))


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


def read(numbers: list[Tensor]) -> list[float]:
    """Tensors without dimensions as numbers; a GPU is waited for once."""
    return torch.stack(numbers).tolist() if numbers else []

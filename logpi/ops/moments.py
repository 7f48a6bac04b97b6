"""Means and variances: merged batch by batch (Chan, Golub and LeVeque 1979), for floats, arrays and
tensors alike, and of advantages, which `whiten` removes."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from logpi.ops.time import own

__all__ = ["merge", "whiten"]

T = TypeVar("T")


def merge(
    mean: T, var: T, count: float, more_mean: T, more_var: T, more: float
) -> tuple[T, T, float]:
    """Mean, population variance and count of two sets of numbers together.

    >>> merge(0.0, 0.0, 1, 3.0, 0.0, 1)
    (1.5, 2.25, 2)
    """
    total = count + more
    delta = more_mean - mean  # type: ignore[operator]
    spread = var * count + more_var * more + delta**2 * (count * more / total)  # type: ignore[operator]
    return mean + delta * (more / total), spread / total, total


def whiten(advantage: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Zero mean and unit spread over all own actions of the batch (token-weighted, population std);
    [B, T].

    REINFORCE++ (arXiv:2501.03262) normalises like this over the global batch. A constant advantage
    becomes 0, not noise.
    """
    values = advantage[mask]
    if values.numel() == 0:
        return advantage
    if values.max() == values.min():
        return torch.zeros_like(advantage)
    return own((advantage - values.mean()) / (values.std(correction=0) + eps), mask)

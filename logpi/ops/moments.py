"""Running mean and variance, merged batch by batch (Chan, Golub and LeVeque 1979). Floats, arrays
and tensors alike."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["merge"]

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

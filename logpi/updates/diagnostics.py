"""Diagnostics of an optimiser step, put together from its micro-batches. What they are is not
decided here (`objectives/policy_gradient.py`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["DiagnosticMeans", "read"]


class DiagnosticMeans:
    """Puts together diagnostics of micro-batches: token means by their number of tokens, `…/max`
    and `…/min` as extremes, `+…` as sums (the sign is dropped). All are read at once: until then a
    GPU is not waited for."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Mapping[str, Tensor], Tensor]] = []

    def add(self, metrics: Mapping[str, Tensor], tokens: Tensor) -> None:
        self._pieces.append((metrics, tokens))

    def means(self) -> dict[str, float]:
        names = list(dict.fromkeys(k for metrics, _ in self._pieces for k in metrics))
        return dict(
            zip(
                (x.removeprefix("+") for x in names),
                read([self._mean(x) for x in names]),
                strict=True,
            )
        )

    def _mean(self, name: str) -> Tensor:
        found = [(metrics[name], tokens) for metrics, tokens in self._pieces if name in metrics]
        if len(found) == 1:
            return found[0][0]
        values = torch.stack([x for x, _ in found])
        if name.startswith("+"):
            return values.sum()
        if name.endswith(("/max", "/min")):
            return values.amax() if name.endswith("/max") else values.amin()
        counts = torch.stack([n for _, n in found]).to(values.dtype)
        return (values * counts).sum() / counts.sum().clamp(min=1)


def read(numbers: list[Tensor]) -> list[float]:
    """Numbers of 0 dimensions, all in one wait."""
    return torch.stack(numbers).tolist() if numbers else []

"""A table of the models that a job holds in memory, and their costs.

Left out: activations and caches, which depend on the lengths of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Role:
    """A model's part in a job: its name, its weights (None: it has none of its own), and a note."""

    name: str
    module: nn.Module | None
    note: str = ""


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows as lines of a table; `sides` says for each column where its cells stand: "<" left, ">"
    right.

    >>> aligned([("a", "12"), ("bcd", "3")], "<>")
    ['a    12', 'bcd   3']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [zip(row, sides, widths, strict=True) for row in rows]
    return ["  ".join(f"{c:{side}{w}}" for c, side, w in row).rstrip() for row in cells]


def memory(roles: Sequence[Role]) -> str:
    """Weights of each role, and what learning adds to them (gradients, Adam's moments, masters), in
    MB; activations come on top."""
    from logpi.updates.masters import learning_bytes

    rows = [("role", "parameters", "weights MB", "learning MB", "")]
    total = 0.0
    for role in roles:
        parameters = [] if role.module is None else list(role.module.parameters())
        weights = sum(p.numel() * p.element_size() for p in parameters) / 2**20
        learning = sum(p.numel() * learning_bytes(p) for p in parameters if p.requires_grad) / 2**20
        total += weights + learning
        count = f"{sum(p.numel() for p in parameters):,}"
        rows.append((role.name, count, f"{weights:.1f}", f"{learning:.1f}", role.note))
    rows.append(("total", "", f"{total:.1f}", "", ""))
    return "\n".join(aligned(rows, "<>>><"))

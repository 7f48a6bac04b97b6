"""The models that a job holds in memory, and what each costs.

Left out: activations and caches, which depend on the lengths of what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Role:
    """A model's part in a job: who it is, its weights (None: nobody's own), and a word on that."""

    name: str
    module: nn.Module | None
    note: str = ""


def memory(roles: Sequence[Role]) -> str:
    """Weights of each role, and what learning adds to them (gradients, Adam's moments, masters), in
    MB; activations come on top."""
    from logpi.updates.masters import learning_bytes

    rows = [("role", "parameters", "weights MB", "learning MB", "")]
    total = 0.0
    for role in roles:
        every = [] if role.module is None else list(role.module.parameters())
        weights = sum(p.numel() * p.element_size() for p in every) / 2**20
        learning = sum(p.numel() * learning_bytes(p) for p in every if p.requires_grad) / 2**20
        total += weights + learning
        count = f"{sum(p.numel() for p in every):,}"
        rows.append((role.name, count, f"{weights:.1f}", f"{learning:.1f}", role.note))
    rows.append(("total", "", f"{total:.1f}", "", ""))
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    right = list(zip(range(1, 4), widths[1:], strict=True))
    lines = [(r[0].ljust(widths[0]), *(r[i].rjust(w) for i, w in right), r[4]) for r in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)

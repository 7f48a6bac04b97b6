"""Common openings of rows, which are read once.

    openings    rows of a batch that share a prompt, for learning
    opening     the common opening of several prompts, for sampling

Left out: how rows then stand in a packed sequence (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

import torch
from torch import Tensor


def opening(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows open with (instructions, few shots); 0 unless reading them once
    saves a quarter of all tokens.

    >>> opening([(1, 2, 3, 4, 5), (1, 2, 3, 9, 9, 9)]), opening([(1, 2, 3, 4, 5), (1, 9, 9, 9)])
    (3, 0)
    """
    # commonprefix takes any sequences; each row keeps a token of its own to forward
    shared = min(len(commonprefix(rows)), *(len(p) - 2 for p in rows))
    saved = shared * (len(rows) - 1)
    return shared if 4 * saved >= sum(map(len, rows)) else 0


# Rows a b c d e, a b c f and a b x y with prefixes 3, 3, 3:
#
#     opening   a b c   a b c   a b x        number of the opening, `same`    0 0 1
#     first     row of each opening 0 → 0, 1 → 2
#     leader    0 0 2                        shared    0 3 0


def openings(tokens: Tensor, prefix: Tensor, extent: Tensor | None) -> tuple[Tensor, Tensor]:
    """leader [B]: the first row with the same opening. shared [B]: tokens taken from it, 0 for the
    leader itself."""
    row = torch.arange(len(tokens), device=tokens.device)
    width = max(1, int(prefix.max())) if len(tokens) else 1
    column = torch.arange(width, device=tokens.device)
    opening = tokens[:, :width].masked_fill(column >= prefix[:, None], -1)
    if extent is not None:
        opening = torch.cat([opening, extent[:, None]], 1)
    _, same = torch.unique(opening, dim=0, return_inverse=True)
    first = torch.full_like(row, len(row)).scatter_reduce(0, same, row, "amin")
    leader = first[same]
    return leader, torch.where(leader == row, 0, prefix)

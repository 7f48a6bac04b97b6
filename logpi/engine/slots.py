"""The state of rows that hold slots of the decoder, and the slots that they move to.

Left out: keys and values (`kv_cache.py`), rows that wait for a slot (`generation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from logpi.policies.packing import CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class RowStates:
    """The state of some rows, in the order of their slots. All [n].

    Attributes:
        token: to forward next, at `position`. left: tokens that may still be sampled.
        row: the row's number in the call. seed: of its random numbers. greedy: bool.
        reach: most tokens that the row may have in all.
    """

    token: Tensor
    position: Tensor
    left: Tensor
    row: Tensor
    seed: Tensor
    greedy: Tensor
    reach: Tensor

    def __len__(self) -> int:
        return self.token.shape[0]

    def pick(self, index: Tensor) -> RowStates:
        """The rows at `index`."""
        return RowStates(*(getattr(self, x.name)[index] for x in fields(self)))

    def join(self, other: RowStates) -> RowStates:
        """These rows, and behind them the others."""
        return RowStates(
            *(torch.cat([getattr(self, x.name), getattr(other, x.name)]) for x in fields(self))
        )


def arrangement(live: Sequence[int], paused: Sequence[int]) -> list[int]:
    """The old slot of each new one: `live` rows come first and `paused` ones behind; a row that
    stands on the right side stays where it is.

    >>> arrangement([0, 3, 4], [1])
    [0, 3, 4, 1]
    >>> arrangement([0, 2, 5], [3, 4])
    [0, 5, 2, 3, 4]
    """
    order = [-1] * (len(live) + len(paused))
    for side, members in ((range(len(live)), live), (range(len(live), len(order)), paused)):
        inside = [slot for slot in members if slot in side]
        for slot in inside:
            order[slot] = slot
        movers = iter([slot for slot in members if slot not in side])
        for slot in side:
            if order[slot] < 0:
                order[slot] = next(movers)
    return order


def reading_batches(count: Tensor, end: Tensor) -> list[Tensor]:
    """Indices of rows that read `count` [n] tokens up to position `end` [n], in batches whose
    attention fits into CELLS. Rows that read nothing are left out.

    With CELLS = 100, three rows that read 2, 5 and 8 tokens up to positions 10, 10 and 40:

        rows 0, 1      2 rows · 5 tokens · 10 columns = 100    one batch
        rows 0, 1, 2   3 rows · 8 tokens · 40 columns = 960    too many: row 2 is another batch
    """
    order = count.argsort(stable=True)
    batches: list[list[int]] = []
    for i in order[count[order] > 0].tolist():
        batch = [*batches[-1], i] if batches else [i]
        if batches and len(batch) * int(count[i]) * int(end[batch].max()) <= CELLS:
            batches[-1] = batch
        else:
            batches.append([i])
    return [torch.tensor(batch, device=count.device) for batch in batches]

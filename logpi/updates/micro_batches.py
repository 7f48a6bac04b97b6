"""Micro-batches: a batch is cut by a budget of tokens, and evaluated without gradient piece by
piece.

The cut changes the memory that is needed, never the result. Left out: gradients (`updates/sgd.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from logpi.types import Batch, Policy, PolicyOutput

__all__ = ["evaluate", "micro_batches"]


def micro_batches(
    mask: Tensor, tokens: int | None, group: Tensor | None = None, whole: bool = False
) -> Iterator[Tensor]:
    """The row numbers of each micro-batch: consecutive rows of at most `tokens` columns in all (one
    row at least; None: all rows). They are as few as possible and about equal, because the largest
    one decides the memory.

    With `group` [B], consecutive rows of one group, which share their prompt's computation, are
    parted only where they exceed `tokens`; if `whole`, not even there.
    """
    if tokens is None:
        yield torch.arange(mask.shape[0])
        return
    # Rows of 3 3 2 2 tokens, at most 8 at once. 10 tokens need two micro-batches, each with a share
    # of 5. Filling up would give 3 3 2 | 2. Instead a row whose middle lies beyond the shares so
    # far begins the next micro-batch:
    #
    #     row    before   middle   count · share
    #      0       0        1.5         5
    #      1       3        4.5         5         stays
    #      2       6        7           5         begins the next: 3 3 | 2 2
    #      3       8        9          10         stays
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    length = (mask * columns).amax(1)
    # rows that may begin a micro-batch
    first = torch.ones_like(length, dtype=torch.bool)
    if group is not None:
        first[1:] = group[1:] != group[:-1]
        number = first.cumsum(0) - 1
        if not whole:
            first |= torch.zeros_like(length).index_add(0, number, length)[number] > tokens
    begins = first.nonzero().flatten()
    totals = torch.zeros_like(begins).index_add(0, first.cumsum(0) - 1, length).tolist()
    share = sum(totals) / math.ceil(sum(totals) / tokens) if sum(totals) else 1
    start, used, before, count = 0, 0, 0, 1
    for i, n in zip(begins.tolist(), totals, strict=True):
        if i > start and (used + n > tokens or before + n / 2 > count * share):
            yield torch.arange(start, i)
            start, used, count = i, 0, count + 1
        used, before = used + n, before + n
    yield torch.arange(start, len(length))


@torch.no_grad()
def evaluate(policy: Policy, batch: Batch, tokens: int | None) -> PolicyOutput:
    """What the policy says of the whole batch, without gradient, computed in micro-batches. The
    tensors are on the batch's device."""
    b, t = batch.mask.shape
    rows = list(micro_batches(batch.mask, tokens, batch.group))
    outputs = [policy.evaluate(batch.rows(index)) for index in rows]

    def join(name: str, width: int) -> Tensor:
        pieces = [getattr(output, name) for output in outputs]
        joined = torch.zeros(b, width, dtype=pieces[0].dtype, device=batch.mask.device)
        for index, piece in zip(rows, pieces, strict=True):
            joined[index, : piece.shape[1]] = piece.to(joined.device)
        return joined

    value = None if outputs[0].value is None else join("value", t + 1)
    return PolicyOutput(join("logp", t), join("entropy", t), value)

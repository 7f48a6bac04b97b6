"""A batch in pieces: cut into micro-batches by a budget of tokens, and evaluated without gradient
piece by piece.

How it is cut is a matter of memory alone. Gradients are taken in `updates/sgd.py`.
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
    """Index tensors over consecutive rows of at most `tokens` columns in all (one row at least);
    None for all at once. As few as can be, and about equal: the largest decides the memory.

    With `group` [B], consecutive rows of one group, which share their prompt's computation, are
    parted only where they exceed `tokens`; if `whole`, not even there.
    """
    if tokens is None:
        yield torch.arange(mask.shape[0])
        return
    # Rows of 3 3 2 2 tokens, at most 8 at once. 10 tokens need two micro-batches, of 5 if it is
    # fair. Filling up would give 3 3 2 | 2; a row goes over when its middle lies beyond the share:
    #
    #     row    done before   middle   share so far
    #      0          0          1.5         5
    #      1          3          4.5         5         stays
    #      2          6          7           5         begins the next: 3 3 | 2 2
    #      3          8          9          10         stays
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    length = (mask * columns).amax(1)
    # rows that may begin a micro-batch
    fresh = torch.ones_like(length, dtype=torch.bool)
    if group is not None:
        fresh[1:] = group[1:] != group[:-1]
        number = fresh.cumsum(0) - 1
        if not whole:
            fresh |= torch.zeros_like(length).index_add(0, number, length)[number] > tokens
    begins = fresh.nonzero().flatten()
    totals = torch.zeros_like(begins).index_add(0, fresh.cumsum(0) - 1, length).tolist()
    fair = sum(totals) / math.ceil(sum(totals) / tokens) if sum(totals) else 1
    start, used, done, made = 0, 0, 0, 1
    for i, n in zip(begins.tolist(), totals, strict=True):
        if i > start and (used + n > tokens or done + n / 2 > made * fair):
            yield torch.arange(start, i)
            start, used, made = i, 0, made + 1
        used, done = used + n, done + n
    yield torch.arange(start, len(length))


@torch.no_grad()
def evaluate(policy: Policy, batch: Batch, tokens: int | None) -> PolicyOutput:
    """The policy's evaluation of the whole batch without gradient, in micro-batches; it lies on the
    batch's device."""
    b, t = batch.mask.shape
    found = [
        (index, policy.evaluate(batch.rows(index)))
        for index in micro_batches(batch.mask, tokens, batch.group)
    ]

    def join(name: str, width: int) -> Tensor | None:
        parts = [(index, getattr(e, name)) for index, e in found]
        if parts[0][1] is None:
            return None
        out = torch.zeros(b, width, dtype=parts[0][1].dtype, device=batch.mask.device)
        for index, x in parts:
            out[index, : x.shape[1]] = x.to(out.device)
        return out

    logp, entropy = join("logp", t), join("entropy", t)
    assert logp is not None and entropy is not None
    return PolicyOutput(logp, entropy, join("value", t + 1))

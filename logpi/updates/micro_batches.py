"""Micro-batches: a batch is cut by a budget of tokens, dealt out to the ranks, and evaluated
without gradient piece by piece.

Cut and dealing change memory and time, never the result. Left out: gradients (`updates/sgd.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from logpi.distributed.dealing import deal_in_step
from logpi.distributed.world import current
from logpi.types import Batch, Policy, PolicyOutput

__all__ = ["evaluate", "likeliest", "micro_batches", "own_share"]


def micro_batches(
    mask: Tensor,
    tokens: int | None,
    group: Tensor | None = None,
    whole: bool = False,
    ranks: int = 1,
) -> Iterator[Tensor]:
    """The row numbers of each micro-batch: consecutive rows of at most `tokens` columns in all (one
    row at least; None: all rows). They are as few as possible and about equal, because the largest
    one decides the memory; and for several ranks a multiple of their number, where rows allow it.

    With `group` [B], consecutive rows of one group, which share their prompt's computation, are
    parted only where they exceed `tokens`, or a rank's share; if `whole`, not even there.
    """
    if tokens is None and ranks == 1:
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
    total = int(length.sum())
    tokens = tokens or max(1, total)
    share = total / (ranks * math.ceil(total / (ranks * tokens))) if total else 1
    most = tokens if ranks == 1 else min(tokens, math.ceil(share))
    # rows that may begin a micro-batch
    first = torch.ones_like(length, dtype=torch.bool)
    if group is not None:
        first[1:] = group[1:] != group[:-1]
        number = first.cumsum(0) - 1
        if not whole:
            first |= torch.zeros_like(length).index_add(0, number, length)[number] > most
    begins = first.nonzero().flatten()
    totals = torch.zeros_like(begins).index_add(0, first.cumsum(0) - 1, length).tolist()
    start, used, before, count = 0, 0, 0, 1
    for i, n in zip(begins.tolist(), totals, strict=True):
        if i > start and (used + n > tokens or before + n / 2 > count * share):
            yield torch.arange(start, i)
            start, used, count = i, 0, count + 1
        used, before = used + n, before + n
    yield torch.arange(start, len(length))


def own_share(
    pieces: Sequence[Tensor], mask: Tensor, rank: int, ranks: int
) -> list[tuple[Tensor, bool]]:
    """A rank's micro-batches, as many as every other rank's, since sharded weights are gathered for
    each by all ranks together.

    Args:
        pieces: of the whole batch, from `micro_batches`. mask: [B, T]. rank: of `ranks`.
    Returns:
        Row numbers, and whether they count: those that do not only fill up the number, and are
        another rank's too.
    """
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    length = (mask * columns).amax(1)
    costs = [int(length[piece].sum()) for piece in pieces]
    cheapest = min(range(len(pieces)), key=costs.__getitem__, default=0)
    share = deal_in_step(costs, ranks)[rank]
    return [(pieces[cheapest if i is None else i], i is not None) for i in share]


def evaluate(policy: Policy, batch: Batch, tokens: int | None) -> PolicyOutput:
    """What the policy says of the whole batch, without gradient, computed in micro-batches by all
    ranks. The tensors are on the batch's device."""

    def outputs(part: Batch) -> tuple[Tensor | None, ...]:
        now = policy.evaluate(part)
        return now.logp, now.entropy, now.value

    logp, entropy, value = _by_pieces(outputs, batch, tokens)
    assert logp is not None and entropy is not None
    return PolicyOutput(logp, entropy, value)


def likeliest(
    policy: Any, batch: Batch, number: int, tokens: int | None
) -> tuple[Tensor, PolicyOutput]:
    """The policy's likeliest actions in the state of each own action, and its output with them as
    `others`, computed in micro-batches by all ranks.

    Args:
        policy: it has `likeliest(batch, number)`, as `CausalLM` and `TabularPolicy` have.
    Returns:
        Their numbers [B, T, K] long, K ≤ `number`, and the output.
    """

    def outputs(part: Batch) -> tuple[Tensor | None, ...]:
        actions, now = policy.likeliest(part, number)
        return actions, now.logp, now.entropy, now.others

    actions, logp, entropy, others = _by_pieces(outputs, batch, tokens)
    assert actions is not None and logp is not None and entropy is not None
    return actions, PolicyOutput(logp, entropy, others=others)


@torch.no_grad()
def _by_pieces(
    outputs: Callable[[Batch], tuple[Tensor | None, ...]], batch: Batch, tokens: int | None
) -> list[Tensor | None]:
    """The outputs of the whole batch, each [B, T, *] or [B, T+1, *] or None."""
    b, t = batch.mask.shape
    world = current()
    pieces = list(micro_batches(batch.mask, tokens, batch.group, ranks=world.size))
    rows = own_share(pieces, batch.mask, world.rank, world.size)
    parts = [(batch.rows(index), index, counts) for index, counts in rows]
    computed = [(outputs(part), part.mask.shape[1], index, counts) for part, index, counts in parts]

    def join(number: int) -> Tensor | None:
        first, width = computed[0][0][number], computed[0][1]
        if first is None:
            return None
        # values have one column more than actions
        columns = t + first.shape[1] - width
        joined = first.new_zeros(b, columns, *first.shape[2:], device=batch.mask.device)
        for values, _, index, counts in computed:
            if counts and (part := values[number]) is not None:
                joined[index, : part.shape[1]] = part.to(joined.device)
        world.sum([joined])
        return joined

    return [join(number) for number in range(len(computed[0][0]))]

"""Which rank does which piece of work: equal in number where ranks must keep step, and about equal
in cost. Left out: doing it (`world.py`)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["deal", "deal_in_step"]


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """The numbers of each rank's items, in ascending order: the costliest first, each to the rank
    that has least to do.

    >>> deal([5, 3, 3, 2], 2)
    [[0, 3], [1, 2]]
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(ranks), key=lambda r: (loads[r], len(shares[r]), r))
        shares[rank].append(i)
        loads[rank] += costs[i]
    return [sorted(share) for share in shares]


def deal_in_step(costs: Sequence[float], ranks: int) -> list[list[int | None]]:
    """As many items for every rank, since each ends with an exchange: item k of one rank meets item
    k of the others, so those of like cost are done at the same time. None: nothing to do.

    >>> deal_in_step([1, 9, 8, 2, 5], 2)
    [[1, 3, 0], [2, 4, None]]
    """
    # Costs 1 9 8 2 5 for two ranks, the costliest first:   9 8 | 5 2 | 1 ·
    # every other turn is dealt backwards, so that nobody always gets the larger one:
    #
    #     rank 0    9 2 1        rank 1    8 5 ·
    if ranks == 1:
        return [[*range(len(costs))]]
    ordered = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    shares: list[list[int | None]] = [[] for _ in range(ranks)]
    for turn, start in enumerate(range(0, len(ordered), ranks)):
        hand: list[int | None] = [*ordered[start : start + ranks]]
        hand += [None] * (ranks - len(hand))
        whole = hand[-1] is not None
        for share, item in zip(shares, hand[::-1] if turn % 2 and whole else hand, strict=True):
            share.append(item)
    return shares

"""Dealing: everything is dealt once, about equally, and equal in number where ranks keep step."""

from __future__ import annotations

import random

from logpi.distributed.dealing import deal, deal_in_step


def test_every_item_is_dealt_once_and_loads_are_about_equal() -> None:
    draw = random.Random(0).uniform
    costs = [draw(1, 9) for _ in range(40)]
    for ranks in (1, 2, 3, 7):
        shares = deal(costs, ranks)
        assert sorted(i for share in shares for i in share) == list(range(40))
        loads = [sum(costs[i] for i in share) for share in shares]
        # the costliest first: no two loads differ by more than one item
        assert max(loads) - min(loads) <= max(costs)


def test_in_step_all_ranks_have_as_many() -> None:
    draw = random.Random(1).uniform
    costs = [draw(1, 9) for _ in range(11)]
    for ranks in (1, 2, 3, 12):
        shares = deal_in_step(costs, ranks)
        assert len({len(share) for share in shares}) == 1
        dealt = [i for share in shares for i in share if i is not None]
        assert sorted(dealt) == list(range(11))
        assert sum(share.count(None) for share in shares) == -11 % ranks


def test_nothing_to_do_is_dealt_too() -> None:
    assert deal([], 2) == [[], []] == deal_in_step([], 2)

"""Aggregation weights by hand, dead rows and padding among them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from logpi.ops.weights import (
    FixedLength,
    GroupTokenMean,
    SequenceMean,
    SequenceSum,
    TokenMean,
    Weight,
)

MASK = torch.tensor(
    [
        # one token
        [1, 0, 0, 0, 0],
        # three, around a prompt token and a tool token
        [0, 1, 0, 1, 1],
        # a dead row
        [0, 0, 0, 0, 0],
        # two
        [1, 1, 0, 0, 0],
    ],
    dtype=torch.bool,
)
GROUP = torch.tensor([5, 5, 3, 3])
LENGTH = (1, 3, 0, 2)


@pytest.mark.parametrize(
    ("weight", "rows"),
    [
        # six tokens
        (TokenMean(), (1 / 6, 1 / 6, 0, 1 / 6)),
        # two prompts, of four and two tokens
        (GroupTokenMean(), (1 / 8, 1 / 8, 0, 1 / 4)),
        # three rows, the dead one is not there
        (SequenceMean(), (1 / 3, 1 / 9, 0, 1 / 6)),
        (SequenceSum(), (1 / 3, 1 / 3, 0, 1 / 3)),
        (FixedLength(10), (1 / 30, 1 / 30, 0, 1 / 30)),
    ],
    ids=str,
)
def test_by_hand(weight: Weight, rows: tuple[float, ...]) -> None:
    assert_close(weight(MASK, GROUP), MASK * torch.tensor(rows)[:, None])


@pytest.mark.parametrize("weight", [TokenMean(), GroupTokenMean(), SequenceMean()], ids=str)
def test_means_add_up_to_one(weight: Weight) -> None:
    assert float(weight(MASK, GROUP).sum()) == pytest.approx(1)


def test_group_token_mean_of_a_dead_group() -> None:
    """A prompt whose rows are all dead is not counted as a prompt."""
    got = GroupTokenMean()(MASK, torch.tensor([0, 0, 1, 0]))
    assert_close(got, MASK / 6)


@pytest.mark.parametrize(
    "weight",
    [TokenMean(), GroupTokenMean(), SequenceMean(), SequenceSum(), FixedLength(4)],
    ids=str,
)
def test_nothing_to_weigh(weight: Weight) -> None:
    got = weight(torch.zeros_like(MASK), GROUP)
    assert not got.any() and got.isfinite().all()


@pytest.mark.parametrize(
    "weight",
    [TokenMean(), GroupTokenMean(), SequenceMean(), SequenceSum(), FixedLength(4)],
    ids=str,
)
def test_padding_has_no_say(weight: Weight) -> None:
    wide = torch.cat([MASK, torch.zeros(4, 7, dtype=torch.bool)], 1)
    assert_close(weight(wide, GROUP)[:, :5], weight(MASK, GROUP))


def test_fixed_length_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="above 0, got 0"):
        FixedLength(0)

"""Which tokens learn, by hand."""

from __future__ import annotations

import pytest
import torch

from logpi.ops.tokens import highest_entropy

ENTROPY = torch.tensor([[0.1, 2.0, 0.3], [1.5, 0.2, 9.0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("share", "chosen"),
    [
        # of five: one, two (masked slots do not count), two again, all
        (0.2, [[0, 1, 0], [0, 0, 0]]),
        (0.21, [[0, 1, 0], [1, 0, 0]]),
        (0.4, [[0, 1, 0], [1, 0, 0]]),
        (1.0, [[1, 1, 1], [1, 1, 0]]),
    ],
)
def test_by_hand(share: float, chosen: list) -> None:
    assert highest_entropy(ENTROPY, MASK, share).tolist() == chosen


def test_equal_entropies_are_taken_together() -> None:
    """The rounding of another split must not choose between the first tokens of a group."""
    entropy = torch.tensor([[1.0, 0.2], [1.0 + 1e-6, 0.3], [1.0 - 1e-6, 0.1]])
    chosen = highest_entropy(entropy, torch.ones(3, 2, dtype=torch.bool), 1 / 6)
    assert chosen.tolist() == [[1, 0], [1, 0], [1, 0]]


def test_a_fifth_of_fifteen_is_three() -> None:
    entropy = torch.arange(15.0)[None]
    assert int(highest_entropy(entropy, torch.ones(1, 15, dtype=torch.bool), 0.2).sum()) == 3


def test_no_token_at_all() -> None:
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(highest_entropy(ENTROPY, none, 0.2), none)

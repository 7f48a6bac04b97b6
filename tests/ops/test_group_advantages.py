"""Newer advantages of groups against answers worked out by hand, and the best of k against every
subset."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb

import pytest
import torch
from torch.testing import assert_close

from logpi.ops.advantages import Advantage
from logpi.ops.group_advantages import (
    BatchScale,
    LengthBaseline,
    MaxAtK,
    MeanScale,
    PassAtK,
    UnfitReturns,
)
from logpi.testing import group
from logpi.types import Batch

PARTS = [BatchScale(), LengthBaseline(), MeanScale(), MaxAtK(2), PassAtK(2)]


def of(part: Advantage, batch: Batch) -> list:
    return [pytest.approx(x, abs=1e-6) for x in part(batch)[:, 0].tolist()]


def both(one: list[float], other: list[float]) -> Batch:
    """Two groups in one batch."""
    batch = group([*one, *other])
    return replace(batch, group=torch.tensor([7] * len(one) + [2] * len(other)))


def test_batch_scale() -> None:
    # of all four: mean .75, variance (3·.0625 + .5625) / 3 = .25
    assert of(BatchScale(), both([1.0, 0], [1.0, 1])) == [1, -1, 0, 0]
    assert BatchScale.whole_batch and not MeanScale.whole_batch


def test_length_baseline() -> None:
    # (1·1 + 3·0 + 1·0) / 5
    assert of(LengthBaseline(), group([1.0, 0, 0], lengths=[1, 3, 1])) == [0.8, -0.2, -0.2]
    # equal lengths: the mean
    assert of(LengthBaseline(), group([1.0, 0, 1, 0])) == [0.5, -0.5, 0.5, -0.5]


def test_mean_scale() -> None:
    assert of(MeanScale(), group([1.0, 1, 0, 0])) == [1, 1, -1, -1]
    assert of(MeanScale(), group([0.5, 0, 0.25, 0.25])) == [1, -1, 0, 0]
    assert of(MeanScale(), both([1.0, 0], [0.0, 0])) == [1, -1, 0, 0]


def test_mean_scale_refuses_what_it_cannot_divide_by() -> None:
    with pytest.raises(UnfitReturns, match=r"at least 0, and one is -0\.5: use rewards of 0") as e:
        MeanScale()(group([1.0, -0.5]))
    assert "\n" not in str(e.value)


def test_what_a_row_adds_to_the_best_of_k() -> None:
    # of the 6 pairs of others of a right row 3 are both wrong: 3 · 3/6
    assert of(MaxAtK(3), group([1.0, 0, 0, 1, 0])) == [1.5, 0, 0, 1.5, 0]
    # 2 · mean(3 − 0, 3 − 1); 2 · mean(1 − 0, 0)
    assert of(MaxAtK(2), group([0.0, 1, 3])) == [0, 1, 5]
    # k is the whole group: the best less the second, k times
    assert of(MaxAtK(4), group([0.0, 2, -1, 5])) == [0, 0, 0, 12]


@pytest.mark.parametrize(("wrong", "total", "k"), [(2, 3, 2), (1, 4, 3), (5, 8, 4), (3, 8, 2)])
def test_pass_at_k_has_the_papers_formulas(wrong: int, total: int, k: int) -> None:
    mean = 1 - comb(wrong, k) / comb(total, k)
    if mean == 1:
        expected = [0.0] * total
    else:
        sigma = (mean * (1 - mean)) ** 0.5
        bad = (1 - mean - comb(wrong - 1, k - 1) / comb(total - 1, k - 1)) / sigma
        expected = [bad] * wrong + [(1 - mean) / sigma] * (total - wrong)
    assert of(PassAtK(k), group([0.0] * wrong + [1.0] * (total - wrong))) == expected


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("k", [2, 3, 5])
def test_every_subset(k: int) -> None:
    """Real rewards with ties, against the definitions over all subsets of k."""
    returns = [0.3, -1.0, 2.0, 0.3, 2.0, 0.5, -0.2]
    rows, x = range(len(returns)), torch.tensor(returns)
    batch = group(returns)
    best = {i: x[list(i)].max() for i in combinations(rows, k)}
    every = torch.stack(list(best.values()))
    among = [torch.stack([b for i, b in best.items() if r in i]).mean() for r in rows]
    expected = (torch.stack(among) - every.mean()) / every.std(correction=0)
    assert_close(PassAtK(k)(batch)[:, 0], expected)
    gains = [
        [(x[r] - x[list(j)].max()).clamp(min=0) for j in combinations(set(rows) - {r}, k - 1)]
        for r in rows
    ]
    assert_close(MaxAtK(k)(batch)[:, 0], k * torch.tensor(gains).mean(1))


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_equal_returns_teach_nothing(part: Advantage) -> None:
    for r in (0.0, 0.1, 1.0, 1e6):
        assert not part(group([r] * 5)).any(), f"{part} at {r}"


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_dead_rows_move_nothing(part: Advantage) -> None:
    batch = group([1.0, 100, 0, 1, 0])
    alive = torch.tensor([1, 0, 1, 1, 1], dtype=torch.bool)
    got = part(replace(batch, mask=batch.mask & alive[:, None]))
    assert_close(got[alive], part(group([1.0, 0, 1, 0])))
    assert not got[1].any()
    none = part(replace(batch, mask=torch.zeros_like(batch.mask)))
    one = part(replace(batch, mask=batch.mask & (torch.arange(5) == 1)[:, None]))
    assert torch.equal(none, torch.zeros_like(none)) and torch.equal(one, torch.zeros_like(one))


def test_pass_at_k_of_subsets_that_all_have_the_best() -> None:
    """Two of three are right, so every pair has a right one: 0, not rounding over rounding."""
    assert not PassAtK(2)(group([0.1, 0.7, 0.7])).any()


@pytest.mark.parametrize(("part", "least"), [(MaxAtK(4), 4), (PassAtK(4), 5), (MeanScale(), 2)])
def test_a_group_that_is_too_small_is_refused(part: Advantage, least: int) -> None:
    assert part.group == least
    with pytest.raises(ValueError, match=rf"at least {least} samples for each prompt"):
        part(group([1.0] * (least - 1)))


def test_fewer_rows_than_k_with_an_action_teach_nothing() -> None:
    batch = group([1.0, 0, 0, 1])
    part = replace(batch, mask=batch.mask & (torch.arange(4) < 2)[:, None])
    assert not MaxAtK(3)(part).any() and not PassAtK(2)(part).any()

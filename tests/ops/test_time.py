"""Sums over the policy's own actions, and running moments, by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from logpi.ops.groups import group_returns, group_sum, total_reward
from logpi.ops.moments import merge
from logpi.ops.time import next_value, own, td_error, to_go
from logpi.testing import row

NAN = float("nan")
MASK = torch.tensor([[0, 1, 0, 1, 0]], dtype=torch.bool)


def test_own_stops_nan_and_its_gradient() -> None:
    x = torch.tensor([[NAN, 1.0, torch.inf, 2.0, NAN]], requires_grad=True)
    y = own(x, MASK)
    assert y.tolist() == [[0, 1, 0, 2, 0]]
    (y**2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0, 2, 0, 4, 0]]


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_to_go_passes_through_what_is_not_own(factor: float) -> None:
    got = to_go(torch.tensor([[NAN, 1.0, NAN, 2.0, NAN]]), MASK, factor)
    assert got.tolist() == [[0, 1 + factor * 2, 0, 2, 0]]


def test_to_go_one_agrees_with_the_loop() -> None:
    x, mask = torch.randn(6, 9), torch.rand(6, 9) < 0.6
    assert_close(to_go(x, mask, 1.0), to_go(x, mask, 1.0 - 1e-9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("width", [1, 2, 37, 64])
def test_to_go_by_doubling_agrees_with_the_recursion(
    double: None, factor: float, width: int
) -> None:
    x, mask = torch.randn(5, width), torch.rand(5, width) < 0.6
    expected = torch.zeros_like(x)
    carry = torch.zeros(5)
    for t in reversed(range(width)):
        carry = torch.where(mask[:, t], x[:, t] + factor * carry, carry)
        expected[:, t] = torch.where(mask[:, t], carry, 0.0)
    assert_close(to_go(torch.where(mask, x, NAN), mask, factor), expected)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 36, 37, 1000])
def test_to_go_of_some_steps_is_a_sum_over_own_actions(
    double: None, factor: float, steps: int
) -> None:
    x, mask = torch.randn(5, 37), torch.rand(5, 37) < 0.6
    expected = torch.zeros_like(x)
    for row_x, row_mask, out in zip(x, mask, expected, strict=True):
        own_x = row_x[row_mask]
        out[row_mask] = torch.stack(
            [
                sum(factor**k * own_x[t + k] for k in range(min(steps, len(own_x) - t)))
                for t in range(len(own_x))
            ]
        )
    assert_close(to_go(torch.where(mask, x, NAN), mask, factor, steps), expected)


def test_td_error_steps_over_what_is_not_own() -> None:
    # 1 + ½·2 − 1; 3 + ½·3 − 2 at a row that was cut off
    value = torch.tensor([[9.0, 1, 9, 2, 3, 9]])
    batch = row([NAN, 1.0, NAN, 3.0, NAN], [0, 1, 0, 1, 0], terminated=False)
    assert own(td_error(batch, value, 0.5), batch.mask).tolist() == [[0, 1, 0, 2.5, 0]]


def test_next_value() -> None:
    value = torch.tensor([[9.0, 1, 9, 2, 3, 9]])
    assert next_value(value, MASK, torch.tensor([True])).tolist() == [[0, 2, 0, 0, 0]]
    # the state that follows the last
    assert next_value(value, MASK, torch.tensor([False])).tolist() == [[0, 2, 0, 3, 0]]


def test_next_value_at_the_very_end() -> None:
    value = torch.tensor([[1.0, 2, 7]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert next_value(value, mask, torch.tensor([False])).tolist() == [[2, 7]]


def test_group_sum_needs_no_order() -> None:
    assert group_sum(torch.tensor([1.0, 2, 3]), torch.tensor([9, -1, 9])).tolist() == [4, 2, 4]


def test_total_reward_reads_own_actions_only() -> None:
    assert total_reward(row([NAN, 1.0, 5.0, 2.0, NAN], [0, 1, 0, 1, 0])).tolist() == [3]


def test_group_returns_of_rows_around_one_dead() -> None:
    from dataclasses import replace

    batch = row([1.0])
    batch = replace(
        batch.map(lambda x: x.repeat_interleave(3, 0)),
        reward=torch.tensor([[1.0], [0.0], [50.0]]),
        mask=torch.tensor([[1], [1], [0]], dtype=torch.bool),
    )
    g = group_returns(batch, 2, "test")
    assert g.count.tolist() == [2, 2, 2] and g.mean.tolist() == [0.5] * 3
    assert g.alive.tolist() == [True, True, False] and not g.uniform.any()


def test_running_moments_merge_exactly() -> None:
    x, y = torch.randn(7).double(), torch.randn(5).double() + 3
    mean, var, count = merge(
        float(x.mean()),
        float(x.var(correction=0)),
        7,
        float(y.mean()),
        float(y.var(correction=0)),
        5,
    )
    both = torch.cat([x, y])
    assert (mean, var, count) == (
        pytest.approx(float(both.mean())),
        pytest.approx(float(both.var(correction=0))),
        12,
    )

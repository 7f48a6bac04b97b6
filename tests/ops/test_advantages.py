"""Advantage estimators against answers worked out by hand; the arithmetic stands beside each
number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi.ops.advantages import (
    GAE,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    NStep,
    QValue,
    RewardToGo,
    TotalReward,
)
from logpi.ops.constant_advantages import Uniform
from logpi.ops.moments import whiten
from logpi.testing import group, row
from logpi.types import Batch

# right, up, right, right: three moves of fuel, then the goal
GRID = [-1.0, -1.0, -1.0, 5.0]
# two own actions, three tokens of a tool, two own actions
GAP_REWARD = [0.0, 0, 0, 0, 0, 0, 1]
GAP_MASK = [1, 1, 0, 0, 0, 1, 1]
GAP_VALUE = [0.1, 0.2, 9, 9, 9, 0.4, 0.6, 9]


def groups(
    returns: list[float], ids: list[int], alive: list[int] | None = None, width: int = 1
) -> Batch:
    """One-reward rows; a dead row has no own action but keeps its reward."""
    mask = torch.tensor(alive or [1] * len(returns), dtype=torch.bool)[:, None].expand(-1, width)
    zeros = torch.zeros(len(returns), width)
    reward = zeros.clone()
    reward[:, -1] = torch.tensor(returns)
    return Batch(
        obs=torch.zeros(len(returns), width + 1, dtype=torch.long),
        action=zeros.long(),
        mask=mask,
        reward=reward,
        terminated=torch.ones(len(returns), dtype=torch.bool),
        group=torch.tensor(ids),
        logp=zeros,
    )


def at(advantage: Tensor, *steps: int) -> list:
    return [pytest.approx(float(advantage[0, t]), abs=2e-6) for t in steps]


# --- returns ---


def test_grid_world_returns() -> None:
    assert RewardToGo()(row(GRID))[0].tolist() == [2, 3, 4, 5]
    assert TotalReward()(row(GRID))[0].tolist() == [2, 2, 2, 2]


def test_discounted_return_to_go() -> None:
    # 5; −1 + .5·5 = 1.5; −1 + .5·1.5 = −.25; −1 + .5·(−.25) = −1.125
    assert RewardToGo(0.5)(row(GRID))[0].tolist() == [-1.125, -0.25, 1.5, 5]
    assert RewardToGo(0.0)(row(GRID))[0].tolist() == GRID


def test_tool_output_neither_pays_nor_discounts() -> None:
    # 7: written where the policy did not act, never read
    batch = row([1.0, 7, 7, 2], [1, 0, 0, 1])
    # 1 + .5·2, one own step apart
    assert RewardToGo(0.5)(batch)[0].tolist() == [2, 0, 0, 2]
    assert TotalReward()(batch)[0].tolist() == [3, 0, 0, 3]


def test_return_to_go_does_not_bootstrap_a_cut_off_row() -> None:
    assert RewardToGo()(row(GRID, terminated=False))[0].tolist() == [2, 3, 4, 5]


# --- GAE ---


def test_gae_by_hand() -> None:
    # δ = (1 + .9·.3 − .5, 0 + .9·.1 − .3, 2 + 0 − .1) = (.77, −.21, 1.9); γλ = .72
    # Â = (.77 + .72·1.158, −.21 + .72·1.9, 1.9)
    value = torch.tensor([[0.5, 0.3, 0.1, 9.0]])
    got = GAE(0.9, 0.8)(row([1.0, 0, 2]), value)
    assert at(got, 0, 1, 2) == [1.60376, 1.158, 1.9]


def test_gae_truncated_row_bootstraps_the_state_after_it() -> None:
    value = torch.tensor([[0.5, 0.3, 0.1, 9.0]])
    got = GAE(0.9, 0.8)(row([1.0, 0, 2], terminated=False), value)
    # δ₂ = 2 + .9·9 − .1 = 10
    assert at(got, 2, 1) == [10.0, -0.21 + 0.72 * 10]


def test_gae_truncated_row_with_padding_bootstraps_at_its_own_end() -> None:
    value = torch.tensor([[0.5, 0.3, 2.0, 100.0, 100.0]])
    got = GAE(1.0, 0.0)(row([0.0, 1, 0, 0], [1, 1, 0, 0], terminated=False), value)
    # .3 − .5; 1 + 2 − .3; padding
    assert at(got, 0, 1, 2, 3) == [-0.2, 2.7, 0, 0]


def test_gae_limits() -> None:
    value = torch.tensor([[0.5, 0.3, 0.1, 0.7, 9.0]])
    batch = row(GRID)
    for gamma in (1.0, 0.9):
        td = GAE(gamma, 0.0)(batch, value)
        expected = [
            GRID[t] + gamma * (float(value[0, t + 1]) if t < 3 else 0.0) - float(value[0, t])
            for t in range(4)
        ]
        assert_close(td[0], torch.tensor(expected))
        assert_close(GAE(gamma, 1.0)(batch, value), RewardToGo(gamma)(batch) - value[:, :-1])


def test_gae_two_step_estimator() -> None:
    # λ = 1 on a fragment of two that was cut off: r₀ + γ r₁ + γ² V(s₂) − V(s₀)
    value = torch.tensor([[0.5, 0.3, 0.8]])
    got = GAE(0.9, 1.0)(row([1.0, 2.0], terminated=False), value)
    assert at(got, 0) == [1 + 0.9 * 2 + 0.81 * 0.8 - 0.5]


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        (
            1.0,
            0.95,
            [0.81345, 0.751, 0.58, 0.4],
        ),  # libraries give .685 .615 … and 1.904 1.899 … here
        (0.99, 1.0, [0.870299, 0.7801, 0.59, 0.4]),
        (1.0, 1.0, [0.9, 0.8, 0.6, 0.4]),
    ],
)
def test_gae_steps_over_tool_output(gamma: float, lam: float, expected: list[float]) -> None:
    got = GAE(gamma, lam)(row(GAP_REWARD, GAP_MASK), torch.tensor([GAP_VALUE]))
    assert at(got, 0, 1, 5, 6) == expected
    assert not got[0, 2:5].any()


def test_gae_value_target_is_the_lambda_return() -> None:
    value = torch.tensor([[0.5, 0.3, 0.1, 9.0]])
    batch = row([1.0, 0, 2])
    gae = GAE(1.0, 1.0)
    assert_close(
        gae.value_target(gae(batch, value), value, batch.mask), torch.tensor([[3.0, 2, 2]])
    )


# --- n steps ---


def test_n_step_by_hand() -> None:
    # the rewards, then V: -1 + .9·(-1) + .81·.1 - .5; -1 - .9 + .81·.7 - .3; -1 + .9·5 - .1; 5 - .7
    value = torch.tensor([[0.5, 0.3, 0.1, 0.7, 9.0]])
    assert at(NStep(2, 0.9)(row(GRID), value), 0, 1, 2, 3) == [-2.319, -1.633, 3.4, 4.3]
    # a row that was cut off ends with V of its last state
    cut = NStep(2, 0.9)(row(GRID, terminated=False), value)
    assert at(cut, 1, 2, 3) == [-1.633, -1 + 0.9 * 5 + 0.81 * 9 - 0.1, 5 + 0.9 * 9 - 0.7]


def test_n_step_does_not_count_a_tools_tokens() -> None:
    # own V are .1 .2 .4 .6, then the end; only the last action is paid
    got = NStep(2)(row(GAP_REWARD, GAP_MASK), torch.tensor([GAP_VALUE]))
    assert at(got, 0, 1, 5, 6) == [0.4 - 0.1, 0.6 - 0.2, 1 - 0.4, 1 - 0.6]
    assert not got[0, 2:5].any()


def test_n_step_value_target_is_the_n_step_return() -> None:
    value = torch.tensor([[0.5, 0.3, 0.1, 0.7, 9.0]])
    part, batch = NStep(2, 0.9), row(GRID)
    target = part.value_target(part(batch, value), value, batch.mask)
    assert at(target, 0, 2, 3) == [-1 - 0.9 + 0.81 * 0.1, -1 + 0.9 * 5, 5.0]


@pytest.mark.parametrize("n", [0, -1, 1.5, math.nan, -math.inf])
def test_n_is_a_number_of_steps(n: float) -> None:
    with pytest.raises(ValueError, match="whole number of steps from 1"):
        NStep(n)


def test_gae_without_a_critic_says_so() -> None:
    for part in (GAE(), NStep(2), QValue()):
        with pytest.raises(ValueError, match="critic=True"):
            part(row(GRID))


def test_advantages_carry_no_gradient() -> None:
    value = torch.zeros(1, 5, requires_grad=True)
    for part in (GAE(), NStep(2), QValue()):
        assert not part(row(GRID), value).requires_grad


def test_q_value() -> None:
    value = torch.tensor([[0.5, 0.3, 0.1, 9.0]])
    got = QValue(0.5)(row([1.0, 0, 2]), value)
    # 1 + .5·.3; .5·.1; the last state is absorbing
    assert at(got, 0, 1, 2) == [1.15, 0.05, 2.0]
    cut = QValue(0.5)(row([1.0, 0, 2], terminated=False), value)
    # 2 + .5·9
    assert at(cut, 2) == [6.5]


# --- groups ---


def test_group_of_four() -> None:
    batch = group([1.0, 0, 1, 0])
    assert GroupCenter()(batch)[:, 0].tolist() == [0.5, -0.5, 0.5, -0.5]
    sign = torch.tensor([1.0, -1, 1, -1])
    # .5 / .57735
    assert_close(GroupNorm(eps=0.0)(batch)[:, 0], sign * math.sqrt(3) / 2)
    # .5 / .5
    assert_close(GroupNorm(eps=0.0, ddof=0)(batch)[:, 0], sign)
    # ε sits beside the std, not in the root
    assert_close(GroupNorm(eps=0.5, ddof=0)(batch)[:, 0], sign / 2)
    # 1 − 1/3; 0 − 2/3
    assert_close(LeaveOneOut()(batch)[:, 0], sign * 2 / 3)


def test_groups_do_not_mix_and_need_no_order() -> None:
    batch = groups([1.0, 10, 0, 30], [7, 2, 7, 2])
    assert GroupCenter()(batch)[:, 0].tolist() == [0.5, -10, -0.5, 10]
    assert LeaveOneOut()(batch)[:, 0].tolist() == [1, -20, -1, 20]


@pytest.mark.parametrize(
    "part", [GroupCenter(), GroupNorm(), GroupNorm(eps=0.0), LeaveOneOut()], ids=str
)
def test_equal_returns_have_advantage_exactly_zero(part: GroupNorm) -> None:
    # .1·5 / 5 is not .1 in float32: a mean would leave noise over ε
    for r in (0.0, 1.0, 0.1, 1e6):
        got = part(groups([r] * 5, [0] * 5))
        assert torch.equal(got, torch.zeros_like(got)), f"{part} at {r}"


@pytest.mark.parametrize("part", [GroupCenter(), GroupNorm(), LeaveOneOut()], ids=str)
def test_dead_rows_move_nothing(part: GroupNorm) -> None:
    """A row without an own action (a masked-out truncation, a missing verdict) does not exist for
    its group."""
    alone = part(groups([1.0, 0, 1], [0, 0, 0]))
    with_dead = part(groups([1.0, 100, 0, 1], [0, 0, 0, 0], alive=[1, 0, 1, 1]))
    assert_close(with_dead[[0, 2, 3]], alone)
    assert not with_dead[1].any()


@pytest.mark.parametrize("part", [GroupCenter(), GroupNorm(), LeaveOneOut()], ids=str)
def test_one_row_left_or_none(part: GroupNorm) -> None:
    """What is left of a group after masking may be a single row: it learns nothing, rather than its
    raw reward."""
    got = part(groups([1.0, 5, 1, 0], [0, 0, 1, 1], alive=[1, 0, 0, 0]))
    assert torch.equal(got, torch.zeros_like(got))


@pytest.mark.parametrize("part", [GroupCenter(), GroupNorm(), LeaveOneOut()], ids=str)
def test_a_group_of_one_is_refused(part: GroupNorm) -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples for each prompt.*num_generations"):
        part(groups([1.0, 0, 1], [0, 0, 1]))
    assert part.group == 2


def test_greedy_baseline() -> None:
    from dataclasses import replace

    batch = replace(row(GAP_REWARD, GAP_MASK), baseline=torch.tensor([0.25]))
    assert GreedyBaseline()(batch)[0].tolist() == [0.75, 0.75, 0, 0, 0, 0.75, 0.75]
    with pytest.raises(ValueError, match=r"greedy=True"):
        GreedyBaseline()(row(GRID))


def test_uniform_is_one_at_own_actions() -> None:
    assert Uniform()(row(GAP_REWARD, GAP_MASK))[0].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert not Uniform.on_policy


# --- whitening ---


def test_whitening_weighs_tokens_not_rows() -> None:
    # rows of 3 and 1 tokens: 1 1 1 and 5. Mean 2 (of rows it would be 3), variance (3·1 + 9)/4 = 3
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    advantage = torch.tensor([[1.0, 1, 1], [5, 0, 0]])
    got = whiten(advantage, mask)
    root = math.sqrt(3)
    assert_close(got, torch.tensor([[-1 / root] * 3, [3 / root, 0, 0]]))


def test_whitening_ignores_masked_slots_and_handles_none() -> None:
    mask = torch.tensor([[1, 0, 1]], dtype=torch.bool)
    assert_close(whiten(torch.tensor([[1.0, 1e9, 3]]), mask), torch.tensor([[-1.0, 0, 1]]))
    # constant: nothing, not noise
    assert torch.equal(whiten(torch.tensor([[0.3, 0, 0.3]]), mask), torch.zeros(1, 3))
    assert torch.equal(
        whiten(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool)), torch.zeros(1, 3)
    )

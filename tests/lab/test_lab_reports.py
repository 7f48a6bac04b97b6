"""What the reports claim, as numbers: KL gradients, clipping, length, baselines, trust regions,
value iteration."""

from __future__ import annotations

import pytest
import torch

from logpi.envs.control.grid_model import GridModel
from logpi.lab import bellman, kl, length, trust, variance
from logpi.lab.bias import far_reference
from logpi.lab.claims import regularised
from logpi.lab.clip import push
from logpi.lab.expectation import Setting, advantages, all_draws, moments
from logpi.lab.worlds import double, standard, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE, GroupNorm, RewardToGo
from logpi.ops.divergences import ReverseKL
from logpi.ops.kl import KL, k1, k2, k3
from logpi.ops.surrogates import Clip, ClippedScore, DualClip
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum

WORLD = standard()


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


# --- KL ---


@pytest.fixture(scope="module")
def pair():
    world = token_world(kl.STEPS, seed=kl.SEED)
    reference = far_reference(world)
    return world, reference, kl.candidates(world, reference)


def test_k1_in_the_reward_is_the_reverse_kl_of_the_response(pair):
    world, reference, (reverse, *_) = pair
    close(kl.penalty_gradient(world, reference, k1, "reward"), reverse)


def test_k1_in_the_loss_does_nothing(pair):
    world, reference, _ = pair
    assert float(kl.penalty_gradient(world, reference, k1, "loss").norm()) < 1e-14


def test_k2_and_k3_in_the_loss_are_reverse_and_forward_with_states_fixed(pair):
    world, reference, (reverse, forward, reverse_fixed, forward_fixed) = pair
    found = kl.penalty_gradient(world, reference, k2, "loss")
    close(found, reverse_fixed)
    close(found, kl.penalty_gradient(world, reference, ReverseKL(), "loss"))
    close(kl.penalty_gradient(world, reference, k3, "loss"), forward_fixed)
    # with two tokens it matters
    assert float((reverse - reverse_fixed).norm()) > 1e-3
    assert float((forward - forward_fixed).norm()) > 1e-3


def test_one_token_has_no_states_to_fix():
    world = token_world(kl.BANDIT, seed=kl.SEED)
    reverse, forward, reverse_fixed, forward_fixed = kl.candidates(world, far_reference(world))
    close(reverse, reverse_fixed)
    close(forward, forward_fixed)


def test_kl_in_the_reward_with_rewards_is_the_regularised_gradient():
    reference = far_reference(WORLD)
    objective = PolicyGradient(RewardToGo(), weight=SequenceSum(), kl=KL(0.3, k1, "reward"))
    found = moments(WORLD, objective, Setting(responses=1, reference=reference)).mean
    close(found, -regularised(WORLD, 0.3, reference))


def test_values_of_k1_and_k3_are_unbiased_and_of_k2_not():
    for row in kl._sweep():
        assert row["k1"] == pytest.approx(row["kl"], abs=1e-10)
        assert row["k3"] == pytest.approx(row["kl"], abs=1e-10)
    assert abs(row["k2"] - row["kl"]) > 0.1
    assert row["k3 sd"] > 10 * row["k1 sd"]


# --- clip and length ---


@pytest.mark.parametrize(
    ("surrogate", "expected"),
    [
        (Clip(0.2), [0.0, 0.5, -1.5, 0.0]),
        (Clip(0.2, 0.6), [1.5, 0.5, -1.5, 0.0]),
        (DualClip(0.2, c=1.4), [0.0, 0.5, 0.0, 0.0]),
        (ClippedScore(high=0.28), [1.28, 0.5, -1.28, -0.5]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_quadrants(surrogate, expected):
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    assert push(surrogate, ratio, advantage).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("solved", [0.2, 0.5, 0.8])
def test_sums_leave_length_alone_and_own_length_does_not(solved):
    world = length.length_world(solved)
    right = world.returns > 0
    for weight in (SequenceSum(), FixedLength(7)):
        change, _ = length.step_effects(world, weight)
        assert length._mean_length(world, change, right) == pytest.approx(0, abs=1e-9)
        assert length._mean_length(world, change, ~right) == pytest.approx(0, abs=1e-9)
    group, own = (length.step_effects(world, w)[0] for w in (GroupTokenMean(), SequenceMean()))
    shorter = [length._mean_length(world, c, right) for c in (own, group)]
    longer = [length._mean_length(world, c, ~right) for c in (own, group)]
    assert shorter[0] < shorter[1] < 0 < longer[1] < longer[0]


# --- variance ---


def test_best_constant_is_the_best():
    best = variance.best_constant(WORLD)
    ones = torch.ones(len(WORLD.logits), dtype=torch.float64)
    low, at, high = (
        variance._baseline(WORLD, (best + d) * ones).variance for d in (-0.05, 0.0, 0.05)
    )
    assert at < low and at < high


def test_best_state_baseline_is_a_minimum_in_every_direction():
    best = variance.best_state_baseline(WORLD)
    at = variance._baseline(WORLD, best).variance
    for seed in range(4):
        move = 0.1 * torch.randn(
            len(best), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        assert variance._baseline(WORLD, best + move).variance > at
    assert at < variance._baseline(WORLD, WORLD.value).variance


def test_a_baseline_removes_noise_and_no_signal():
    zero = torch.zeros(len(WORLD.logits), dtype=torch.float64)
    without, with_value = variance._baseline(WORLD, zero), variance._baseline(WORLD, WORLD.value)
    close(without.mean, with_value.mean)
    assert with_value.variance < 0.5 * without.variance


def test_signs_of_the_advantage():
    """REINFORCE never pushes a wrong response; group methods follow the reward's sign; a critic
    with λ < 1 does not."""

    def ranges(advantage, m):
        setting = Setting(responses=m)
        found, reward = advantages(
            WORLD,
            PolicyGradient(advantage, weight=SequenceSum()),
            setting,
            all_draws(WORLD, setting),
        )
        return [(float(x.min()), float(x.max())) for x in (found[reward == 0], found[reward == 1])]

    assert ranges(RewardToGo(), 1) == [(0.0, 0.0), (1.0, 1.0)]
    wrong, right = ranges(GroupNorm(), 4)
    assert wrong[1] == 0.0 == right[0]
    wrong, right = ranges(GAE(1.0, 0.0), 1)
    assert wrong[1] > 0.1
    assert right[0] < -0.1


def test_lambda_with_an_exact_critic_costs_no_bias():
    lows = [
        moments(WORLD, PolicyGradient(GAE(1.0, lam), weight=SequenceSum()), Setting(responses=1))
        for lam in (0.0, 0.5, 1.0)
    ]
    assert all(x.verdict == "the policy gradient" for x in lows)
    assert lows[0].variance < lows[1].variance < lows[2].variance


# --- trust regions ---


@pytest.fixture(scope="module")
def grid():
    with double():
        return trust.trust_world()


def test_gain_is_above_the_bound_and_the_surrogate_right_to_first_order(grid):
    directions = trust.directions(grid)
    for kl_size in (1e-6, 1e-4, 1e-2, 1.0):
        for direction in directions.values():
            step = trust.measure(grid, trust._at_kl(grid, direction, kl_size))
            assert step.kl == pytest.approx(kl_size, rel=1e-6)
            assert step.gain >= step.bound
    small = trust.measure(grid, trust._at_kl(grid, directions["natural"], 1e-8))
    assert small.gain == pytest.approx(small.surrogate, rel=1e-3)


def test_performance_difference_lemma(grid):
    """J(new) − J(old) = Σₜ E_{s ~ d_new, a ~ new}[A_old], unnormalised, exactly."""
    new = grid.mdp.policy(grid.logits + torch.cos(grid.logits))
    gain = grid.mdp.expected_return(
        grid.logits + torch.cos(grid.logits)
    ) - grid.mdp.expected_return(grid.logits)
    lemma = torch.einsum("ts,sa,tsa->", grid.mdp.occupancy(new), new, grid.mdp.advantage(grid.pi))
    assert float(gain) == pytest.approx(float(lemma), abs=1e-12)


def test_natural_steps_gain_more_for_the_same_kl(grid):
    natural, ordinary = (
        trust.measure(grid, trust._at_kl(grid, trust.directions(grid)[n], 0.01))
        for n in ("natural", "ordinary")
    )
    assert natural.gain > 1.1 * ordinary.gain


def test_first_clipped_step_is_an_ordinary_gradient_step(grid):
    first = trust.clipped_path(grid, most=1)[0][1]
    close(first, grid.logits + trust.CLIP_RATE * grid.gradient.view_as(grid.logits))


# --- value iteration ---


def test_value_iteration_without_slips():
    grid = GridModel()
    run = bellman.value_iteration(grid)
    value, last = run[-1].value, run[-1]
    # −1 −1 −1 +5
    assert float(value[grid.state((0, 0))]) == 2.0
    assert [float(value[grid.state(c)]) for c in ((1, 0), (1, 1), (2, 1))] == [3.0, 4.0, 5.0]
    assert torch.equal(last.q.amax(-1), value)
    arrows = bellman.greedy(grid, last.q)
    assert arrows[grid.state((2, 1))] == "→"
    assert arrows[grid.state((0, 0))] == "→↑"
    assert arrows[grid.state((3, 1))] == "[+5]"


@pytest.mark.parametrize(("slip", "gamma"), [(0.2, 1.0), (0.2, 0.9), (0.5, 0.8)])
def test_what_settles_solves_the_bellman_equation(slip, gamma):
    grid = GridModel(slip=slip)
    value = bellman.value_iteration(grid, gamma)[-1].value
    backed_up = (grid.transition * (grid.reward + gamma * value)).sum(-1).amax(-1)
    torch.testing.assert_close(backed_up, value, atol=1e-9, rtol=0)
    assert not value[grid.terminal].any()


def test_a_free_walk_never_settles():
    with pytest.raises(ValueError, match="must cost something"):
        bellman.value_iteration(GridModel(cost=1.0), most=200)
    with pytest.raises(ValueError, match="take a smaller gamma"):
        bellman.value_iteration(GridModel(cost=1.0), 0.999, most=200)

"""Worlds and processes: dynamic programming against enumeration, golden numbers, kind
errors."""

from __future__ import annotations

import math

import pytest
import torch

from logpi.envs.control.grid_model import ACTIONS, GridModel
from logpi.lab.worlds import double, grid_world, responses, standard, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import RewardToGo
from logpi.ops.weights import SequenceSum
from logpi.policies.tabular import States, TabularPolicy
from logpi.rollouts.collate import collate
from logpi.testing import check_garbage
from logpi.types import Trajectory

WORLDS = {
    "tokens": standard,
    "grid": lambda: grid_world(horizon=4),
    "slippery": lambda: grid_world(
        GridModel(width=3, height=2, terminals={(2, 1): 5.0}, slip=0.2), horizon=3
    ),
}


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]()


def scores(world):
    """∇ log P(τ) of each trajectory [K, S·A]."""
    theta = world.logits.clone().requires_grad_()
    logp = world.policy_logp(theta).sum(1)
    each = torch.eye(len(logp), dtype=torch.float64)
    return torch.autograd.grad(logp, theta, each, is_grads_batched=True)[0].flatten(1)


def test_trajectories_are_all_there(world):
    assert float(world.probability.sum()) == pytest.approx(1, abs=1e-12)


def test_return_by_programming_is_the_mean_over_trajectories(world):
    assert world.expected_return == pytest.approx(
        float(world.probability @ world.returns), abs=1e-12
    )


def test_gradient_by_programming_is_the_policy_gradient_theorem(world):
    by_sum = (world.probability * world.returns) @ scores(world)
    torch.testing.assert_close(world.gradient, by_sum, atol=1e-12, rtol=0)


def test_fisher_is_the_second_moment_of_the_score(world):
    s = scores(world)
    torch.testing.assert_close(
        world.mdp.fisher(world.pi), s.T @ (world.probability[:, None] * s), atol=1e-12, rtol=0
    )


def test_values_are_means_over_what_follows(world):
    v, q = world.mdp.values(world.pi)
    torch.testing.assert_close(v[:-1], (world.pi * q).sum(-1))
    state = world.index(world.paths)
    # any will do
    k = int((world.lengths >= 2).double().argmax())
    t = int(world.paths.mask[k].nonzero()[1])
    same = (state[:, : t + 1] == state[k, : t + 1]).all(1)
    to_go = (world.paths.reward * world.paths.mask)[:, t:].sum(1)
    mean = float((world.probability * to_go)[same].sum() / world.probability[same].sum())
    value = world.value
    here = value[t, state[k, t]] if world.timed else value[state[k, t]]
    assert float(here) == pytest.approx(mean, abs=1e-12)


def test_divergence_is_of_whole_trajectories(world):
    other = world.logits + torch.cos(
        torch.arange(world.logits.numel(), dtype=torch.float64)
    ).view_as(world.logits)
    log_ratio = (world.paths.logp - world.policy_logp(other)).sum(1)
    found = world.mdp.divergence(world.pi, world.mdp.policy(other))
    assert float(found) == pytest.approx(float(world.probability @ log_ratio), abs=1e-12)


def test_recorded_log_probabilities_are_the_policys_own(world):
    now = world.policy().evaluate(world.paths)
    torch.testing.assert_close(
        now.logp[world.paths.mask], world.paths.logp[world.paths.mask], atol=1e-14, rtol=0
    )


def test_golden_trajectory_of_the_grid_world():
    world = grid_world(horizon=4)
    k = world.names.index("→↑→→")
    assert world.paths.reward[k].tolist() == [-1.0, -1.0, -1.0, 5.0]
    assert RewardToGo()(world.paths)[k].tolist() == [2.0, 3.0, 4.0, 5.0]


def test_golden_surrogate():
    """Σ Gₜ ln π = −10.0005 for π = 0.4, 0.3, 0.5, 0.7 along right, up, right, right."""
    grid = GridModel()
    moves = ("right", "up", "right", "right")
    cells, rewards = grid.path(*moves)
    states, actions = [grid.state(c) for c in cells], [ACTIONS.index(m) for m in moves]
    logits = torch.zeros(16, 4, dtype=torch.float64)
    for s, a, p in zip(states, actions, (0.4, 0.3, 0.5, 0.7), strict=False):
        logits[s] = math.log((1 - p) / 3)
        logits[s, a] = math.log(p)
    row = Trajectory(
        torch.tensor(states),
        torch.tensor(actions),
        torch.ones(4, dtype=torch.bool),
        torch.tensor(rewards, dtype=torch.float64),
        torch.zeros(4, dtype=torch.float64),
        terminated=True,
        group=0,
    )
    policy, batch = TabularPolicy(logits, States()), collate([row])
    objective = PolicyGradient(RewardToGo(), weight=SequenceSum())
    with double():
        now = policy.evaluate(batch)
        weight = objective.weight(batch.mask, batch.group)
        loss, _ = objective.loss(batch, objective.prepare(batch, now, None), weight, now)
    assert float(-loss.detach()) == pytest.approx(-10.0005, abs=5e-5)


def test_golden_gradient_of_a_softmax():
    """Logits (1, 0), G = 4: the gradient of −G ln p on the chosen logit is −1.0758."""
    policy = TabularPolicy(torch.tensor([[1.0, 0.0]], dtype=torch.float64), States())
    logp = policy.log_probabilities(torch.tensor([0]))
    assert logp.exp()[0].tolist() == pytest.approx([0.7311, 0.2689], abs=5e-5)
    (-4 * logp[0, 0]).backward()
    assert float(policy.logits.grad[0, 0]) == pytest.approx(-1.0758, abs=5e-5)


def test_prompts_are_seen_and_not_chosen():
    world = standard()
    k = world.names.index("hdabb.")
    assert world.paths.mask[k].tolist() == [False, True, True, True, True]
    assert world.paths.reward[k].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    torch.testing.assert_close(world.paths.action, world.paths.obs[:, 1:])


def test_greedy_baseline_is_the_greedy_responses_reward():
    world = standard()
    for g in range(2):
        here = (world.paths.group == g).nonzero().flatten()
        state = int(world.mdp.start.nonzero().flatten()[g])
        while not world.mdp.terminal[state]:
            state = int(world.mdp.transition[state, int(world.pi[state].argmax())].argmax())
        ends = world.index(world.paths)[here].eq(state).any(1)
        assert world.paths.baseline[here].unique().tolist() == world.returns[here[ends]].tolist()


def test_tabular_policy_ignores_what_is_masked_out():
    world = standard()
    with torch.no_grad():
        now = world.policy(value=world.value).evaluate(world.paths)
    paths = world.paths.map(lambda x: x.float() if x.is_floating_point() else x)
    now = type(now)(now.logp.float(), now.entropy.float(), now.value.float())
    check_garbage(PolicyGradient(RewardToGo(), weight=SequenceSum()), paths, now, None)


def test_entropy_of_a_table_is_exact():
    world = standard()
    now = world.policy().evaluate(world.paths)
    pi = world.pi[world.index(world.paths)[:, :-1]]
    exact = -(pi * torch.where(pi > 0, pi.log(), 0.0)).sum(-1)
    torch.testing.assert_close(now.entropy[world.paths.mask], exact[world.paths.mask])


def test_responses_lists_every_string():
    assert len(responses("ab", ".", 3)) == 1 + 2 + 4 + 8


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ({"q": {"a": 1.0, "ab": 0.0}}, "beginning"),
        ({"q": {"": 1.0}}, "empty"),
        ({"q": {}}, "empty"),
    ],
)
def test_impossible_tasks_are_refused(tasks, says):
    with pytest.raises(ValueError, match=says):
        token_world(tasks)


def test_long_horizons_are_refused():
    with pytest.raises(ValueError, match="shorter horizon"):
        grid_world(horizon=12)

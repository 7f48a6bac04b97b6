"""Learned policies and sampled returns against exact values of the grid world."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from logpi.envs.control.grid_model import GridModel
from logpi.envs.control.gridworld import GridWorld, draw, picture
from logpi.envs.control.make import make_vector_environment
from logpi.lab.bellman import value_iteration
from logpi.policies.distributions import Categorical
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Episodes
from tests.worlds import control


def exact_values(grid: GridModel, pi: torch.Tensor, steps: int = 100) -> torch.Tensor:
    """V^π [S] of at most `steps` steps (the environment's time limit), by as many exact backups."""
    p = grid.transition
    p_pi, r_pi = torch.einsum("sa,sat->st", pi, p), (pi * (p * grid.reward).sum(-1)).sum(-1)
    value = torch.zeros(grid.states, dtype=torch.float64)
    for _ in range(steps):
        value = r_pi + p_pi @ value
    return value


def probabilities(policy) -> torch.Tensor:
    return torch.from_numpy(policy.actor()(np.eye(16, dtype=np.float32))).double().softmax(-1)


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_sampled_returns_have_the_exact_mean(slip):
    torch.manual_seed(3)
    policy = mlp(16, Categorical(4), hidden=())
    with torch.no_grad():
        policy.actor_net[0].weight.normal_(0, 0.5)
    batch = Episodes(
        make_vector_environment("logpi/GridWorld-v0", 20, slip=slip), policy, episodes=2000, seed=1
    )().batch
    returns = batch.reward.sum(1).double()
    exact = float(exact_values(GridModel(slip=slip), probabilities(policy))[0])
    assert abs(float(returns.mean()) - exact) < 4 * float(returns.std()) / 2000**0.5


@pytest.mark.parametrize(
    "name,how",
    [
        ("reinforce_baseline", dict(episodes=16)),
        ("a2c", dict(steps=32, gamma=1.0)),
        ("trpo", dict(steps=32, gamma=1.0)),
        ("grpo", dict(episodes=32, group=8, beta=0.0)),
    ],
)
def test_learned_policies_come_close_to_the_optimum_with_slips(name, how):
    """V^π(start) of the *stochastic* policy, exactly, against V* by value iteration; budget about
    20,000 steps."""
    grid = GridModel(slip=0.2)
    best = float(value_iteration(grid)[-1].value[0])
    rollout, learner = control(
        make_vector_environment("logpi/GridWorld-v0", 8, slip=0.2),
        name,
        updates=80,
        lr=8e-2,
        hidden=(),
        seed=0,
        **how,
    )
    start = float(exact_values(grid, probabilities(learner.policy))[0])
    for _ in range(80):
        learner.update(rollout().batch)
    value = float(exact_values(grid, probabilities(learner.policy))[0])
    assert start < best - 5 and best - value < 0.35, (start, value, best)


def test_drawings():
    grid = GridModel()
    pi = np.eye(4)[[0] * 16]
    text = draw(grid, pi, list(range(16)), at=5)
    assert (
        text.count("→") == 12
        and "A" in text
        and "+5" in text
        and "14.0" in text
        and len(text.splitlines()) == 8
    )
    image = picture(grid, at=5)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.std() > 10


def test_the_environment_takes_words_or_a_model():
    env = GridWorld(cost=-2, terminals={(1, 0): 7})
    assert env.reset()[0] == 0
    assert env.step(1)[:3] == (4, -2.0, False)
    assert env.step(3)[:3] == (0, -2.0, False)
    assert env.step(0)[:3] == (1, 7.0, True)
    same = GridWorld(GridModel(cost=-2.0, terminals={(1, 0): 7.0}))
    assert same.model == env.model
    with pytest.raises(ValueError, match="leave cost out"):
        GridWorld(GridModel(), cost=-2)


def test_rewards_are_those_of_the_table():
    """A step's reward is R[s, a, s'] of the model, for every state and move."""
    env = GridWorld(cost=-0.5, slip=0.0)
    table = env.model.reward
    for state in range(env.model.states):
        for action in range(4):
            if env.model.cell(state) not in env.model.terminals:
                env._state = state
                after, reward, *_ = env.step(action)
                assert reward == float(table[state, action, after])

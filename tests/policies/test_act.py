"""`act`: an observation in, the environment's action out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from logpi.policies.cnn import cnn
from logpi.policies.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical
from logpi.policies.mlp import ActorCritic, mlp
from logpi.policies.tabular import States, TabularPolicy


def linear(kind, weight: list[list[float]], **options) -> ActorCritic:
    layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight, dtype=torch.float32)
    return ActorCritic(kind, torch.nn.Sequential(layer), **options)


def test_the_likeliest_action_by_hand():
    policy = linear(Categorical(3, start=5), [[1.0, 0.0], [0.0, 1.0], [0.5, 0.6]])
    assert policy.act([2.0, 1.0]) == 5 and policy.act(np.array([0.0, 1.0])) == 6
    assert policy.act([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]]).tolist() == [5, 6, 7]


def test_other_kinds_of_actions():
    x = [1.0, -1.0]
    assert linear(MultiCategorical((2, 2)), [[1, 0.0], [0, 1], [0, 1], [1, 0]]).act(x).tolist() == [
        0,
        1,
    ]
    assert linear(Bernoulli(2), [[1, 0.0], [0, 1]]).act(x).tolist() == [1, 0]
    box = linear(Gaussian((-0.5,), (0.5,)), [[0.25, 0.0]])
    assert box.act(x).tolist() == [0.25] and box.act([9.0, 0.0]).tolist() == [0.5]


def test_sampled_actions_follow_the_distribution_and_the_seed():
    policy = linear(Categorical(2), [[0.0], [float(np.log(3.0))]])
    many = np.ones((4000, 1))
    actions = policy.act(many, greedy=False, rng=0)
    assert abs(actions.mean() - 0.75) < 0.03
    assert np.array_equal(actions, policy.act(many, greedy=False, rng=0))


def test_masked_actions_are_not_taken():
    policy = linear(Categorical(2), [[1.0], [0.0]], masks=2)
    assert policy.act([5.0, 1, 1]) == 0 and policy.act([5.0, 0, 1]) == 1


def test_frames():
    policy = cnn((12, 12, 3), Categorical(4), width=8)
    frame = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    logits = policy.actor()(frame[None])
    assert policy.act(frame) == logits.argmax() and policy.act(frame[None]).shape == (1,)
    with pytest.raises(ValueError, match=r"shape \(3,\) are not those that this policy learned"):
        linear(Categorical(2), [[1.0, 0.0], [0.0, 1.0]]).act([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="an observation has 3 axes here"):
        policy.act(frame[0])


def test_an_observation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="an observation has 1 axes here.*shape \\(\\)"):
        mlp(4, Categorical(2)).act(3.0)


def test_a_table():
    policy = TabularPolicy(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), States())
    assert policy.act(0) == 1 and policy.act(np.array([0, 1])).tolist() == [1, 0]
    counts = policy.act([1] * 4000, greedy=False, rng=1)
    assert abs((counts == 0).mean() - 1 / (1 + np.exp(-2))) < 0.03

"""A small network's parameters as one vector: the same steps as torch's AdamW, and what is not one
vector is left to it."""

from __future__ import annotations

import copy

import pytest
import torch

from logpi import AdamW, Learner, algorithm
from logpi.envs.control.make import make_vector_environment
from logpi.policies.distributions import Categorical, Gaussian
from logpi.policies.fast.dense import Stack, dense, outputs
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Fragments
from logpi.updates.adamw import side_by_side
from logpi.updates.sgd import SGD, Actions, UpdateInputs


def policies():
    """One whose parameters lie side by side, and a copy whose parameters do not."""
    torch.manual_seed(0)
    one = mlp(4, Gaussian((-1.0,) * 2, (1.0,) * 2), hidden=(16,))
    return one, copy.deepcopy(one)


def test_parameters_lie_side_by_side_and_mirrors_follow():
    one, other = policies()
    vector = side_by_side(list(one.parameters()))
    assert vector is not None and len(vector) == sum(p.numel() for p in one.parameters())
    assert side_by_side(list(other.parameters())) is None
    assert side_by_side(list(one.parameters())[::-1]) is None
    act, seen = one.actor(), torch.ones(1, 4)
    with torch.no_grad():
        vector.zero_()
    assert (act(seen.numpy()) == 0).all() and all((p == 0).all() for p in one.parameters())


def test_steps_are_those_of_torch():
    one, other = policies()
    made = [AdamW(1e-2).build(p) for p in (one, other)]
    assert [len(o.param_groups[0]["params"]) for o in made] == [
        1,
        len([p for p in one.parameters() if p.ndim >= 2]),
    ]
    x = torch.randn(32, 4)
    for _ in range(10):
        for policy, optimizer in zip((one, other), made, strict=True):
            optimizer.zero_grad(set_to_none=True)
            (
                policy.actor_net(x).square().sum()
                + policy.critic_net(x).square().sum()
                + policy.free.exp().sum()
            ).backward()
            optimizer.step()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def test_weight_decay_needs_matrices_and_vectors_apart():
    one, _ = policies()
    assert len(AdamW(1e-2, weight_decay=0.1).build(one).param_groups) == 2


def test_its_state_is_restored_bit_for_bit():
    torch.manual_seed(0)
    policy = mlp(4, Categorical(2), hidden=(8,))
    rollout = Fragments(make_vector_environment("CartPole-v1", 2), policy, steps=32)
    made = algorithm("ppo", update=SGD(2, 2, None, 0.5, Actions()))
    learner = Learner(policy, made, AdamW(1e-2))
    learner.update(rollout().batch)
    saved, batch = copy.deepcopy(learner.state_dict()), rollout().batch
    learner.update(batch)
    after = copy.deepcopy(policy.state_dict())
    fresh = Learner(mlp(4, Categorical(2), hidden=(8,)), made, AdamW(1e-2))
    fresh.load_state_dict(saved)
    fresh.update(batch)
    for k, v in fresh.policy.state_dict().items():
        assert torch.equal(v, after[k])


def test_diagnostics_are_the_last_pass_s():
    torch.manual_seed(0)
    policy = mlp(4, Categorical(2), hidden=(8,))
    batch = Fragments(make_vector_environment("CartPole-v1", 2), policy, steps=32)().batch
    made = algorithm("ppo", update=SGD(3, 1, None, 0.5, Actions()))
    objective, optimizer = made.objective, AdamW(1e-2).build(policy)
    targets = objective.prepare(batch, policy.evaluate(batch), None)
    inputs = UpdateInputs(policy, objective, optimizer, batch, targets, torch.Generator())
    steps = list(made.update(inputs))
    assert ["entropy" in s for s in steps] == [False, False, True]
    assert steps[0]["gap_old/max"] == pytest.approx(0, abs=1e-6) and "gap_old/max" not in steps[2]
    assert steps[2]["kl_old"] > 0 and all("loss" in s and "grad_norm" in s for s in steps)


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU, torch.nn.ELU])
def test_stacks_are_sequences_with_their_first_and_second_derivatives(activation):
    torch.manual_seed(0)
    layers = [
        [*dense(4, hidden, activation), torch.nn.Linear(hidden[-1], n)]
        for hidden, n in (((8, 8), 2), ((6,), 1))
    ]
    x, found = torch.randn(16, 4, dtype=torch.float64, requires_grad=True), []
    for kind in (Stack, torch.nn.Sequential):
        networks = torch.nn.ModuleList(kind(*x) for x in layers).double()
        outs, learned = outputs(list(networks), x), [x, *networks.parameters()]
        first = torch.autograd.grad(sum(o.square().sum() for o in outs), learned, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), learned)
        found.append((*outs, *first, *second))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_only_what_is_wanted_of_stacks_is_differentiated():
    torch.manual_seed(0)
    one, other = (Stack(*dense(4, (8,)), torch.nn.Linear(8, 2)) for _ in range(2))
    one[0].weight.requires_grad_(False)
    first, _ = outputs([one, other], torch.randn(16, 4))
    first.sum().backward()
    assert (
        one[0].weight.grad is None and one[0].bias.grad is not None and other[0].bias.grad is None
    )

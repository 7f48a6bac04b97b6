"""A small policy's gradient without autograd is autograd's, and what it cannot do it leaves."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from logpi import AdamW, Learner, TorchOptimizer, algorithm
from logpi.envs.control.make import make_vector_environment
from logpi.objectives.slopes import slopes
from logpi.policies.distributions import (
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
)
from logpi.policies.mlp import ActorCritic, mlp
from logpi.rollouts.gym import Fragments
from logpi.types import Batch, PolicyOutput, Targets
from logpi.updates.sgd import SGD, Actions, WrittenOut

BOUNDS = (-1.0,) * 2, (1.0,) * 2
KINDS = (
    *(Categorical(3), MultiCategorical((2, 3)), Bernoulli(2)),
    *(Gaussian(*BOUNDS), SquashedGaussian(*BOUNDS)),
)


def single_actions(kind, n: int = 48, masks: int = 0):
    """A batch of n single actions that the policy did not choose, and constants."""
    random = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=random, dtype=torch.float64)

    obs = draw(2, 4)
    if masks:
        # the first action is always allowed, and taken
        bits = torch.cat([torch.ones(n, 2, 1), (draw(2, masks - 1) > 0)], -1)
        obs = torch.cat([obs, bits], -1)
    params = draw(kind.outputs + kind.free)
    action = torch.from_numpy(kind.sample(params.numpy(), np.random.default_rng(0)))
    action = torch.zeros_like(action) if masks else action
    batch = Batch(
        obs=obs,
        action=action[:, None],
        mask=torch.ones(n, 1, dtype=torch.bool),
        reward=draw(1),
        terminated=torch.ones(n, dtype=torch.bool),
        group=torch.arange(n),
        logp=draw(1),
    )
    return batch, Targets(draw(1) - 1, draw(1) - 1, draw(1), draw(1), draw(1))


def gradients(policy, objective, batch, targets, quick: bool) -> list[torch.Tensor]:
    policy.zero_grad(set_to_none=True)
    weight = objective.weight(batch.mask, batch.group).double()
    if quick:
        recorded = policy.recorded(batch)
        _, _, by = slopes(objective, batch, targets, weight, recorded.output)
        recorded.backward(by.logp, by.entropy, by.value)
    else:
        objective.loss(batch, targets, weight, policy.evaluate(batch))[0].backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in policy.parameters()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": nn.ReLU, "hidden": (8,)}, {"hidden": ()}, {"normalize": True}],
    ids=["tanh", "relu", "table", "normalised"],
)
def test_the_gradient_is_autograds(kind, options):
    torch.manual_seed(0)
    policy = mlp(4, kind, log_std=-0.3, **{"hidden": (8, 6)} | options).double()
    batch, targets = single_actions(kind)
    for name, more in (("ppo", {"value_clip": 0.2}), ("a2c", {}), ("grpo", {"kl_estimator": "k2"})):
        objective = replace(
            algorithm(name, **more).objective, entropy_coef=0.1, value_coef=0.5, whiten=False
        )
        for a, b in zip(
            *(gradients(policy, objective, batch, targets, quick) for quick in (True, False)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_forbidden_actions_get_no_slope():
    torch.manual_seed(0)
    kind = Categorical(3)
    policy = mlp(4, kind, hidden=(8,), masks=3).double()
    batch, targets = single_actions(kind, masks=3)
    objective = algorithm("ppo", entropy_coef=0.1).objective
    both = [gradients(policy, objective, batch, targets, quick) for quick in (True, False)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert any((g != 0).any() for g in both[0])


def test_gradients_add_up_and_what_does_not_learn_gets_none():
    torch.manual_seed(0)
    kind = Gaussian(*BOUNDS)
    policy = mlp(4, kind, hidden=(8,)).double()
    (batch, targets), objective = single_actions(kind), algorithm("a2c").objective
    once = gradients(policy, objective, batch, targets, True)
    weight = objective.weight(batch.mask, batch.group).double()
    recorded = policy.recorded(batch)
    by = slopes(objective, batch, targets, weight, recorded.output)[2]
    recorded.backward(by.logp, by.entropy, by.value)
    for p, g in zip(policy.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)
    for p in policy.actor_net.parameters():
        p.requires_grad_(False)
    free = policy.free.requires_grad_(False)
    policy.zero_grad(set_to_none=True)
    recorded.backward(by.logp, by.entropy, by.value)
    assert free.grad is None and all(p.grad is None for p in policy.actor_net.parameters())
    assert all(p.grad is not None for p in policy.critic_net.parameters())


class Squared(ActorCritic):
    """Evaluates in a way of its own."""

    def evaluate(self, batch: Batch) -> PolicyOutput:
        return replace(super().evaluate(batch), logp=super().evaluate(batch).logp ** 2)


def test_what_it_cannot_do_is_left_to_autograd():
    kind = Categorical(3)
    batch, _ = single_actions(kind)
    batch = batch.map(lambda x: x.float() if x.is_floating_point() else x)
    plain = mlp(4, kind)
    assert plain.recorded(batch) is not None and isinstance(plain, WrittenOut)
    assert plain.recorded(replace(batch, terminated=~batch.terminated)) is None
    assert plain.recorded(replace(batch, mask=~batch.mask)) is None
    assert mlp(4, kind, shared=True).recorded(batch) is None
    assert mlp(4, kind, activation=nn.ELU).recorded(batch) is None
    assert Squared(kind, plain.actor_net, plain.critic_net).recorded(batch) is None
    wide = replace(batch, **{k: getattr(batch, k).repeat(1, 2) for k in ("action", "mask", "logp")})
    assert plain.recorded(replace(wide, obs=batch.obs.repeat(1, 2, 1)[:, :3])) is None


class ByAutograd(ActorCritic):
    """The general path."""

    def recorded(self, batch: Batch) -> None:
        return None


def cartpole(seed: int):
    torch.manual_seed(seed)
    policy = mlp(4, Categorical(2))
    envs = make_vector_environment("CartPole-v1", 3)
    return policy, Fragments(envs, policy, steps=50, seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_update_is_the_general_one(seed):
    """Minibatches of two sizes, a norm that is scaled down, the reports of the last pass."""
    policy, rollout = cartpole(seed)
    batch = rollout().batch
    general = ByAutograd(policy.kind, *map(copy.deepcopy, (policy.actor_net, policy.critic_net)))
    made = algorithm("ppo", entropy_coef=0.01, update=SGD(2, 4, None, 0.5, Actions()))
    reports = [Learner(p, made, AdamW(1e-3)).update(batch) for p in (policy, general)]
    assert reports[0] == pytest.approx(reports[1], rel=1e-3, abs=1e-5)
    for p, q in zip(policy.parameters(), general.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_other_optimisers_get_the_gradients_too():
    policy, rollout = cartpole(0)
    batch, other = rollout().batch, copy.deepcopy(policy)
    made = algorithm("ppo", update=SGD(1, 1, None, None, Actions()))
    plain = TorchOptimizer(lambda params: torch.optim.SGD(params, lr=0.1))
    before = [p.detach().clone() for p in policy.parameters()]
    Learner(policy, made, plain).update(batch)
    # a copy has scratch memory of its own
    Learner(other, made, plain).update(batch)
    for p, q, start in zip(policy.parameters(), other.parameters(), before, strict=True):
        assert torch.equal(p, q) and not torch.equal(p, start)

"""RLHF with PPO and DPO reach the same policy, π*(y|x) ∝ π_ref(y|x) exp(r(x, y)/β), exactly, on a
listed world."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.learner import Learner
from logpi.policies.tabular import TabularPolicy
from logpi.types import PolicyOutput
from logpi.updates.adamw import AdamW, Constant
from logpi.updates.sgd import SGD
from tests.objectives.cases import Bandit

BETA = 0.5


@pytest.fixture
def world():
    return Bandit(words=2, length=2)


def every_pair(world: Bandit, policy: TabularPolicy):
    """Every two responses in both orders, as pairs, and the Bradley–Terry probability of each
    order."""
    k = len(world.tokens)
    i, j = (x.flatten() for x in torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij"))
    i, j = i[i != j], j[i != j]
    rows = torch.stack([i, j], 1).flatten()
    won = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(i))
    batch = world.batch(rows, torch.arange(len(i)).repeat_interleave(2), won)
    batch = replace(batch, logp=policy.evaluate(batch).logp.detach())
    return batch, torch.sigmoid(world.reward[i] - world.reward[j])


def expected_loss(objective, batch, share, policy):
    """The objective's loss where pair p has probability ∝ share[p]."""
    now = policy.evaluate(batch)
    targets = objective.prepare(batch, now, None)
    weight = (share / share.sum()).repeat_interleave(2)[:, None] * batch.mask
    return objective.loss(batch, targets, weight, now)[0]


def test_dpo_with_all_pairs_reaches_the_optimum(world):
    policy = world.policy()
    batch, share = every_pair(world, policy)
    objective = algorithm("dpo", beta=BETA, recorded=True).objective
    optimizer = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = expected_loss(objective, batch, share, policy)
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(world.logp(policy).detach(), world.optimum(BETA), atol=1e-6, rtol=0)


def rlhf_gradient(world: Bandit, policy: TabularPolicy, reference: TabularPolicy) -> torch.Tensor:
    """The expected gradient of PPO with k1 in the reward: every response once, weighted by its
    probability."""
    objective = algorithm("ppo", beta=BETA, lam=1.0, whiten=False, value_coef=0.0).objective
    every = torch.arange(len(world.tokens))
    batch = world.batch(every, every, world.reward)
    now, ref = policy.evaluate(batch), reference.evaluate(batch)
    # λ = 1: any critic is only a baseline
    blank = torch.zeros(len(every), world.length + 1, dtype=torch.float64)
    targets = objective.prepare(batch, PolicyOutput(now.logp, now.entropy, blank), ref)
    weight = now.logp.detach().sum(1).exp()[:, None] * batch.mask
    value, _ = objective.loss(batch, targets, weight, now)
    return torch.autograd.grad(value, policy.logits)[0]


def test_rlhf_stands_still_at_the_optimum_and_only_there(world):
    reference, policy = world.policy(), world.policy()
    assert rlhf_gradient(world, policy, reference).abs().max() > 1e-2
    # the first token's marginal, then each second token's share
    best = world.optimum(BETA).exp().view(2, 2)
    with torch.no_grad():
        policy.logits[1] = best.sum(1).log()
        policy.logits[2:4] = best.log()
    torch.testing.assert_close(world.logp(policy).detach(), world.optimum(BETA))
    assert rlhf_gradient(world, policy, reference).abs().max() < 1e-12


def test_rlhf_reaches_the_optimum(world):
    reference, policy = world.policy(), world.policy()
    for _ in range(400):
        step = 4.0 * rlhf_gradient(world, policy, reference)
        with torch.no_grad():
            policy.logits -= step
    torch.testing.assert_close(world.logp(policy).detach(), world.optimum(BETA), atol=1e-6, rtol=0)


def test_the_learner_reaches_it_too(world):
    """DPO through the shipped learner: every pair as often as people would judge it so."""
    policy = world.policy()
    batch, share = every_pair(world, policy)
    times = (share * 100).round().long()
    rows = torch.arange(len(batch)).view(-1, 2).repeat_interleave(times, 0).flatten()
    group = torch.arange(len(rows) // 2).repeat_interleave(2)
    data = replace(batch.map(lambda x: x[rows]), group=group)
    made = algorithm("dpo", beta=BETA, recorded=True, update=SGD(max_grad_norm=None))
    learner = Learner(policy, made, AdamW(0.05, schedule=Constant()))
    for _ in range(150):
        report = learner.update(data)
    assert report["grad_norm"] < 1e-3
    gap = world.logp(policy).detach() - world.optimum(BETA)
    # shares are rounded to 1/100
    assert gap.abs().max() < 0.05


def test_the_optimum_is_the_best_of_all_policies(world):
    """J(π) = E r − β KL(π‖π_ref) is β log Z at π* and smaller elsewhere (appendix of the DPO text,
    eq. 4)."""
    ref = world.logp(world.policy()).detach()

    def value(logp):
        return float((logp.exp() * (world.reward - BETA * (logp - ref))).sum())

    best = value(world.optimum(BETA))
    assert best == pytest.approx(BETA * float((ref + world.reward / BETA).logsumexp(0)))
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert value(torch.randn(4, generator=g, dtype=torch.float64).log_softmax(0)) < best

"""The trust region's mathematics against explicit matrices, and the step it makes against its
bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from logpi import AdamW, Learner, algorithm
from logpi.envs.control.make import make_vector_environment
from logpi.ops.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    flat,
    largest_step,
    line_search,
)
from logpi.policies.distributions import Categorical, Gaussian, SquashedGaussian
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Fragments
from logpi.types import Batch, PolicyOutput
from logpi.updates.sgd import SGD, Actions
from logpi.updates.trust_region import TrustRegion

KINDS = [Categorical(3), Gaussian((-1.0,), (1.0,)), SquashedGaussian((-1.0, -1.0), (1.0, 1.0))]


def small(kind, seed=0):
    """A double-precision policy and a ragged batch of states for it."""
    torch.manual_seed(seed)
    policy = mlp(2, kind, hidden=(3,)).double()
    with torch.no_grad():
        # away from the near-uniform start
        for p in policy.actor_net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    params = policy._params(torch.zeros(6, 2).double()).detach()
    action = torch.from_numpy(
        kind.sample(params.float().numpy(), __import__("numpy").random.default_rng(0))
    )
    action = action.reshape(2, 3, *action.shape[1:])
    if action.is_floating_point():
        action = action.double()
    batch = Batch(
        torch.randn(2, 4, 2).double(),
        action,
        mask,
        torch.randn(2, 3).double(),
        torch.tensor([True, False]),
        torch.arange(2),
        torch.zeros(2, 3).double(),
    )
    return policy, batch


def actor_params(policy):
    free = [] if policy.free is None else [policy.free]
    return [*policy.actor_net.parameters(), *free]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_product_is_the_explicit_fisher_matrix(kind):
    """F = E[∇log π ∇log πᵀ] over states and *all* actions, the expectation written out (or by a
    fine quadrature)."""
    policy, batch = small(kind)
    params = actor_params(policy)
    here = policy.distributions(batch)
    product = fisher_vector_product(here.kl(here.detach()).mean(), params)
    n = sum(p.numel() for p in params)
    found = torch.stack([product(row) for row in torch.eye(n, dtype=torch.float64)])
    expected = torch.zeros(n, n, dtype=torch.float64)
    seen = batch.obs[:, :-1][batch.mask]
    for state in seen:
        jacobian = _jacobian(policy, params, state)
        expected += jacobian.T @ _fisher_of(kind, policy, state) @ jacobian / len(seen)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found, found.T, atol=1e-10, rtol=0)


def _jacobian(policy, params, state):
    out = policy._params(state[None])[0]
    return torch.stack(
        [
            flat(torch.autograd.grad(o, params, retain_graph=True, allow_unused=True), params)
            for o in out
        ]
    )


def _fisher_of(kind, policy, state):
    """Fisher matrix in the distribution's own parameters, from its textbook form."""
    params = policy._params(state[None])[0].detach()
    if isinstance(kind, Categorical):
        p = params.softmax(-1)
        return torch.diag(p) - torch.outer(p, p)
    mean, log_std = params.chunk(2)
    return torch.diag(torch.cat([(-2 * log_std).exp(), torch.full_like(mean, 2.0)]))


def test_conjugate_gradient_solves_and_the_direction_is_the_natural_gradient():
    policy, batch = small(Categorical(3))
    params = actor_params(policy)
    here = policy.distributions(batch)
    product = fisher_vector_product(here.kl(here.detach()).mean(), params, damping=0.1)
    n = sum(p.numel() for p in params)
    matrix = torch.stack([product(row) for row in torch.eye(n, dtype=torch.float64)])
    g = torch.randn(n, dtype=torch.float64)
    x = conjugate_gradient(product, g, steps=2 * n, tolerance=1e-20)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, g), atol=1e-8, rtol=1e-6)
    step = largest_step(x, product, max_kl=0.01)
    assert float(0.5 * step @ matrix @ step) == pytest.approx(0.01)


def test_no_direction_is_no_step():
    assert not largest_step(torch.zeros(3), lambda v: v, 0.01).any()

    def nothing(v: torch.Tensor) -> torch.Tensor:
        raise AssertionError("F of a batch without an own action has no products")

    assert not largest_step(torch.zeros(3), nothing, 0.01).any()
    assert not conjugate_gradient(lambda v: v, torch.zeros(3)).any()


def test_the_line_search_takes_the_longest_good_step_and_else_none():
    tried = []

    def attempt(gain, kl):
        def at(fraction):
            tried.append(fraction)
            return gain(fraction), kl(fraction)

        return at

    found = line_search(
        attempt(lambda f: 1.0, lambda f: f * 0.03), max_kl=0.01, shrink=0.5, trials=5
    )
    assert (found.fraction, found.trials) == (0.25, 3)
    assert line_search(attempt(lambda f: 0.3 - f, lambda f: 0.0), 0.01, 0.5, 5).fraction == 0.25
    tried.clear()
    assert line_search(attempt(lambda f: -1.0, lambda f: 0.0), 0.01, 0.5, 3).fraction == 0.0
    # and the policy is put back
    assert tried == [1.0, 0.5, 0.25, 0.0]
    assert line_search(attempt(lambda f: float("nan"), lambda f: 0.0), 0.01, 0.5, 3).fraction == 0.0


@pytest.mark.parametrize(
    "env, max_kl, options",
    [
        ("CartPole-v1", 0.001, {}),
        ("CartPole-v1", 0.05, {"fisher_fraction": 0.2}),
        ("Pendulum-v1", 0.001, {}),
        ("Pendulum-v1", 0.05, {}),
    ],
)
def test_every_accepted_step_is_inside_the_region_and_better(env, max_kl, options):
    torch.manual_seed(1)
    from logpi.envs.control.spaces import action_kind

    envs = make_vector_environment(env, 4)
    policy = mlp(envs.features, action_kind(envs.action), hidden=(16,))
    rollout = Fragments(envs, policy, steps=64)
    learner = Learner(
        policy, algorithm("trpo", gamma=0.95, max_kl=max_kl, **options), AdamW(1e-2), total=10
    )
    accepted = 0
    for _ in range(6):
        batch = rollout().batch
        old = policy.distributions(batch).detach()
        report = learner.update(batch)
        kl = float(policy.distributions(batch).kl(old).mean().detach())
        assert kl <= max_kl * 1.0001 and kl == pytest.approx(report["trust/kl"], abs=1e-7)
        assert report["trust/fraction"] == 0 or report["trust/gain"] > 0
        accepted += report["trust/fraction"] > 0
    assert accepted >= 4


def test_the_critic_is_fitted_apart_and_a_shared_trunk_belongs_to_the_policy():
    torch.manual_seed(0)
    envs = make_vector_environment("CartPole-v1", 2)
    policy = mlp(4, Categorical(2), hidden=(16,), shared=True)
    batch = Fragments(envs, policy, steps=64)().batch
    made = algorithm("trpo", critic=SGD(epochs=20, minibatches=4, shuffle=Actions()))
    learner = Learner(policy, made, AdamW(1e-2))
    before = policy.distributions(batch).detach()
    value = policy.critic_net[0].weight.clone()
    report = learner.update(batch)
    assert float(policy.distributions(batch).kl(before).mean().detach()) <= 0.01
    assert not torch.equal(value, policy.critic_net[0].weight)
    assert report["value/loss"] > 0 and all(p.requires_grad for p in policy.parameters())


def test_no_advantage_no_move():
    policy, batch = small(Categorical(3))
    learner = Learner(policy, algorithm("trpo"), AdamW(0.0))
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    even = replace(
        batch, reward=torch.zeros_like(batch.reward), terminated=torch.ones(2, dtype=torch.bool)
    )
    with torch.no_grad():
        for p in policy.critic_net.parameters():
            p.zero_()
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    learner.trust = replace(learner.trust, sampler=False)
    report = learner.update(even)
    assert report["trust/fraction"] == 0
    for k, v in policy.state_dict().items():
        torch.testing.assert_close(v, before[k], atol=0, rtol=0)


def test_rows_without_an_own_action_move_nothing():
    policy, batch = small(Categorical(3))
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    report = Learner(policy, algorithm("trpo"), AdamW(0.1)).update(
        replace(batch, mask=torch.zeros_like(batch.mask))
    )
    assert report["trust/fraction"] == 0 and "value/loss" not in report
    for k, v in policy.state_dict().items():
        torch.testing.assert_close(v, before[k], atol=0, rtol=0)


class Plain(torch.nn.Module):
    """A policy that says nothing of the actions it did not take."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def evaluate(self, batch):
        zero = self.bias.expand(batch.mask.shape)
        return PolicyOutput(zero, zero, torch.zeros(batch.obs.shape[:2]))


def test_a_policy_that_cannot_state_its_distribution_is_refused():
    with pytest.raises(ValueError, match="whole distribution"):
        Learner(Plain(), algorithm("trpo"))


def test_weights_of_16_bits_are_refused():
    policy, _ = small(Categorical(3))
    with pytest.raises(
        ValueError, match="lost in the rounding of 16-bit weights: train in float32"
    ):
        Learner(policy.bfloat16(), algorithm("trpo"))


def test_the_fisher_matrix_may_be_estimated_on_a_share_of_the_rows():
    _policy, batch = small(Categorical(3))
    batch = batch.rows(torch.zeros(10, dtype=torch.long))
    batch = replace(batch, mask=batch.mask & (torch.arange(10) != 3)[:, None])
    generator = torch.Generator().manual_seed(0)
    assert TrustRegion()._sample(batch, generator) is batch
    found = TrustRegion(fisher_fraction=0.3)._sample(batch, generator)
    # of the nine rows with an action, rounded up
    assert len(found) == 3 and found.mask.any(1).all()
    with pytest.raises(ValueError, match="share of the rows"):
        TrustRegion(fisher_fraction=0.0)
    with pytest.raises(ValueError, match="above 0 nats"):
        TrustRegion(max_kl=0.0)


# --- tokens ---


def token_case():
    """A tiny language model with prompts, a tool gap and padding in its rows."""
    pytest.importorskip("transformers")
    from logpi.policies.causal_lm import CausalLM
    from tests.tiny import tiny_model, tiny_tokenizer

    policy = CausalLM(tiny_model("llama"), tiny_tokenizer(), critic=True)
    g = torch.Generator().manual_seed(0)
    obs = torch.randint(3, 20, (4, 9), generator=g)
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]] * 2, dtype=torch.bool)
    empty = torch.zeros(mask.shape)
    batch = Batch(
        obs, obs[:, 1:], mask, empty, torch.ones(4, dtype=torch.bool), torch.arange(4) // 2, empty
    )
    with torch.no_grad():
        batch = replace(batch, logp=policy.evaluate(batch).logp)
    return policy, replace(
        batch, reward=torch.where(mask, torch.rand(mask.shape, generator=g), 0.0)
    )


def test_the_same_update_moves_a_token_policy_inside_its_region():
    policy, batch = token_case()
    torch.testing.assert_close(
        policy.distributions(batch)
        .params.log_softmax(-1)
        .gather(-1, batch.action[batch.mask][:, None])[:, 0],
        policy.evaluate(batch).logp[batch.mask],
    )
    learner = Learner(policy, algorithm("trpo", max_kl=0.003), AdamW(1e-3))
    old = policy.distributions(batch).detach()
    report = learner.update(batch)
    kl = float(policy.distributions(batch).kl(old).mean().detach())
    assert (
        0 < kl <= 0.003
        and report["trust/gain"] > 0
        and kl == pytest.approx(report["trust/kl"], abs=1e-6)
    )
    assert report["gap_old/max"] < 1e-5


def test_the_product_of_a_token_policy_is_its_explicit_fisher_matrix():
    """On the last layer's norm: few parameters, and everything before the softmax is in play."""
    policy, batch = token_case()
    params = [p for n, p in policy.named_parameters() if n.endswith("model.norm.weight")]
    assert len(params) == 1
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        here = policy.distributions(batch)
        product = fisher_vector_product(here.kl(here.detach()).mean(), params)
        n = params[0].numel()
        found = torch.stack([product(row) for row in torch.eye(n)[:6]])
        expected = torch.zeros(n, n)
        for logits in here.params:
            p = logits.softmax(-1).detach()
            jacobian = torch.stack(
                [torch.autograd.grad(x, params, retain_graph=True)[0] for x in logits]
            )
            expected += (
                jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian / len(here.params)
            )
    torch.testing.assert_close(found, expected[:6], atol=1e-6, rtol=1e-3)


def moved(**options):
    """The policy after one update from the same start, and the report."""
    torch.manual_seed(0)
    envs = make_vector_environment("CartPole-v1", 4)
    policy = mlp(envs.features, Categorical(2), hidden=(16,))
    batch = Fragments(envs, policy, steps=64)().batch
    old = policy.distributions(batch).detach()
    report = Learner(policy, algorithm("trpo", **options), AdamW(1e-2)).update(batch)
    return float(policy.distributions(batch).kl(old).mean().detach()), report


@pytest.mark.parametrize("max_kl", [0.001, 0.05])
def test_several_steps_on_one_batch_stay_inside_one_region(max_kl):
    """Measured from π_old, after all of them; together they gain more than one."""
    gains = {}
    for n in (1, 2, 5):
        kl, report = moved(max_kl=max_kl, trust_steps=n)
        assert 0 < kl <= max_kl * 1.0001 and kl == pytest.approx(report["trust/kl"], abs=1e-7)
        assert report.get("trust/steps", 1) == n
        gains[n] = report["trust/gain"]
    assert gains[5] >= gains[1] * 0.99 > 0


def test_one_step_is_the_same_bit_for_bit():
    """The numbers of the release before `trust_steps`."""
    assert moved()[1] == moved(trust_steps=1)[1]
    assert "trust/steps" not in moved()[1]
    with pytest.raises(ValueError, match="trust_steps at least 1"):
        TrustRegion(trust_steps=0)

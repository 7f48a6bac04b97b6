"""Divergences of whole distributions, beside sums written out, and against the exact gradient."""

from __future__ import annotations

import math

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.lab.bias import far_reference
from logpi.lab.expectation import Setting, moments
from logpi.lab.worlds import token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.constant_advantages import NoReward
from logpi.ops.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from logpi.ops.kl import KL, k1, k2
from logpi.ops.surrogates import ScoreFunction
from logpi.ops.weights import SequenceSum
from logpi.testing import check_all

STUDENT, TEACHER = (0.2, 0.5, 0.3), (0.6, 0.3, 0.1)
EVERY = (ReverseKL(), ForwardKL(), JensenShannon(), JensenShannon(mix=0.1))


def log(p: tuple[float, ...], actions: int = 3) -> torch.Tensor:
    return torch.tensor(p[:actions], dtype=torch.float64).log()


def kl(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("actions", [2, 3])
def test_values(actions: int) -> None:
    # with two of three actions the rest is the third, so nothing is lost
    p, q = log(STUDENT, actions), log(TEACHER, actions)
    mixed = tuple(0.1 * t + 0.9 * s for s, t in zip(STUDENT, TEACHER, strict=True))
    assert float(ReverseKL()(p, q)) == pytest.approx(kl(STUDENT, TEACHER), abs=1e-12)
    assert float(ForwardKL()(p, q)) == pytest.approx(kl(TEACHER, STUDENT), abs=1e-12)
    expected = 0.1 * kl(TEACHER, mixed) + 0.9 * kl(STUDENT, mixed)
    assert float(JensenShannon(mix=0.1)(p, q)) == pytest.approx(expected, abs=1e-12)


def test_fewer_actions_tell_less() -> None:
    p, q = (0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)
    for divergence in EVERY:
        values = [float(divergence(log(p, k), log(q, k))) for k in (4, 3, 2, 1)]
        assert values[0] == pytest.approx(values[1], abs=1e-12)
        assert values[1] > values[2] > values[3] > 0


def test_the_limits_of_jensen_shannon() -> None:
    p, q = log(STUDENT), log(TEACHER)
    for mix, other, scale in ((1e-6, ForwardKL(), 1e-6), (1 - 1e-6, ReverseKL(), 1e-6)):
        assert float(JensenShannon(mix=mix)(p, q)) / scale == pytest.approx(
            float(other(p, q)), rel=1e-4
        )


def test_what_no_policy_can_do_counts_nothing() -> None:
    p = torch.tensor([0.0, -torch.inf], requires_grad=True)
    value = ReverseKL()(p, torch.tensor([0.0, -torch.inf]))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6) and bool(p.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("divergence", EVERY, ids=repr)
def test_the_laws_of_objectives(divergence: Divergence) -> None:
    check_all(PolicyGradient(NoReward(), kl=KL(0.5, divergence, "loss", teacher=True)))
    check_all(algorithm("distill").objective)


def gradient(penalty: KL) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """−E[∇L̂] of a penalty to a teacher alone, and the gradients of the two KL divergences at the
    states that the policy visits."""
    world = token_world({"q": {x + y: 0.0 for x in "abc" for y in "abc."}}, seed=8)
    teacher = far_reference(world)
    objective = PolicyGradient(
        NoReward(), surrogate=ScoreFunction(), weight=SequenceSum(), kl=penalty
    )
    step = moments(world, objective, Setting(responses=1, reference=teacher)).mean
    visits, ref = world.mdp.occupancy(world.pi).sum(0), world.mdp.policy(teacher)

    def slope(reverse: bool) -> torch.Tensor:
        theta = world.logits.detach().requires_grad_()
        pi = world.mdp.policy(theta)
        pair = (pi, ref) if reverse else (ref, pi)
        return torch.autograd.grad((visits * world.mdp.state_divergence(*pair)).sum(), theta)[
            0
        ].flatten()

    return step, slope(True), slope(False)


def test_expected_gradients_are_those_of_the_divergence() -> None:
    for penalty in (KL(1.0, k1, "action"), KL(1.0, k2, "loss")):
        step, reverse, _ = gradient(penalty)
        torch.testing.assert_close(step, reverse, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["distill", "loss"])
def test_gradients_by_the_learner(name: str) -> None:
    """The whole distribution, through the shipped learner: one step of SGD is the gradient."""
    from logpi.learner import Learner
    from logpi.policies.tabular import TabularPolicy

    torch.manual_seed(0)
    world = token_world({"q": {x + y: 0.0 for x in "abc" for y in "abc."}}, seed=8)
    teacher = world.policy(far_reference(world))
    settings = {} if name == "distill" else {"kl_estimator": "reverse"}
    method = algorithm("distill", max_grad_norm=None, **settings)
    policy = TabularPolicy(world.logits, world.index, world.mdp.allowed)
    batch = world.paths.rows(torch.arange(6))
    before = policy.logits.detach().clone()
    learner = Learner(policy, method, lambda p: torch.optim.SGD(p, lr=1.0), reference=teacher)
    learner.update(batch)
    moved = before - policy.logits.detach()
    theta = before.requires_grad_()
    state = world.index(batch)[:, :-1]
    off = torch.where(world.mdp.allowed, 0.0, -torch.inf)
    logp = (theta + off).log_softmax(-1)[state]
    logt = (teacher.logits.detach() + off).log_softmax(-1)[state]
    if name == "distill":
        action = torch.where(batch.mask, batch.action, 0)[..., None]
        one, two = logp.gather(-1, action)[..., 0], logt.gather(-1, action)[..., 0]
        terms = (one - two).detach() * one
    else:
        terms = (logp.exp() * (logp - logt).masked_fill(logp.isinf(), 0.0)).sum(-1)
    loss = torch.where(batch.mask, terms, 0.0).sum() / batch.mask.sum()
    expected = torch.autograd.grad(loss, theta)[0]
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-7)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ReverseKL(top=0)
    with pytest.raises(ValueError, match="mix is above 0 and below 1"):
        JensenShannon(mix=1.0)
    with pytest.raises(ValueError, match="place in the loss"):
        KL(1.0, ReverseKL(), "reward")
    with pytest.raises(ValueError, match="give it as reference"):
        from logpi.learner import Learner
        from logpi.policies.tabular import States, TabularPolicy

        Learner(TabularPolicy(torch.zeros(2, 2), States()), algorithm("distill"))

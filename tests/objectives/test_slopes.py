"""Derivatives by what the policy said, written out, are autograd's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch

from logpi.objectives.policy_gradient import PolicyGradient
from logpi.objectives.slopes import _by_autograd, _written_out, slopes
from logpi.ops.advantages import GAE
from logpi.ops.corrections import TruncatedIS
from logpi.ops.kl import KL, Estimator, k1, k2, k3
from logpi.ops.ratios import SequenceRatio
from logpi.ops.surrogates import (
    Clip,
    ClippedScore,
    DecayingClip,
    DualClip,
    ScoreFunction,
    Surrogate,
    Unclipped,
)
from logpi.types import Batch, PolicyOutput, Targets

SURROGATES = (
    *(ScoreFunction(), Unclipped(), Clip(0.2), Clip(0.1, 0.3), DualClip(0.2, c=1.5)),
    *(ClippedScore(), ClippedScore(0.2, 0.2), DecayingClip(0.2).at(0.5)),
)
KLS = (None, *(KL(0.3, k, "loss") for k in (k1, k2, k3)), KL(0.3, k1, "reward"))
CRITICS = ({}, {"value_coef": 0.7}, {"value_coef": 0.7, "value_clip": 0.3})


def case(seed: int, n: int = 64):
    """n single actions, whose ratios are near 1 and far from it, with their constants."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=random, dtype=torch.float64)

    old = draw(1) - 1
    logp = old + 0.5 * draw(1)
    # beyond the largest ratio, in both directions of the advantage
    logp[:2] = old[:2] + 40
    advantage = draw(1)
    advantage[:3, 0] = torch.tensor([1.0, -1.0, 0.0])
    batch = Batch(
        obs=draw(2, 3),
        action=torch.zeros(n, 1, dtype=torch.long),
        mask=torch.ones(n, 1, dtype=torch.bool),
        reward=draw(1),
        terminated=torch.ones(n, dtype=torch.bool),
        group=torch.arange(n),
        logp=old + 0.1 * draw(1),
    )
    targets = Targets(old, old + 0.2 * draw(1), advantage, draw(1), draw(1))
    return batch, targets, draw(1).abs(), PolicyOutput(logp, draw(1).abs(), draw(2))


def same(ours, theirs) -> None:
    """Loss, diagnostics and derivatives; no derivative is one of 0."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=1e-12)
    assert dict(ours[1]).keys() == dict(theirs[1]).keys()
    for k, x in dict(theirs[1]).items():
        torch.testing.assert_close(ours[1][k], x, rtol=1e-9, atol=1e-12)
    for name in ("logp", "entropy", "value"):
        a, b = getattr(ours[2], name), getattr(theirs[2], name)
        zero = torch.zeros(64, 1, dtype=torch.float64)
        torch.testing.assert_close(
            zero if a is None else a, zero if b is None else b, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_every_composition_has_autograds_derivatives(surrogate):
    for seed, (kl, critic, entropy, correction) in enumerate(
        product(KLS, CRITICS, (0.0, 0.01), (None, TruncatedIS()))
    ):
        objective = PolicyGradient(
            GAE(), surrogate=surrogate, kl=kl, entropy_coef=entropy, correction=correction, **critic
        )
        scored = case(seed)
        assert _written_out(objective, *scored) is not None
        same(slopes(objective, *scored), _by_autograd(objective, *scored))


def test_one_action_by_hand():
    """The example of `slopes.py`."""
    one = torch.ones(1, 1, dtype=torch.float64)
    batch, targets, _, _ = case(0)
    batch, targets = batch.rows(torch.tensor([0])), targets.rows(torch.tensor([0]), 1)
    targets = replace(targets, logp_old=0 * one, advantage=2 * one, value_target=5 * one)
    objective = PolicyGradient(GAE(), surrogate=Clip(0.2), value_coef=1.0)
    for ratio, by_logp, loss in ((1.5, 0.0, -2.4 + 2), (1.1, -2.2, -2.2 + 2)):
        now = PolicyOutput((ratio * one).log(), 0 * one, 3 * one.expand(1, 2))
        found, _, by = slopes(objective, batch, targets, one, now)
        assert by.logp is not None and by.value is not None and by.entropy is None
        assert float(by.logp) == pytest.approx(by_logp) and float(by.value) == -2
        assert float(found) == pytest.approx(loss)


@dataclass(frozen=True)
class Own(Clip):
    """Another objective than its parent's."""

    def __call__(self, log_ratio, logp, advantage):
        return 3 * super().__call__(log_ratio, logp, advantage)


@dataclass(frozen=True)
class Renamed(Clip):
    """The same objective."""


@dataclass(frozen=True)
class OwnLoss(PolicyGradient):
    def loss(self, batch, targets, weight, now):
        loss, metrics = super().loss(batch, targets, weight, now)
        return loss + (now.logp**2).sum(), metrics


OWN_KL = Estimator("mine", "Δ⁴", lambda logp, ref: (logp - ref) ** 4)


@pytest.mark.parametrize(
    "objective",
    [
        PolicyGradient(GAE(), surrogate=Own()),
        PolicyGradient(GAE(), kl=KL(0.1, OWN_KL, "loss")),
        PolicyGradient(GAE(), ratio=SequenceRatio(), surrogate=Clip()),
    ],
    ids=["surrogate", "KL", "ratio"],
)
def test_a_part_that_is_not_known_is_left_to_autograd(objective):
    scored = case(0)
    assert _written_out(objective, *scored) is None
    same(slopes(objective, *scored), _by_autograd(objective, *scored))


def test_a_loss_of_ones_own_is_left_to_autograd():
    scored, own = case(0), OwnLoss(GAE(), surrogate=Clip())
    plain = PolicyGradient(GAE(), surrogate=Clip())
    a, b = slopes(own, *scored)[2].logp, slopes(plain, *scored)[2].logp
    torch.testing.assert_close(a - b, 2 * scored[3].logp)


def test_only_a_part_with_an_objective_of_its_own_loses_the_derivative():
    assert Own.slope is Surrogate.slope and Renamed.slope is Clip.slope
    assert DecayingClip.slope is Clip.slope and DualClip.slope is not Clip.slope

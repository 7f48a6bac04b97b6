"""An outside judge: polgrad's conformance check of loss and gradient (rtol 1e-9, float64), and its
advantage estimators.

polgrad knows ten algorithms by name. Where its definition is not ours, the test says how the two
differ and checks ours against polgrad with just that changed, so that the difference stated is the
only one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi import algorithm
from logpi.objectives.policy_gradient import PolicyGradient, TruncatedIS
from logpi.ops.advantages import GAE, GroupCenter, GroupNorm, LeaveOneOut
from logpi.ops.kl import KL, k1, k2, k3
from logpi.ops.moments import whiten
from logpi.ops.surrogates import DualClip, Unclipped
from logpi.ops.weights import FixedLength, SequenceMean, SequenceSum, TokenMean
from logpi.types import Batch, PolicyOutput, Targets

polgrad = pytest.importorskip("polgrad")
from polgrad import Aggregation  # noqa: E402
from polgrad.testing import assert_conforms, random_batches  # noqa: E402

pytestmark = pytest.mark.usefixtures("double")


def on(objective: PolicyGradient) -> Callable[..., Tensor]:
    """Our loss under polgrad's calling convention: its `advantages` [B] are given, so ours are not
    computed."""

    def loss(
        *,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        ref_logprobs: Tensor | None = None,
        rollout_logprobs: Tensor | None = None,
    ) -> Tensor:
        b, t = response_mask.shape
        batch = Batch(
            obs=torch.zeros(b, t + 1, dtype=torch.long),
            action=torch.zeros(b, t, dtype=torch.long),
            mask=response_mask,
            reward=torch.zeros(b, t),
            terminated=torch.ones(b, dtype=torch.bool),
            group=torch.zeros(b, dtype=torch.long),
            logp=old_logprobs if rollout_logprobs is None else rollout_logprobs,
        )
        targets = Targets(
            torch.where(response_mask, old_logprobs, 0.0),
            None if ref_logprobs is None else torch.where(response_mask, ref_logprobs, 0.0),
            torch.where(response_mask, advantages[:, None], 0.0),
        )
        weight = objective.weight(batch.mask, batch.group)
        return objective.loss(
            batch, targets, weight, PolicyOutput(logprobs, torch.zeros_like(logprobs))
        )[0]

    return loss


def ours(name: str, **options: object) -> PolicyGradient:
    """The algorithm's objective for the surrogate alone: no critic's error, and no KL (polgrad
    strips its own too)."""
    objective = algorithm(name, **options).objective
    assert isinstance(objective, PolicyGradient)
    return replace(objective, kl=None, value_coef=0.0)


# --- by name ---


@pytest.mark.parametrize("name", ["grpo", "ppo", "rloo"])
def test_the_same_definition(name: str) -> None:
    assert_conforms(on(ours(name)), name)


def test_dr_grpo() -> None:
    """polgrad leaves the constant open."""
    reference = replace(polgrad.ALGORITHMS["dr_grpo"].loss, norm_len=64)
    assert_conforms(on(ours("dr_grpo", max_completion_length=64)), reference)


def test_gspo() -> None:
    assert_conforms(on(ours("gspo")), "gspo")


def test_dapo() -> None:
    """polgrad aggregates over the tokens of the batch, as common code; ours over each prompt's
    group, as the paper: one prompt here."""
    assert_conforms(on(ours("dapo")), "dapo")


def test_cispo() -> None:
    """polgrad's upper bound on the weight is 1.2, ours is 5."""
    assert_conforms(on(ours("cispo", high=0.2)), "cispo")


def test_reinforce_plus_plus() -> None:
    """polgrad takes the mean over a response and then over responses; ours counts all tokens alike,
    as the common code."""
    assert_conforms(on(ours("reinforce_plus_plus", weight=SequenceMean())), "reinforce_pp")
    with pytest.raises(AssertionError):
        assert_conforms(on(ours("reinforce_plus_plus")), "reinforce_pp")


@pytest.mark.parametrize("name", ["reinforce", "policy_gradient"])
def test_reinforce(name: str) -> None:
    reference = polgrad.PolicyLossConfig(
        ratio=polgrad.RatioKind.TOKEN,
        surrogate=polgrad.SurrogateKind.REINFORCE,
        clip=None,
        aggregation=Aggregation.SEQ_MEAN_TOKEN_SUM,
    )
    assert_conforms(on(ours(name)), reference)


def test_the_judge_is_awake() -> None:
    with pytest.raises(AssertionError):
        assert_conforms(on(replace(ours("grpo"), weight=TokenMean())), "grpo")


# --- by part ---


@pytest.mark.parametrize(
    ("weight", "aggregation"),
    [
        (TokenMean(), Aggregation.TOKEN_MEAN),
        (SequenceMean(), Aggregation.SEQ_MEAN_TOKEN_MEAN),
        (SequenceSum(), Aggregation.SEQ_MEAN_TOKEN_SUM),
        (FixedLength(33), Aggregation.TOKEN_SUM_NORM),
    ],
    ids=str,
)
def test_aggregations(weight: TokenMean, aggregation: Aggregation) -> None:
    reference = polgrad.PolicyLossConfig(
        ratio=polgrad.RatioKind.TOKEN,
        surrogate=polgrad.SurrogateKind.PG,
        clip=None,
        aggregation=aggregation,
        norm_len=33,
    )
    assert_conforms(
        on(PolicyGradient(GroupNorm(), surrogate=Unclipped(), weight=weight)), reference
    )
    for batch in random_batches(8, [(5, 9)], seed=1):
        mask = batch["response_mask"]
        expected = polgrad.effective_token_weights(mask, aggregation, norm_len=33)
        assert_close(weight(mask, torch.zeros(5, dtype=torch.long)), expected)


def test_dual_clip() -> None:
    clip = polgrad.ClipConfig(eps_low=0.2, eps_high=0.28, ratio_cap=3.0)
    assert_conforms(
        on(replace(ours("grpo"), surrogate=DualClip(0.2, 0.28, 3.0))),
        replace(polgrad.ALGORITHMS["grpo"].loss, clip=clip, kl=None),
    )


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_in_the_loss(estimator: str) -> None:
    ours_k = {"k1": k1, "k2": k2, "k3": k3}[estimator]
    objective = replace(ours("grpo"), kl=KL(0.1, ours_k, "loss"))
    kl = polgrad.KLLossConfig(
        kind=polgrad.KLEstimator[estimator.upper()], coef=0.1, aggregation=None
    )
    reference = replace(polgrad.ALGORITHMS["grpo"].loss, kl=kl)
    for batch in random_batches(16, [(4, 8), (3, 5)], seed=2):
        given = {
            k: batch[k] for k in ("old_logprobs", "advantages", "response_mask", "ref_logprobs")
        }
        slopes = []
        for loss in (on(objective), lambda **x: polgrad.policy_loss(reference, **x).loss):
            logprobs = batch["logprobs"].clone().requires_grad_()
            value = loss(logprobs=logprobs, **given)
            slopes.append((value.detach(), torch.autograd.grad(value, logprobs)[0]))
        assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)


def test_truncated_importance_sampling() -> None:
    reference = replace(polgrad.ALGORITHMS["grpo_tis"].loss, kl=None)
    objective = replace(ours("grpo"), correction=TruncatedIS(reference.is_correction.cap))
    tight = replace(reference, is_correction=replace(reference.is_correction, cap=1.5))
    for ours_o, theirs in (
        (objective, reference),
        (replace(objective, correction=TruncatedIS(1.5)), tight),
    ):
        for batch in random_batches(16, [(4, 8)], seed=3):
            batch.pop("ref_logprobs")
            assert_close(
                on(ours_o)(**batch),
                polgrad.policy_loss(theirs, **batch).loss,
                rtol=1e-9,
                atol=1e-12,
            )


# --- advantages ---


def grouped(seed: int) -> tuple[Batch, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    reward, ids = torch.rand(12, generator=g), torch.arange(12) % 3
    mask = torch.ones(12, 1, dtype=torch.bool)
    zeros = torch.zeros(12, 1)
    batch = Batch(
        torch.zeros(12, 2),
        zeros,
        mask,
        reward[:, None],
        torch.ones(12, dtype=torch.bool),
        ids,
        zeros,
    )
    return batch, reward, ids


@pytest.mark.parametrize("seed", range(3))
def test_group_advantages(seed: int) -> None:
    batch, reward, ids = grouped(seed)
    assert_close(LeaveOneOut()(batch)[:, 0], polgrad.rloo_advantages(reward, ids))
    centred = polgrad.GroupNormConfig(center=True, scale="none")
    assert_close(GroupCenter()(batch)[:, 0], polgrad.grpo_advantages(reward, ids, centred))
    scaled = polgrad.GroupNormConfig(center=True, scale="std", eps=1e-6, unbiased=True)
    assert_close(GroupNorm(eps=1e-6)(batch)[:, 0], polgrad.grpo_advantages(reward, ids, scaled))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_gae(gamma: float, lam: float) -> None:
    """Terminated rows, right-padded: the only case that polgrad defines (no tool gaps, no
    bootstrap)."""
    g = torch.Generator().manual_seed(0)
    mask = torch.arange(8) < torch.tensor([[2], [5], [8]])
    reward, value = torch.rand(3, 8, generator=g) * mask, torch.randn(3, 9, generator=g)
    batch = Batch(
        torch.zeros(3, 9),
        torch.zeros(3, 8),
        mask,
        reward,
        torch.ones(3, dtype=torch.bool),
        torch.arange(3),
        reward,
    )
    advantage = GAE(gamma, lam)(batch, value)
    config = polgrad.GAEConfig(gamma=gamma, lam=lam)
    theirs, returns = polgrad.gae(reward, value[:, :-1], config=config, response_mask=mask)
    assert_close(advantage, theirs)
    assert_close(GAE(gamma, lam).value_target(advantage, value, mask), returns)


def test_whitening() -> None:
    """polgrad divides by n − 1 and adds ε to the variance, ours by n and adds it to the spread."""
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    assert_close(whiten(x, mask), polgrad.whiten(x, mask) * (8 / 7) ** 0.5, rtol=1e-6, atol=1e-7)

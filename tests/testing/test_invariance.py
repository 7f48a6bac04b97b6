"""The invariances hold for every row of the table and for compositions at large; and each check
catches the bug it is for.

The second half points `logpi.testing` at deliberately broken objectives, each with a bug that was
found in a library of the field: a checker that passes them would be worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from logpi import algorithm
from logpi.algorithms import NAMES
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import (
    GAE,
    Advantage,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    NStep,
    QValue,
    RewardToGo,
    TotalReward,
)
from logpi.ops.constant_advantages import Uniform
from logpi.ops.corrections import MaskedIS, SequenceMaskedIS, TruncatedIS
from logpi.ops.gates import BinaryKL, BinaryTV, SoftGate
from logpi.ops.group_advantages import BatchScale, LengthBaseline, MaxAtK, MeanScale, PassAtK
from logpi.ops.groups import group_sum
from logpi.ops.kl import KL, k1, k2, k3
from logpi.ops.moments import whiten
from logpi.ops.ratios import GeometricMeanRatio, Ratio, SequenceRatio, TokenRatio
from logpi.ops.surrogates import (
    Clip,
    ClippedScore,
    DualClip,
    ScoreFunction,
    Surrogate,
    Unclipped,
)
from logpi.ops.time import own
from logpi.ops.weights import (
    FixedLength,
    GroupTokenMean,
    SequenceMean,
    SequenceSum,
    TokenMean,
    Weight,
)
from logpi.testing import objective as testing
from logpi.types import Batch, PolicyOutput, Targets

# preferences have tests of their own
ROWS = [name for name in NAMES if isinstance(algorithm(name).objective, PolicyGradient)]

# --- what must hold ---


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_table(name: str) -> None:
    for seed in range(3):
        testing.check_all(algorithm(name).objective, *testing.random_case(seed))


ADVANTAGES = [
    TotalReward(),
    RewardToGo(0.9),
    GAE(0.99, 0.95),
    NStep(3, 0.99),
    NStep(float("inf"), 0.99),
    QValue(),
    GroupCenter(),
    GroupNorm(),
    LeaveOneOut(),
    GreedyBaseline(),
    Uniform(),
]
WEIGHTS = [TokenMean(), GroupTokenMean(), SequenceMean(), SequenceSum(), FixedLength(512)]
SURROGATES = [
    ScoreFunction(),
    Unclipped(),
    Clip(0.05, 0.08),
    DualClip(0.05, c=1.05),
    ClippedScore(0.05, 0.05),
    SoftGate(5.0, 9.0),
]
RATIOS = [TokenRatio(), SequenceRatio(True), SequenceRatio(False), GeometricMeanRatio(0.02, 0.05)]


@pytest.mark.parametrize(
    "advantage",
    [BatchScale(), LengthBaseline(), MeanScale(), MaxAtK(2), MaxAtK(4), PassAtK(2), PassAtK(3)],
    ids=str,
)
def test_newer_advantages(advantage: Advantage) -> None:
    testing.check_all(PolicyGradient(advantage, surrogate=Clip(0.05), weight=SequenceMean()))


@pytest.mark.parametrize("surrogate", [BinaryTV(0.02, 0.04), BinaryKL(0.001)], ids=str)
def test_surrogates_of_an_actions_own_probability(surrogate: Surrogate) -> None:
    testing.check_all(PolicyGradient(GroupCenter(), surrogate=surrogate, weight=FixedLength(9)))


@pytest.mark.parametrize("advantage", ADVANTAGES, ids=str)
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
def test_advantage_and_weight(advantage: Advantage, weight: Weight) -> None:
    testing.check_all(PolicyGradient(advantage, surrogate=Clip(0.05), weight=weight))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("ratio", RATIOS, ids=str)
def test_surrogate_and_ratio(surrogate: Surrogate, ratio: Ratio) -> None:
    testing.check_all(PolicyGradient(GroupNorm(), ratio, surrogate, SequenceMean()))


@pytest.mark.parametrize(
    "extra",
    [
        {"kl": KL(0.1, k1, "reward")},
        {"kl": KL(0.1, k2, "loss")},
        {"kl": KL(0.1, k3, "loss")},
        {"kl": KL(0.1, k1, "loss")},
        {"whiten": True},
        {"entropy_coef": 0.1},
        {"value_coef": 0.5},
        {"value_coef": 0.5, "value_clip": 0.01},
        {"correction": TruncatedIS(1.05)},
        {"correction": MaskedIS(0.9, 1.1)},
        {"correction": SequenceMaskedIS(0.7, 1.4)},
        {"top_entropy": 0.3},
        {
            "whiten": True,
            "kl": KL(0.1, k1, "reward"),
            "value_coef": 1.0,
            "value_clip": 0.2,
            "entropy_coef": 0.01,
        },
    ],
    ids=str,
)
def test_everything_that_can_be_added(extra: dict) -> None:
    batch, now, ref = testing.random_case(4)
    drifted = replace(
        batch, logp=torch.where(batch.mask, batch.logp + 0.2 * torch.randn_like(batch.logp), 0.0)
    )
    for advantage in (GAE(1.0, 0.9), GroupNorm()):
        testing.check_all(
            PolicyGradient(advantage, surrogate=Clip(0.1), **extra), drifted, now, ref
        )


def test_without_a_critic_or_a_reference() -> None:
    batch, now, _ = testing.random_case(1)
    testing.check_all(algorithm("dapo").objective, batch, replace(now, value=None), None)


compositions = st.builds(
    PolicyGradient,
    advantage=st.sampled_from(ADVANTAGES),
    ratio=st.sampled_from(RATIOS),
    surrogate=st.sampled_from(SURROGATES),
    weight=st.sampled_from(WEIGHTS),
    kl=st.sampled_from([None, KL(0.1, k1, "reward"), KL(0.1, k3, "loss")]),
    whiten=st.booleans(),
    entropy_coef=st.sampled_from([0.0, 0.01]),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    compositions,
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(2, 5),
    st.integers(4, 14),
    st.booleans(),
    st.floats(0, 0.6),
)
def test_random_compositions_on_random_batches(
    objective: PolicyGradient,
    seed: int,
    prompts: int,
    size: int,
    width: int,
    tools: bool,
    dead: float,
) -> None:
    batch, now, ref = testing.random_case(seed, prompts, size, width, tools)
    gone = torch.rand(len(batch), generator=torch.Generator().manual_seed(seed)) < dead
    testing.check_all(objective, replace(batch, mask=batch.mask & ~gone[:, None]), now, ref)


@pytest.mark.parametrize("name", ROWS)
def test_a_batch_without_any_own_action(name: str) -> None:
    batch, now, ref = testing.random_case()
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    loss, grads = testing.gradient(algorithm(name).objective, empty, now, ref)
    assert loss == 0 and not any(g.any() for g in grads.values())
    assert (
        algorithm(name)
        .objective.idle(empty, algorithm(name).objective.prepare(empty, now, ref))
        .all()
    )


@pytest.mark.parametrize("name", ROWS)
def test_idle_rows_have_no_loss_and_no_gradient(name: str) -> None:
    """What `idle` says of a row is true: leaving it out changes nothing but the work."""
    batch, now, ref = testing.random_case(2)
    # every group uniform: many estimators have nothing to say
    same = torch.tensor([1.0] * 4 + [0.0] * 8)[:, None]
    last = torch.where(batch.mask, torch.arange(batch.mask.shape[1]), -1).amax(1, keepdim=True)
    batch = replace(batch, reward=torch.zeros_like(batch.reward).scatter(1, last, same))
    objective = algorithm(name).objective
    idle = objective.idle(batch, objective.prepare(batch, now, ref))
    busy = (~idle).nonzero().flatten()
    whole = testing.gradient(objective, batch, now, ref)
    if len(busy):
        testing._same("idle", whole, testing.gradient(objective, batch, now, ref, pieces=[busy]))
    else:
        assert whole[0] == 0 and not any(g.any() for g in whole[1].values())
    if name in ("dapo", "dr_grpo", "gspo", "cispo"):
        assert idle.all()


# --- the checks catch what they are for ---


@dataclass(frozen=True)
class Broken:
    """A right objective, one call of which is put wrong."""

    right: PolicyGradient
    prepare_as: Callable | None = None
    weight_as: Callable | None = None
    loss_as: Callable | None = None

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Targets:
        return (self.prepare_as or self.right.prepare)(batch, now, ref)

    def weight(self, mask: Tensor, group: Tensor) -> Tensor:
        return (self.weight_as or self.right.weight)(mask, group)

    def loss(
        self, batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, dict]:
        return (self.loss_as or self.right.loss)(batch, targets, weight, now)


GRPO = PolicyGradient(GroupNorm(), surrogate=Clip(0.2), weight=TokenMean())
CRITIC = PolicyGradient(GAE(1.0, 0.95), surrogate=Clip(0.2), weight=TokenMean(), value_coef=0.5)


def with_advantage(
    right: PolicyGradient, advantage: Callable[[Batch, PolicyOutput], Tensor]
) -> Broken:
    def prepare(batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Targets:
        return replace(right.prepare(batch, now, ref), advantage=advantage(batch, now))

    return Broken(right, prepare_as=prepare)


def micro_batch_mean(
    batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, dict]:
    """The mean over the tokens of each micro-batch, averaged: found in seven libraries."""
    return GRPO.loss(batch, targets, TokenMean()(batch.mask, batch.group), now)


def padded_width(mask: Tensor, group: Tensor) -> Tensor:
    """Dr. GRPO's constant taken from the padded width of the batch."""
    return mask.float() / (mask.shape[0] * mask.shape[1])


def mean_over_padding(batch: Batch, now: PolicyOutput) -> Tensor:
    """Advantages centred on a mean in which padding counts as zeros."""
    advantage = RewardToGo()(batch)
    return own(advantage - advantage.mean(), batch.mask)


def whiten_with_padding(batch: Batch, now: PolicyOutput) -> Tensor:
    return whiten(RewardToGo()(batch), torch.ones_like(batch.mask))


def gae_over_every_token(batch: Batch, now: PolicyOutput) -> Tensor:
    """GAE that steps through tool output as if the policy had written it."""
    assert now.value is not None
    last = torch.where(batch.mask, torch.arange(batch.mask.shape[1]), -1).amax(1)[:, None]
    inside = torch.arange(batch.mask.shape[1]) <= last
    return own(
        GAE(1.0, 0.95)(
            replace(batch, reward=own(batch.reward, batch.mask), mask=inside), now.value
        ),
        batch.mask,
    )


def gae_stops_at_tools(batch: Batch, now: PolicyOutput) -> Tensor:
    """Returns that start anew after each tool reply (REINFORCE++ in one library)."""
    out, carry = torch.zeros_like(batch.reward), torch.zeros(len(batch))
    for t in reversed(range(batch.mask.shape[1])):
        carry = torch.where(batch.mask[:, t], carry + batch.reward[:, t], 0.0)
        out[:, t] = carry
    return own(out, batch.mask)


def masked_by_product(
    batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, dict]:
    """mask · x instead of where(mask, x, 0): 0 · NaN is NaN."""
    log_ratio = (now.logp - targets.logp_old) * batch.mask
    return -(weight * Clip(0.2)(log_ratio, now.logp, targets.advantage)).sum(), {}


def dead_rows_in_the_mean(batch: Batch, now: PolicyOutput) -> Tensor:
    """A masked-out row still moves its group's baseline."""
    total = own(batch.reward, batch.mask).sum(1)
    size = group_sum(torch.ones_like(total), batch.group)
    return own(
        (total - group_sum(total, batch.group) / size)[:, None].expand(batch.mask.shape), batch.mask
    )


def dead_rows_in_the_weight(mask: Tensor, group: Tensor) -> Tensor:
    return mask.float() / mask.sum(1, keepdim=True).clamp(min=1) / mask.shape[0]


def groups_by_position(batch: Batch, now: PolicyOutput) -> Tensor:
    """Groups taken to be four neighbours, whatever `group` says: wrong after a shuffle."""
    total = own(batch.reward, batch.mask).sum(1)
    off = (total.reshape(-1, 4) - total.reshape(-1, 4).mean(1, keepdim=True)).flatten()
    return own(off[:, None].expand(batch.mask.shape), batch.mask)


def loss_on_every_slot(
    batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, dict]:
    """An entropy bonus on prompt, tool and padding slots too."""
    loss, metrics = GRPO.loss(batch, targets, weight, now)
    return loss - 0.01 * now.entropy.sum(), metrics


def critic_on_every_slot(
    batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, dict]:
    loss, metrics = CRITIC.loss(batch, targets, weight, now)
    assert now.value is not None
    return loss + 0.1 * (now.value**2).mean(), metrics


def ratio_per_micro_batch(
    batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, dict]:
    """Advantages normalised again within whatever the micro-batch holds."""
    return GRPO.loss(
        batch, replace(targets, advantage=whiten(targets.advantage, batch.mask)), weight, now
    )


MICRO, PADDING, ORDER, GARBAGE, DELETION, DEAD = (
    testing.check_micro_batches,
    testing.check_padding,
    testing.check_row_order,
    testing.check_garbage,
    testing.check_observation_deletion,
    testing.check_dead_rows,
)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Broken(GRPO, loss_as=micro_batch_mean), MICRO),
        (Broken(GRPO, loss_as=ratio_per_micro_batch), MICRO),
        (Broken(GRPO, weight_as=padded_width), PADDING),
        (with_advantage(GRPO, mean_over_padding), PADDING),
        (with_advantage(GRPO, whiten_with_padding), PADDING),
        (Broken(GRPO, loss_as=loss_on_every_slot), PADDING),
        (Broken(GRPO, loss_as=loss_on_every_slot), GARBAGE),
        (Broken(CRITIC, loss_as=critic_on_every_slot), GARBAGE),
        (Broken(GRPO, loss_as=masked_by_product), GARBAGE),
        (with_advantage(CRITIC, gae_over_every_token), DELETION),
        (with_advantage(CRITIC, gae_over_every_token), GARBAGE),
        (with_advantage(GRPO, gae_stops_at_tools), DELETION),
        (with_advantage(GRPO, groups_by_position), ORDER),
        (with_advantage(GRPO, dead_rows_in_the_mean), DEAD),
        (Broken(GRPO, weight_as=dead_rows_in_the_weight), DEAD),
    ],
)
def test_a_broken_objective_is_caught(broken: Broken, check: Callable) -> None:
    case = testing.random_case()
    with pytest.raises(AssertionError):
        check(broken, *case)
    with pytest.raises(AssertionError):
        testing.check_all(broken)
    # and only for what is broken
    check(broken.right, *case)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_check_is_as_sharp_at_every_scale(scale: float) -> None:
    """The same bug under small weights (Dr. GRPO's long constant) or large rewards is caught just
    so, and nothing else is."""

    def scaled(
        batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, dict]:
        loss, _ = micro_batch_mean(batch, targets, weight, now)
        return scale * loss, {}

    with pytest.raises(AssertionError, match="micro-batches"):
        testing.check_micro_batches(Broken(GRPO, loss_as=scaled), *testing.random_case())
    tiny = replace(GRPO, weight=FixedLength(round(10_000 / scale)))
    testing.check_all(tiny)


def test_a_failure_names_the_law() -> None:
    with pytest.raises(AssertionError, match=r"micro-batches of 1: the loss changed"):
        testing.check_all(Broken(GRPO, loss_as=micro_batch_mean))

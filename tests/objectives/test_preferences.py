"""Losses of preferences: hand-computed numbers, gradients against their formulas, reductions,
invariances, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from logpi import testing
from logpi.algorithms import algorithm, describe, learning_from
from logpi.objectives.preferences import Preference
from logpi.ops.comparison import LogRatio, Squared, sides
from logpi.types import Data, PolicyOutput
from logpi.updates.micro_batches import micro_batches
from logpi.updates.sgd import Groups, UpdateInputs
from tests.objectives.cases import loss, pairs

PREFERENCES = learning_from(Data.PAIRS | Data.LABELS)

# one pair: chosen has 2 tokens, rejected 3
NOW, REF = [[-0.5, -1.0], [-0.4, -0.6, -2.0]], [[-0.7, -1.3], [-0.5, -0.5, -1.0]]
# Σ log π/π_ref of each
RATIO = (0.5, -1.0)
# Σ log π / |y|
MEAN = (-0.75, -1.0)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def odds(x: float) -> float:
    return x - math.log(1 - math.exp(x))


CASES = {
    "dpo": (dict(beta=0.5), -math.log(sigma(0.5 * 1.5))),
    "dpo smoothed": (
        dict(beta=0.5, label_smoothing=0.2),
        -0.8 * math.log(sigma(0.75)) - 0.2 * math.log(sigma(-0.75)),
    ),
    "dpo normalised": (
        dict(beta=2.0, length_normalised=True),
        -math.log(sigma(2 * (0.25 + 1 / 3))),
    ),
    "dpo with sft": (dict(beta=0.5, rpo_alpha=0.3), -math.log(sigma(0.75)) + 0.3 * 0.75),
    "robust_dpo": (
        dict(beta=0.5, smoothing=0.2),
        (-0.8 * math.log(sigma(0.75)) + 0.2 * math.log(sigma(-0.75))) / 0.6,
    ),
    "slic": (dict(beta=0.5), 1 - 0.75),
    "ipo": (dict(beta=0.5), (0.25 + 1 / 3 - 1) ** 2),
    "ipo summed": (dict(beta=0.5, length_normalised=False), (1.5 - 1) ** 2),
    "simpo": (dict(beta=2.0, gamma=0.3), -math.log(sigma(2 * 0.25 - 0.3))),
    "orpo": (dict(beta=0.1), 0.75 - 0.1 * math.log(sigma(odds(-0.75) - odds(-1.0)))),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_is_the_number_computed_by_hand(name):
    options, expected = CASES[name]
    value, metrics = loss(algorithm(name.split()[0], **options).objective, *pairs(NOW, REF))
    assert float(value) == pytest.approx(expected, abs=1e-12)
    assert float(metrics["+rewards/accuracies"]) == 1.0


def test_implicit_rewards_are_logged_in_trls_names():
    _, metrics = loss(algorithm("dpo", beta=0.5).objective, *pairs(NOW, REF))
    found = {k.removeprefix("+"): float(v) for k, v in metrics.items()}
    assert found == pytest.approx(
        {
            "rewards/chosen": 0.25,
            "rewards/rejected": -0.5,
            "rewards/margins": 0.75,
            "rewards/accuracies": 1.0,
            "logps/chosen": -1.5,
            "logps/rejected": -3.0,
        }
    )


def test_kto_by_hand():
    """Good response r = 0.5, bad r = −1; the mismatched rows have r = 0.3 and 0.1, so z₀ = 0.2."""
    now = [[-0.5, -1.0], [-0.2, -0.5], [-0.4, -0.6, -2.0], [-0.9]]
    ref = [[-0.7, -1.3], [-0.4, -0.6], [-0.5, -0.5, -1.0], [-1.0]]
    case = pairs(now, ref, reward=[1.0, 0.0, -1.0, 0.0])
    value, metrics = loss(
        algorithm("kto", beta=0.5, desirable_weight=2.0, undesirable_weight=3.0).objective, *case
    )
    good, bad = 1 - sigma(0.5 * (0.5 - 0.2)), 1 - sigma(0.5 * (0.2 + 1.0))
    assert float(value) == pytest.approx((2 * good + 3 * bad) / 2, abs=1e-12)
    assert float(metrics["kto/z0"]) == pytest.approx(0.2)


def test_kto_online_labels_samples_by_their_groups_mean():
    """Rewards 1, 0 | 1, 1: one good row, one bad one, two without a label; z₀ is the mean of all
    four ratios."""
    # r = 0.4, −0.2, 0.2, 0
    now, ref = (
        [[-0.5], [-1.0], [-0.2], [-0.3]],
        [[-0.9], [-0.8], [-0.4], [-0.3]],
    )
    case = pairs(now, ref, reward=[1.0, 0.0, 1.0, 1.0])
    objective = algorithm("kto", beta=0.5, sampled=True).objective
    value, metrics = loss(objective, *case)
    assert float(metrics["kto/z0"]) == pytest.approx(0.1)
    good, bad = 1 - sigma(0.5 * (0.4 - 0.1)), 1 - sigma(0.5 * (0.1 + 0.2))
    # rows of the group, groups
    assert float(value) == pytest.approx((good + bad) / 2 / 2, abs=1e-12)
    assert objective.idle(case[0], objective.prepare(*case)).tolist() == [False, False, True, True]
    assert (objective.min_group, algorithm("kto").objective.min_group) == (2, 1)


def test_ktos_reference_point_is_never_negative():
    case = pairs([[-1.0], [-2.0]], [[-1.0], [-1.0]], reward=[1.0, 0.0])
    assert float(loss(algorithm("kto").objective, *case)[0]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, -math.log(sigma(1.5))),
        ({"margin": True}, -math.log(sigma(1.5 - 0.4))),
        ({"centre": 0.1}, -math.log(sigma(1.5)) + 0.1 * 2.5**2),
    ],
)
def test_bradley_terry_by_hand(options, expected):
    """Scores 2 and 0.5 in the state after the last own action; everything else must not matter."""
    batch, now, _ = pairs(NOW, REF, reward=[1.4, 0.0])
    value = torch.full((2, 4), 99.0, dtype=torch.float64)
    value[0, 2], value[1, 3] = 2.0, 0.5
    found, metrics = loss(
        algorithm("reward_model", **options).objective, batch, replace(now, value=value), None
    )
    assert float(found) == pytest.approx(expected, abs=1e-12)
    assert float(metrics["+margin"]) == pytest.approx(1.5)


def test_dpos_gradient_is_its_formula():
    """∇L = −β σ(−β h) (∇ log π(y⁺) − ∇ log π(y⁻)), arXiv:2305.18290, section 4; averaged over
    pairs."""
    beta, rows = 0.3, 6
    g = torch.Generator().manual_seed(0)
    batch, now, ref = pairs(
        (-torch.rand(rows, 4, generator=g)).tolist(), (-torch.rand(rows, 4, generator=g)).tolist()
    )
    logp = now.logp.clone().requires_grad_()
    value, _ = loss(algorithm("dpo", beta=beta).objective, batch, replace(now, logp=logp), ref)
    (grad,) = torch.autograd.grad(value, logp)
    ratio = (now.logp - ref.logp).sum(1)
    h = ratio[0::2] - ratio[1::2]
    pull = beta * torch.sigmoid(-beta * h) / 3
    expected = torch.stack([-pull, pull], 1).flatten()[:, None].expand(rows, 4)
    torch.testing.assert_close(grad, expected)


def test_a_larger_group_compares_its_best_with_its_worst():
    batch = testing.group([0.2, 0.9, 0.5, 0.2])
    assert sides(batch).tolist() == pytest.approx([-0.5, 1.0, 0.0, -0.5])
    equal = testing.group([0.7, 0.7, 0.7])
    objective = algorithm("dpo").objective
    now = PolicyOutput(-torch.rand(3, 1), torch.zeros(3, 1))
    assert objective.idle(equal, objective.prepare(equal, now, now)).all()
    assert float(loss(objective, equal, now, now)[0]) == 0.0


def test_reductions():
    """No noise: cDPO and robust DPO are DPO. One token: IPO's two forms agree."""
    case = pairs(NOW, REF)
    dpo = loss(algorithm("dpo").objective, *case)[0]
    for same in (algorithm("dpo", smoothing=0.0), algorithm("robust_dpo", smoothing=0.0)):
        torch.testing.assert_close(loss(same.objective, *case)[0], dpo)
    short = pairs([[-0.5], [-0.9]], [[-0.3], [-0.4]])
    one, two = (Preference(LogRatio(mean=m), Squared(0.2)) for m in (False, True))
    torch.testing.assert_close(loss(one, *short)[0], loss(two, *short)[0])


def test_robust_dpo_is_unbiased_under_flipped_labels():
    """(1 − ε) ℓ(h) + ε ℓ(−h) is the loss on clean labels."""
    h = torch.linspace(-3, 3, 7, dtype=torch.float64)
    robust = algorithm("robust_dpo", beta=0.7, smoothing=0.3).objective
    mixed = 0.7 * robust.margin(h) + 0.3 * robust.margin(-h)
    torch.testing.assert_close(mixed, -logsigmoid(0.7 * h))


def test_recorded_reference_is_the_reference():
    batch, now, ref = pairs(NOW, REF)
    with_model = loss(algorithm("dpo").objective, batch, now, ref)[0]
    recorded = algorithm("dpo", recorded=True).objective
    assert not recorded.needs_reference
    torch.testing.assert_close(loss(recorded, batch, now, None)[0], with_model)


@pytest.mark.parametrize("name", PREFERENCES)
def test_invariances(name):
    """Micro-batches of whole groups, padding, order, garbage, dead rows; deleting what the policy
    did not choose."""
    batch, now, ref = testing.random_case()
    batch = replace(batch, terminated=torch.zeros_like(batch.terminated))
    objective = algorithm(name).objective
    if name == "kto":
        labels = torch.tensor([1.0, 0, -1, 0])[torch.arange(len(batch)) % 4]
        last = (batch.mask * torch.arange(batch.mask.shape[1])).amax(1)
        batch = replace(
            batch, reward=torch.zeros_like(batch.reward).scatter(1, last[:, None], labels[:, None])
        )
    testing.check_micro_batches(objective, batch, now, ref, whole_groups=True)
    for law in (testing.check_padding, testing.check_row_order, testing.check_garbage):
        law(objective, batch, now, ref)
    # its dead rows have no label, and rewards of 1000 would be one
    if name != "kto":
        testing.check_dead_rows(objective, batch, now, ref)
    # reads a state that the check moves, and not an own action
    if name != "reward_model":
        testing.check_observation_deletion(objective, batch, now, ref)


def test_a_micro_batch_never_parts_a_pair():
    mask = torch.ones(8, 3, dtype=torch.bool)
    group = torch.arange(8) // 2
    for tokens in (1, 5, 6, 11, 12, 100):
        pieces = list(micro_batches(mask, tokens, group, whole=True))
        assert torch.cat(pieces).tolist() == list(range(8))
        assert all(len(p) % 2 == 0 for p in pieces), tokens
    assert [len(p) for p in micro_batches(mask, 12, group, whole=True)] == [4, 4]


@pytest.mark.parametrize("name", ["dpo", "simpo", "reward_model"])
def test_a_parted_pair_is_an_error_and_not_another_loss(name):
    """More minibatches than pairs would deal out single rows, each with its own score as the
    margin."""
    batch, now, ref = testing.random_case(prompts=2, group_size=2)
    objective = algorithm(name).objective
    targets = objective.prepare(batch, now, ref)
    dealt = Groups().deal(batch.group, 4, torch.Generator())
    assert all(len(rows) == 1 for rows in dealt)
    part = batch.map(lambda x: x[dealt[0]])
    alone = PolicyOutput(*(x[dealt[0]] for x in (now.logp, now.entropy, now.value)))
    with pytest.raises(ValueError, match="minibatches must be at most"):
        objective.loss(
            part,
            targets.rows(dealt[0], batch.mask.shape[1]),
            objective.weight(part.mask, part.group),
            alone,
        )


def test_fewer_pairs_than_minibatches_are_whole_in_fewer_steps():
    """Groups may be dropped from a batch, so what was checked before the start need not hold for
    each."""
    batch, now, ref = testing.random_case(prompts=1, group_size=2)
    made = algorithm("dpo", minibatches=4)
    steps: list[int] = []

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(()))

        def evaluate(self, part):
            steps.append(len(part))
            return PolicyOutput(
                now.logp[:, : part.mask.shape[1]] + self.shift, now.entropy[:, : part.mask.shape[1]]
            )

    policy = Fixed()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    targets = made.objective.prepare(batch, now, ref)
    inputs = UpdateInputs(policy, made.objective, optimizer, batch, targets, torch.Generator())
    reports = list(made.update(inputs))
    assert steps == [2] and len(reports) == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dpo", {"beta": 0.0}, "beta must be positive"),
        ("dpo", {"smoothing": 0.5}, "smoothing is a share"),
        ("dpo", {"whiten": True}, "no option 'whiten'"),
    ],
)
def test_refusals(name, options, words):
    with pytest.raises(ValueError, match=words):
        algorithm(name, **options)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_a_missing_reference_is_said(name):
    batch, now, _ = pairs(NOW, REF)
    with pytest.raises(ValueError, match="needs a reference"):
        loss(algorithm(name).objective, batch, now, None)


@pytest.mark.parametrize("name", PREFERENCES)
def test_each_describes_itself(name):
    text = describe(name)
    assert "minimise" in text and "sources" in text and "arXiv" in text

"""Minibatches of single actions: exact where they are allowed, refused where they are not."""

from __future__ import annotations

import copy

import pytest
import torch

from logpi import AdamW, Learner, algorithm
from logpi.envs.control.make import make_vector_environment
from logpi.ops.ratios import SequenceRatio
from logpi.policies.distributions import Categorical
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Fragments
from logpi.testing import random_case
from logpi.updates.sgd import SGD, Actions


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    policy = mlp(4, Categorical(2), hidden=(16,))
    batch = Fragments(make_vector_environment("CartPole-v1", 3), policy, steps=70)().batch
    # ragged
    assert len(batch) > 4 and not batch.mask.all()
    return policy, batch


def moved(policy, batch, **update):
    policy = copy.deepcopy(policy)
    made = algorithm(
        "ppo", gamma=0.9, update=SGD(epochs=3, max_grad_norm=None, **update), entropy_coef=0.01
    )
    Learner(policy, made, AdamW(1e-3)).update(batch)
    return policy.state_dict()


def test_one_minibatch_of_actions_is_the_batch_of_rows(case):
    a, b = moved(*case), moved(*case, shuffle=Actions(), micro_tokens=None)
    for k in a:
        torch.testing.assert_close(a[k], b[k], atol=2e-6, rtol=1e-5)


def test_micro_batches_change_nothing(case):
    a, b = moved(*case), moved(*case, micro_tokens=40)
    for k in a:
        torch.testing.assert_close(a[k], b[k], atol=2e-6, rtol=1e-5)


def test_every_action_is_in_one_minibatch_of_a_pass(case):
    policy, batch = case
    made = algorithm("ppo", gamma=0.9)
    targets = made.objective.prepare(batch, policy.evaluate(batch), None)
    shuffle = Actions()
    flat, known = shuffle.rows(made.objective, batch, targets)
    assert len(flat) == int(batch.mask.sum()) and flat.terminated.all()
    assert torch.equal(known.advantage[:, 0], targets.advantage[batch.mask])
    now = policy.evaluate(flat)
    torch.testing.assert_close(now.logp[:, 0], policy.evaluate(batch).logp[batch.mask])
    dealt = shuffle.deal(flat.group, 7, torch.Generator().manual_seed(0))
    assert len(dealt) == 7 and sorted(torch.cat(dealt).tolist()) == list(range(len(flat)))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_what_ties_a_row_together_is_refused(case):
    policy, batch = case
    for name, options in (("reinforce", {}), ("ppo", {"ratio": SequenceRatio()}), ("dr_grpo", {})):
        made = algorithm(name, **options, update=SGD(minibatches=2, shuffle=Actions()))
        if made.objective.min_group > 1:
            batch = copy.copy(batch)
            object.__setattr__(batch, "group", torch.arange(len(batch)) // 2 * 0)
        with pytest.raises(ValueError, match="ties the actions of a row together"):
            Learner(policy, made, AdamW(1e-3)).update(batch)


def test_tokens_are_refused():
    batch, now, _ = random_case()
    objective = algorithm("ppo").objective
    with pytest.raises(ValueError, match="states, not tokens"):
        Actions().rows(objective, batch, objective.prepare(batch, now, None))

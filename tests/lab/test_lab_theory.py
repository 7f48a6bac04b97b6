"""Every estimator, through the shipped objective, against the exact gradient; and the machinery of
expectations itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from logpi.algorithms import NAMES, Algorithm, algorithm
from logpi.envs.control.grid_model import GridModel
from logpi.lab.bias import REAL, TINY, far_reference
from logpi.lab.claims import CLAIMS, discounted, equal_lengths
from logpi.lab.expectation import Setting, _separable, all_draws, batch_gradient, gradients, moments
from logpi.lab.verdict import check
from logpi.lab.worlds import double, grid_world, responses, standard, token_world
from logpi.learner import Learner
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE, GroupCenter, LeaveOneOut, QValue, RewardToGo
from logpi.ops.group_advantages import BatchScale
from logpi.ops.selection import MixedOutcomes
from logpi.ops.weights import SequenceSum
from logpi.types import PolicyOutput
from logpi.updates.adamw import AdamW
from logpi.updates.sgd import SGD

WORLD, SMALL = standard(), token_world(TINY, seed=0)
BY_NAME = {c.name: c for c in CLAIMS}
EXACT = [c for c in CLAIMS if c.exact]
METHODS = [n for n in NAMES if isinstance(algorithm(n).objective, PolicyGradient)]


# --- theory's table ---


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("claim", EXACT, ids=lambda c: c.name)
def test_closed_forms_hold_exactly(claim, m):
    critic = claim.critic(WORLD) if claim.critic is not None else None
    found = moments(WORLD, claim.objective, replace(claim.drawn(m), critic=critic)).mean
    torch.testing.assert_close(found, claim.form(WORLD, m), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "remax", "orz", "reinforce"])
def test_closed_forms_hold_for_several_prompts_in_a_batch(name):
    found = moments(SMALL, BY_NAME[name].objective, Setting(prompts=3, responses=2)).mean
    torch.testing.assert_close(found, BY_NAME[name].form(SMALL, 2), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["policy_gradient", "reinforce", "ppo", "orz", "actor_critic_q"])
def test_grid_world_with_a_reward_at_every_step(name):
    world = grid_world(GridModel(width=3, height=2, terminals={(2, 1): 5.0}), horizon=4)
    found = moments(world, BY_NAME[name].objective, Setting(responses=1))
    assert found.verdict == "the policy gradient"
    torch.testing.assert_close(found.mean, -world.gradient, atol=1e-10, rtol=0)


def test_any_baseline_of_the_state_leaves_the_gradient():
    values = torch.randn(
        len(WORLD.logits), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    objective = PolicyGradient(GAE(1.0, 1.0), weight=SequenceSum())
    found = moments(WORLD, objective, Setting(responses=1, critic=values)).mean
    torch.testing.assert_close(found, -WORLD.gradient, atol=1e-10, rtol=0)


@pytest.mark.parametrize("broken", [GAE(1.0, 0.5), QValue()], ids=str)
def test_a_wrong_critic_is_seen_where_it_biases(broken):
    critic = BY_NAME["orz, wrong V"].critic(WORLD)
    found = moments(
        WORLD, PolicyGradient(broken, weight=SequenceSum()), Setting(responses=1, critic=critic)
    )
    assert found.verdict == "a different direction"


@pytest.mark.parametrize("gamma, lam", [(0.9, 0.95), (0.5, 0.3), (0.8, 1.0)])
def test_discounted_gae_has_the_texts_form_where_lengths_are_equal(gamma, lam):
    equal = token_world(
        {"q": {x: float(x in ("aba", "bb.")) for x in ("aaa", "aab", "aba", "abb", "bba", "bb.")}},
        seed=1,
    )
    found = moments(
        equal, PolicyGradient(GAE(gamma, lam), weight=SequenceSum()), Setting(responses=1)
    ).mean
    torch.testing.assert_close(found, equal_lengths(equal, gamma, lam), atol=1e-10, rtol=0)
    torch.testing.assert_close(found, discounted(equal, gamma, lam), atol=1e-10, rtol=0)


def test_discounted_gae_needs_the_general_form_where_lengths_differ():
    found = moments(
        WORLD, PolicyGradient(GAE(0.5, 0.9), weight=SequenceSum()), Setting(responses=1)
    ).mean
    torch.testing.assert_close(found, discounted(WORLD, 0.5, 0.9), atol=1e-10, rtol=0)
    assert float((found - equal_lengths(WORLD, 0.5, 0.9)).norm() / found.norm()) > 1e-3


def test_undiscounted_reward_to_go_only():
    assert (
        moments(WORLD, PolicyGradient(RewardToGo(0.9), weight=SequenceSum())).verdict
        == "a different direction"
    )


@pytest.mark.parametrize("name", ["grpo_r1", "grpo", "dapo"])
def test_group_normalised_limits(name):
    claim = BY_NAME[name]
    limit = claim.form(SMALL, 0)
    gaps = [
        float(
            (moments(SMALL, claim.objective, Setting(responses=m)).mean - limit).norm()
            / limit.norm()
        )
        for m in (16, 32, 64, 128)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.01
    # 1/M: it is a limit, not a plateau
    assert gaps[-2] / gaps[-1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name, last, gap", [("opo", 128, 0.01), ("pass_at_k", 128, 0.02)])
def test_newer_rows_have_their_limits(name, last, gap):
    claim = BY_NAME[name]
    limit = claim.form(SMALL, 0)
    gaps = [
        float((moments(SMALL, claim.objective, claim.drawn(m)).mean - limit).norm() / limit.norm())
        for m in (last // 4, last // 2, last)
    ]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < gap


def test_a_batchs_spread_is_one_scale_for_all_prompts():
    """With more prompts in a batch Lite PPO's advantage turns the step less and less."""
    objective = PolicyGradient(BatchScale(), weight=SequenceSum())
    few, more = (moments(SMALL, objective, Setting(prompts=n, responses=4)) for n in (2, 5))
    assert few.cosine < 0.9997 and 1 - more.cosine < (1 - few.cosine) / 3


def test_whitening_over_the_batch_is_a_scale_in_the_limit():
    claim = BY_NAME["reinforce_plus_plus"]
    limit = claim.form(SMALL, 0)
    gaps = [
        float(
            (moments(SMALL, claim.objective, Setting(prompts=n, responses=1)).mean - limit).norm()
            / limit.norm()
        )
        for n in (4, 8, 16)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.04


@pytest.mark.parametrize(
    "m, verdict",
    [
        (2, "a scaled policy gradient"),
        (3, "a scaled policy gradient"),
        (4, "a different direction"),
    ],
)
def test_grpos_bias_begins_at_four_with_binary_rewards(m, verdict):
    found = moments(WORLD, BY_NAME["grpo_r1"].objective, Setting(responses=m))
    assert found.verdict == verdict
    # std of a mixed group is √(1/M): scale (M−1)/M · √M, but for ε
    if m < 4:
        assert found.scale == pytest.approx((m - 1) / m * m**0.5, rel=1e-5)


def test_grpos_bias_begins_at_two_with_real_rewards():
    assert (
        moments(standard(REAL), BY_NAME["grpo_r1"].objective, Setting(responses=2)).verdict
        == "a different direction"
    )


def test_dynamic_sampling_only_rescales():
    objective = BY_NAME["dr_grpo"].objective
    kept = moments(WORLD, objective, Setting(responses=3, keep=MixedOutcomes()))
    p = WORLD.solve_rate()
    mixed = float(WORLD.start @ (1 - p**3 - (1 - p) ** 3))
    assert kept.scale == pytest.approx((2 / 3) / mixed, rel=1e-10)
    assert kept.verdict == "a scaled policy gradient"


# --- the machinery ---


@pytest.mark.parametrize("name", ["grpo", "ppo", "reinforce_plus_plus"])
def test_multisets_stand_for_every_order(name):
    """Mean and variance over multisets are those over every ordered batch, summed by brute
    force."""
    world, m = token_world(TINY, seed=2), 3
    objective = algorithm(name).objective
    setting = Setting(responses=m, reference=far_reference(world))
    found = moments(world, objective, setting)
    rows = [
        r
        for g in range(2)
        for r in product(*[(world.paths.group == g).nonzero().flatten().tolist()] * m)
    ]
    chance = torch.stack(
        [world.start[world.paths.group[r[0]]] * world.conditional[list(r)].prod() for r in rows]
    )
    draws = replace(all_draws(world, setting), rows=torch.tensor(rows), probability=chance)
    every = gradients(world, objective, setting, draws)
    mean = chance @ every
    torch.testing.assert_close(found.mean, mean, atol=1e-10, rtol=0)
    assert found.variance == pytest.approx(float(chance @ ((every - mean) ** 2).sum(1)), abs=1e-10)


@pytest.mark.parametrize("prompts, m", [(1, 2), (1, 6), (2, 2), (3, 1)])
def test_probabilities_of_batches_add_up(prompts, m):
    assert float(all_draws(WORLD, Setting(prompts, m)).probability.sum()) == pytest.approx(
        1, abs=1e-12
    )


@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_what_the_shipped_learner_applies(name):
    """The same batch through `Learner.update`, with an optimiser that does not move: parameters
    hold the same gradient."""
    chosen = algorithm(name)
    size = max(2, chosen.objective.min_group)
    setting = Setting(prompts=2, responses=size, reference=far_reference(SMALL))
    draws = all_draws(SMALL, setting)
    likely = draws.pick(draws.probability.argsort(descending=True)[:2])
    mine = gradients(SMALL, chosen.objective, setting, likely)
    with double():
        for rows, group, expected in zip(likely.rows, likely.groups(), mine, strict=True):
            policy, reference = SMALL.policy(value=SMALL.value), SMALL.policy(setting.reference)
            plain = Algorithm(chosen.objective, SGD(micro_tokens=3, max_grad_norm=None), name=name)
            learner = Learner(policy, plain, AdamW(lr=0.0), reference=reference)
            learner.update(replace(SMALL.paths.rows(rows), group=group))
            applied = (
                policy.logits.grad
                if policy.logits.grad is not None
                else torch.zeros_like(policy.logits)
            )
            torch.testing.assert_close(applied.flatten(), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", [n for n in METHODS if _separable(algorithm(n).objective)])
def test_sharing_a_backward_pass_changes_nothing(name):
    objective = algorithm(name).objective
    size = max(2, objective.min_group)
    setting = Setting(prompts=2, responses=size, reference=far_reference(SMALL))
    draws = all_draws(SMALL, setting)
    shared = gradients(SMALL, objective, setting, draws)
    alone = torch.cat(
        [
            gradients(SMALL, objective, setting, draws.pick(torch.tensor([k])))
            for k in range(len(draws))
        ]
    )
    torch.testing.assert_close(shared, alone, atol=1e-12, rtol=0)


def test_batch_gradient_needs_no_grad_where_nothing_is_learned():
    objective = PolicyGradient(GroupCenter(), weight=SequenceSum())
    right = (WORLD.returns == 1).nonzero().flatten()[:2]
    with double():
        grad, advantage = batch_gradient(WORLD.policy(), objective, WORLD.paths.rows(right), None)
    assert not grad.any()
    assert not advantage.any()


def test_too_many_batches_are_refused_before_work():
    big = token_world({"q": {r: 0.0 for r in responses("ab", ".", 4)}})
    with pytest.raises(ValueError, match="too many to list"):
        all_draws(big, Setting(responses=6))


def test_a_keep_that_keeps_nothing_is_refused():
    hopeless = token_world({"q": {"a": 0.0, "b": 0.0}})
    with pytest.raises(ValueError, match="keeps no group"):
        all_draws(hopeless, Setting(responses=2, keep=MixedOutcomes()))


def test_variance_falls_with_rows_and_not_with_scale():
    one, four = (
        moments(WORLD, BY_NAME["reinforce"].objective, Setting(prompts=n, responses=1))
        for n in (1, 3)
    )
    assert four.variance == pytest.approx(one.variance / 3, rel=1e-10)
    rloo, dr = (
        moments(WORLD, PolicyGradient(a, weight=SequenceSum()))
        for a in (LeaveOneOut(), GroupCenter())
    )
    assert rloo.signal_to_noise == pytest.approx(dr.signal_to_noise, rel=1e-10)


def test_reference_has_no_say_without_a_penalty():
    objective = algorithm("dr_grpo").objective
    with torch.no_grad():
        now = WORLD.policy().evaluate(WORLD.paths)
    assert isinstance(now, PolicyOutput)
    a, b = (
        gradients(WORLD, objective, Setting(responses=2, reference=r))
        for r in (None, far_reference(WORLD))
    )
    assert torch.equal(a, b)


def test_a_check_shows_as_a_table_in_a_notebook() -> None:
    result = check(algorithm("rloo", beta=0).objective, responses=(2,))
    page = result._repr_html_()
    assert page.startswith("<table><caption>E[∇L̂]") and page.count("<tr>") == 2
    assert "<td>1.000000</td>" in page and page.endswith("Verdict: the policy gradient.</p>")
    assert "Verdict: the policy gradient." in str(result)

"""RLHF, DPO and the optimum on a listed world: equal policies, implicit rewards, and what DPO
pushes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from logpi.lab import preferences as lab
from logpi.lab.claims import regularised
from logpi.lab.worlds import double


@pytest.fixture(scope="module")
def world():
    with double():
        yield lab.preference_world()


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_optimum_is_the_tilted_reference(world, beta):
    best, group = lab.optimum(world, beta), world.paths.group
    sums = torch.zeros(2).double().index_add(0, group, best.exp())
    close(sums, torch.ones(2).double())
    ref = lab.response_logp(world, world.logits)
    # β log π*/π_ref = r − β log Z
    implicit = beta * (best - ref)
    close(implicit + beta * lab.log_z(world, beta)[group], world.returns)
    # J(π*) = β E log Z
    chance = world.start[group] * best.exp()
    value = (chance * (world.returns - beta * (best - ref))).sum()
    close(value, beta * (world.start * lab.log_z(world, beta)).sum())


@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_dpo_arrives(world, beta):
    logits, gaps = lab.solve_dpo(world, beta)
    close(lab.response_logp(world, logits), lab.optimum(world, beta), 1e-4)
    assert abs(gaps[-1]) < 1e-9 < gaps[0]


def test_rlhf_arrives(world):
    logits, gaps = lab.solve_rlhf(world, lab.BETA)
    close(lab.response_logp(world, logits).exp(), lab.optimum(world, lab.BETA).exp(), 1e-6)
    assert all(a >= b - 1e-12 for a, b in pairwise(gaps))


def test_the_step_of_ppo_is_the_gradient_of_the_objective(world):
    moved = world.logits + torch.cos(world.logits)
    here = world.at(moved)
    step = lab.rlhf_gradient(world, moved, 0.3).flatten()
    close(step, -regularised(here, 0.3, world.logits), 1e-12)


@pytest.mark.parametrize("leaning", [-5.0, -1.0, 0.0, 3.0])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_first_step_does_not_know_the_reference(beta, leaning):
    found = lab.push(beta, 0.0, leaning)
    assert found.loss == pytest.approx(math.log(2), abs=1e-12)
    assert (found.chosen, found.rejected) == pytest.approx((-beta / 2, beta / 2), abs=1e-12)


@pytest.mark.parametrize("margin", lab.MARGINS)
def test_the_weight_of_a_pair(margin):
    found = lab.push(0.5, margin / 0.5, 2.0)
    weight = 1 / (1 + math.exp(margin))
    assert -found.chosen / 0.5 == pytest.approx(weight, abs=1e-12)
    assert found.loss == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-12)


def test_every_pair_once_in_each_order(world):
    batch, share = lab.every_pair(world)
    # 7 responses to each of two prompts
    assert len(batch) == 2 * 2 * 7 * 6 and len(share) == 2 * 7 * 6
    assert float(share.sum()) == pytest.approx(1.0)
    of_prompt = batch.obs[:, 0].view(-1, 2)
    assert (of_prompt[:, 0] == of_prompt[:, 1]).all()
    assert batch.reward.sum(1).view(-1, 2).tolist() == [[1.0, 0.0]] * len(share)


def test_beta_trades_reward_for_distance(world):
    sweep = [lab._at(world, beta) for beta in (0.05, 0.5, 5.0)]
    assert sweep[0].reward > sweep[1].reward > sweep[2].reward
    assert sweep[0].kl > sweep[1].kl > sweep[2].kl
    assert all(s.arrives and s.objective == pytest.approx(s.bound) for s in sweep)

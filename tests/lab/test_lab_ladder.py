"""Sampled episodes against exact values, the rungs against the theorem, and the ladder's claims."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from logpi.lab import ladder, rungs
from logpi.lab.episodes import ActorCritic, Runs, draw
from logpi.lab.worlds import double
from logpi.ops.advantages import GAE, RewardToGo
from logpi.ops.surrogates import Clip, ScoreFunction, Unclipped

LADDER = rungs.rungs()


@pytest.fixture(autouse=True)
def wide():
    with double():
        yield


def logits(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(16, 4, generator=generator)


def test_episodes_have_the_exact_return_on_average() -> None:
    """Two runs of different policies in one batch."""
    copies, tables = Runs(rungs.process(), 2), torch.cat([logits(1), logits(2)])
    batch = copies.sample(tables, 4000, torch.Generator().manual_seed(0))
    returns = (batch.reward * batch.mask).sum(1)
    for run, exact in enumerate(copies.expected_return(tables)):
        own = returns[batch.group == run]
        assert float(own.mean()) == pytest.approx(float(exact), abs=4 * float(own.std()) / 63)


def test_episodes_are_recorded_as_the_policy_sees_them() -> None:
    copies = Runs(rungs.process(), 3)
    tables = copies.repeat(logits())
    batch = copies.sample(tables, 5, torch.Generator().manual_seed(0))
    now = ActorCritic(tables, torch.zeros(48)).evaluate(batch)
    torch.testing.assert_close(now.logp[batch.mask], batch.logp[batch.mask])
    assert (batch.obs // 16 == batch.group[:, None]).all()
    assert batch.terminated.all()
    # a row ends in a terminal cell or at the horizon
    last = batch.mask.sum(1)
    ends = batch.obs.gather(1, last[:, None]).squeeze(1) % 16
    assert (copies.mdp.terminal[ends] | (last == rungs.HORIZON)).all()


def test_draw_follows_the_distribution() -> None:
    p = torch.tensor([[0.1, 0.0, 0.9]]).expand(20000, 3)
    counts = draw(p, torch.Generator().manual_seed(0)).bincount(minlength=3) / 20000
    assert counts.tolist() == pytest.approx([0.1, 0.0, 0.9], abs=0.01)


def test_values_of_all_runs_are_those_of_each() -> None:
    copies, tables = Runs(rungs.process(), 2), torch.cat([logits(1), logits(2)])
    for run, table in enumerate((logits(1), logits(2))):
        exact = copies.mdp.values(copies.mdp.policy(table))[0]
        torch.testing.assert_close(copies.value(tables)[:, 16 * run : 16 * run + 16], exact)
        assert float(copies.expected_return(tables)[run]) == pytest.approx(
            float(copies.mdp.expected_return(table))
        )


def test_each_rung_exchanges_what_it_says() -> None:
    plain, advantage, critic, gae, ratio, clip = (r.objective for r in LADDER)
    assert plain.advantage == RewardToGo() and plain.surrogate == ScoreFunction()
    assert replace(plain, advantage=GAE(1.0, 1.0)) == advantage
    assert replace(advantage, value_coef=0.5) == critic
    assert replace(critic, advantage=GAE(1.0, 0.95)) == gae
    assert replace(gae, surrogate=Unclipped()) == ratio
    assert replace(ratio, surrogate=Clip(0.2)) == clip
    assert [r.passes for r in LADDER] == [1, 1, 1, 1, rungs.PASSES, rungs.PASSES]


def test_the_first_step_of_ratio_and_clip_is_that_of_gae() -> None:
    copies, table = Runs(rungs.process(), 4), logits()
    batch = copies.sample(copies.repeat(table), 3, torch.Generator().manual_seed(0))
    value = torch.linspace(-9, 1, 64)
    gae, ratio, clip = (ladder.batch_gradients(r, batch, copies, table, value) for r in LADDER[3:])
    torch.testing.assert_close(ratio, gae)
    torch.testing.assert_close(clip, gae)


def test_gradients_of_runs_are_those_of_each_alone() -> None:
    copies, table = Runs(rungs.process(), 4), logits()
    batch = copies.sample(copies.repeat(table), 3, torch.Generator().manual_seed(0))
    together = ladder.batch_gradients(LADDER[0], batch, copies, table, torch.zeros(64))
    one = batch.rows(batch.group == 2)
    one = replace(one, obs=one.obs - 32, group=one.group - 2)
    alone = ladder.batch_gradients(LADDER[0], one, Runs(copies.mdp, 1), table, torch.zeros(16))
    torch.testing.assert_close(together[2:3], alone)


def test_the_seen_critic_is_the_mean_return_of_a_cell() -> None:
    mdp = rungs.process()
    value = ladder.seen_values(mdp, logits(), seed=0)
    batch = Runs(mdp, 1).sample(logits(), ladder.SEEN, torch.Generator().manual_seed(0))
    start = batch.obs[:, :-1] == 0
    returns = RewardToGo()(batch)
    assert float(value[0]) == pytest.approx(float(returns[start & batch.mask].mean()))


def test_training_improves_and_counts_episodes() -> None:
    done = rungs.train(LADDER[3], rate=0.1, runs=2, seed=0, budget=80)
    assert done.returns.shape == (11, 2)
    assert (done.returns[-1] > done.returns[0] + 5).all()
    known = rungs.Training(torch.tensor([[-9.0, -9.0], [0.0, -9.0], [-9.0, 0.5]]), 1.0)
    assert known.episodes == [8, 16] and known.solved == 2 and known.median == 16
    assert rungs.Training(torch.full((3, 2), -9.0), 1.0).episodes == [math.inf, math.inf]


def test_a_seed_is_the_same_training() -> None:
    first, again = (rungs.train(LADDER[3], 0.3, 2, seed, budget=24) for seed in (4, 4))
    assert torch.equal(first.returns, again.returns)


def training(*episodes: float, ratio: float = 1.0) -> rungs.Training:
    """Runs that are solved after so many episodes, of at most 80."""
    steps = 8 * torch.arange(11)[:, None]
    return rungs.Training(torch.where(steps >= torch.tensor(episodes), 0.0, -9.0), ratio)


def test_the_best_rate_solves_most_runs_then_needs_fewest_episodes() -> None:
    never = math.inf
    by_rate = {0.1: training(40, 40), 0.3: training(24, 40), 1.0: training(8, never)}
    assert ladder.best_rate(by_rate) == 0.1
    assert ladder.best_rate({0.1: training(40, 40), 0.3: training(24, 32)}) == 0.3


def test_the_sentence_is_computed() -> None:
    names = [r.name for r in LADDER]

    def said(*medians: float, wild: int = 2, tame: int = 2) -> str:
        trained = {
            n: dict.fromkeys(rungs.RATES, training(m, m))
            for n, m in zip(names, medians, strict=True)
        }
        never = math.inf
        trained["4 ratio"][1.0] = training(*[80] * wild, *[never] * (2 - wild))
        trained["5 clip"][1.0] = training(*[80] * tame, *[never] * (2 - tame))
        shares = tuple((n, "", 1.0, 0.5, "", 1.0, 0.25, "") for n in names)
        last = (64, 90.0, 5.0, -20.0, -30.0, 1.5, 0.2, -3.0, -4.0)
        noise, passes = (ladder.ReportTable("", (), rows) for rows in (shares, (last,)))
        return ladder.sentence(noise, trained, passes)

    falling = said(80, 72, 64, 56, 48, 40)
    assert "each fix needs fewer" in falling and "GAE to 50% and 25%" in falling
    assert "ratio of 90.0, 5.0 nats of KL and J = −20.0" in falling
    assert "no fewer than the row above: critic" in said(80, 72, 72, 56, 48, 40)
    assert "more runs at no rate are solved" in said(80, 72, 64, 56, 48, 40)
    assert "more runs (2 not 1 at rate 1)" in said(80, 72, 64, 56, 48, 40, wild=1)
    assert "and fewer (0 not 2 at rate 1)" in said(80, 72, 64, 56, 48, 40, tame=0)


def test_half_way_is_half_way() -> None:
    mdp = rungs.process()
    first, best = rungs.bounds()
    j = float(mdp.expected_return(ladder.halfway(mdp)))
    assert (first + best) / 2 <= j < (first + best) / 2 + 0.3

"""Weights of prompts by enumeration against their limits, and the critic's share against its closed
form."""

from __future__ import annotations

import math

import pytest

from logpi.lab import weights
from logpi.lab.report import ReportTable
from logpi.lab.worlds import double


@pytest.fixture(autouse=True)
def wide():
    with double():
        yield


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("length", [1, 4])
def test_the_world_is_solved_as_often_as_it_says(p: float, length: int) -> None:
    world = weights.one_prompt(p, length)
    assert world.expected_return == pytest.approx(p)
    assert set(world.lengths.tolist()) == {length}


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_weights_of_unbiased_methods_do_not_see_difficulty(p: float) -> None:
    world = weights.one_prompt(p)
    assert weights.weight_of(world, "rloo", 4) == pytest.approx(1, abs=1e-12)
    assert weights.weight_of(world, "dr_grpo", 4) == pytest.approx(3 / 4, abs=1e-12)


def test_grpo_tends_to_its_limit_with_the_group() -> None:
    world, limit = weights.one_prompt(0.2), 1 / math.sqrt(0.2 * 0.8)
    gaps = [abs(weights.weight_of(world, "grpo_r1", m) - limit) for m in (4, 16, 64, 128)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.03


@pytest.mark.parametrize("m", [2, 4, 8])
def test_a_hopeless_prompt_has_a_finite_weight(m: int) -> None:
    """One right response in a group of M is off by (M−1)/M of a std of 1/√M."""
    for p in (1e-6, 1 - 1e-6):
        found = weights.weight_of(weights.one_prompt(p), "grpo_r1", m)
        assert found == pytest.approx((m - 1) / math.sqrt(m), rel=1e-4)


def test_length_divides_grpo_and_dapo_alone() -> None:
    short, long = weights.one_prompt(0.5, 2), weights.one_prompt(0.5, 6)
    for method, ratio in (("rloo", 1), ("dr_grpo", 1), ("grpo_r1", 1), ("grpo", 3), ("dapo", 3)):
        found = weights.weight_of(short, method, 3) / weights.weight_of(long, method, 3)
        assert found == pytest.approx(ratio, rel=1e-10)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.9), (0.9, 0.8), (0.9, 1.0)])
def test_reward_and_critic_add_up_to_the_closed_form(gamma: float, lam: float) -> None:
    reward, critic = weights.critic_share(gamma, lam, tokens=7)
    for t, (r, v) in enumerate(zip(reward, critic, strict=True)):
        left = 6 - t
        assert r == pytest.approx((gamma * lam) ** left)
        # (1/λ − 1) Σ (λγ)^k, k = 1 … left
        assert v == pytest.approx(
            (1 / lam - 1) * sum((lam * gamma) ** k for k in range(1, left + 1))
        )
        assert r + v == pytest.approx(weights.closed_form(gamma, lam, left))


def test_the_closed_form_is_exact_for_equal_lengths() -> None:
    assert weights._gap() == "< 1e−10"


def test_the_sentence_is_read_off_the_tables() -> None:
    def table(*rows: tuple) -> ReportTable:
        return ReportTable("", (), rows)

    by_p = table((0.1, 1.0, 2.0, 6.0, 8.0), (0.5, 2.0, 2.0, 3.0, 4.0), (0.9, 1.0, 1.0, 9.0, 1.0))
    by_length = table((9, *[0.0] * 6, 0.7, 0.25, 0.125))
    said = weights.sentence(by_p, by_length, table((0, 1, 0, 0.25)))
    assert "p = 0.1 2.0 times" in said and "(and p = 0.9 3.0 times), in the limit 2.0" in said
    assert "with M = 4 only 0.5 times" in said
    assert "Answers of 9 tokens weigh 0.12 of" in said and "0.7 in R1's form" in said
    assert "0.250 of its Q" in said

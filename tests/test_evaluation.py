"""pass@k, majority votes, intervals, and the evaluator over a real small policy."""

import itertools
from math import comb

import pytest
import torch

from logpi.envs.tasks import Addition
from logpi.evaluation import Evaluator, interval
from logpi.policies.small import small_policy
from logpi.pooling import majority, pass_at_k
from logpi.rewards import rewards
from logpi.rollouts.engine import Engine, Sampling


@pytest.mark.parametrize(("n", "c", "k"), [(5, 0, 2), (5, 2, 3), (5, 5, 1), (8, 3, 8), (6, 1, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n, c, k):
    right = [True] * c + [False] * (n - c)
    share = sum(any(s) for s in itertools.combinations(right, k)) / comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(share)


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@8 needs at least 8"):
        pass_at_k(4, 1, 8)


def test_majority_votes_share_ties_and_ignore_the_silent():
    assert majority(["4", "5", "4"], [True, False, True]) == 1.0
    assert majority(["4", "5"], [True, False]) == 0.5
    assert majority([None, None, "5"], [False, False, False]) == 0.0
    assert majority([None], [False]) == 0.0


def test_interval_holds_the_mean_and_shrinks():
    x = [0.0, 1.0] * 50
    low, high = interval(x)
    wide_low, wide_high = interval(x[:20])
    assert low < 0.5 < high and wide_high - wide_low > high - low
    assert interval([1.0] * 5) == (1.0, 1.0)


def test_the_evaluator_measures_and_leaves_training_alone():
    task = Addition()
    policy = small_policy(task.alphabet, width=32, layers=2, heads=2)
    full = rewards(lambda prompts, completions, **_: [float(len(c) % 2) for c in completions])
    evaluator = Evaluator(policy, Engine(policy), task.rows("test")[:8], full, Sampling(max_tokens=6), samples=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numbers, rows = evaluator(0)
    again, _ = evaluator(1)
    assert torch.equal(before, torch.get_rng_state())
    numbers.pop("time/eval"), again.pop("time/eval")
    assert numbers == again
    assert next(iter(numbers)) == "eval/pass@1"
    sampled = [r for r in rows if r["kind"] == "sampled"]
    assert numbers["eval/pass@1"] == pytest.approx(sum(sum(r["right"]) for r in sampled) / 32)
    assert numbers["eval/pass@4"] == pytest.approx(sum(any(r["right"]) for r in sampled) / 8)
    assert [k for k in numbers if "@" in k and "_" not in k] == ["eval/pass@1", "eval/pass@2", "eval/pass@4"]

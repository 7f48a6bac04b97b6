"""pass@k, majority votes, intervals, and the evaluator over a real small policy."""

import itertools
from dataclasses import replace
from math import comb

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Sampling
from logpi.envs.tasks import Addition
from logpi.evaluation.evaluator import Evaluator
from logpi.evaluation.measures import by_level, estimates, interval, measures
from logpi.evaluation.pooling import (
    Sample,
    any_right,
    best_scored,
    majority,
    majority_vote,
    pass_at_k,
    weighted_vote,
)
from logpi.evaluation.scorers import LogP
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.rewards import rewards


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
    evaluator = Evaluator(
        policy, Engine(policy), task.rows("test")[:8], full, Sampling(max_tokens=6), samples=4
    )
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
    assert [k for k in numbers if "@" in k and "_" not in k] == [
        "eval/pass@1",
        "eval/pass@2",
        "eval/pass@4",
    ]


def evaluator(rows=12, plain=False, **options):
    """plain: of a model that is decoded by its own `generate`."""
    task = Addition()
    torch.manual_seed(0)
    policy = small_policy(task.alphabet, width=32, layers=2, heads=2)
    if plain:
        model = policy.model
        model.config._attn_implementation, model._supports_attention_backend = "sdpa", False
        with pytest.warns(UserWarning, match="padded"):
            policy = CausalLM(model, policy.tokenizer)
    rows = [row | {"level": 1 + i % 2} for i, row in enumerate(task.rows("test")[:rows])]
    judged = rewards(["exact", "number:0"])
    return Evaluator(
        policy, Engine(policy), rows, judged, Sampling(max_tokens=6), samples=4, **options
    )


@pytest.mark.parametrize("packed", [True, False])
def test_shards_change_nothing(packed):
    measured = evaluator(plain=not packed)
    whole = next(measured.shards())
    for first, size in ((0, 5), (4, 3)):
        parts = [r for shard in measured.shards(first, size) for r in shard]
        for kind in ("sampled", "greedy"):
            assert [r for r in parts if r["kind"] == kind] == [
                r for r in whole if r["kind"] == kind
            ][first:]


def record(right, answers=None, scores=None, lenient=None, level=None, kind="sampled", item=0):
    return {
        "kind": kind,
        "item": item,
        "right": right,
        "answers": answers,
        "scores": scores,
        "lenient": lenient,
        "level": level,
    }


def test_rows_with_categories_instead_of_levels_are_measured_by_them():
    ev = evaluator(rows=4)
    ev.rows = [
        {k: v for k, v in r.items() if k != "level"} | {"category": c}
        for r, c in zip(ev.rows, "abab", strict=True)
    ]
    numbers, records = ev()
    assert {r["level"] for r in records} == {"a", "b"} and "eval/level_b/pass@1" in numbers
    assert list(by_level(records)) == ["a", "b"]
    found = measures(records)  # the second reward, by its name
    assert (
        found["number"]
        == [sum(p["number"] for p in r["rewards"]) / 4 for r in records if r["kind"] == "sampled"]
        and len(found["number"]) == 4
    )


def test_a_reward_that_never_applied_is_no_zero():
    """The mean is over what has a verdict; of none there is no number, and the table says so."""
    from logpi.jobs.evaluate import _results, _table
    from logpi.jobs.options.items import Items

    def judged(item: int, level: int, *verdicts: float | None) -> dict:
        rewards = [{"right": 1.0, "tidy": v, "never": None} for v in verdicts]
        return record([True] * len(verdicts), level=level, item=item) | {"rewards": rewards}

    records = [judged(0, 1, 0.5, None), judged(1, 1, 1.0, 0.0), judged(2, 2, None, None)]
    found = measures(records)
    assert found["tidy"] == [0.5, 0.5] and "never" not in found and found["pass@1"] == [1.0] * 3
    results = _results(records, Items([{}] * 3, rewards(["exact"]), Addition()), {}, ())
    assert results["numbers"]["tidy"]["items"] == 2 and "never" not in results["numbers"]
    assert next(line for line in _table(results).splitlines() if line.startswith("tidy")).split()[
        -2:
    ] == ["0.5000", "–"]


def test_measures_are_functions_of_the_records():
    records = [
        record([True, False], ["4", "5"], [0.0, 1.0], [True, True], level=2),
        record([False, False], ["7", "7"], [1.0, 0.0], [False, True], level=10, item=1),
        record([True], lenient=[True], kind="greedy", level=2),
        record([False], lenient=[True], kind="greedy", level=10, item=1),
    ]
    assert measures(records) == {
        "pass@1": [0.5, 0.0],
        "pass@2": [1.0, 0.0],
        "maj@2": [0.5, 0.0],
        "best_of@1": [0.5, 0.0],
        "best_of@2": [0.0, 0.0],
        "weighted_maj@2": [0.0, 0.0],
        "judge_best@1": [0.5, 0.5],
        "judge_best@2": [1.0, 1.0],
        "lenient_pass@1": [1.0, 0.5],
        "greedy": [1.0, 0.0],
        "lenient_greedy": [1.0, 1.0],
    }
    levels = by_level(records)
    assert list(levels) == ["2", "10"] and measures(levels["10"])["pass@1"] == [0.0]
    assert by_level([record([True], level=3)]) == {}
    found = estimates({"pass@1": [0.0, 1.0] * 50})["pass@1"]
    assert found.mean == 0.5 and found.low < 0.5 < found.high and found.items == 100


def test_strict_and_lenient_and_levels_of_a_real_policy():
    ev = evaluator(lenient="number", scorer=LogP())
    numbers, records = ev()
    sampled = [r for r in records if r["kind"] == "sampled"]
    for r in sampled:
        assert (
            r["right"] == [p["exact"] == 1.0 for p in r["rewards"]]
            and len(r["logp"]) == len(r["tokens"]) == 4
        )
        assert r["lenient"] == [p["number"] == 1.0 for p in r["rewards"]] and r[
            "scores"
        ] == pytest.approx(r["logp"])
    assert (
        numbers["eval/lenient_pass@1"] >= numbers["eval/pass@1"]
    )  # a number after # is the last number
    both = [numbers[f"eval/level_{k}/pass@1"] for k in (1, 2)]
    assert sum(both) / 2 == pytest.approx(numbers["eval/pass@1"])


def test_an_evaluator_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no items"):
        evaluator(rows=0)
    with pytest.raises(ValueError, match="pass@8 needs at least 8 samples"):
        evaluator(ks=(1, 8))
    with pytest.raises(ValueError, match="pass@1 needs at least 1 samples"):
        replace(evaluator(), samples=0)
    with pytest.raises(ValueError, match="no reward is called 'boxed': there are exact, number"):
        evaluator(lenient="boxed")


def test_votes_are_exact_means_over_blocks_and_equal_numbers_vote_together():
    answers = ["4", "5", "5", "4", "5", "5"]
    samples = [Sample(a == "4", a) for a in answers]
    assert majority_vote(samples, 2) == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert majority_vote(samples, 4) == 0.5  # one block of 4, the rest left over
    assert weighted_vote([Sample(True, "4", 2.0), *samples[1:3]], 3) == 1.0
    assert any_right(samples, 3) == pytest.approx(pass_at_k(6, 2, 3))
    assert best_scored([Sample(True, "4", 1.0), Sample(False, "5", 0.0)], 2) == 1.0
    with pytest.raises(ValueError, match="a vote of 7"):
        majority_vote(samples, 7)
    for name, texts in (
        ("number", ["0.5", "1/2", "7"]),
        ("boxed", [r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", r"\boxed{7}"]),
    ):
        find = rewards(name).find_answer
        assert find is not None and majority([find(t) for t in texts], [True, True, False]) == 1.0


def test_no_verdict_never_wins():
    inf = float("inf")
    assert best_scored([Sample(True, "4", -inf), Sample(False, "5", 0.0)], 2) == 0.0
    assert (
        weighted_vote(
            [Sample(True, "4", -inf), Sample(True, "4", -inf), Sample(False, "5", -3.0)], 3
        )
        == 0.0
    )
    assert (
        weighted_vote(
            [Sample(True, "4", -inf), Sample(False, "5", -inf), Sample(True, "4", -inf)], 3
        )
        == 1.0
    )

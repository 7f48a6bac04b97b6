"""Sums of rewards: weights, parts, missing verdicts; specifications and their error lines.

Run: python -m pytest -q tests/rewards/test_combine.py
"""

from __future__ import annotations

import math

import pytest

from logpi.rewards import ExactAnswer, Number, Rewards, SoftOverlong, ThinkAnswer, Weighted, failures, reward, rewards


def constant(value, name="f"):
    def f(prompts, completions, **columns):
        return [value for _ in completions]

    return Weighted(f, 1.0, name)


def test_weighted_sum_keeps_every_part():
    total = rewards(["number:2", "think_answer:-0.5"])
    good, bare = total.score(["?", "?"], ["<think>.</think><answer>7</answer>", "7"], columns={"answer": ["7", "8"]})
    assert good.total == 1.5 and good.parts == {"number": 1.0, "think_answer": 1.0} and not good.errors
    assert bare.total == 0.0 and bare.parts == {"number": 0.0, "think_answer": 0.0}


def test_none_is_left_out_of_the_sum_and_all_none_is_no_verdict():
    half = Rewards((Weighted(Number()), constant(0.25))).score(["?"], ["7"], columns={"answer": ["Paris"]})[0]
    assert half.total == 0.25 and half.parts == {"number": None, "f": 0.25}
    nothing = rewards("number").score(["?"], ["7"], columns={"answer": ["Paris"]})
    assert nothing[0].total is None and not nothing[0].errors
    assert failures(nothing) == {"none": 1}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (math.nan, "nan: returned nan"),
        (math.inf, "nan: returned inf"),
        (-1e30, "huge: returned -1e+30; rewards are float32, and squared: at most 1e+15"),
        ("1.0", "type: expected a number or None, got str"),
        ([1.0], "type: expected a number or None, got list"),
        (10**400, "type: expected a number or None, got int"),
    ],
)
def test_a_wrong_value_is_a_missing_verdict_never_zero(value, error):
    score = Rewards((Weighted(Number()), constant(value))).score(["?"], ["7"], columns={"answer": ["7"]})[0]
    assert score.total is None
    assert score.parts == {"number": 1.0, "f": None}
    assert score.errors == {"f": error}


def test_booleans_and_integers_are_numbers():
    assert Rewards((constant(True),)).score(["?"], ["7"])[0].total == 1.0


def test_a_function_that_raises_on_one_sample_costs_that_sample():
    def touchy(prompts, completions, **columns):
        return [1 / len(c) for c in completions]

    scores = rewards([touchy]).score(["?"] * 3, ["a", "", "bb"])
    assert [s.total for s in scores] == [1.0, None, 0.5]
    assert scores[1].errors["touchy"].startswith("raised: ZeroDivisionError: division by zero (test_combine.py:")
    assert failures(scores) == {"touchy/raised": 1}


def test_a_wrong_number_of_rewards_is_retried_one_by_one():
    def short(prompts, completions, **columns):
        return [1.0 for c in completions if c]

    scores = rewards([short]).score(["?"] * 3, ["a", "", "b"])
    assert [s.total for s in scores] == [1.0, None, 1.0]
    assert scores[1].errors["short"] == "length: returned 0 rewards for 1 completions"


def test_an_async_function():
    async def slow(prompts, completions, **columns):
        return [float(len(c)) for c in completions]

    assert [s.total for s in rewards(slow).score(["?"] * 2, ["a", "bb"])] == [1.0, 2.0]


def test_columns_and_token_ids_reach_the_function():
    def check(prompts, completions, completion_ids, level, **columns):
        return [float(n * len(i)) for n, i in zip(level, completion_ids, strict=True)]

    assert rewards(check).score(["?"] * 2, "ab", [[1, 2], [3]], {"level": [1, 5]})[1].total == 5.0


def test_check_names_the_missing_column():
    with pytest.raises(ValueError, match="reward 'number' needs the column 'answer'; the rows have: prompt, solution"):
        rewards("number").check(["prompt", "solution"])
    rewards(["number", "think_answer"]).check(["answer"])


def test_find_answer_makes_equal_answers_equal():
    assert rewards(["number", "think_answer"]).find_answer("about 0.50") == "1/2"
    assert rewards("boxed").find_answer(r"\boxed{\dfrac{2}{4}}") == "1/2"
    assert rewards("exact").find_answer("x# 3  17") == "3 17"
    assert rewards("tag_answer").find_answer("none") is None
    assert rewards("countdown").find_answer is None


def test_specifications():
    assert reward("number") == Weighted(Number(), 1.0, "number")
    assert reward("think_answer:0.1") == Weighted(ThinkAnswer(), 0.1, "think_answer")
    assert reward("think-answer:-1e-2").weight == -0.01
    assert reward("exact('####'):2").function == ExactAnswer("####")
    assert reward("soft_overlong(512, cache=128):.5") == Weighted(SoftOverlong(512, 128), 0.5, "soft_overlong")
    assert rewards(["exact:1.0", Number()]).names == ("exact", "number")
    same = rewards("number")
    assert rewards(same) is same and "number" in repr(same)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("nubmer", "no reward is called 'nubmer': did you mean 'number'?"),
        ("qqq", "no reward is called 'qqq': there are: bfcl, boxed, code, command, countdown, exact"),
        ("exact(mark='#')", "reward 'exact' has no option 'mark': did you mean 'marker'?"),
        ("soft_overlong", "reward 'soft_overlong': missing a required argument: 'max_length'; its options are"),
        ("number(", "cannot read 'number\\('"),
        ("number(__import__('os'))", "cannot read"),
        ("soft_overlong(4, 9)", "cache must be between 1 and max_length"),
        ("nowhere.py:f", "reward file nowhere.py does not exist"),
        ("nowhere.py:f:0.5", "reward file nowhere.py does not exist"),
    ],
)
def test_error_lines_of_specifications(spec, line):
    with pytest.raises(ValueError, match=line) as error:
        reward(spec)
    assert "\n" not in str(error.value)


def test_names_must_differ_and_there_must_be_one():
    with pytest.raises(ValueError, match="two rewards are called 'number'"):
        rewards(["number", "number:2"])
    with pytest.raises(ValueError, match="no rewards"):
        rewards([])

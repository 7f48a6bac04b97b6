"""Sums of rewards: weights, parts, missing verdicts; specifications and their error lines.

Run: python -m pytest -q tests/rewards/test_combine.py
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from logpi.rewards import (
    ExactAnswer,
    Number,
    Rewards,
    SoftOverlong,
    ThinkAnswer,
    Weighted,
    failures,
    reward,
    rewards,
    user_reward,
)


def constant(value, name="f"):
    def f(prompts, completions, **columns):
        return [value for _ in completions]

    return Weighted(f, 1.0, name)


def test_weighted_sum_keeps_every_part():
    total = rewards(["number:2", "think_answer:-0.5"])
    good, bare = total.score(
        ["?", "?"], ["<think>.</think><answer>7</answer>", "7"], columns={"answer": ["7", "8"]}
    )
    assert (
        good.total == 1.5 and good.parts == {"number": 1.0, "think_answer": 1.0} and not good.errors
    )
    assert bare.total == 0.0 and bare.parts == {"number": 0.0, "think_answer": 0.0}


def test_none_is_left_out_of_the_sum_and_all_none_is_no_verdict():
    half = Rewards((Weighted(Number()), constant(0.25))).score(
        ["?"], ["7"], columns={"answer": ["Paris"]}
    )[0]
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
    score = Rewards((Weighted(Number()), constant(value))).score(
        ["?"], ["7"], columns={"answer": ["7"]}
    )[0]
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
    assert (
        scores[1]
        .errors["touchy"]
        .startswith("raised: ZeroDivisionError: division by zero (test_combine.py:")
    )
    assert failures(scores) == {"touchy/raised": 1}


@pytest.mark.parametrize(
    ("returned", "kind", "line"),
    [
        (lambda n: [0.5], "length", "returned 1 rewards for 3 completions"),
        (lambda n: [1.0] * (n - 1), "length", "returned 2 rewards"),
        (lambda n: [[1.0] * n], "length", "returned 1 rewards"),
        (
            lambda n: 0.5,
            "type",
            "returned float for 3 completions: expected a list with a number or None for each",
        ),
        (lambda n: np.float32(0.5), "type", "returned float32"),
        (lambda n: torch.tensor(0.5), "type", "returned Tensor"),
        (lambda n: None, "type", "returned NoneType"),
        (lambda n: "101", "type", "returned str"),
        (lambda n: dict.fromkeys(range(n), 1.0), "type", "returned dict"),
        (lambda n: {0.0, 0.5, 1.0}, "type", "returned set"),
    ],
)
def test_what_is_not_one_value_for_each_completion_is_no_verdict_and_told_before_training(
    returned, kind, line
):
    """Called one by one most of these would "work": a mean over the batch would be each sample's
    own reward."""

    def f(completions, **columns):
        return returned(len(completions)) if len(completions) == 3 else returned(4)

    scores = rewards([f]).score(["?"] * 3, ["a", "b", "c"])
    assert [s.total for s in scores] == [None] * 3
    assert all(s.errors["f"].startswith(f"{kind}: {line}") for s in scores)

    def always(completions, **columns):
        return returned(3)

    with pytest.raises(
        ValueError, match=f"^reward 'always' judges none of 4 trial completions: {kind}: "
    ) as error:
        rewards([always]).check(["prompt", "answer"], [{"prompt": "?", "answer": "1"}])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("1.0", "type: expected a number or None, got str"),
        ({"score": 1.0}, "type: "),
        (float("nan"), "nan: "),
        (float("inf"), "nan: "),
        (1e30, "huge: "),
        ([1.0, 2.0], "type: "),
        (np.ones(2), "type: "),
    ],
)
def test_values_that_are_no_numbers_are_told_before_training(value, line):
    with pytest.raises(ValueError, match=f"reward 'f' judges none of 4 trial completions: {line}"):
        rewards(
            [Weighted(lambda completions, **columns: [value] * len(completions), name="f")]
        ).check(["prompt"], [{"prompt": "?"}])


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        np.array,
        torch.tensor,
        lambda v: np.array(v, np.float16)[:, None],
        lambda v: torch.tensor(v)[:, None].bfloat16(),
        lambda v: np.array(v) > 0,
        lambda v: [Fraction(x) for x in v],
        lambda v: (x for x in v),
        lambda v: [torch.tensor(x) for x in v],
        lambda v: torch.tensor(v, requires_grad=True),
    ],
)
def test_every_wrapping_of_one_number_for_each_is_taken(make):
    f = Weighted(
        lambda completions, **columns: make([float(len(c) > 1) for c in completions]), name="f"
    )
    assert [s.total for s in rewards([f]).score(["?"] * 2, ["a", "bb"])] == [0.0, 1.0]
    rewards([f]).check(["prompt"], [{"prompt": "?"}])


def test_the_trial_shows_distinct_completions_with_the_answer_and_every_column():
    seen = []

    def look(prompts, completions, completion_ids, level, turns, **columns):
        seen.append(
            (prompts, completions, [len(i) for i in completion_ids], level, turns, sorted(columns))
        )
        return [None] * len(completions)

    rows = [
        {"prompt": "p", "answer": "7", "level": 1},
        {"prompt": [{"role": "user", "content": "q"}], "answer": "8", "level": 2},
    ]
    rewards([look]).check(["prompt", "answer", "level", "step", "turns", "step_reward"], rows)
    [(prompts, completions, sizes, level, turns, others)] = seen
    assert (
        prompts[0] == "p"
        and level == [1, 2, 1, 2]
        and others == ["answer", "assistant_prefix", "step", "step_reward", "verdicts"]
        and min(sizes) > 0
    )
    assert (
        "7" in completions[0]
        and completions[1][0]["role"] == "assistant"
        and "8" in completions[1][0]["content"]
    )
    assert len(set(map(str, completions))) == 4 and next(t[0] for t in turns) == completions[0]


def test_a_function_that_fails_on_everything_is_told_with_the_columns_there_are():
    def f(completions, **columns):
        return [float(c == x) for c, x in zip(completions, columns["gold"], strict=True)]

    with pytest.raises(
        ValueError,
        match=r"raised: KeyError: 'gold' \(test_combine.py:\d+\) \(columns: answer, prompt\)",
    ):
        rewards([f]).check(["prompt", "answer"], [{"prompt": "?", "answer": "1"}])
    with pytest.raises(ValueError, match="reward 'g' needs the column 'gold'"):
        rewards([Weighted(lambda completions, gold: gold, name="g")]).check(["prompt", "answer"])

    def strict(completions, **columns):
        return [float(c.split("####")[1]) for c in completions]

    rewards([strict]).check(
        ["prompt", "answer"], [{"prompt": "?", "answer": "1"}]
    )  # one form out of four it can read


def test_a_function_may_change_what_it_is_given():
    def spoil(prompts, completions, completion_ids, answer, **columns):
        for c, ids in zip(completions, completion_ids, strict=True):
            c[0]["content"] = ""
            ids.clear()
        answer[:] = [None] * len(answer)
        given = len(completions)
        completions.clear()
        return [1.0] * given

    said = [[{"role": "assistant", "content": "7"}]] * 2
    ids, columns = [[1], [2]], {"answer": ["7", "7"]}
    scores = rewards([spoil, "number"]).score(
        [[{"role": "user", "content": "?"}]] * 2, said, ids, columns
    )
    assert (
        [s.parts["number"] for s in scores] == [1.0, 1.0]
        and ids == [[1], [2]]
        and columns == {"answer": ["7", "7"]}
    )


def test_an_async_function():
    async def slow(prompts, completions, **columns):
        return [float(len(c)) for c in completions]

    assert [s.total for s in rewards(slow).score(["?"] * 2, ["a", "bb"])] == [1.0, 2.0]


def test_columns_and_token_ids_reach_the_function():
    def check(prompts, completions, completion_ids, level, **columns):
        return [float(n * len(i)) for n, i in zip(level, completion_ids, strict=True)]

    assert rewards(check).score(["?"] * 2, "ab", [[1, 2], [3]], {"level": [1, 5]})[1].total == 5.0


def test_check_names_the_missing_column():
    with pytest.raises(
        ValueError,
        match="reward 'number' needs the column 'answer'; the rows have: prompt, solution",
    ):
        rewards("number").check(["prompt", "solution"])
    rewards(["number", "think_answer"]).check(["answer"])


def test_a_column_that_the_rows_and_the_rollout_have_is_refused_where_it_is_read():
    def pace(completions, step, **columns):
        return [float(s) for s in step]

    with pytest.raises(ValueError, match="'pace' reads the column 'step', which the rows have and"):
        rewards(pace).check(["prompt", "answer", "step", "step", "assistant_prefix"])
    rewards("number").check(["prompt", "answer", "step", "step", "assistant_prefix"])


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
    assert reward("soft_overlong(512, cache=128):.5") == Weighted(
        SoftOverlong(512, 128), 0.5, "soft_overlong"
    )
    assert rewards(["exact:1.0", Number()]).names == ("exact", "number")
    same = rewards("number")
    assert rewards(same) is same and "number" in repr(same)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("nubmer", "no reward is called 'nubmer'; did you mean number?"),
        (
            "qqq",
            (
                "no reward is called 'qqq'; there are: bfcl, boxed, code, command, corrected,"
                " countdown"
            ),
        ),
        ("exact(mark='#')", "reward 'exact' has no option 'mark'; did you mean marker?"),
        (
            "soft_overlong",
            "reward 'soft_overlong': missing a required argument: 'max_length'; its options are",
        ),
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


# --- objects ---


def short(completions):
    return [1.0 / (1 + len(c)) for c in completions]


async def slow_match(completions, answer):
    await asyncio.sleep(0)
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "source": data_source}


async def slow_score(solution_str, ground_truth):
    await asyncio.sleep(0)
    return float(solution_str == ground_truth)


class Bonus:
    """A callable object."""

    def __call__(self, completions, **columns):
        return [0.5] * len(completions)


MIXTURE = [
    "exact:2",
    ("number", 0.5),
    ("tag_answer:2", 0.25),
    (short, 3),
    slow_match,
    Bonus(),
    Weighted(compute_score, 0.1, "verl"),
    functools.partial(slow_score),
]


def test_words_functions_pairs_and_objects_in_any_mixture():
    judge = rewards(MIXTURE)
    assert [(p.name, p.weight) for p in judge.parts] == [
        ("exact", 2.0),
        ("number", 0.5),
        ("tag_answer", 0.5),
        ("short", 3.0),
        ("slow_match", 1.0),
        ("Bonus", 1.0),
        ("verl", 0.1),
        ("slow_score", 1.0),
    ]
    judge.check(["prompt", "answer"], [{"prompt": "?", "answer": "7"}])
    columns = {"answer": ["7", "7"], "data_source": ["a", "b"], "extra_info": [{}, {}]}
    right, wrong = judge.score(["?"] * 2, ["7", "10"], [[1], [1, 0]], columns)
    assert right.parts["short"] == 0.5 and wrong.parts["short"] == pytest.approx(1 / 3)
    for name in ("number", "slow_match", "verl", "slow_score"):
        assert (right.parts[name], wrong.parts[name]) == (1.0, 0.0)
    assert (right.extras, wrong.extras) == ({"source": "a"}, {"source": "b"})
    assert not right.errors


def test_one_alone_needs_no_list():
    assert rewards(short).names == ("short",)
    assert rewards((short, 0.25)).parts[0].weight == 0.25
    assert rewards(("number", "think_answer:0.1")).names == ("number", "think_answer")
    assert rewards(Bonus).names == ("Bonus",)


def test_async_functions_run_inside_a_running_loop():
    """As in a notebook, whose cells run in a loop."""

    async def cell():
        return rewards([slow_match, slow_score]).score(["?"], ["7"], None, {"answer": ["7"]})

    [score] = asyncio.run(cell())
    assert score.parts == {"slow_match": 1.0, "slow_score": 1.0} and not score.errors


def test_a_function_of_a_file_and_the_same_from_python_say_the_same(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import asyncio\n"
        + "\n".join(map(inspect.getsource, (short, slow_match, compute_score, slow_score, Bonus)))
    )
    columns = {"answer": ["7", "8"], "data_source": ["a", "b"]}
    for function in (short, slow_match, compute_score, slow_score, Bonus):
        name = function.__name__
        judges = rewards(f"{file}:{name}"), rewards(function)
        apart, here = (j.score(["?"] * 2, ["7", "10"], [[1], [2]], columns) for j in judges)
        assert apart == here and apart[0].total is not None, name
        assert list(judges[0].parts[0].needs()) == list(judges[1].parts[0].needs())
        judges[0].parts[0].function.close()


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (7, "a reward is a word, a function, .* not int 7"),
        ([short, None], "not NoneType None"),
        ((short, float("nan")), "the weight of reward 'short' must lie between"),
        ([short, short], "two rewards are called 'short': rename one"),
        (Weighted, "reward 'Weighted' cannot be called: TypeError: .*missing 1 required"),
        (torch.nn.Linear(1, 1), "Linear is a network and no reward: give a function that calls it"),
    ],
)
def test_what_is_no_reward_is_one_line(spec, line):
    with pytest.raises(ValueError, match=line) as error:
        rewards(spec)
    assert "\n" not in str(error.value)


LOGGING = """
def logging(completions, log_metric, log_extra, **columns):
    assert "log_metric" not in columns
    if "bad" in completions:
        raise ValueError("bad")
    log_metric("lengths/mean", sum(map(len, completions)) / len(completions))
    log_metric("empty", float("nan"))
    log_extra("first", [c[:1] for c in completions])
    log_extra("odd", [{1}] * len(completions))
    return [1.0] * len(completions)
"""


@pytest.fixture(params=["python", "file"])
def logging(request, tmp_path):
    if request.param == "python":
        space: dict = {}
        exec(LOGGING, space)
        yield space["logging"]
    else:
        (tmp_path / "mine.py").write_text(LOGGING)
        function = user_reward(f"{tmp_path}/mine.py:logging")
        yield function
        function.close()


def test_what_a_function_logs_is_kept(logging):
    """TRL's `log_metric` and `log_extra`."""
    judge = rewards(logging)
    judge.check(["prompt"], [{"prompt": "?"}])
    scores = judge.score(["?"] * 2, ["abc", "d"])
    assert [s.metrics for s in scores] == [{"lengths/mean": 2.0}] * 2
    assert [s.extras for s in scores] == [
        {"first": "a", "odd": "{1}"},
        {"first": "d", "odd": "{1}"},
    ]
    alone = judge.score(["?"] * 3, ["abc", "bad", "d"])
    assert [s.metrics for s in alone] == [{"lengths/mean": 2.0}] * 3
    assert [s.extras.get("first") for s in alone] == ["a", None, "d"]
    assert alone[1].errors == {"logging": alone[1].errors["logging"]} and alone[1].total is None


def test_a_wrong_number_of_logged_values_is_told_before_training():
    def wrong(completions, log_extra):
        log_extra("x", [1])
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match=r"log_extra\('x'\): 1 values for 4 completions"):
        rewards(wrong).check(["prompt"], [{"prompt": "?"}])

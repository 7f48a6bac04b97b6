"""Exact match and F1 of short answers.

Run: python -m pytest -q tests/rewards/test_qa.py
"""

from __future__ import annotations

import pytest

from logpi.rewards import AnswerF1, AnswerMatch, rewards
from logpi.rewards.qa import f1, normalise


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  U.S.A.!", "usa"),
        ("a an the", "a an the"),
        ("The The", "the the"),
        ("!!!", "!!!"),
        ("Theatre, anthem", "theatre anthem"),
        ("  x\n\ty ", "x y"),
        ("don't", "dont"),
        ("北京", "北京"),
    ],
)
def test_normal_form(text, normal):
    assert normalise(text) == normal


def em(text, answer):
    return AnswerMatch()(prompts=["?"], completions=[text], answer=[answer])[0]


def test_exact_match_reads_the_last_answer_of_the_policy():
    assert em("<answer>Rome</answer> no <answer> The Beatles. </answer>", ["beatles"]) == 1.0
    assert em("<answer>Beatles</answer> no <answer>Rome</answer>", "Beatles") == 0.0
    assert em("Beatles", "Beatles") == 0.0 and em("<answer>Beatles", "Beatles") == 0.0
    assert em("<answer></answer>", "") == 1.0 and em("x", None) is None
    assert em("<answer>nan</answer>", float("nan")) is None and em("<answer>x</answer>", []) is None
    assert (
        em("<answer>x</answer>", [None, "x"]) == 1.0 and em("<answer></answer>", "The The") == 0.0
    )
    retrieved = [
        {"role": "assistant", "content": "<search>x</search>"},
        {"role": "tool", "content": "<answer>Beatles</answer>"},
    ]
    assert em(retrieved, "Beatles") == 0.0
    assert AnswerMatch(tag="")(prompts=["?"], completions=["the Beatles"], answer=["Beatles"]) == [
        1.0
    ]


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("a b c", "b c d", 2 / 3 * 1.0),
        ("b b", "b", 2 / 3),
        ("x", "y", 0.0),
        ("yes", "yes it is", 0.0),
        ("no", "no", 1.0),
        ("", "x", 0.0),
        ("the", "a", 0.0),  # nothing is left of either: they are compared as they stand
    ],
)
def test_f1(answer, gold, value):
    # "a b c": the article goes, so 2 shared of 2 and 3: 0.8
    assert f1(answer, gold) == pytest.approx(0.8 if answer == "a b c" else value)


def test_f1_takes_the_nearest_answer_and_both_have_names():
    assert AnswerF1()(prompts=["?"], completions=["<answer>b c</answer>"], answer=[["x", "b"]]) == [
        pytest.approx(2 / 3)
    ]
    assert rewards(["qa_em", "qa_f1:0.1"]).names == ("qa_em", "qa_f1")
    assert AnswerF1()(prompts=["?"], completions=["none"], answer=[["x"]]) == [0.0]

"""Built-in rewards: values worked out by hand, and that no text whatever makes them raise or slow.

Run: python -m pytest -q tests/rewards/test_match.py
"""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logpi.rewards import (
    Boxed,
    Corrected,
    CountdownReward,
    ExactAnswer,
    ExpressionError,
    Number,
    SoftOverlong,
    TagAnswer,
    ThinkAnswer,
    evaluate,
)
from logpi.rewards.text import as_number, last_boxed, last_number, last_tag, text_of


def judge(reward, completion, answer="42", **columns):
    return reward(prompts=["?"], completions=[completion], answer=[answer], **columns)[0]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("7+5=12,4+8+1=13#132", 1.0),
        ("#131#132", 1.0),  # the last marker counts
        ("#132#131", 0.0),
        ("# 132 \n", 1.0),
        ("132", 0.0),  # never announced
        ("#132 or so", 0.0),  # the answer must end the completion
        ("#0132", 0.0),  # exact means exact
        ("#", 0.0),
        ("", 0.0),
    ],
)
def test_exact_answer(completion, expected):
    assert judge(ExactAnswer(), completion, "132") == expected


def test_exact_answer_with_another_marker():
    assert judge(ExactAnswer("####"), "so 40+2\n#### 42") == 1.0
    assert judge(ExactAnswer(""), " 4  2 ", "4 2") == 1.0


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("It is 42.", "42", 1.0),
        ("42 or 43", "42", 0.0),
        ("$1,250.50 in all", "1250.5", 1.0),
        ("1,250.50", "2501/2", 1.0),
        ("three quarters: 3/4", "0.75", 1.0),
        ("1/3", "0.3333333333", 0.0),  # exact, not close
        ("10-3", "3", 1.0),  # minus after a digit is an operator
        ("x = -3", "-3", 1.0),
        ("x = \u22123", "-3", 1.0),
        ("1 / 0", "0", 0.0),
        ("no number", "42", 0.0),
        ("\u0664\u0662", "42", 1.0),  # digits of another script are digits
        ("1e5", "5", 0.0),  # one number, not two
        ("1e5", "100,000", 1.0),
        ("2.5E-1", "1/4", 1.0),
        ("1e9999999", "1", 0.0),
        ("42", "1e99999", None),  # an answer that is no number: not applicable
        ("42", None, None),
        ("0042", "42", 1.0),
        ("5,000", ["5000", "7"], 1.0),  # any of several answers
    ],
)
def test_number(completion, answer, expected):
    assert judge(Number(), completion, answer) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (r"\boxed{42}", "42", 1.0),
        (r"\boxed{41}, no: \boxed{42}", "42", 1.0),
        (r"\boxed{42}, no: \boxed{41}", "42", 0.0),
        (r"\boxed{\frac{1}{2}}", "1/2", 1.0),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", 1.0),
        (r"\boxed{-\frac{1}{2}}", "-0.5", 1.0),
        (r"\boxed{\{1, 2\}}", r"\{1,2\}", 1.0),  # escaped braces are text
        (r"\boxed{1{,}000}", "1000", 1.0),
        (r"\boxed{x^{2}}", "x^{2}", 1.0),
        (r"\boxed{\text{Monday}}", "Monday", 1.0),
        (r"\boxed{42", "42", 0.0),  # cut off
        ("42", "42", 0.0),
    ],
)
def test_boxed(completion, answer, expected):
    assert judge(Boxed(), completion, answer) == expected


def test_braces_count_and_what_is_missing_is_no_answer():
    assert (
        judge(Boxed(), r"\boxed{2^n+1}", "2^{n+1}") == 0.0
        and judge(Boxed(), r"\boxed{2^{n}+1}", "2^n+1") == 1.0
    )
    assert judge(TagAnswer(), "<answer>\\frac{3,5}{2}</answer>", "35/2") == 0.0
    for missing in (None, float("nan"), "", "nan", [], [None]):
        assert (
            judge(Boxed(), r"\boxed{nan}", missing) is None
            and judge(ExactAnswer(), "#nan", missing) is None
        )


@pytest.mark.parametrize(
    ("completion", "last", "first"),
    [
        ("hkcd", 1.0, 1.0),
        ("hg wait kcd", 1.0, 0.0),
        ("hg wait f wait kcd", 1.0, 0.0),
        ("hk wait gcd", 0.0, 1.0),
        # a right letter may be corrected by itself
        ("hk wait kcd", 1.0, 1.0),
        # what corrects nothing, or nothing corrects, is no answer
        ("hkc wait ", 0.0, 0.0),
        ("hkcd wait ", 0.0, 0.0),
        ("hg wait  wait kcd", 0.0, 0.0),
        (" wait hkcd", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_corrected(completion, last, first):
    assert judge(Corrected(), completion, "hkcd") == last
    assert judge(Corrected(first=True), completion, "hkcd") == first


def test_corrections_are_announced_by_a_word_of_ones_own():
    assert judge(Corrected(word="(?)"), "1(?)2", "2") == 1.0
    assert judge(Corrected(word="(?)", first=True), "1(?)2", "1") == 1.0


def test_tag_answer():
    assert judge(TagAnswer(), "<answer>41</answer> <answer> 42.0 </answer>") == 1.0
    assert judge(TagAnswer(), "<answer>42</answer> <answer>41") == 1.0  # the last closed one
    assert judge(TagAnswer(), "</answer>42<answer>") == 0.0
    assert judge(TagAnswer(), "<answer>Paris</answer>", "Paris") == 1.0


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>\na\n</think>\n <answer>b</answer>\n", 1.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("x<think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>x", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer></think>b</answer>", 0.0),
        ("<think>a</think><think>c</think><answer>b</answer>", 0.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("</think><think>a<answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_think_answer(completion, expected):
    assert ThinkAnswer()(["?"], [completion]) == [expected]


def test_think_answer_inside_an_opened_think():
    assert ThinkAnswer(opened=True)(["?"], ["a</think><answer>b</answer>"]) == [1.0]
    assert ThinkAnswer(opened=True)(["?"], ["<think>a</think><answer>b</answer>"]) == [0.0]


def test_soft_overlong_is_equation_13():
    lengths = (0, 16_384, 17_408, 18_432, 20_480, 20_481, 40_000)
    ids = [range(n) for n in lengths]
    given_ = SoftOverlong(20_480, 4_096)(["?"] * 7, ["?"] * 7, completion_ids=ids)
    assert given_ == [0.0, 0.0, -0.25, -0.5, -1.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="completion_ids"):
        SoftOverlong(10, 5)(["?"], ["?"])
    for cache in (0, 11):
        with pytest.raises(ValueError, match="cache must be between 1 and max_length"):
            SoftOverlong(10, cache)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", Fraction(7)),
        ("(1+2)*3", Fraction(9)),
        ("8/3/2", Fraction(4, 3)),
        ("10-2-3", Fraction(5)),
        ("8/(3-8/3)", Fraction(24)),
        ("-3+5", Fraction(2)),
        ("2*-3", Fraction(-6)),
        (" 6 × 4 ÷ 3 − 1 ", Fraction(7)),
    ],
)
def test_evaluate(text, value):
    assert evaluate(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "(1",
        "1)",
        "1 2",
        "1/0",
        "1/(2-2)",
        "9**9**9",
        "2^3",
        "1.5",
        "1e9",
        "abs(3)",
        "__import__('os')",
        "x",
        "1" * 13,
        "1+" * 200 + "1",
        "(" * 100000 + "1" + ")" * 100000,
        "-" * 100 + "1",
        "٣+1",
        "1//2",
        "()",
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ExpressionError):
        evaluate(text)


def test_countdown():
    def score(text, numbers=(3, 3, 8, 8), target=24, **options):
        return CountdownReward(**options)(["?"], [text], numbers=[list(numbers)], target=[target])[
            0
        ]

    assert score("#8/(3-8/3)") == 1.0  # exact where floats say 23.999…
    assert score("8/(3-8/3)") == 0.0
    assert score("8/(3-8/3)", marker="") == 1.0
    assert score("#3*8") == 0.0
    assert score("#3*8", use_all=False) == 1.0
    assert score("#3*8*8/8", use_all=False) == 0.0  # an 8 too many
    assert score("#24") == 0.0
    assert score("#8/(3-8/3)=24") == 0.0
    assert score("#38-8-3-3") == 0.0  # digits are not glued


def test_only_the_assistants_own_text_is_judged():
    turns = [
        {"role": "assistant", "content": "Let me look."},
        {"role": "tool", "content": "The answer is 42"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "It is 7."}, {"type": "image", "url": "…"}],
        },
    ]
    assert text_of(turns) == "Let me look.\nIt is 7."
    assert judge(Number(), turns, "42") == 0.0
    assert judge(Number(), turns, "7") == 1.0
    assert text_of([{"role": "assistant", "content": None}]) == ""


ALL = [
    ExactAnswer(),
    Number(),
    Boxed(),
    Corrected(),
    Corrected(first=True),
    TagAnswer(),
    ThinkAnswer(),
    ThinkAnswer(opened=True),
    CountdownReward(),
]
HOSTILE = [
    "9" * 100_000,
    "#" + "9" * 100_000,
    "#" + "9**" * 10_000 + "9",
    "#" + "(" * 100_000,
    "-" * 100_000,
    "1/" * 50_000,
    "1," * 50_000 + "1",
    "111," * 50_000 + "1111",
    "\\boxed{" * 100_000,
    "\\boxed{" + "{" * 100_000 + "}" * 100_000 + "}",
    "<answer>" * 50_000,
    "<answer>" * 25_000 + "</answer>" * 25_000,
    "</answer>" * 50_000 + "<answer>" * 50_000,
    "<think>" * 50_000,
    " " * 100_000 + "#",
    "$" * 100_000,
    "\\frac{" * 50_000,
    "<answer>" + "\\left" * 50_000 + "</answer>",
    "<answer>" + "\\" * 100_000 + "</answer>",
    "#٣٤²½Ⅷ〇\u0000\ud800",
    "\ud800\udfff" * 1_000,
    ".5" * 50_000,
    "0" * 4_301 + "1",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_judged_and_soon(text):
    for reward in ALL:
        start = time.process_time()
        value = judge(reward, text, "42", numbers=[[4, 2]], target=[42])
        assert value in (0.0, 1.0)
        assert time.process_time() - start < 2, (
            f"{reward.name} is too slow"
        )  # linear ones take some 0.02 s


FRAGMENTS = st.sampled_from(
    [
        "#",
        "####",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "{",
        "}",
        "\\",
        "/",
        "-",
        ",",
        ".",
        "\\frac{",
        "9",
        "1,000",
        "(",
        ")",
        "**",
        "٣",
        "²",
        " ",
        "\n",
        "$",
        "%",
        "−",
        "42",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS | st.text(max_size=5), max_size=30).map("".join), st.text(max_size=8))
def test_built_ins_are_total(text, answer):
    for reward in ALL:
        assert judge(reward, text, answer, numbers=[[4, 2]], target=[42]) in (0.0, 1.0, None)


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=10_000))
def test_numbers_are_read_back_exactly(value):
    assert as_number(str(value)) == value
    assert last_number(f"first 17, then {value}.") == value
    assert last_boxed(f"\\boxed{{{value}}}") == str(value) == last_tag(f"<a>{value}</a>", "a")


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda t: f"({t[0]}{t[1]}{t[2]})"
        ),
        max_leaves=12,
    )
)
def test_evaluate_agrees_with_python(text):
    assert evaluate(text)[0] == eval(text)  # our own text, made above


def test_latex_spacing_is_no_difference():
    assert judge(Boxed(), r"\boxed{\displaystyle \left( 1,\, 2 \right)}", "(1,2)") == 1.0
    assert judge(Boxed(), r"\boxed{(1,3)}", "(1,2)") == 0.0

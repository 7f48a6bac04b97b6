"""The math verifier: where the answer stands, the table of tricky pairs, what hangs, and data that it refuses."""

from __future__ import annotations

import time
import warnings
from fractions import Fraction
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logpi.rewards import Failure, Math, Rewards, Weighted, reward
from logpi.rewards import math as math_module
from logpi.rewards.math import final_answer
from logpi.rewards.processes import Process, Workers, call

needs_math_verify = pytest.mark.skipif(find_spec("math_verify") is None, reason="the extra `math` is not installed")

# Right answer, given answer, verdict. Tiers 1 and 2 decide these, with math-verify and without.
EXACT = [
    ("18", "18", True),
    ("18", "18.0", True),
    ("18", "18.", True),
    ("18", "$18", True),
    ("18", r"\$18", True),
    ("18", r"\$18.00", True),
    ("18", "€18", True),
    ("18", "18 dollars", True),
    ("18", r"18\text{ dollars}", True),
    ("18", r"\text{18}", True),
    ("18", "x = 18", True),
    ("18", "eighteen", False),  # number words are not read
    ("18", "19", False),
    ("18", "-18", False),
    ("-18", "\u221218", True),
    ("-18", "-$18", True),
    ("1000", "1,000", True),
    ("1000", "1{,}000", True),
    ("1000", r"1\,000", True),
    ("1000", "1 thousand", True),
    ("5000000", "5 million", True),
    ("5", "5 million", False),
    ("1000", "1,00", False),
    ("0.5", r"\frac{1}{2}", True),
    ("0.5", r"\frac12", True),
    ("0.5", r"\dfrac{1}{2}", True),
    ("0.5", r"\tfrac12", True),
    ("0.5", "1/2", True),
    ("0.5", ".5", True),
    ("0.5", "50%", True),
    ("1/2", "3/6", True),
    ("-1/2", r"-\frac{1}{2}", True),
    ("-1/2", r"\frac{-1}{2}", True),
    ("1 1/2", r"\frac32", True),  # math-verify reads 1
    ("1 1/2", r"1\frac{1}{2}", True),
    ("3/2", r"1\frac12", True),
    ("11", "1 1", False),
    ("25%", "25", True),  # accepted: a percent sign is ambiguous
    ("25%", "0.25", True),
    ("25%", r"25\%", True),
    ("25%", "25 percent", True),
    ("25", "0.25", False),
    ("25%", "2500", False),
    ("72", r"72\text{ cm}^2", True),  # accepted: a unit, even a wrong one, is not looked at
    ("72", r"72\,\mathrm{cm}", True),
    ("72", "72 cm^2", True),
    ("72", r"72^\circ", True),
    ("72", r"72^{\circ}", True),
    ("72", "72°", True),
    ("72", "72 miles per hour", True),
    ("72", "72x", False),
    ("10^{-20}", "10^{-21}", False),  # math-verify: True, by rounding
    ("10^{-20}", r"1\times 10^{-20}", True),
    ("5e-3", "0.005", True),  # math-verify does not read e
    ("1.5e3", r"1.5\times10^{3}", True),
    ("1500", r"1.5 \cdot 10^3", True),
    ("1024", "2^{10}", True),
    ("1024", "2^10", True),
    ("0.333", r"\frac13", False),  # exact: 333/1000
    ("0.333333", r"\frac13", False),  # math-verify: True, by rounding
    ("123456789012345678901", "123456789012345678902", False),
    ("0.1", "0.10000000000000000001", False),
    ("Monday", "monday", True),
    ("Monday", r"\text{Monday}", True),  # math-verify takes Monday for d·a·m·n·o·y
    ("Monday", "yadnoM", False),
    ("Monday", "Tuesday", False),
    ("A", "(A)", True),
    ("A", r"\text{A}", True),
    ("A", r"\textbf{(A) } 5", True),
    ("(A)", "A.", True),
    ("A", "B", False),
    ("A", "AB", False),
    ("7", "9**9**9**9 or so", False),
    ("7", "1" * 2000, False),
    ("7", "", False),
    ("(1,2)", r"\left( 1, 2 \right)", True),
    ("2x+1", r"2x\, +\, 1", True),
    (r"\frac{\pi}{2}", r"\dfrac{\pi}{2}", True),
]
# What only tier 3 decides.
SYMBOLIC = [
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    (r"2\sqrt3", "3.4641016", True),  # accepted: a decimal that agrees to six places
    (r"\pi", "3.14159", False),
    (r"\pi", r"\frac{22}{7}", False),
    (r"\frac{\pi}{2}", r"\pi/2", True),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
    ("5", r"\sqrt{25}", True),
    ("10", r"\binom{5}{2}", True),
    ("3", r"\log_2 8", True),
    ("3628800", "10!", True),
    ("3/4", "3:4", True),
    ("x^2+2x+1", "(x+1)^2", True),
    ("x^2+2x+1", "(x+1)^3", False),
    ("y=2x+1", "y=1+2x", True),
    ("3x-y+13=0", "y=3x+13", True),
    ("3*x-1*y+13=0", "3x + 4y + 14=0", False),  # math-verify as it is often called: True, both read as 0
    ("(1,2)", "(2,1)", False),
    ("1,2", "2,1", True),  # accepted: a list without brackets is a set
    (r"\{1,2\}", r"\{2,1\}", True),
    (r"\{1,2\}", r"\{1,2,3\}", False),
    ("(1,2]", r"1<x\le 2", True),
    (r"x\in[1,\infty)", r"x\geq 1", True),
    (r"(3,\infty)", "x>3", True),
    ("(1,2]", "[1,2]", False),
    ("1+2i", "2i+1", True),
    ("abc", "bca", True),  # accepted: three letters are a product
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", False),
    (r"\infty", r"+\infty", True),
    ("2x", "2", False),
    (r"e^{i\pi}", "-1", False),  # refused: not simplified
    ("2x=4", "x=2", False),  # refused: an equation is not its solution
    ("7", r"7 \text{ or } 8", False),
]


def judge(gold: str, answer: str) -> float | None | Failure:
    return Math(seconds=20)(["?"], [rf"so \boxed{{{answer}}}."], answer=[gold])[0]


@pytest.mark.parametrize(("gold", "answer", "same"), EXACT)
def test_pairs_that_need_no_algebra(gold: str, answer: str, same: bool, monkeypatch) -> None:
    monkeypatch.setattr(math_module, "_symbolic_there", lambda: False)
    assert judge(gold, answer) == float(same)
    assert judge(gold, gold) == 1.0


@needs_math_verify
@pytest.mark.parametrize(("gold", "answer", "same"), SYMBOLIC)
def test_pairs_that_need_algebra(gold: str, answer: str, same: bool) -> None:
    assert judge(gold, answer) == float(same)


@needs_math_verify
@pytest.mark.parametrize(("gold", "answer", "same"), SYMBOLIC)
def test_without_math_verify_a_text_that_differs_has_no_verdict(
    gold: str, answer: str, same: bool, monkeypatch
) -> None:
    monkeypatch.setattr(math_module, "_symbolic_there", lambda: False)
    monkeypatch.setattr(math_module, "_verdicts", {})
    verdict = judge(gold, answer)
    assert verdict == 0.0 if rational(gold) else isinstance(verdict, Failure) and verdict.kind == "unavailable"


# --- where the answer stands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}, no, \boxed{7}", "7"),  # math-verify: the set {5, 7}
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{5} and then \boxed{18", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("It is 7.\n#### 18\n", "18"),
        ("#### 18\nand more 3", "18"),
        ("<answer>18</answer>", "18"),  # math-verify finds nothing
        ("<answer>1</answer><answer> 2 </answer> 3", "2"),
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("The answer is 72 cm, I think", "72"),
        ("first 5, then 6, so 1,234.5!", "2469/2"),
        ("no idea", None),
        ("", None),
        ("x" * 5000 + " 3 / 4 " + "y " * 400, "3/4"),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_stated_answer_can_be_demanded() -> None:
    assert Math(number=False)(["?"] * 2, ["so 7", "#### 7"], answer=["7", "7"]) == [0.0, 1.0]


def test_rows_with_several_answers_a_whole_solution_or_none() -> None:
    rows = [["7", "8"], "Half of 48 is 24.\n#### 24", None, r"So \boxed{24}."]
    assert Math()(["?"] * 4, ["8", "24", "24", "24"], answer=rows) == [1.0, 1.0, None, 1.0]


def test_conversations_count_by_what_the_policy_said() -> None:
    turns = [{"role": "assistant", "content": "hm"}, {"role": "tool", "content": r"\boxed{7}"}]
    assert Math()(["?"], [turns], answer=["7"]) == [0.0]


def test_find_gives_equal_answers_equal_names() -> None:
    find = Math().find
    assert find(r"\boxed{\frac12}") == find("#### 0.5") == find("1/2") and find("none") is None


@given(st.fractions(-(10**12), 10**12, max_denominator=10**6))
def test_every_fraction_equals_itself_however_it_is_written(value: Fraction) -> None:
    n, d = value.numerator, value.denominator
    sign, top = "-" * (n < 0), abs(n)
    whole, rest = divmod(top, d)
    forms = [
        f"{n}/{d}",
        rf"{sign}\frac{{{top}}}{{{d}}}",
        rf"${sign}\dfrac{{{top}}}{{{d}}}$",
        f"{sign}{top * 3}/{d * 3}",
    ]
    if whole and rest:
        forms.append(rf"{sign}{whole}\frac{{{rest}}}{{{d}}}")
    assert all(getattr(rational(f), "value", None) == value for f in forms)


@given(st.text(max_size=300))
def test_any_text_has_a_reading(text: str) -> None:
    final_answer(text)
    rational(text)


# --- what hangs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ["9**9**9**9", "9^{9^{9^9}}", "7^{300000000}", "1e999999999", "{" * 400, r"\frac{" * 60, "(" * 500]
)
def test_bombs_end_at_once_where_the_right_answer_is_a_number(answer: str) -> None:
    start = time.monotonic()
    verdict = judge("7", answer)
    assert verdict == 0.0 or isinstance(verdict, Failure)
    assert time.monotonic() - start < 15


@needs_math_verify
def test_a_factorial_that_never_ends_is_no_verdict_and_no_hang() -> None:
    start = time.monotonic()
    verdict = Math(seconds=6)(["?"], [r"\boxed{100000000!}"], answer=["7"])[0]
    assert isinstance(verdict, Failure) and verdict.kind in ("hung", "died") and time.monotonic() - start < 20
    assert judge("5", r"\sqrt{25}") == 1.0


def test_what_signals_cannot_stop_is_killed_and_what_eats_memory_dies(tmp_path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(
        "import signal\ndef f(prompts, completions):\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 60))\n"
        "    if completions == ['hang']:\n        while True: pass\n    return [float(len(bytearray(4 << 30)))]\n"
    )
    pool = Workers(str(file), "f", 2, memory=1 << 30)
    start = time.monotonic()
    hung, fat = pool.map([call([None], ["hang"], None, {}), call([None], ["eat"], None, {})], 1.0)
    assert (
        hung["failed"]["kind"] == "hung" and "MemoryError" in fat["failed"]["message"] and time.monotonic() - start < 10
    )
    pool.close()


def test_a_process_is_restarted_after_a_kill(tmp_path) -> None:
    file = tmp_path / "f.py"
    file.write_text(
        "import os\ndef f(prompts, completions):\n    return [1.0 if completions == ['x'] else os._exit(1)]\n"
    )
    process = Process(str(file), "f")
    assert process.ask(call([None], ["die"], None, {}), 5)["failed"]["kind"] == "died"
    assert process.ask(call([None], ["x"], None, {}), 5) == {"verdicts": [1.0]}
    process.kill()


def test_a_missing_verdict_drops_the_row(monkeypatch) -> None:
    monkeypatch.setattr(math_module, "_symbolic_there", lambda: False)
    [score] = Rewards((Weighted(Math()),)).score(["?"], [r"\boxed{x}"], columns={"answer": ["x+y"]})
    assert score.total is None and score.errors["math"].startswith("unavailable: ")


# --- before any work ------------------------------------------------------------------------------------------------------


def test_data_without_an_answer_are_refused() -> None:
    judged = Rewards((Weighted(Math()),))
    with pytest.raises(ValueError, match="no row has an answer that can be read, among row 0: '', row 1: ''"):
        judged.check(["answer"], [{"answer": ""}, {"answer": " "}])
    with pytest.raises(ValueError, match="no row has an answer"):
        judged.check(["answer"], [{"answer": None}])


@needs_math_verify
def test_answers_that_do_not_equal_themselves_are_refused() -> None:
    bad = [{"answer": r"\begin{cases} ) ( \end"}, {"answer": r"\frac{"}]
    with pytest.raises(ValueError, match=r"disagrees with itself: 2 of 2 answers .*row 0"):
        Math().try_rows(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Math().try_rows([{"answer": g} for g, _, _ in EXACT + SYMBOLIC if g])


def test_without_math_verify_there_is_a_notice(monkeypatch) -> None:
    monkeypatch.setattr(math_module, "_symbolic_there", lambda: False)
    with pytest.warns(UserWarning, match=r"1 of 2 answers \(row 1: '2x\+1'\) are compared as text; pip install"):
        Math().try_rows([{"answer": "7"}, {"answer": "2x+1"}])


def test_by_name() -> None:
    assert reward("math(number=False):0.5").function == Math(number=False)

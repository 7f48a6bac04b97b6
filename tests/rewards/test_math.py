"""The math verifier: the table of pairs, generated right and wrong answers, data that it refuses,
and limits on time and memory.

Run: python -m pytest -q -s tests/rewards/test_math.py     (-s shows the counts)
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logpi.rewards import Failure, Math, Rewards, Weighted, reward
from logpi.rewards.answers import read, readable
from logpi.rewards.math import _quick
from logpi.rewards.notation import fold, plain
from logpi.rewards.text import final_answer
from logpi.rewards.trees import Unreadable
from logpi.rewards.workers.processes import Process, Workers, call

PAIRS = [
    line.split("\t")
    for line in Path(__file__).with_name("math_pairs.tsv").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
JUDGE = Math(seconds=20)


def wrong_verdicts(title: str, pairs: list[tuple[str, str, bool]]) -> list[tuple[str, str, str]]:
    """What is wrong with the verdicts on (right answer, given answer, verdict); prints the
    counts."""
    found = JUDGE.equal([(gold, said) for gold, said, _ in pairs])
    accepted = [
        ("wrong, accepted", g, s) for g, s, right in pairs if not right and found[g, s] is True
    ]
    refused = [("right, refused", g, s) for g, s, right in pairs if right and found[g, s] is False]
    silent = [(str(found[g, s]), g, s) for g, s, _ in pairs if not isinstance(found[g, s], bool)]
    decided = len(pairs) - len(accepted) - len(refused) - len(silent)
    print(
        f"\n{title}: {decided} of {len(pairs)} pairs decided right; {len(accepted)} wrong accepted,"
        f" {len(refused)} right refused, {len(silent)} without a verdict"
    )
    return accepted + refused + silent


# --- pairs ---


def test_every_pair_of_the_table() -> None:
    pairs = [(gold, said, verdict == "right") for verdict, gold, said in PAIRS]
    assert len(pairs) >= 300 and len({(g, s) for g, s, _ in pairs}) == len(pairs)
    assert wrong_verdicts("table", pairs) == []


def test_every_answer_of_the_table_is_itself_and_right_ones_are_right_both_ways() -> None:
    same = [(t, t, True) for _, gold, said in PAIRS for t in (gold, said)]
    assert wrong_verdicts("itself", same) == []
    one_way = (
        "A",
        "(A)",
        "(C) 12",
        "3:4",
    )  # a choice with its text; a clock is a ratio where a ratio is asked for
    turned = [
        (said, gold, True)
        for verdict, gold, said in PAIRS
        if verdict == "right" and gold not in one_way
    ]
    turned += [(said, gold, False) for verdict, gold, said in PAIRS if verdict == "wrong"]
    assert wrong_verdicts("turned", turned) == []


def braces(rng: random.Random) -> tuple[str, str]:
    r"""Two answers that differ in their braces alone: 2^{n+1} and 2^{n}+1."""
    a, b, c = rng.sample("abcdkmnpqrstuvxyz", 3)
    n, m = rng.sample(range(2, 30), 2)
    sign = rng.choice("+-")
    outer = rng.choice(
        [
            "{}",
            "3{}",
            "{}+7",
            r"\frac{{{}}}{{5}}",
            r"\sqrt{{{}}}",
            "-{}",
            "x_0+{}",
            r"({},1)",
            r"\{{{}\}}",
        ]
    )
    inner = [
        (f"{n}^{{{a}{sign}{m}}}", f"{n}^{{{a}}}{sign}{m}"),
        (f"{a}^{{{b}{sign}{c}}}", f"{a}^{b}{sign}{c}"),
        (f"{a}^{{{b}{c}}}", f"{a}^{{{b}}}{c}"),
        (rf"{n}^{{{m}{a}}}", rf"{n}^{{{m}}}{a}"),
        (rf"\frac{{{a}}}{{{b}{sign}{c}}}", rf"\frac{{{a}}}{{{b}}}{sign}{c}"),
        (rf"\frac{{{n}}}{{{m}{a}}}", rf"\frac{{{n}}}{{{m}}}{a}"),
        (rf"\sqrt{{{a}{sign}{n}}}", rf"\sqrt{{{a}}}{sign}{n}"),
        (rf"\sqrt{{{n}{a}}}", rf"\sqrt{{{n}}}{a}"),
        (rf"{a}_{{{b}{sign}{n}}}", rf"{a}_{{{b}}}{sign}{n}"),
        (rf"\log_{{{n}}}{{{a}{sign}{m}}}", rf"\log_{{{n}}}{{{a}}}{sign}{m}"),
        (rf"\sin{{{n}{a}}}", rf"\sin{{{n}}}{a}"),
        (rf"{a}^{{{n}^{{{b}}}}}", rf"{{{a}^{{{n}}}}}^{{{b}}}"),
        (rf"\sum_{{k=1}}^{{{a}{sign}1}} k", rf"\sum_{{k=1}}^{{{a}}}{sign}1 k"),
    ]
    one, other = rng.choice(inner)
    assert one.replace("{", "").replace("}", "") == other.replace("{", "").replace("}", "")
    pair = (outer.format(one), outer.format(other))
    return pair if rng.random() < 0.5 else pair[::-1]


def test_pairs_that_differ_in_braces_alone_are_told_apart() -> None:
    rng = random.Random(1)
    pairs = dict.fromkeys(braces(rng) for _ in range(420))
    assert len(pairs) >= 300
    assert wrong_verdicts("braces", [(*p, False) for p in pairs]) == []


# A way to write an answer, and its value: what differs in value is another answer.
Written = tuple[Callable[..., str], Callable[..., object], int]
FORMS: list[Written] = [
    (lambda a, n, k: rf"{a + 1}^{{{n * 40 + k}}}", lambda a, n, k: (a + 1) ** (n * 40 + k), 3),
    (
        lambda a, n: rf"\frac{{1}}{{{n + 10 * a}!}}",
        lambda a, n: Fraction(1, math.factorial(n + 10 * a)),
        2,
    ),
    (lambda a, n: rf"\frac{{{a}}}{{10^{{{n}}}}}", lambda a, n: Fraction(a, 10**n), 2),
    (
        lambda a, n, k: rf"\left(\frac{{{a}}}{{{k + 20}}}\right)^{{{n}}}",
        lambda a, n, k: Fraction(a, k + 20) ** n,
        3,
    ),
    (lambda a, n: rf"2^{{{10 * n}}}+{a}", lambda a, n: 2 ** (10 * n) + a, 2),
    (lambda a, n: rf"{n + 60}!-{a}", lambda a, n: math.factorial(n + 60) - a, 2),
    (lambda n, k: rf"\binom{{{n + 20}}}{{{k}}}", lambda n, k: math.comb(n + 20, k), 2),
    (
        lambda a, n: rf"\sum_{{j={a}}}^{{{n + 20}}} j^2",
        lambda a, n: sum(j * j for j in range(a, n + 21)),
        2,
    ),
    (lambda a, b: rf"{a}\sqrt{{{b}}}", lambda a, b: a * a * b, 2),
    (lambda a, b: rf"{a}+\sqrt{{{b * b + 1}}}", lambda a, b: (a, b), 2),
    (lambda a, b: f"({a},{b})", lambda a, b: (a, b), 2),
    (lambda a, b: f"[{a},{a + b})", lambda a, b: (a, b), 2),
    (lambda a, b: rf"(-\infty,{a})\cup({a + b},\infty)", lambda a, b: (a, b), 2),
    (lambda a, b: rf"\{{{a},{b + 30},{2 * b + 90}\}}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"{a}\pm{b}i", lambda a, b: (a, b), 2),
    (lambda a, b: f"{a}x^2+{b}x-7", lambda a, b: (a, b), 2),
    (lambda a, b: f"y={a}x+{b}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"x^{{{a}}}e^{{-{b}x}}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"\frac{{{a}\pi}}{{{b}}}", lambda a, b: Fraction(a, b), 2),
    (lambda a, b: rf"{a}.\overline{{{b:02d}}}", lambda a, b: (a, b), 2),
    (lambda a, b: f"{a},{b:03d}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"{a}\frac{{{b}}}{{37}}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"{a}.{b:02d}\times 10^{{-{b}}}", lambda a, b: Fraction(100 * a + b, 10**b), 2),
    (lambda a, b: rf"\begin{{pmatrix}}{a} & {b}\\0 & 1\end{{pmatrix}}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"\log_{{{a + 1}}} {b + 40}", lambda a, b: (a, b), 2),
    (lambda a, b: rf"{a}\text{{ hours }}".strip() + f" and {b} dollars", lambda a, b: (a, b), 2),
    (lambda a, b: f"{2000 + a}-{b % 12 + 1:02d}-05", lambda a, b: (a, b % 12), 2),
    (lambda a, b: f"{a % 12 + 1}:{b:02d}", lambda a, b: (a % 12, b), 2),
    (lambda a, b: f"{a}_{{{b % 5 + 8}}}", lambda a, b: (a, b % 5), 2),
]


def neighbours(rng: random.Random) -> tuple[str, str] | None:
    """An answer and its neighbour: one number more or less by one, another sign, two numbers
    exchanged."""
    write, value, count = rng.choice(FORMS)
    right = [rng.randint(2, 36) for _ in range(count)]
    wrong = list(right)
    kind = rng.choice(("neighbour", "neighbour", "exchange", "sign"))
    at = rng.randrange(count)
    if kind == "exchange":
        wrong[0], wrong[1] = wrong[1], wrong[0]
    else:
        wrong[at] += rng.choice((-1, 1))
    if kind == "sign":
        text = write(*right)
        swapped = text.replace("+", "\0").replace("-", "+").replace("\0", "-")
        bare = text.replace(r"\infty", "").replace("e^{-", "")
        return (
            (text, swapped)
            if ("+" in bare or "-" in bare) and "pm" not in text and "20" not in text[:2]
            else None
        )
    return (write(*right), write(*wrong)) if value(*right) != value(*wrong) else None


def letters_in_another_order(rng: random.Random) -> tuple[str, str] | None:
    word = [rng.choice("TFABCDE") for _ in range(rng.randint(2, 6))]
    other = rng.sample(word, len(word))
    joint = rng.choice(("", "", ", ", " "))
    return (joint.join(word), joint.join(other)) if word != other else None


def points_in_another_order(rng: random.Random) -> tuple[str, str] | None:
    point = [
        rng.choice((str(rng.randint(-9, 9)), rf"\frac{{{rng.randint(1, 9)}}}{{11}}", r"\pi"))
        for _ in range(rng.randint(2, 4))
    ]
    other = rng.sample(point, len(point))
    return (f"({','.join(point)})", f"({', '.join(other)})") if point != other else None


def wrong_answers(rng: random.Random, count: int) -> list[tuple[str, str]]:
    made: dict[tuple[str, str], None] = {}
    while len(made) < count:
        pair = rng.choice(
            (
                neighbours,
                neighbours,
                neighbours,
                letters_in_another_order,
                points_in_another_order,
                braces,
            )
        )(rng)
        if pair:
            made[pair] = None
    return list(made)


@pytest.mark.parametrize("seed", range(2))
def test_none_of_300_generated_wrong_answers_is_accepted(seed: int) -> None:
    assert (
        wrong_verdicts(
            f"attack {seed}", [(*p, False) for p in wrong_answers(random.Random(seed), 300)]
        )
        == []
    )


def in_arabic(text: str) -> str:
    return text.translate({ord("0") + d: 0x660 + d for d in range(10)})


def in_full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c in "0123456789+-=(),.%/" else c for c in text)


def notations(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Right answers in other notations."""
    a, b, c = (rng.randint(2, 40) for _ in range(3))
    n, d = rng.randint(1, 60), rng.choice((3, 6, 7, 9, 11, 12, 13))
    yield f"({a},{b})", in_full_width(f"({a},{b})")
    yield str(a * b), in_arabic(str(a * b))
    yield str(1000 * a + b), f"{a},{b:03d}"
    yield str(1000 * a + b), rf"{a}\,{b:03d}"
    yield f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})"
    yield rf"\frac{{{n}}}{{{d}}}", f"{3 * n}/{3 * d}"
    yield rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"
    yield rf"\pm {a}", f"-{a}, {a}"
    yield (
        rf"{a}\pm\sqrt{{{b}}}",
        rf"{a}+\sqrt{b}, {a}-\sqrt{b}" if b < 10 else rf"{a}-\sqrt{{{b}}}, {a}+\sqrt{{{b}}}",
    )
    yield rf"\{{{a},{a + b}\}}", f"x={a + b} or x={a}"
    yield f"[{a},{a + b})", f"{a}≤x<{a + b}"
    yield f"({a},{a + b})", f"]{a};{a + b}["
    yield rf"\frac{{{a}}}{{100}}", rf"{a}\%"
    yield f"{a}x+{b}y={c}", f"{3 * a}x={3 * c}-{3 * b}y"
    yield rf"\frac{{1}}{{{a}^{{{b}}}}}", rf"{a}^{{-{b}}}"
    yield rf"{a}\text{{ km}}", rf"{a * 1000}\text{{ m}}"
    yield repeating(n, d), rf"\frac{{{n}}}{{{d}}}"


def repeating(n: int, d: int) -> str:
    r"""n/d by long division: 1/6 is 0.1\overline{6}."""
    digits, seen, rest = "", {}, n % d
    while rest and rest not in seen:
        seen[rest] = len(digits)
        digits += str(rest * 10 // d)
        rest = rest * 10 % d
    return (
        f"{n // d}.{digits[: seen[rest]]}\\overline{{{digits[seen[rest] :]}}}"
        if rest
        else f"{n // d}.{digits or '0'}"
    )


def test_right_answers_in_other_notations() -> None:
    rng = random.Random(3)
    pairs = dict.fromkeys(p for _ in range(20) for p in notations(rng))
    assert wrong_verdicts("notations", [(*p, True) for p in pairs]) == []


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
    assert all(_quick(form, f"{n}/{d}") is True for form in forms)
    assert not any(_quick(form, f"{n + 1}/{d}") for form in forms)


@settings(max_examples=300)
@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from([t for p in PAIRS for t in p[1:]] + list("{}^_()[],!=|\\1x ")), max_size=6
    ).map("".join)
)
def test_any_text_has_a_reading_or_is_text(text: str) -> None:
    final_answer(text)
    assert readable(text) or plain(text) is not None
    assert _quick(text, text) is True
    assert fold(fold(text)) == fold(text)


def test_what_has_two_readings_is_not_read() -> None:
    for text in (
        "1/xy",
        r"\sin x/2",
        "sin(x)^2",
        "x2",
        "1 1",
        "a/b/c",
        "2^3^4",
        "n!!",
        "x---1",
        "2024-01-05",
        "01+1",
    ):
        with pytest.raises(Unreadable):
            read(text)


# --- where the answer stands ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}, no, \boxed{7}", "7"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{5} and then \boxed{18", None),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x=2} or \boxed{x=-2}", "x=2, x=-2"),
        (r"$\boxed{2}$, $\boxed{3}$ and $\boxed{4}$.", "2, 3, 4"),
        (r"\boxed{840}, but more.\n\n**Final Answer**\n\boxed{840}", "840"),
        (r"so \boxed 9.", "9"),
        (r"so \fbox{9}", "9"),
        (r"<think>\boxed{3}</think> It is \boxed{4}.", "4"),
        (r"<think>\boxed{3}</think> I do not know.", None),
        ("#### Solution\nwe add.\n#### Final Answer\n\\boxed{12}", "12"),
        ("#### Final answer\n\n12", "12"),
        ("It is 7.\n#### 18\n", "18"),
        ("#### 18\nand more 3", "18"),
        ("<answer>18</answer>", "18"),
        ("<answer>1</answer><answer> 2 </answer> 3", "2"),
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("The correct option is **B**: 12", "B"),
        ("The answer is no.", "no"),
        ("The answer is **No**, since 3 < 4.", "No"),
        ("Answer: \\text{False}", "False"),
        ("The answer is no more than 5", "5"),
        ("so it is ¾.", "\\frac{3}{4}"),
        ("about 6.02 × 10²³", "6.02 \\times  10^{23}"),
        ("The answer is 72 cm, I think", "72"),
        ("The answer is 18, not 20.", "18"),
        (r"The answer is $\frac{3}{4}$.", r"\frac{3}{4}"),
        ("The final answer is 2x+1.", "2x+1"),
        ("**Final Answer:** 73", "73"),
        (r"so $x = \frac{3}{4}$.", r"\frac{3}{4}"),
        (r"hence x=\frac{3}{4}.", r"\frac{3}{4}"),
        ("first 5, then 6, so 1,234.5!", "2469/2"),
        ("it is ٤٢", "42"),
        ("no idea", None),
        ("", None),
        ("x" * 5000 + " 3 / 4 " + "y " * 400, "3/4"),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_hedge_is_no_answer_and_several_boxes_are_a_list() -> None:
    judged = Math()(
        ["?"] * 3,
        [r"\boxed{1} or \boxed{2}"] * 2 + [r"\boxed{2} and \boxed{1}"],
        answer=["2", "1, 2", "1,2"],
    )
    assert judged == [0.0, 1.0, 1.0]


def test_a_stated_answer_can_be_demanded() -> None:
    assert Math(number=False)(["?"] * 2, ["so 7", "#### 7"], answer=["7", "7"]) == [0.0, 1.0]


def test_rows_with_several_answers_a_whole_solution_or_none() -> None:
    rows = [["7", "8"], "Half of 48 is 24.\n#### 24", None, r"So \boxed{24}."]
    assert Math()(["?"] * 4, ["8", "24", "24", "24"], answer=rows) == [1.0, 1.0, None, 1.0]


def test_a_missing_answer_gives_no_verdict() -> None:
    missing = [None, math.nan, "", " ", "nan", [], [None, math.nan]]
    assert Math()(["?"] * 7, [r"\boxed{nan}"] * 7, answer=missing) == [None] * 7
    assert Math()(["?"] * 2, ["7", "nan"], answer=[[math.nan, "7"]] * 2) == [1.0, 0.0]


def test_conversations_count_by_what_the_policy_said() -> None:
    turns = [{"role": "assistant", "content": "hm"}, {"role": "tool", "content": r"\boxed{7}"}]
    assert Math()(["?"], [turns], answer=["7"]) == [0.0]


def test_find_gives_equal_answers_equal_names() -> None:
    find = Math().find
    assert (
        find(r"\boxed{\frac12}") == find("#### 0.5") == find("1/2") == "1/2"
        and find("none") is None
    )
    assert find(r"\boxed{25\%}") == "25%" and find(r"\boxed{x^{2}}") == find(r"\boxed{x^2}")


# --- limits ---

BOMBS = [
    "9**9**9**9",
    "9^{9^{9^9}}",
    "7^{300000000}",
    "1e999999999",
    "{" * 400,
    r"\frac{" * 60,
    "(" * 500,
    "100000000!",
    r"\binom{10^9}{5\cdot 10^8}",
    r"x^{1/999999999}",
    r"2^{1/999999999}",
    r"\sqrt[999999999]{2}",
    "1" * 2000,
    "((((2^9)^9)^9)^9)^9",
    r"\sum_{k=1}^{999999999} k",
    "2^{-999999999}",
    "(10000!)!",
    r"\prod_{k=1}^{2000} k!",
    r"\pi^{\pi^{\pi^{\pi^\pi}}}",
]


def test_bombs_are_no_answer_and_cost_little() -> None:
    start = time.process_time()
    found = Math(seconds=20).equal(
        [(gold, bomb) for bomb in BOMBS for gold in ("7", r"\sqrt{2}", "x+1")]
    )
    assert set(found.values()) == {False} and time.process_time() - start < 5


ENDLESS = r"\sum_{i=1}^{2000}\sum_{j=1}^{2000}\sum_{k=1}^{2000}\sin(ijk)"


def test_what_never_ends_is_ended_by_its_cpu_time_without_a_verdict() -> None:
    verdict = Math(seconds=0.5)(["?"], [rf"\boxed{{{ENDLESS}}}"], answer=["7"])[0]
    assert isinstance(verdict, Failure) and verdict.kind == "hung" and "CPU time" in verdict.message
    assert Math()(["?"], [r"\boxed{\sqrt{25}}"], answer=["5"]) == [1.0]


def file_with(tmp_path: Path, body: str) -> str:
    file = tmp_path / "f.py"
    file.write_text(
        f"import os, signal, time\ndef f(prompts, completions):\n    {body}\n    return [1.0]\n"
    )
    return str(file)


def test_waiting_is_no_work_so_a_slow_clock_takes_no_verdict(tmp_path) -> None:
    pool = Workers(
        file_with(tmp_path, "time.sleep(1.0)"), "f", 1
    )  # four times its CPU limit, by the wall clock
    assert pool.map([call([None], ["x"], None, {})], 0.25) == [{"verdicts": [1.0]}]
    pool.close()


def test_a_worker_that_must_share_its_core_still_gives_its_verdict() -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        pairs = [
            (rf"{k}\sqrt{{3}}+\sin {k}", rf"\sin {k}+\sqrt{{{3 * k * k}}}") for k in range(2, 30)
        ]
        assert set(Math(seconds=0.5, workers=1).equal(pairs).values()) == {True}
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_work_in_c_is_ended_by_its_cpu_time(tmp_path) -> None:
    pool = Workers(file_with(tmp_path, "7 ** 300_000_000"), "f", 1)
    [hung] = pool.map([call([None], ["x"], None, {})], 0.3)
    assert hung["failed"]["kind"] == "hung" and "0.3 s of CPU time" in hung["failed"]["message"]
    pool.close()


def test_what_blocks_signals_or_sleeps_is_killed_and_what_eats_memory_dies(tmp_path) -> None:
    body = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n    while completions =="
        " ['hang']: pass\n    while completions == ['sleep']: time.sleep(1)\n    bytearray(4 << 30)"
    )
    pool = Workers(file_with(tmp_path, body), "f", 3, memory=1 << 30)
    calls = [call([None], [what], None, {}) for what in ("hang", "sleep", "eat")]
    start = time.monotonic()
    hung, slept, fat = pool.map(calls, 0.1)
    assert (
        hung["failed"]["kind"] == slept["failed"]["kind"] == "hung"
        and "MemoryError" in fat["failed"]["message"]
    )
    assert time.monotonic() - start < 30
    pool.close()


def test_a_process_is_restarted_after_a_kill(tmp_path) -> None:
    process = Process(file_with(tmp_path, "completions == ['x'] or os._exit(1)"), "f")
    assert process.ask(call([None], ["die"], None, {}), 5)["failed"]["kind"] == "died"
    assert process.ask(call([None], ["x"], None, {}), 5) == {"verdicts": [1.0]}
    process.kill()


def test_a_missing_verdict_drops_the_row() -> None:
    judged = Rewards((Weighted(Math(seconds=0.5)),))
    [score] = judged.score(["?"], [rf"\boxed{{{ENDLESS}}}"], columns={"answer": ["8"]})
    assert score.total is None and score.errors["math"].startswith("hung: ")


# --- before any work ---


def test_data_without_an_answer_are_refused() -> None:
    judged = Rewards((Weighted(Math()),))
    with pytest.raises(
        ValueError, match="no row has an answer that can be read, among row 0: '', row 1: ''"
    ):
        judged.check(["answer"], [{"answer": ""}, {"answer": " "}])
    with pytest.raises(ValueError, match="no row has an answer"):
        judged.check(["answer"], [{"answer": None}, {"answer": math.nan}])


def test_data_of_which_most_answers_cannot_be_read_are_refused() -> None:
    bad = [{"answer": r"\begin{cases} ) ( \end"}, {"answer": r"\frac{"}]
    with pytest.raises(ValueError, match=r"2 of 2 answers cannot be read .*row 0"):
        Math().try_rows(bad)
    with pytest.warns(
        UserWarning, match=r"1 of 3 answers are compared as text alone \(row 2: '2024-01-05'\)"
    ):
        Math().try_rows([{"answer": "7"}, {"answer": "Monday"}, {"answer": "2024-01-05"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Math().try_rows(
            [
                {"answer": a}
                for a in ("7", r"\text{no solution}", r"x\in[1,\infty)", "A", r"\sqrt{2}\text{ cm}")
            ]
        )


def test_by_name() -> None:
    assert reward("math(number=False):0.5").function == Math(number=False)

"""Generated tasks: rows that are functions of (seed, split, i), disjoint splits, right answers, few
draws."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from logpi.envs import NAMES, GeneratedRows, RowsTask, task
from logpi.envs.task import in_test
from logpi.envs.tasks import Copying, Countdown
from logpi.envs.tasks.addition import Addition, work
from logpi.envs.tasks.copying import noticed
from logpi.rewards import evaluate

HARD = {
    "addition": {"digits": 4},
    "countdown": {"count": 5},
    "sort": {"count": 9},
    "reverse": {"longest": 20},
}
# The tasks of our own. reasoning_gym is a package's, wants the name of a data set and has its own
# tests (test_reasoning_gym.py)
OURS = [name for name in NAMES if name != "reasoning_gym"]
EVERY = [task(name) for name in OURS] + [task(name, **options) for name, options in HARD.items()]


def score(t, rows, completions):
    columns = {k: [r[k] for r in rows] for k in rows[0]}
    return [
        s.total for s in t.reward.score([r["prompt"] for r in rows], completions, columns=columns)
    ]


@pytest.mark.parametrize("t", EVERY, ids=str)
def test_a_row_is_a_function_of_seed_split_and_index(t):
    for split in ("train", "test"):
        rows = t.rows(split, seed=7)
        forwards = rows[:50]
        assert [rows[i] for i in reversed(range(50))] == forwards[::-1]
        assert t.rows(split, seed=7)[31] == forwards[31] == next(itertools.islice(rows, 31, None))
        assert t.rows(split, seed=8)[:50] != forwards
        assert rows[len(rows) - 1] == rows[-1]
        with pytest.raises(IndexError):
            rows[len(rows)]


@pytest.mark.parametrize("t", EVERY, ids=str)
def test_train_and_test_problems_are_disjoint_whatever_the_seed(t):
    def canonical(row):  # the problem's essence, made here from the row's text
        if t.name == "addition":
            return frozenset(row["prompt"].rstrip("=").split("+"))
        if t.name == "countdown":
            return tuple(sorted(row["numbers"]))
        if t.name == "facts":
            return row["prompt"], frozenset(row["documents"])
        if t.name == "reverse":
            return frozenset((row["answer"], row["answer"][::-1]))
        return row["answer"] if t.name == "sort" else row["prompt"]

    train = {canonical(r) for seed in (0, 1) for r in t.rows("train", seed)[:1500]}
    test = {canonical(r) for seed in (0, 1) for r in t.rows("test", seed)[:500]}
    assert len(train) > 100 and len(test) > 20
    assert not train & test


@pytest.mark.parametrize(
    "t", [t for t in EVERY if t.name not in ("bilingual", "copying", "facts", "calls")], ids=str
)
def test_demonstrations_are_right_and_fit_the_alphabet(t):
    rows = t.rows("train", 3)[:500]
    assert set(score(t, rows, [r["completion"] for r in rows])) == {1.0}
    assert set(score(t, rows, [r["prompt"] for r in rows])) == {
        0.0
    }  # echoing the question earns nothing
    assert set("".join(r["prompt"] + r["completion"] for r in rows)) <= set(t.alphabet)
    assert all(isinstance(r["answer"], str) and r["level"] > 0 for r in rows)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("split", "most"), [("train", 1.5), ("test", 20)])
def test_a_row_takes_few_draws(name, split, most):
    """A tenth of all problems are test problems: 10 draws for one of them on average, 1.1 for a
    training row."""
    made, drawn = task(name), []

    class Counted:
        row = staticmethod(made.row)

        def draw(self, rng):
            drawn.append(rng)
            return made.draw(rng)

    rows = GeneratedRows(Counted(), split)[:200]
    assert rows == made.rows(split)[:200] and len(rows) <= len(drawn) < most * len(rows)


def test_the_split_is_the_same_in_every_version():
    assert [in_test(f"problem {i}") for i in range(200)].count(True) == 23
    assert task("addition").rows("test", 0)[0]["prompt"] == "11+71="
    assert task("addition").rows("train", 0)[0]["prompt"] == "45+64="


def test_work_by_hand():
    assert work(47, 85, 2) == "7+5=12,4+8+1=13"
    assert work(12, 34, 2) == "2+4=6,1+3=4"
    assert work(999, 1, 3) == "9+1=10,9+0+1=10,9+0+1=10"


def test_addition_blurts_are_near_misses_with_a_wrong_last_digit():
    rows = Addition(worked=0.3).rows("train", 5)[:4000]
    blurts = [r for r in rows if "=" not in r["completion"]]
    assert abs(len(blurts) / len(rows) - 0.7) < 0.03
    off = [int(r["completion"][1:]) - int(r["answer"]) for r in blurts]
    assert set(off) == {1, 2, 3}
    assert all(r["completion"][-1] != r["answer"][-1] for r in blurts)
    shown = [r for r in rows if "=" in r["completion"]]
    assert set(score(Addition(), shown, [r["completion"] for r in shown])) == {1.0}
    small = Addition(digits=1, worked=0.0).rows("train")[:2000]
    assert all(
        r["completion"].strip("#").isdigit() and r["completion"] != f"#{r['answer']}" for r in small
    )


def test_addition_mirror_images_fall_on_one_side():
    test = {tuple(r["prompt"][:-1].split("+")) for r in Addition().rows("test", 0)}
    train = {tuple(r["prompt"][:-1].split("+")) for r in Addition().rows("train", 0)[:5000]}
    assert not {(b, a) for a, b in test} & train


def test_noticed_by_hand():
    assert noticed("hkcd", "hkcd") == {(True, False): 4}
    # g is noticed, its correction f is not right and goes on, k corrects it
    assert noticed("hkcd", "hg wait f wait kcd") == {(True, False): 4, (False, True): 2}
    # a right letter that is taken back, a slip at the end, and what comes after the word
    assert noticed("hk", "h wait hgbbb") == {
        (True, True): 1,
        (True, False): 1,
        (False, False): 1,
    }
    assert noticed("hk", "") == {}


def test_copying_slips_and_notices_as_often_as_it_says():
    rows = Copying(slips=0.2, noticed=0.4).rows("train", 5)[:3000]
    counts = sum((noticed(r["answer"], r["completion"]) for r in rows), Counter())
    slips = counts[False, False] + counts[False, True]
    # a place with a correction has two letters: 12,000 places
    assert slips + counts[True, False] - counts[False, True] == 4 * len(rows)
    assert abs(slips / 12_000 - 0.2) < 0.02 and abs(counts[False, True] / slips - 0.4) < 0.04
    assert counts[True, True] == 0
    assert all(len(set(r["answer"])) == 4 for r in rows)


def test_copying_judges_the_corrections_or_the_first_letters():
    row = {"prompt": "hkcd>", "answer": "hkcd"}
    said = ["hkcd", "hg wait kcd", "hk wait gcd", "hgcd"]
    assert score(Copying(), [row] * 4, said) == [1.0, 1.0, 0.0, 0.0]
    assert score(Copying(first=True), [row] * 4, said) == [1.0, 0.0, 1.0, 0.0]
    right = Copying(noticed=1.0).rows("train")[:200]
    assert set(score(Copying(), right, [r["completion"] for r in right])) == {1.0}


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_countdown_solutions_are_exact_and_within_limits(count):
    t = Countdown(count=count, largest=50, limit=300)
    for row in t.rows("train", 1)[:500]:
        steps, _, solution = row["completion"].partition("#")
        value, used = evaluate(solution)
        assert value == row["target"] and sorted(used) == sorted(row["numbers"])
        assert len(steps.split(",")) == count - 1
        for step in steps.split(","):
            left, _, right = step.partition("=")
            assert evaluate(left)[0] == Fraction(right) and 0 < int(right) <= 300


def test_letters_words_are_a_clean_list():
    words = task("letters").words
    assert len(words) == len(set(words)) > 200 and all(w.isalpha() and w.islower() for w in words)


def test_templates_make_prompts_for_chat_models():
    row = task("addition", digits=1, prompt="What is {a}+{b}?").rows()[0]
    assert row["prompt"].startswith("What is ") and row["prompt"].endswith("?")
    assert set(row["prompt"]) <= set(task("addition", prompt="What is {a}+{b}?").alphabet)


@pytest.mark.parametrize(
    ("spec", "options", "line"),
    [
        ("adition", {}, "no task is called 'adition'; did you mean addition?"),
        (
            "qqq",
            {},
            (
                "no task is called 'qqq'; there are: addition, bilingual, calls, copying,"
                " countdown, facts"
            ),
        ),
        ("addition", {"digit": 3}, "task 'addition' has no option 'digit'; did you mean digits?"),
        ("addition", {"digits": 0}, "addition: digits must be between 1 and 100, got 0"),
        ("addition", {"worked": 2}, "addition: worked is a share between 0 and 1, got 2"),
        (
            "addition",
            {"prompt": "{a}?"},
            r"addition: the prompt must hold {a}, {b} and no other field, got '{a}\?'",
        ),
        ("addition", {"prompt": "{a"}, "is no template"),
        ("countdown(count=9)", {}, "countdown: count must be between 2 and 6, got 9"),
        ("countdown", {"limit": 3}, "countdown: needs largest ≥ 2 and limit ≥ 60"),
        ("sort", {"count": 1}, "sort: needs 2 ≤ count"),
        ("reverse", {"shortest": 9}, "reverse: needs 2 ≤ shortest ≤ longest ≤ 1000, got 9 and 8"),
        ("letters", {"absent": -1}, "letters: absent is a share"),
        ("copying", {"length": 8}, "copying: length must be between 2 and 7, got 8"),
        ("copying", {"noticed": 1.5}, "copying: noticed is a share between 0 and 1, got 1.5"),
        ("nowhere.jsonl", {}, "nowhere.jsonl: no such file"),
        ("sort(5", {}, "cannot read 'sort"),
        ("verifiers:", {}, "verifiers: names nothing: write verifiers:NAME"),
    ],
)
def test_error_lines(spec, options, line):
    with pytest.raises(ValueError, match=line) as error:
        task(spec, **options).rows()
    assert "\n" not in str(error.value)


def test_front_door():
    assert task("countdown(count=4)") == task("countdown", count=4) == Countdown(count=4)
    assert isinstance(task("some.jsonl"), RowsTask) and isinstance(task("owner/name"), RowsTask)
    with pytest.raises(ValueError, match="no split is called 'valid': there are train and test"):
        task("sort").rows("valid")


def test_a_space_too_small_for_a_split_says_so():
    class One:
        def draw(self, rng):
            return "the only problem", None

        def row(self, problem, rng):
            return {"prompt": "?"}

    assert not in_test("the only problem")
    with pytest.raises(ValueError, match="too few problems for a test split"):
        GeneratedRows(One(), "test")[0]


def test_tasks_and_rewards_import_without_torch_or_datasets():
    heavy = ("torch", "datasets", "pyarrow")
    code = f"import sys, logpi.envs, logpi.rewards; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

"""Named benchmarks: made-up rows in the published layouts become items; templates, worked examples,
strict and lenient verdicts."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from logpi.envs.benchmark_formats import FORMATS, TEMPLATES, marked
from logpi.envs.benchmarks import AnswerExtraction, Benchmark
from logpi.envs.tasks import task
from logpi.evaluation.contamination import contamination, training_rows, words
from logpi.rewards import Number

GSM8K = [
    {
        "question": f"Ann has {i} eggs and buys {i}. How many?",
        "answer": f"She has <<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i},000",
    }
    for i in range(2, 8)
]
SVAMP = [
    {
        "ID": "c-1",
        "Body": "Bo had $ 4",
        "Question": "What is left?",
        "Equation": "( 4 - 3 )",
        "Answer": 1.0,
        "Type": "Subtraction",
    }
]
MATH = [
    {
        "problem": "Half of $1$?",
        "solution": r"It is \boxed{\frac{1}{2}}.",
        "answer": r"\frac{1}{2}",
        "subject": "Algebra",
        "level": 3,
    }
]
MATH_ORIGINAL = [
    {
        "problem": "Half of $1$?",
        "solution": r"It is \boxed{\frac{1}{2}}.",
        "level": "Level 5",
        "type": "Algebra",
    }
]
AIME = [{"ID": "2024-I-1", "Problem": "Add 1 and 2.", "Solution": "3", "Answer": 3}]
HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'def twice(x):\n    """ Two times x. """\n',
        "entry_point": "twice",
        "canonical_solution": "    return 2 * x\n",
        "test": (
            "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
        ),
    }
]
MBPP = [
    {
        "text": f"Write a function to add {i}.",
        "code": f"def add(x):\r\n  return x + {i}",
        "task_id": i,
        "test_setup_code": "",
        "test_list": [f"assert add(1) == {i + 1}"],
        "challenge_test_list": [],
    }
    for i in (1, 2, 3, 11, 12, 510, 511, 601)
]


def write(path: Path, rows) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        if path.suffix == ".json":
            json.dump(rows, file, indent=1)
        else:
            file.write("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def test_each_published_layout_becomes_items(tmp_path):
    def first(name, file, rows, **options):
        return task(f"{name}:{write(tmp_path / file, rows)}", **options).rows("test")[0]

    row = first("gsm8k", "a.jsonl", GSM8K)
    assert row["answer"] == "4000" and row["working"] == "She has 4." and "completion" not in row
    assert (
        row["prompt"]
        == GSM8K[0]["question"]
        + "\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    row = first("svamp", "b.json", SVAMP)
    assert (
        row["question"] == "Bo had $ 4. What is left?"
        and row["answer"] == "1"
        and row["level"] == "Subtraction"
    )
    assert (
        first("math500", "c.jsonl", MATH)["answer"] == r"\frac{1}{2}"
        and first("math500", "c.jsonl", MATH)["level"] == 3
    )
    row = first("math500", "d.jsonl", MATH_ORIGINAL, template="plain")
    assert row["answer"] == r"\frac{1}{2}" and row["level"] == 5 and row["prompt"] == "Half of $1$?"
    row = first("aime", "e.jsonl", AIME)
    assert row["answer"] == "3" and row["prompt"].startswith("Add 1 and 2.")
    row = first("humaneval", "f.jsonl.gz", HUMANEVAL)
    assert (
        row["prompt"].endswith(HUMANEVAL[0]["prompt"])
        and row["entry_point"] == "twice"
        and "answer" not in row
    )
    row = first("mbpp", "g.jsonl", MBPP)
    assert (
        row["task_id"] == 11
        and "assert add(1) == 12" in row["prompt"]
        and row["prompt"].endswith("[BEGIN]\n")
    )
    row = first("rows", "h.jsonl", [{"prompt": "1+1=", "answer": 2, "extra": "x"}])
    assert row["prompt"] == "1+1=" and row["answer"] == "2" and row["extra"] == "x"


# MATH (Hendrycks et al. 2021, MIT licence): the first row of MATH-500, every column as published
MATH500 = {
    "problem": (
        "Convert the point $(0,3)$ in rectangular coordinates to polar coordinates.  Enter your"
        " answer in the form $(r,\\theta),$ where $r > 0$ and $0 \\le \\theta < 2 \\pi.$"
    ),
    "solution": (
        "We have that $r = \\sqrt{0^2 + 3^2} = 3.$  Therefore, the polar coordinates are "
        "$\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$"
    ),
    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
    "subject": "Precalculus",
    "level": 2,
    "unique_id": "test/precalculus/807.json",
}
ASKED, WORKING = "Find $m+n$.", "So $m+n=\\boxed{25}$."
AIME_SHAPES = {  # the columns of each, made-up contents
    "HuggingFaceH4/aime_2024": {
        "id": 60,
        "problem": ASKED,
        "solution": WORKING,
        "answer": "025",
        "url": "https://x",
        "year": "2024",
    },
    "AI-MO/aimo-validation-aime": {
        "id": 0,
        "problem": ASKED,
        "solution": WORKING,
        "answer": "25",
        "url": "https://x",
    },
    "Maxwell-Jia/AIME_2024": {
        "ID": "2024-II-4",
        "Problem": ASKED,
        "Solution": WORKING,
        "Answer": 25,
    },
    "math-ai/aime24": {
        "id": 60,
        "problem": ASKED,
        "solution": "\\boxed{25}",
        "url": "https://x",
    },  # no answer column
    "math-ai/aime25": {"problem": ASKED, "answer": "25", "id": "0"},
    "opencompass/AIME2025": {
        "question": ASKED,
        "answer": "25^\\circ",
    },  # one of its answers is in degrees
    "MathArena/aime_2025": {
        "problem_idx": 1,
        "answer": 25,
        "problem": ASKED,
        "problem_type": ["Number Theory"],
    },
    "di-zhang-fdu/AIME_1983_2024": {
        "ID": "1983-1",
        "Year": 1983,
        "Problem Number": 1,
        "Question": ASKED,
        "Answer": "025",
        "Part": None,
    },
    "a number called problem": {
        "id": "AIME24I-1",
        "year": 2024,
        "contest": "AIME I",
        "problem": 1,
        "question": ASKED,
        "answer": "25",
    },
}


def judged(made: Benchmark, row: dict, *said: str) -> list[float | None]:
    columns = {k: [v] * len(said) for k, v in row.items() if k not in ("prompt", "completion")}
    return [
        s.parts["strict"]
        for s in made.reward.score([row["prompt"]] * len(said), list(said), None, columns)
    ]


def test_math_500_as_it_is_published(tmp_path):
    made = task(f"math500:{write(tmp_path / 'test.jsonl', [MATH500])}")
    [row] = made.rows("test")
    assert (
        row["question"] == MATH500["problem"]
        and row["answer"] == MATH500["answer"]
        and row["level"] == 2
    )
    assert (row["subject"], row["unique_id"]) == ("Precalculus", "test/precalculus/807.json")
    assert judged(
        made,
        row,
        r"\boxed{(3,\frac{\pi}{2})}",
        r"\boxed{(3, \pi/2)}",
        r"\boxed{(3,\pi)}",
        "(3, π/2)",
    ) == [
        1,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize("name", AIME_SHAPES)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_aime_as_each_data_set_publishes_it(tmp_path, name, suffix):
    raw, path = AIME_SHAPES[name], tmp_path / f"aime{suffix}"
    if suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist([raw]), path)
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, raw)
            writer.writeheader()
            writer.writerow(raw)
    else:
        write(path, [raw])
    made = task(f"aime:{path}")
    [row] = made.rows("test")
    assert row["question"] == ASKED and row["prompt"].startswith(ASKED)
    assert judged(made, row, r"so \boxed{25}", r"\boxed{025}", r"\boxed{26}", "25") == [1, 1, 0, 0]


def test_rows_that_are_no_items_are_named_with_their_place(tmp_path):
    for raw, said in (
        ({"problem": ASKED, "id": 1}, "line 2: no column 'answer'"),
        ({"answer": "25"}, "line 2: no column 'question' or 'problem'"),
        ([ASKED, "25"], "line 2: expected an object with named columns, got list"),
        (
            {"problem": ASKED, "answer": {"value": 25}},
            "line 2: 'answer' must be a text, a number or a list",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            task(f"aime:{write(tmp_path / 'bad.jsonl', [AIME[0], raw])}").rows("test")


def test_a_file_is_the_test_and_splits_do_not_mix(tmp_path):
    alone = task(f"gsm8k:{write(tmp_path / 'x.jsonl', GSM8K)}")
    assert len(alone.rows("test")) == len(GSM8K)
    with pytest.raises(ValueError, match="is one file, and so the test"):
        alone.rows("train")
    mbpp = task(f"mbpp:{write(tmp_path / 'm.jsonl', MBPP)}")
    assert [r["task_id"] for r in mbpp.rows("test")] == [11, 12, 510] and [
        r["task_id"] for r in mbpp.rows("train")
    ] == [601]
    (tmp_path / "both").mkdir()
    write(tmp_path / "both" / "train.jsonl", GSM8K[:4])
    write(tmp_path / "both" / "test.jsonl", GSM8K[4:])
    both = task(f"gsm8k:{tmp_path / 'both'}")
    asked = [{r["question"] for r in both.rows(split)} for split in ("train", "test")]
    assert len(asked[0]) == 4 and len(asked[1]) == 2 and not asked[0] & asked[1]


def test_worked_examples_come_from_the_training_side_and_are_the_same_for_all(tmp_path):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.jsonl", GSM8K[:4])
    write(tmp_path / "d" / "test.jsonl", GSM8K[4:])
    made = Benchmark("gsm8k", str(tmp_path / "d"), shots=2, seed=1)
    rows = made.rows("test")
    heads = {r["prompt"].rpartition("Question:")[0] for r in rows}
    [head] = heads
    assert head.count("Question: Ann has") == 2 and head.count("#### ") == 2 and "<<" not in head
    assert all(
        r["question"] not in head and r["prompt"].endswith(f"Question: {r['question']}\nAnswer:")
        for r in rows
    )
    assert (
        Benchmark("gsm8k", str(tmp_path / "d"), shots=2, seed=2).rows("test")[0]["prompt"]
        != rows[0]["prompt"]
    )
    elsewhere = Benchmark(
        "svamp", write(tmp_path / "s.json", SVAMP), "qa", 1, str(tmp_path / "d" / "train.jsonl")
    )
    assert elsewhere.rows("test")[0]["prompt"].endswith(
        "Question: Bo had $ 4. What is left?\nAnswer:"
    )
    mbpp = Benchmark("mbpp", write(tmp_path / "m.jsonl", MBPP), shots=3)
    shown = mbpp.rows("test")[0]["prompt"]
    assert shown.count("[DONE]") == 3 and all(f"x + {i}" in shown for i in (1, 2, 3))
    with pytest.raises(ValueError, match="5 worked examples are asked for, 4"):
        Benchmark("gsm8k", str(tmp_path / "d"), shots=5).rows("test")
    with pytest.raises(ValueError, match="one file"):
        Benchmark("gsm8k", write(tmp_path / "x.jsonl", GSM8K), shots=1).rows("test")
    with pytest.raises(ValueError, match="has no worked examples"):
        Benchmark("gsm8k", "x", template="boxed", shots=1)


def verdicts(made: Benchmark, completions):
    row = made.rows("test")[0]
    columns = {k: [v] * len(completions) for k, v in row.items() if k != "prompt"}
    return [
        dict(s.parts)
        for s in made.reward.score([row["prompt"]] * len(completions), completions, columns=columns)
    ]


def test_strict_wants_the_answer_in_its_place_and_lenient_anywhere(tmp_path):
    path = write(tmp_path / "x.jsonl", GSM8K)
    boxed = verdicts(
        Benchmark("gsm8k", path), [r"so \boxed{4,000}", "so 4000", "#### 4000", r"\boxed{5}"]
    )
    assert [v["strict"] for v in boxed] == [1.0, 0.0, 0.0, 0.0] and [
        v["lenient"] for v in boxed
    ] == [
        1.0,
        1.0,
        1.0,
        0.0,
    ]
    qa = Benchmark("gsm8k", path, "qa")
    found = verdicts(
        qa,
        [
            "2 + 2\n#### 4,000\n\nQuestion: Bo has 3 and 9?",
            "it is 4000.",
            r"\boxed{4000}",
            "#### 5",
        ],
    )
    assert [v["strict"] for v in found] == [1.0, 0.0, 0.0, 0.0] and [
        v["lenient"] for v in found
    ] == [
        1.0,
        1.0,
        1.0,
        0.0,
    ]
    assert qa.stop == ("Question:",) and qa.lenient == "lenient"
    maths = verdicts(
        Benchmark("math500", write(tmp_path / "m.jsonl", MATH)),
        [r"\boxed{0.5}", r"\boxed{\dfrac12}", "1/2"],
    )
    assert [v["strict"] for v in maths] == [1.0, 1.0, 0.0] and all(
        v["lenient"] == 1.0 for v in maths
    )
    find = qa.reward.find_answer
    assert find is not None and find("#### 1/2\n") == find("#### 0.5") and find("0.5") is None


def test_programs_run_against_the_tests(tmp_path):
    pytest.importorskip("logpi.sandbox")
    path = write(tmp_path / "h.jsonl.gz", HUMANEVAL)
    body, fenced = "    return x + x\n", "```python\ndef twice(x):\n    return 2 * x\n```"
    assert [
        v["code"]
        for v in verdicts(
            Benchmark("humaneval", path), [fenced, "```python\ndef twice(x):\n    return x\n```"]
        )
    ] == [1, 0]
    assert [
        v["code"]
        for v in verdicts(
            Benchmark("humaneval", path, "complete"), [body + "\ndef other(:", "    return 4\n"]
        )
    ] == [1, 0]
    mbpp = Benchmark("mbpp", write(tmp_path / "m.jsonl", MBPP))
    assert [
        v["code"]
        for v in verdicts(
            mbpp, ["def add(x):\n    return x + 11\n[DONE]\n\nYou are", "def add(x):\n    return x"]
        )
    ] == [1, 0]


def test_a_reading_ends_at_its_stop():
    assert AnswerExtraction(Number(), ("\n\n",)).find("it is 7\n\nnot 8") == "7"
    assert (
        AnswerExtraction(Number(), (), marked).find("#### 7 or so\n9") == "7"
        and AnswerExtraction(Number(), (), marked).find("7") is None
    )


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("gsm9k:{file}", "no benchmark format is called 'gsm9k'; did you mean gsm8k"),
        ("gsm8k:{none}", "no such file"),
        ("gsm8k:{empty}", "no rows"),
        ("humaneval:{file}", "line 1: no column 'prompt'; found: question, answer"),
        ("mbpp:{file}", "line 1: no column 'test_list'"),
    ],
)
def test_error_lines(tmp_path, spec, line):
    (tmp_path / "empty.jsonl").write_text("\n")
    places = {
        "file": write(tmp_path / "x.jsonl", GSM8K),
        "none": tmp_path / "none.jsonl",
        "empty": tmp_path / "empty.jsonl",
    }
    with pytest.raises(ValueError, match="no|did") as error:
        task(spec.format(**places)).rows("test")
    assert line in str(error.value)


def test_unknown_templates_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no template is called 'boxd'; did you mean boxed"):
        Benchmark("gsm8k", "x", template="boxd")
    with pytest.raises(ValueError, match="must hold {question}"):
        Benchmark("gsm8k", "x", template="{q}")
    for form in FORMATS.values():
        assert form.template in TEMPLATES and form.few in TEMPLATES


# --- contamination ---


def test_overlap_finds_whole_questions_and_shared_words(tmp_path):
    long = "a b c d e f g h i j k l m n o p"
    rows = [
        {"prompt": "Ann has 2 eggs, and buys 2. How many?"},
        {"prompt": long},
        {"prompt": "how many"},
        {"prompt": "q r s t u v w x"},
    ]
    training = [
        {"question": "ann has 2 EGGS and buys 2 how many", "answer": "4"},
        {
            "messages": [
                {
                    "role": "user",
                    "content": "say: B, c d e f g h i j k l m n now. How many are there?",
                }
            ]
        },
    ]
    path = write(tmp_path / "train.jsonl", training)
    one, two = contamination(rows, training_rows([path]), n=13)
    assert (one.item, one.kind, one.share, one.where) == (0, "exact", 1.0, f"{path}, line 1")
    assert (two.item, two.kind, two.where) == (
        1,
        "ngram",
        f"{path}, line 2",
    ) and two.share == pytest.approx(1 / 4)
    assert two.words == "b c d e f g h i j k l m n" and words("1,200.5!") == ["1,200.5"]
    inside = contamination(rows, [("t", "he said q r s t u v w x to them")])
    assert [(s.item, s.kind) for s in inside] == [(3, "ngram")]  # shorter than n: as a whole
    assert contamination(rows, [("t", "so how many")]) == []  # two words stand in any text
    sums = [{"prompt": "1+1="}, {"prompt": "1-1="}]
    assert [s.item for s in contamination(sums, [("t", "1 + 1 =")])] == [
        0
    ]  # signs are no words, and all there is
    with pytest.raises(ValueError, match="at least 1 word"):
        contamination(rows, [], n=0)


def test_an_instruction_that_all_share_is_no_leak(tmp_path):
    made = Benchmark("gsm8k", write(tmp_path / "x.jsonl", GSM8K))
    text = "What is love? Please reason step by step, and put your final answer within \\boxed{}."
    assert contamination(made.rows("test"), [("t", text)], n=8) == []


def test_a_benchmark_of_rows_in_memory():
    rows = [{"question": f"{i}+1?", "answer": f"so #### {i + 1}"} for i in range(3)]
    own = Benchmark("gsm8k", {"train": rows[:2], "test": rows[2:]}, shots=1)
    assert [r["answer"] for r in own.rows("test")] == ["3"] and len(own.rows("train")) == 2
    assert own.rows("test")[0]["prompt"].count("Question:") == 2
    with pytest.raises(ValueError, match="the list is one file, and so the test"):
        Benchmark("gsm8k", rows).rows("train")

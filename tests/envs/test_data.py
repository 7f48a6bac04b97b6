"""Rows from files: every layout to one, splits, and one clear line for each way a file can be
wrong.

Run: python -m pytest -q tests/envs/test_data.py
"""

from __future__ import annotations

import gzip
import json

import pytest

from logpi.envs import RowsTask, load_rows, task


def lines(path, *rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return str(path)


def one(tmp_path, row, **options):
    return load_rows(lines(tmp_path / "one.jsonl", row), **options)[0]


def test_plain_layouts(tmp_path):
    assert one(tmp_path, {"prompt": "p", "answer": 42, "x": 1}) == {
        "prompt": "p",
        "answer": "42",
        "x": 1,
    }
    assert one(tmp_path, {"prompt": "p", "solution": "7"})["answer"] == "7"
    assert one(tmp_path, {"prompt": "p", "ground_truth": 2.0})["answer"] == "2"
    assert one(tmp_path, {"question": "p", "answer": [1, "one"]})["answer"] == ["1", "one"]
    assert (
        one(tmp_path, {"q": "p", "gold": "a"}, columns={"prompt": "q", "answer": "gold"})["prompt"]
        == "p"
    )
    assert (
        one(tmp_path, {"prompt": "p", "completion": "c"}, need=("prompt", "completion"))[
            "completion"
        ]
        == "c"
    )
    assert one(tmp_path, {"text": "once"})["completion"] == "once"


def test_gsm8k_layout(tmp_path):
    working = "She makes 9 * 2 = $<<9*2=18>>18.\nIn all <<1000+18=1018>>1,018.\n#### 1,018"
    row = one(tmp_path, {"question": "How much?", "answer": working})
    assert row["prompt"] == "How much?" and row["answer"] == "1018"
    assert row["completion"] == "She makes 9 * 2 = $18.\nIn all 1,018.\n#### 1,018"


def test_math_layout(tmp_path):
    row = one(tmp_path, {"problem": "?", "solution": r"so \boxed{\frac{1}{2}}"})
    assert row["answer"] == r"\frac{1}{2}" and row["completion"] == r"so \boxed{\frac{1}{2}}"


def test_conversations(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    row = one(tmp_path, {"messages": turns})
    assert row["prompt"] == turns[:1] and row["completion"] == "hello"
    row = one(tmp_path, {"prompt": turns[:1], "completion": turns[1:]})
    assert row["prompt"] == turns[:1] and row["completion"] == "hello"


def test_preferences(tmp_path):
    row = one(
        tmp_path,
        {"chosen": "\n\nHuman: a\n\nAssistant: yes", "rejected": "\n\nHuman: a\n\nAssistant: yeah"},
    )
    assert row["prompt"] == "\n\nHuman: a\n\nAssistant:"
    a, b, c = (
        {"role": r, "content": t}
        for r, t in (("user", "q"), ("assistant", "b"), ("assistant", "c"))
    )
    assert one(tmp_path, {"chosen": [a, b], "rejected": [a, c]})["prompt"] == [a]
    need = ("prompt", "chosen", "rejected")
    assert (
        one(tmp_path, {"prompt": "p", "chosen": "b", "rejected": "c"}, need=need)["chosen"] == "b"
    )


def test_verl_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    prompt = [{"role": "user", "content": "3+4?"}]
    row = {
        "data_source": "sums",
        "prompt": prompt,
        "reward_model": {"style": "rule", "ground_truth": "7"},
    }
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([row | {"extra_info": {"index": 0}}]), tmp_path / "v.parquet"
    )
    got = load_rows(str(tmp_path / "v.parquet"), need=("prompt", "answer"))[0]
    assert got["prompt"] == prompt and got["answer"] == "7" and got["data_source"] == "sums"
    assert got["extra_info"] == {"index": 0}


def test_other_files(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,answer,completion,label\n"a, ""b""\nc",1,x,true\n')
    row = load_rows(str(tmp_path / "a.csv"))[0]
    assert row == {"prompt": 'a, "b"\nc', "answer": "1", "completion": "x", "label": True}
    (tmp_path / "a.json").write_text('[{"prompt": "p"}]')
    (tmp_path / "b.json").write_text('{"prompt": "p"}\n{"prompt": "q"}\n')
    assert (
        len(load_rows(str(tmp_path / "a.json"))) == 1
        and len(load_rows(str(tmp_path / "b.json"))) == 2
    )
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('\ufeff{"prompt": "p"}\n\n')
    assert load_rows(str(tmp_path / "a.jsonl.gz")) == [{"prompt": "p"}]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "a.jsonl",
            '{"prompt": "p"}\n{"prompt": \n',
            r"line 2: not valid JSON \(Expecting value\): '{\"prompt\":'",
        ),
        ("a.jsonl", "[1]\n", "line 1: expected an object with named columns, got list"),
        ("a.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        (
            "a.jsonl",
            '{"prompt": "\\ud83d\\ude00"}\n{"prompt": "torn \\ud83d"}\n',
            r"line 2: .ud83d alone is half of a character",
        ),
        ("a.json", '[{"prompt": "torn \\uDE00"}]', r"row 1: .ude00 alone is half"),
        ("a.jsonl", "\n", "a.jsonl: no rows"),
        (
            "a.jsonl",
            '{"prompt": "p"}\n\n{"promt": "p", "x": 1}',
            "line 3: no column 'prompt'; found: promt, x; if",
        ),
        (
            "a.jsonl",
            '{"prompt": 3}',
            "line 1: 'prompt' must be a text, or a list of messages .* got int '?3",
        ),
        (
            "a.jsonl",
            '{"prompt": [{"text": "p"}]}',
            "line 1: 'prompt': message 1: expected role and content, found text",
        ),
        ("a.jsonl", '{"prompt": "p", "completion": " "}', "line 1: the completion is empty"),
        (
            "a.jsonl",
            '{"prompt": "p", "answer": {"a": 1}}',
            "line 1: 'answer' must be a text, a number .* got dict",
        ),
        (
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "p"}]}',
            "line 1: 'messages' must end with",
        ),
        ("a.json", '[{"prompt": "p"}', "a.json: not valid JSON"),
        ("a.csv", "prompt\na,b\n", "a.csv, line 2: more fields than the header has"),
        (
            "a.csv",
            "prompt,completion,label\na,b,perhaps\n",
            "line 2: 'label' must be true or false, got 'perhaps'",
        ),
        ("a.parquet", "no", "a.parquet: not a Parquet file"),
        ("a.txt", "no", "a.txt: cannot tell its format; name it with one of .jsonl"),
    ],
)
def test_error_lines(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=line) as error:
        load_rows(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="latin.jsonl: not UTF-8 text .*; convert it first"):
        load_rows(str(tmp_path / "latin.jsonl"))
    (tmp_path / "cut.csv.gz").write_bytes(
        gzip.compress(b"prompt\n" + bytes(range(65, 90)) * 99)[:30]
    )
    (tmp_path / "no.jsonl.gz").write_text("plain")
    for name in ("cut.csv.gz", "no.jsonl.gz"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read: "):
            load_rows(str(tmp_path / name))


def test_missing_things(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"prompt": "p", "gold": "a"})
    with pytest.raises(
        ValueError, match=r"line 1: no column 'answer'; found: prompt, gold; .*rows.answer=NAME"
    ):
        load_rows(path, need=("prompt", "answer"))
    with pytest.raises(
        ValueError, match=r"line 1: no column 'glod' \(for 'answer'\); found: prompt, gold"
    ):
        load_rows(path, columns={"answer": "glod"})
    with pytest.raises(ValueError, match="nowhere.csv: no such file"):
        load_rows("nowhere.csv")
    with pytest.raises(ValueError, match="expected one file named test.jsonl .* found none"):
        load_rows(str(tmp_path), "test")


def test_a_hub_name_that_fails_is_one_line(monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ValueError, match="owner/name: no such file .* as a hub data set it fails: no route$"
    ):
        load_rows("owner/name")


def test_a_hub_data_set(monkeypatch):
    import datasets

    asked, rows = [], [{"question": "q", "answer": "1"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or rows)
    assert load_rows("owner/name:main", "test") == [{"question": "q", "answer": "1", "prompt": "q"}]
    assert asked == [(("owner/name", "main"), {"split": "test"})]


def test_one_file_is_split_by_the_prompt(tmp_path):
    rows = [{"prompt": f"p{i % 200}", "answer": i} for i in range(400)]  # each prompt twice
    t = task(lines(tmp_path / "mine.jsonl", *rows), test_share=0.25)
    train, test = t.rows("train", 1), t.rows("test", 1)
    assert len(train) + len(test) == 400 and 60 < len(test) < 140
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in test}
    assert t.rows("train", 1) == train != t.rows("train", 2)
    assert sorted(r["answer"] for r in train) == sorted(r["answer"] for r in t.rows("train", 2))
    assert t.rows("test", 2) == test
    turned = task(lines(tmp_path / "turned.jsonl", *rows[::-1]), test_share=0.25)
    assert {r["prompt"] for r in turned.rows("test")} == {r["prompt"] for r in test}
    assert t.name == "mine" and t.reward.names == ("number",)


def test_given_splits(tmp_path):
    lines(tmp_path / "train.jsonl", {"prompt": "a"})
    other = lines(tmp_path / "test.jsonl", {"prompt": "b"})
    folder = task(str(tmp_path))
    assert (folder.rows("train")[0]["prompt"], folder.rows("test")[0]["prompt"]) == ("a", "b")
    pair = RowsTask(str(tmp_path / "train.jsonl"), test_path=other)
    assert (pair.rows("train")[0]["prompt"], pair.rows("test")[0]["prompt"]) == ("a", "b")


def test_file_task_errors(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"prompt": "p0"})
    empty = "test" if RowsTask(path).rows("train") else "train"
    with pytest.raises(ValueError, match=f"its {empty} split is empty; give more rows"):
        RowsTask(path).rows(empty)
    with pytest.raises(ValueError, match="test_share must lie between 0 and 1, got 1"):
        RowsTask(path, test_share=1)
    with pytest.raises(ValueError, match="no reward is called 'nubmer'"):
        RowsTask(path, rewards="nubmer")


@pytest.mark.parametrize(
    ("column", "answer"),
    [
        ("so #### 3,5", "3,5"),  # two numbers
        ("so #### 1, 2, 3", "1, 2, 3"),
        ("so #### (1, 2)", "(1, 2)"),
        ("so #### (1,234)", "(1,234)"),
        ("so #### 1,234", "1234"),
        ("so #### $1,234,567.50", "$1234567.50"),
        ("so #### 1,234 and 5,678", "1234 and 5678"),
        ("so #### 18\n", "18"),
        ("#### Working\nso\n#### Final Answer\n\\boxed{1,2}", "1,2"),  # headings, then a box
    ],
)
def test_the_answer_of_a_whole_solution(tmp_path, column: str, answer: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({"question": "q", "answer": column}) + "\n")
    assert load_rows(str(file))[0]["answer"] == answer


def test_a_missing_answer_is_none_and_never_the_text_nan(tmp_path) -> None:
    file = tmp_path / "r.jsonl"
    rows = [
        {"question": "q", "answer": a}
        for a in (float("nan"), None, [float("nan")], [float("nan"), 7.0])
    ]
    rows.append({"question": "q", "reward_model": {"ground_truth": float("nan")}})
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [r.get("answer") for r in load_rows(str(file))] == [None, None, None, ["7"], None]


def test_a_file_with_names_of_its_own(tmp_path, monkeypatch) -> None:
    """From a command line too; the file's other columns stay."""
    path = tmp_path / "my.csv"
    path.write_text("query,gold,level\n1+1=,2,3\n")
    [row] = load_rows(f"rows(prompt=query, answer=gold):{path}", need=("prompt", "answer"))
    assert (row["prompt"], row["answer"], row["level"]) == ("1+1=", "2", "3")
    assert task(f"rows(prompt=query):{path}", test_share=0.001).rows()[0]["prompt"] == "1+1="
    # a directory's test rows stay test rows
    for split, query in (("train", "1+1="), ("test", "2+2=")):
        (tmp_path / f"{split}.csv").write_text(f"query,gold\n{query},4\n")
    both = task(f"rows(prompt=query, answer=gold):{tmp_path}")
    assert [both.rows(s)[0]["prompt"] for s in ("train", "test")] == ["1+1=", "2+2="]
    assert both.name == tmp_path.name
    # our own columns win over those of the word
    again = task(f"rows(prompt=query):{tmp_path}", columns={"answer": "gold"})
    assert again.rows("test") == both.rows("test")
    (tmp_path / "addition").touch()
    (tmp_path / "Makefile").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot tell its format; name it with one of .jsonl"):
        task("Makefile").rows()
    assert task("addition").name == "addition" and len(task("addition").rows()) > 2
    with pytest.raises(ValueError, match=r"say 'rows\(prompt=NAME\):FILE'"):
        load_rows(str(path), need=("prompt",))
    with pytest.raises(ValueError, match="no column 'quest' \\(for 'prompt'\\); found: query"):
        load_rows(f"rows(prompt=quest):{path}")
    with pytest.raises(ValueError, match="write OURS=THEIRS for each column"):
        load_rows(f"rows(query):{path}")

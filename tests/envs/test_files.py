"""Files and directories of rows as the world has them: shards, folders of the hub, saved data sets,
and what is wrong with them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from logpi.envs.data import RowsTask, load_rows
from logpi.envs.files import read_raw
from logpi.envs.tasks import task

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")


def parquet(path: Path, *prompts: str, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"prompt": list(prompts), **columns}), path)


def jsonl(path: Path, *prompts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))


def prompts(path: Path, split: str = "train") -> list[str]:
    return [r["prompt"] for r in load_rows(str(path), split)]


@pytest.mark.parametrize("folder", ["", "data", "train", "data/train"])
@pytest.mark.parametrize(
    "style",
    ["train-{i:05}-of-00003", "train-{i:05}-of-00003-9f86d081884c7d65", "train_{i}", "train.{i}"],
)
def test_shards_are_read_in_their_order(tmp_path, folder, style):
    for i in (2, 0, 1):
        parquet(tmp_path / folder / f"{style.format(i=i)}.parquet", f"{i}a", f"{i}b")
    parquet(
        tmp_path / ("data" if "data" in folder else "") / "test-00000-of-00001.parquet", "held out"
    )
    assert prompts(tmp_path) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert prompts(tmp_path, "test") == ["held out"]
    assert [where for where, _ in read_raw(str(tmp_path))][3].endswith(
        f"{style.format(i=1)}.parquet, row 2"
    )


def test_numbers_of_shards_below_a_folder_of_the_split(tmp_path):
    for i in range(11):  # as the hub's own conversion names them
        parquet(tmp_path / "train" / f"{i:04}.parquet", str(i))
    with pytest.raises(ValueError, match="expected one file named train"):
        prompts(tmp_path / "train")
    for i in range(11):
        (tmp_path / "train" / f"{i:04}.parquet").rename(tmp_path / "train" / f"part-{i}.parquet")
    assert prompts(tmp_path) == [str(i) for i in range(11)]


def test_shards_of_jsonl_and_one_packed(tmp_path):
    import gzip

    jsonl(tmp_path / "train-1.jsonl", "a")
    jsonl(tmp_path / "train-2.jsonl", "b")
    assert prompts(tmp_path) == ["a", "b"]
    (tmp_path / "test-00000-of-00001.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "t"}\n'))
    assert prompts(tmp_path, "test") == ["t"]


def test_a_task_of_shards(tmp_path):
    for split, some in (("train", "abc"), ("test", "xy")):
        for i, p in enumerate(some):
            parquet(tmp_path / "data" / f"{split}-{i:05}-of-{len(some):05}.parquet", p, answer=[i])
    made = task(str(tmp_path))
    assert sorted(r["prompt"] for r in made.rows("train")) == ["a", "b", "c"]
    assert [(r["prompt"], r["answer"]) for r in made.rows("test")] == [("x", "0"), ("y", "1")]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00003", "train-00002-of-00003"],  # one is missing
        ["train_prefs-00000-of-00001", "train_sft-00000-of-00001"],  # two splits
        ["train", "train-00000-of-00001"],
        [
            "train-00000-of-00001",
            "train-00000-of-00002",
            "train-00001-of-00002",
        ],  # two ways of sharding
        [],
        ["validation", "README"],
    ],
)
def test_what_is_no_one_split_is_named(tmp_path, names):
    for name in names:
        parquet(tmp_path / f"{name}.parquet", name)
    with pytest.raises(
        ValueError, match="expected one file named train.jsonl .* or all shards of one, found"
    ) as error:
        prompts(tmp_path)
    assert all(name in str(error.value) for name in names)


def test_a_word_that_begins_as_the_split_is_another(tmp_path):
    jsonl(tmp_path / "test.jsonl", "a")
    jsonl(tmp_path / "testing.jsonl", "b")
    assert prompts(tmp_path, "test") == ["a"]


def test_what_save_to_disk_wrote(tmp_path):
    rows = datasets.Dataset.from_list([{"prompt": f"p{i}", "answer": float(i)} for i in range(60)])
    datasets.DatasetDict(train=rows, test=rows.select(range(3))).save_to_disk(
        tmp_path / "both", num_shards={"train": 3, "test": 1}
    )
    assert prompts(tmp_path / "both") == [f"p{i}" for i in range(60)]
    assert [r["answer"] for r in RowsTask(str(tmp_path / "both")).rows("test")] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="no split 'validation'; found: train, test"):
        load_rows(str(tmp_path / "both"), "validation")
    rows.save_to_disk(tmp_path / "one")  # without splits, as a file: equal prompts on one side
    one = RowsTask(str(tmp_path / "one"), test_share=0.3)
    held_out = {r["prompt"] for r in one.rows("test")}
    assert 0 < len(held_out) < 60 and not held_out & {r["prompt"] for r in one.rows("train")}


def test_a_torn_saved_data_set_is_one_line(tmp_path):
    datasets.Dataset.from_list([{"prompt": "p"}]).save_to_disk(tmp_path / "one")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"ARROW")
    with pytest.raises(ValueError, match="one: cannot be read as what save_to_disk writes"):
        prompts(tmp_path / "one")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "dataset_dict.json").write_text("{")
    with pytest.raises(ValueError, match="none: cannot be read"):
        prompts(tmp_path / "none")


def test_missing_values_of_tables_are_no_answers(tmp_path):
    parquet(tmp_path / "a.parquet", "p", "q", "r", answer=pa.array([1.0, math.nan, None]))
    (tmp_path / "a.csv").write_text("prompt,answer\np,1\nq,\nr,nan\n")
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "p", "answer": 1}\n{"prompt": "q", "answer": NaN}\n{"prompt": "r", "answer":'
        " null}\n"
    )
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        path = str(tmp_path / name)
        assert [r.get("answer") for r in load_rows(path)] == ["1", None, None]
        with pytest.raises(
            ValueError, match=rf"{name}, (row 2|line [23]): nothing in the column 'answer'"
        ):
            load_rows(path, need=("prompt", "answer"))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "a.jsonl",
            '{"prompt": "p"}\n{"prompt": "q", "answer": ' + "7" * 5000 + "}",
            r"a.jsonl, line 2: not valid JSON \(a number has too many digits\)",
        ),
        (
            "a.json",
            '[{"prompt": "p"},\n{"prompt": "q",\n"answer": ' + "7" * 5000 + "}]",
            r"a.json: not valid JSON \(a number has too many digits\), line 3",
        ),
        (
            "a.json",
            '[{"prompt": "p"},\n{"prompt" 3}]',
            r"a.json: not valid JSON \(Expecting ':' delimiter\), line 2",
        ),
        ("a.json", "[" * 100_000, "a.json: not valid JSON"),
        ("a.json", "[1, 2]", "row 1: expected an object with named columns, got int"),
        ("a.json", "[[1]]", "row 1: expected an object with named columns, got list"),
        ("a.jsonl", '"p"\n', "line 1: expected an object with named columns, got str"),
        ("a.jsonl", "", "a.jsonl: no rows"),
        ("a.csv", "", "a.csv: no rows"),
        ("a.csv", "prompt,answer\n", "a.csv: no rows"),
        ("a.csv", "prompt,answer,prompt\np,1,q\n", "a.csv: 2 columns are called 'prompt'"),
        ("a.csv", "prompt;answer\np;1\n", "no column 'prompt'; found: prompt;answer"),
        ("a.parquet", "", "a.parquet: not a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        load_rows(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_byte_order_marks_are_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,answer\np,1\n")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "p", "answer": "1"}\n')
    assert (
        load_rows(str(tmp_path / "a.csv"))
        == load_rows(str(tmp_path / "a.jsonl"))
        == [{"prompt": "p", "answer": "1"}]
    )
    (tmp_path / "wide.csv").write_bytes("prompt,answer\np,1\n".encode("utf-16"))
    with pytest.raises(ValueError, match="wide.csv: not UTF-8 text"):
        load_rows(str(tmp_path / "wide.csv"))


def test_two_columns_of_one_name_in_parquet(tmp_path):
    table = pa.table([pa.array(["p"]), pa.array(["q"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet: 2 columns are called 'prompt'"):
        load_rows(str(tmp_path / "a.parquet"))


def test_a_column_that_is_there_but_empty_is_said_so(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\np,\n")
    with pytest.raises(ValueError, match="line 2: nothing in the column 'completion'"):
        load_rows(str(tmp_path / "a.csv"), need=("prompt", "completion"))

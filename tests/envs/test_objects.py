"""Rows and tasks from objects in memory: every kind of table, its places, its splits, and one line
for what is none.

Run: python -m pytest -q tests/envs/test_objects.py
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from logpi.envs import RowsTask, load_rows, task
from logpi.envs.tasks import Addition
from logpi.errors import UserError, row_place
from logpi.rewards import ExactAnswer, Rewards, Weighted

ROWS = [{"question": f"{i}+1=", "answer": i + 1, "note": None} for i in range(40)]
SHAPED = {"prompt": "3+1=", "question": "3+1=", "answer": "4"}


def dataset(rows=ROWS):
    return pytest.importorskip("datasets").Dataset.from_list(rows)


def frame(rows=ROWS):
    return pytest.importorskip("pandas").DataFrame(rows)


def iterable(rows=ROWS):
    return pytest.importorskip("datasets").IterableDataset.from_generator(lambda: iter(rows))


TABLES = {
    "list": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "Dataset": dataset,
    "IterableDataset": iterable,
    "DataFrame": frame,
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_read_as_files_are(kind):
    table = TABLES[kind]()
    rows = load_rows(table)
    assert (
        len(rows) == 40 and rows[3] == SHAPED and row_place(rows[6], "") == f"row 7 of the {kind}"
    )
    own = task(table, test_share=0.25)
    train, test = own.rows("train", 1), own.rows("test")
    assert len(train) + len(test) == 40 and len(test) in range(4, 20)
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in test}
    assert test == task(ROWS[::-1], test_share=0.25).rows("test")[::-1]  # by hash, in any order
    assert own.name == "rows" and repr(own) == f"RowsTask(the {kind})"


def test_splits_are_taken_as_they_are():
    datasets = pytest.importorskip("datasets")
    splits = {"train": ROWS[:2], "test": ROWS[2:3]}
    for source in (splits, datasets.DatasetDict({k: dataset(v) for k, v in splits.items()})):
        own = task(source)
        assert len(own.rows("train")) == 2 and own.rows("test")[0]["prompt"] == "2+1="
        name = type(source).__name__
        assert row_place(own.rows("test")[0], "") == f"row 1 of the test split of the {name}"
        with pytest.raises(ValueError, match=f"the {name}: no split 'valid'; found: train, test"):
            load_rows(source, "valid")
    apart = RowsTask(ROWS[:2], test_path=ROWS[2:3])
    assert len(apart.rows("train")) == 2 and apart.rows("test")[0]["answer"] == "3"


def test_values_are_pythons_own():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "prompt": ["a", "b"],
            "answer": pandas.array([1, None], dtype="Int64"),
            "when": [pandas.NaT, pandas.NaT],
            "numbers": [np.arange(2), np.arange(3)],
        }
    )
    assert load_rows(table) == [
        {"prompt": "a", "answer": "1", "numbers": [0, 1]},
        {"prompt": "b", "numbers": [0, 1, 2]},
    ]
    assert load_rows([{"prompt": "p", "answer": np.float32(2)}])[0]["answer"] == "2"
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"})
    assert load_rows([{"messages": messages}])[0]["completion"] == "ho"
    given = [{"prompt": "p", "tags": ["a"]}]
    load_rows(given)[0]["tags"].append("b")
    assert given[0]["tags"] == ["a"]  # the caller's rows stay theirs


def test_nested_columns_of_a_dataset_have_no_nulls():
    """Arrow gives every struct of a column the same fields, those that are missing as None."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "name": "a"}]
    (row,) = load_rows(dataset([{"messages": turns}]))
    assert row["prompt"] == [{"role": "user", "content": "hi"}] and row["completion"] == "ho"


WRONG = {
    "no rows": ([], "the list: no rows"),
    "no dict": ([{"prompt": "p"}, "q"], "row 2 of the list: expected an object with named columns"),
    "a missing column": ([{"prompt": "p"}, {"q": 1}], "row 2 of the list: no column 'prompt'"),
    "an empty completion": ([{"prompt": "p", "completion": ""}], "row 1 of the list: the completi"),
    "half of a character": ([{"prompt": "\ud83d"}], "row 1 of the list: .* half of a character"),
    "a split that is a word": ({"train": "abc"}, "row 1 of the train split of the dict: expected"),
    "a number": (3, "the int: rows are a list of dicts, .* not int"),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_line_for_rows_that_are_none(what):
    source, line = WRONG[what]
    with pytest.raises(ValueError, match=line):
        load_rows(source)


def test_tables_that_cannot_be_used():
    table = frame([{"prompt": "p", "x": 1}])
    table.columns = ["prompt", "prompt"]
    with pytest.raises(ValueError, match="the DataFrame: 2 columns are called 'prompt'"):
        load_rows(table)


def test_a_data_set_without_an_end(monkeypatch):
    from logpi.envs import objects

    monkeypatch.setattr(objects, "MOST", 5)
    with pytest.raises(ValueError, match=r"the IterableDataset: more than 5 rows: .* \.take\(n\)"):
        load_rows(iterable())
    assert len(load_rows(iterable().take(5))) == 5


# --- tasks ---


@dataclass
class Maze:
    """A task of a user's own."""

    size: int = 3
    name: str = "maze"
    reward: Rewards = field(default=Rewards((Weighted(ExactAnswer()),)), repr=False)

    def rows(self, split="train", seed=0):
        return [{"prompt": f"{split} {self.size}", "answer": "x"}]


def test_tasks_and_what_makes_them():
    own = Maze()
    assert task(own) is own
    assert task(Maze, size=5).rows()[0]["prompt"] == "train 5"
    assert task(lambda size=4: Maze(size)).size == 4
    assert task(lambda: ROWS).rows("test") == task(ROWS).rows("test")
    assert isinstance(task(Addition, digits=1), Addition)
    with pytest.raises(ValueError, match=r"Maze.* is a task already: it takes no options \(size\)"):
        task(own, size=2)
    with pytest.raises(ValueError, match="has no option 'sise'.*size"):
        task(Maze, sise=2)
    with pytest.raises(ValueError, match="the int: a task is a word, an object with name, reward"):
        task(3)
    with pytest.raises(ValueError, match="returned int, neither a task nor rows"):
        task(lambda: 3)
    with pytest.raises(UserError, match=r"failed: ZeroDivisionError: .*test_objects.py:\d+"):
        task(lambda: 1 / 0)


MINE = """
from logpi.envs.tasks import Addition
import random
rows = [{"prompt": "p", "answer": "1"}, {"prompt": "q", "answer": "2"}]
splits = {"train": rows, "test": rows[:1]}
made = Addition(digits=1)
def drawn(n=40):
    return [{"prompt": str(random.random()), "answer": "1"} for _ in range(n)]
class Maze(Addition): ...
number = 3
"""


def test_tasks_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert row_place(load_rows(f"{path}:rows")[1], "") == f"row 2 of {path}:rows"
    assert len(task(f"{path}:splits").rows("train")) == 2
    assert task(f"{path}:made").digits == 1
    assert task(f"{path}:Maze", digits=2).digits == 2
    own = RowsTask(f"{path}:drawn", test_share=0.5)  # called once: the parts are of one table
    assert len(own.rows("train")) + len(own.rows("test")) == 40
    with pytest.raises(ValueError, match=r"mine.py:number: a task is a word"):
        task(f"{path}:number")
    with pytest.raises(UserError, match=r"mine.py has no 'mazes'"):
        task(f"{path}:mazes")
    with pytest.raises(ValueError, match=r"mine.py:made: rows are a list of dicts"):
        load_rows(f"{path}:made")


# --- demonstrations and pairs ---


def test_pairs_and_labels_from_objects():
    pair = {"chosen": "Human: hi Assistant: yes", "rejected": "Human: hi Assistant: no"}
    shaped = {"prompt": "Human: hi Assistant:", "chosen": " yes", "rejected": " no"}
    for table in ([pair], dataset([pair]), frame([pair])):
        assert RowsTask({"train": table}).rows("train") == [shaped]
    labelled = frame([{"prompt": "p", "completion": "c", "label": 1}])
    assert load_rows(labelled, need=("prompt", "completion", "label"))[0]["label"] is True
    with pytest.raises(ValueError, match="row 1 of the list: no column 'chosen'"):
        load_rows([{"prompt": "p"}], need=("prompt", "chosen", "rejected"))

"""`logpi step-labels` and what it is for: pairs, a process reward model, and a search that is
steered by it."""

from __future__ import annotations

import json
import shutil

import pytest

from logpi.cli import main
from logpi.envs.tasks import Addition
from logpi.jobs import rejection
from logpi.jobs.rejection import read_rows, write_rows
from logpi.jobs.step_labels import pairs
from logpi.policies.small import small_policy

# right: no 7 anywhere, which is decided by how a response begins
LUCKY = "def no_seven(completions, **_):\n    return [float('7' not in c) for c in completions]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("steps")
    small_policy(Addition().alphabet, width=32, layers=2, heads=2, context=64).save(path / "model")
    (path / "judge.py").write_text(LUCKY)
    return path


def words(home, out, *more: str) -> list[str]:
    return [
        "step-labels",
        "--model",
        str(home / "model"),
        "--task",
        "addition",
        "--rewards",
        f"{home}/judge.py:no_seven",
        "--step",
        ",",
        "--prompts",
        "24",
        "--samples",
        "4",
        "--rollouts",
        "4",
        "--max-completion-length",
        "12",
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def labelled(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection, "CHUNK", 16)
        assert main(words(home, home / "labels")) == 0
    return home / "labels"


def test_from_labels_to_a_search(home, labelled):
    found = read_rows(labelled / "beginnings.jsonl")
    assert all(x["share"] == float("7" not in x["beginning"]) for x in found if x["ended"])
    assert all(x["share"] == 0 for x in found if "7" in x["beginning"]) and any(
        0 < x["share"] < 1 for x in found
    )
    assert all(x["beginning"].endswith(",") for x in found if not x["ended"])
    train, test = (read_rows(labelled / f"{s}.jsonl") for s in ("train", "test"))
    assert train and test and not {p["prompt"] for p in train} & {p["prompt"] for p in test}
    share = {(x["prompt"], x["beginning"]): x["share"] for x in found}
    for p in train + test:
        gap = share[p["prompt"], p["chosen"]] - share[p["prompt"], p["rejected"]]
        assert gap == p["margin"] >= 0.25

    labels, judge, model = str(labelled), str(home / "rm"), str(home / "model")
    assert (
        main(
            [
                "reward-model",
                "--model",
                model,
                "--data",
                labels,
                "--steps",
                "12",
                "--pairs",
                "32",
                "--lr",
                "3e-3",
                "--out",
                judge,
            ]
        )
        == 0
    )
    assert json.loads((home / "rm" / "held_out.json").read_text())["accuracy"] > 0.7
    assert (
        main(
            [
                "compute",
                "--model",
                model,
                "--rewards",
                f"{home}/judge.py:no_seven",
                "--items",
                "8",
                "--samples",
                "4",
                "--beams",
                "4",
                "--step",
                ",",
                "--max-completion-length",
                "12",
                "--scorer",
                f"model:{judge}/model",
                "--out",
                str(home / "c"),
            ]
        )
        == 0
    )
    points = {
        (p["method"], p["k"]): p["right"]
        for p in json.loads((home / "c" / "compute.json").read_text())
    }
    assert points["best_of", 4] > points["pass", 1] and points["beam", 4] > points["pass", 1]


def test_what_was_done_is_not_done_again_and_ends_the_same(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "CHUNK", 16)
    shutil.copytree(labelled, tmp_path / "killed")
    (tmp_path / "killed" / "chunks" / "00001.jsonl").unlink()
    (tmp_path / "killed" / "train.jsonl").unlink()
    assert (
        main(["step-labels", "--resume", str(tmp_path / "killed"), "--trust"]) == 0
    )  # a copy, with a judge
    for name in ("beginnings.jsonl", "train.jsonl", "test.jsonl"):
        assert (labelled / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_whole_responses_alone(home):
    assert main(words(home, home / "outcomes", "--step", "", "--prompts", "8")) == 0
    assert all(x["ended"] for x in read_rows(home / "outcomes" / "beginnings.jsonl"))


def test_mistakes(home, tmp_path, capsys):
    assert main(words(home, tmp_path / "none", "--rewards", "exact")) == 2
    assert "there are no pairs to learn from" in capsys.readouterr().err
    assert (tmp_path / "none" / "beginnings.jsonl").exists()  # nothing is lost
    write_rows(tmp_path / "bare.jsonl", [{"prompt": f"{i}?"} for i in range(30)])
    assert (
        main(
            words(
                home, tmp_path / "bare", "--task", str(tmp_path / "bare.jsonl"), "--rewards", "math"
            )
        )
        == 2
    )
    assert "column 'answer'" in capsys.readouterr().err and not (tmp_path / "bare").exists()
    with pytest.raises(SystemExit):
        main(words(home, tmp_path / "x", "--gap", "0"))
    assert "--gap: must be above 0" in capsys.readouterr().err


def test_pairs_are_of_one_prompt_and_not_too_many():
    found = [{"prompt": p, "beginning": f"{i}", "share": i / 8} for p in "abcd" for i in range(9)]
    train, test = pairs(found, 0.5, 3)
    assert [sum(x["prompt"] == p for x in train + test) for p in "abcd"] == [3] * 4
    assert all(float(x["chosen"]) - float(x["rejected"]) >= 4 for x in train + test)
    assert {x["prompt"] for x in test} == {"a"} and pairs(found, 0.5, 3) == (train, test)


def test_long_prompts_are_cut_where_that_is_asked(home, tmp_path, capsys):
    """The line that refuses them names the option, which the command has."""
    rows = [{"prompt": "1" * 80 + f"+{i}=", "answer": "3"} for i in range(24)]
    write_rows(tmp_path / "rows.jsonl", rows)
    line = [*words(home, tmp_path / "out"), "--task", str(tmp_path / "rows.jsonl")]
    assert main(line) == 2
    assert "shorten them (--overlong-prompts cut)" in capsys.readouterr().err
    assert main([*line, "--overlong-prompts", "cut", "--gap", "0.01"]) == 0
    asked = {r["prompt"] for r in read_rows(tmp_path / "out" / "beginnings.jsonl")}
    assert asked <= {r["prompt"] for r in rows} and len(asked) > 20  # the rest is held out

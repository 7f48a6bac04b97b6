"""`logpi compare`: groups by seed, the table, JSON, a picture; runs of older versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from logpi.cli import main
from tests.viewer.runs import log, make_run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two seeds of one learning rate, one of another; the last lacks an option, as an older
    version's."""
    for name, lr, seed, reward in (("a", 1e-3, 0, 0.5), ("b", 1e-3, 1, 0.7), ("c", 1e-4, 0, 0.1)):
        new = {"slots": 128} if name != "c" else {}
        run = make_run(tmp_path / "runs" / name, lr=lr, seed=seed, out=name, **new)
        log(run, [{"step": 1, "reward": 0.0}, {"step": 2, "reward": reward, "entropy": 0.25}])
        log(run, [{"step": 2, "eval/loss": 1.0}, {"step": 3, "eval/loss": reward}])
    return tmp_path / "runs"


def test_the_table_has_a_row_for_each_group_of_seeds(home: Path, capsys) -> None:
    assert main(["compare", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # three runs and two arguments: the runs stand below each other
    assert lines[0].split() == ["differs", "seed", "lr"] and lines[4] == ""
    assert [line.split()[1:] for line in lines[1:4]] == [
        ["0", "0.001"],
        ["1", "0.001"],
        ["0", "0.0001"],
    ]
    # the mean of 0.5 and 0.7; Student's t of 2 is 12.71 · 0.1414 / √2
    assert re.split(r"  +", lines[6])[:4] == ["lr=0.001", "2", "0.6", "1.271"]
    assert re.split(r"  +", lines[7])[:3] == ["lr=0.0001", "1", "0.1"]


def test_json_with_the_best_of_a_loss_its_least(home: Path, capsys) -> None:
    assert main(["compare", str(home / "a"), str(home / "c"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record["differing"]) == ["lr"] and list(record["groups"]) == [
        "lr=0.001",
        "lr=0.0001",
    ]
    columns = record["table"]["columns"]
    best = columns.index("best eval/loss")
    assert [row[best] for row in record["table"]["rows"]] == [0.5, 0.1]
    assert "entropy" in columns and record["table"]["rows"][0][1] == 1


def test_a_picture_of_the_curves(home: Path, tmp_path: Path, capsys) -> None:
    assert main(["compare", str(home), "--picture", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    log(make_run(home / "d"), [{"step": 1, "accuracy": 1.0}])
    assert main(["compare", str(home), "--picture", str(tmp_path / "y.png")]) == 2
    assert "no curve in common" in capsys.readouterr().err

"""`logpi compare`: groups by seed, the table, JSON, a picture; runs of older versions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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


def _end(home: Path, name: str, reward: float, **arguments: Any) -> str:
    log(
        make_run(home / name, **arguments),
        [{"step": 1, "reward": 0.0}, {"step": 2, "reward": reward}],
    )
    return str(home / name)


def test_an_entry_that_only_some_runs_set_is_a_difference(tmp_path: Path, capsys) -> None:
    """`--beta 0 --seed 0` is not another seed of the default, nor is an environment's option."""
    a = _end(tmp_path, "a", 0.5, options={"beta": 0, "x": {"y": 1}}, seed=0)
    b = _end(tmp_path, "b", 0.7, options={}, env_options={"slippery": True}, seed=1)
    c = _end(tmp_path, "c", 0.9, options={}, env_options={}, seed=1)
    assert main(["compare", a, b, c, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    absent = "(default)"
    assert {k: list(v.values()) for k, v in record["differing"].items()} == {
        "options.beta": [0, absent, absent],
        "options.x.y": [1, absent, absent],
        "seed": [0, 1, 1],
        # `a` lacks the whole of env_options, as an older run: that alone is no difference to b or c
        "env_options.slippery": [None, True, absent],
    }
    assert [row[1] for row in record["table"]["rows"]] == [1, 1, 1]
    assert "options.beta=(default)" in list(record["groups"])[1]


def test_runs_of_one_seed_count_as_one(tmp_path: Path, capsys) -> None:
    """A copy of a run gives no interval; three runs of two seeds are two numbers."""
    pair = [_end(tmp_path, name, 0.5, seed=0) for name in ("a", "copy")]
    assert main(["compare", *pair]) == 0
    _, row, note = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", row)[:3] == ["rl grpo", "1", "0.5"] and "1.271" not in row
    assert note.startswith("2 runs have the same seed (0) and count as one") and "copy" in note
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 1, "reward": 0.3}\n')
    other = _end(tmp_path, "b", 0.6, seed=1)
    assert main(["compare", *pair, other, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    # seed 0 is (0.3 + 0.5) / 2 = 0.4, seed 1 is 0.6; 12.71 · 0.1414 / √2
    assert record["table"]["rows"][0][1:4] == [2, 0.5, pytest.approx(1.271)]
    assert len(record["notes"]) == 1


def test_a_picture_with_long_names_keeps_its_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    from logpi.runs import plots

    drawn = []
    monkeypatch.setattr(plots, "save", lambda drawing, path: drawn.append(drawing) or path)
    long = {f"a_long_option_of_this_run_{i}": "a value of many characters" for i in range(6)}
    for i in range(3):
        _end(tmp_path / "runs", f"r{i}", 0.5, options={**long, "beta": i}, lr=1e-3 * (i + 1))
    _end(tmp_path / "runs", "r3", 0.5, options={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["compare", str(tmp_path / "runs"), "--picture", str(tmp_path / "x.png")]) == 0
        [drawing] = drawn
        plots._png(drawing)
    [axes], [legend] = drawing.axes, drawing.legends
    assert axes.get_legend() is None and len(legend.get_texts()) == 4
    width, height = axes.get_position().size * drawing.get_size_inches()
    assert width > 4.5 and height > 2.5
    assert all(t.get_text().endswith("(1 seed)") for t in legend.get_texts())
    assert max(len(line) for t in legend.get_texts() for line in t.get_text().split("\n")) <= 90


@pytest.mark.parametrize("place", ["nosuch/x.png", "file/x.png"])
def test_a_picture_that_cannot_be_written_costs_nothing(
    home: Path, tmp_path: Path, capsys, place: str
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["compare", str(home), "--picture", str(tmp_path / place)]) == 2
    said = capsys.readouterr()
    assert not said.out and "there is no folder" in said.err
    assert not (tmp_path / "nosuch").exists()

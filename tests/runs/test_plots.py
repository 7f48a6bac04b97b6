"""Curves: what is drawn, what is left out, what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from logpi.errors import RunError, UserError
from logpi.runs.plots import Panel, curves, figure, save, smooth


def records(offset: float) -> list[dict]:
    rows: list[dict] = [
        {"step": s, "reward": offset + s / 50, "kl": math.nan if s == 7 else 0.1} for s in range(50)
    ]
    return rows + [{"step": s, "eval/accuracy": s / 50} for s in range(0, 50, 10)]


def test_smooth() -> None:
    assert smooth([2.0, 0.0], span=1) == [2.0, 0.0]
    assert smooth([1.0] * 5, span=4) == pytest.approx([1.0] * 5)
    values, decay = [3.0, -1.0, math.nan, 2.0, 0.5], 1 - 2 / 5
    known = [s for s in range(5) if s != 2]
    expected = [
        sum(decay ** abs(t - s) * values[s] for s in known)
        / sum(decay ** abs(t - s) for s in known)
        for t in range(5)
    ]
    assert smooth(values, span=4) == pytest.approx(expected)
    assert smooth(list(range(101)), span=20)[50] == pytest.approx(50)  # no lag
    assert math.isnan(smooth([math.nan, math.inf], 2)[0])


def test_one_picture_of_several_runs(tmp_path: Path) -> None:
    from matplotlib.image import imread

    runs, names = (
        {"grpo": records(0), "dapo": records(1)},
        ["reward", ("kl", "entropy"), "eval/accuracy", "absent"],
    )
    path = curves(runs, names, tmp_path / "a/b.png", title="addition")
    height, width, _ = imread(path).shape
    assert (
        path == tmp_path / "a/b.png" and width > 1500 and height < 600
    )  # three panels in one row; no empty fourth


def test_what_the_panels_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    curves(
        {"grpo": records(0), "dapo": records(1)},
        ["reward", ("kl", "reward"), "eval/accuracy"],
        tmp_path / "x.png",
    )
    reward, mixed, accuracy = seen[0].axes
    labels = [[t.get_text() for t in axes.get_legend().get_texts()] for axes in (reward, mixed)]
    assert labels == [["grpo", "dapo"], ["grpo kl", "grpo reward", "dapo kl", "dapo reward"]]
    assert len(reward.lines) == 4 and list(reward.lines[0].get_ydata()) == [
        s / 50 for s in range(50)
    ]  # raw and smooth
    assert len(accuracy.lines) == 2 and accuracy.lines[0].get_marker() == "o"
    curves(
        {"grpo": records(0)},
        ["reward", "kl", "eval/accuracy", ("reward", "kl"), ("kl", "reward")],
        tmp_path / "x.png",
    )
    assert len(seen[1].axes) == 5  # of two rows of three
    assert reward.get_title(loc="left") == "reward" and reward.get_xlabel() == "step"


def test_runs_from_disk_with_equal_names_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    for parent in ("a", "b"):
        (tmp_path / parent / "run").mkdir(parents=True)
        (tmp_path / parent / "run/metrics.jsonl").write_text(
            '{"step": 1, "reward": 0.5}\n{"step": 2, "rew'
        )
    curves([tmp_path / "a/run", tmp_path / "b/run"], ["reward"], tmp_path / "x.png")
    labels = [t.get_text() for t in seen[0].axes[0].get_legend().get_texts()]
    assert labels == [str(tmp_path / "a/run"), str(tmp_path / "b/run")]


def test_a_figure_has_its_panels_and_a_legend_where_two_lines_need_one(tmp_path: Path) -> None:
    made = figure([Panel("left", "x", "y"), Panel("right"), Panel(), Panel(grid=False)], "title")
    left, right, *_ = made.axes
    assert len(made.axes) == 4 and [round(x, 1) for x in made.get_size_inches()] == [9.2, 6.6]
    assert (left.get_title(loc="left"), left.get_xlabel(), left.get_ylabel()) == ("left", "x", "y")
    for name in ("a", "b"):
        left.plot([1, 2], label=name)
    right.plot([1, 2], label="alone")
    assert save(made, tmp_path / "new/x.png").read_bytes() == made._repr_png_()
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["a", "b"]
    assert right.get_legend() is None
    with pytest.raises(RunError, match="cannot write"):
        save(made, tmp_path / "new/x.png/y.png")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no run has any of rewards; there are: eval/accuracy, kl, reward"
    ):
        curves({"x": records(0)}, ["rewards"], tmp_path / "x.png")
    with pytest.raises(UserError, match="there are no metrics at"):
        curves(tmp_path, ["reward"], tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        curves({"x": records(0)}, ["reward"], tmp_path / "file" / "x.png")


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = (
        "import sys, logpi.runs.plots; print([m for m in ('matplotlib', 'tensorboard') if m in"
        " sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

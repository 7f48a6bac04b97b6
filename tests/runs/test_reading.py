"""A run given back: metrics as arrays, samples, pictures, the policy; running or ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from logpi.errors import RunError, UserError
from logpi.runs.directory import Run
from logpi.runs.reading import RunView


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Still running: the writer holds it."""
    monkeypatch.setattr("logpi.runs.trackers._installed", lambda name: False)
    with Run.create(tmp_path / "rl-1", "rl", {"lr": 0.1}) as run:
        run.log(0, {"eval/pass@1": 0.25})
        for step in (1, 2, 3):
            run.log(step, {"reward": step / 4, "kl": float("nan") if step == 2 else 0.5})
            run.samples(step, [{"prompt": "?", "completion": str(step)}])
        run.log(3, {"eval/pass@1": 0.75, "time/eval": 2.0})
        run.samples(3, [{"prompt": "?", "completions": ["!"]}], kind="eval")
        yield run


def test_metrics_are_arrays_with_their_steps(run: Run) -> None:
    metrics = RunView(run.path).metrics
    assert list(metrics) == ["eval/pass@1", "reward", "kl", "time/eval"] and len(metrics) == 4
    steps, values = metrics["reward"]
    assert steps.dtype == np.int64 and values.dtype == np.float64
    assert steps.tolist() == [1, 2, 3] and values.tolist() == [0.25, 0.5, 0.75]
    assert metrics["eval/pass@1"].steps.tolist() == [0, 3]
    np.testing.assert_equal(metrics["kl"].values, [0.5, np.nan, 0.5])
    with pytest.raises(KeyError, match=r"no metric 'rewards'; did you mean reward\?"):
        metrics["rewards"]


def test_metrics_grow_with_the_run_and_a_step_done_again_counts_once(run: Run) -> None:
    view = RunView(str(run.path))
    run.log(4, {"reward": 9.0})
    assert view.metrics["reward"].values.tolist() == [0.25, 0.5, 0.75, 9.0]
    run.log(4, {"reward": 1.0})
    assert view.metrics["reward"].values.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert view.command == "rl" and view.arguments == {"lr": 0.1}


def test_metrics_as_a_data_frame(run: Run) -> None:
    pytest.importorskip("pandas")
    frame = RunView(run.path).metrics.to_pandas()
    assert frame.index.name == "step" and frame.index.tolist() == [0, 1, 2, 3]
    assert list(frame) == ["eval/pass@1", "reward", "kl", "time/eval"]
    np.testing.assert_equal(frame["eval/pass@1"].to_numpy(), [0.25, np.nan, np.nan, 0.75])


def test_samples_of_the_last_step_or_of_one(run: Run) -> None:
    view = RunView(run.path)
    assert view.samples() == [{"prompt": "?", "completion": "3"}]
    assert view.samples(1) == [{"prompt": "?", "completion": "1"}]
    assert view.samples(kind="eval") == [{"prompt": "?", "completions": ["!"]}]
    assert view.sample_steps() == [1, 2, 3] and view.sample_steps("eval") == [3]
    with pytest.raises(RunError, match=r"no samples of step 9; it has steps 1 … 3"):
        view.samples(9)
    with pytest.raises(RunError, match="has no samples yet"):
        view.samples(kind="x")


def test_curves_are_a_figure(run: Run) -> None:
    view = RunView(run.path)
    panels = [axes.get_title(loc="left") for axes in view.curves().axes]
    assert panels == ["reward", "kl", "eval/pass@1"]
    chosen = view.curves([("reward", "kl")], "both")
    assert [axes.get_title(loc="left") for axes in chosen.axes] == ["reward · kl"]
    assert chosen._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="nothing to draw"):
        view.curves(["rewards"])


def test_the_policy_is_loaded_once_by_whoever_knows_models(run: Run) -> None:
    loaded: list[Path] = []

    def load(view: RunView) -> str:
        loaded.append(view.model)
        return f"the policy of {view.command}"

    view = RunView(run.path, load)
    with pytest.raises(RunError, match="has no model: it is saved when the run ends"):
        view.policy()
    run.save_model(lambda path: (path / "weights").write_text("1"))
    assert view.policy() == view.policy() == "the policy of rl"
    assert loaded == [run.path / "model"]
    with pytest.raises(RunError, match="logpi.open_run"):
        RunView(run.path).policy()


def test_a_notebook_shows_the_last_values(run: Run) -> None:
    run.log(5, {"<b>": 2.0})
    text = RunView(run.path)._repr_html_()
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", text)
    assert ("reward", "3", "0.75") in rows and ("&lt;b&gt;", "5", "2") in rows
    assert text.startswith("<p><b>rl</b> run <code>") and "rl-1" in text
    assert repr(RunView(run.path)) == f"<rl run {run.path}>"


def test_a_directory_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match=r"^there is no run at .*\(it has no arguments.json\)$"):
            RunView(path)


def test_looking_changes_nothing(run: Run) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    view = RunView(run.path)
    view.metrics, view.samples(), view.curves(), view._repr_html_()
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before

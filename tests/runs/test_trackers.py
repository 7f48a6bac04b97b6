"""Trackers: TensorBoard for real (and no doubled steps after a resume); the others against
stand-ins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from logpi.errors import UserError
from logpi.runs.directory import Run
from logpi.runs.metrics import read_metrics
from logpi.runs.trackers import TrackedRun, trackers


def scalars(path: Path, name: str) -> list[tuple[int, float]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "tensorboard")).Reload()
    return [(e.step, e.value) for e in events.Scalars(name)]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", "rl", {}) as run:
        for step in (1, 2):
            run.log(step, {"reward": step, "kl": float("nan")})
        run.checkpoint(2, None)
        for step in (3, 4):
            run.log(step, {"reward": -1})  # lost: the run is killed here
    with Run.open(tmp_path / "run") as run:
        run.rewind(run.latest()[0])
        for step in (3, 4):
            run.log(step, {"reward": step})
    assert scalars(tmp_path / "run", "reward") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert [row["reward"] for row in read_metrics(tmp_path / "run")] == [1.0, 2.0, 3.0, 4.0]


class Recorder(ModuleType):
    """Stands in for a package: remembers every call, by name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **named: Any) -> Any:
            self.calls.append((name, args, named))
            return SimpleNamespace(
                id="id7",
                info=SimpleNamespace(run_id="id7"),
                log=self.log_,
                finish=lambda: self.calls.append(("end",)),
            )

        return call

    def log_(self, values: dict, step: int) -> None:
        self.calls.append(("log", values, step))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(name: str) -> Recorder:
        module = Recorder(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    monkeypatch.setattr(
        "logpi.runs.trackers._installed", lambda name: name in sys.modules and name != "tensorboard"
    )
    return install


def tracked(path: Path) -> TrackedRun:
    return TrackedRun("addition", path, {"lr": 0.1})


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(package: Any, tmp_path: Path, name: str) -> None:
    module = package(name)
    track = trackers((name,), tracked(tmp_path))
    track.log(3, {"reward": 0.5})
    track.close()
    (start, log, end) = module.calls
    assert start[0] == "init" and start[2]["project"] == "logpi" and start[2]["name"] == "addition"
    assert (
        start[2]["config"] == {"lr": 0.1}
        and start[2]["resume"] == {"wandb": "allow", "trackio": "never"}[name]
    )
    assert log == ("log", {"reward": 0.5}, 3) and end == ("end",)


def test_wandb_goes_on_in_the_same_place(package: Any, tmp_path: Path) -> None:
    module = package("wandb")
    for _ in range(2):
        trackers(("wandb",), tracked(tmp_path)).close()
    starts = [named for name, *_, named in (c for c in module.calls if c[0] == "init")]
    assert starts[0]["id"] is None and starts[1]["id"] == "id7"


def test_projects_names_and_groups_of_the_environment_win(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"WANDB_PROJECT": "sums", "WANDB_NAME": "mine", "WANDB_RUN_GROUP": "ours"}
    given |= {"TRACKIO_PROJECT": "sums", "MLFLOW_EXPERIMENT_NAME": "sums"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    modules = {name: package(name) for name in ("wandb", "trackio", "mlflow")}
    trackers(tuple(modules), tracked(tmp_path)).close()
    start = modules["wandb"].calls[0][2]
    assert (start["project"], start["name"], start["group"]) == ("sums", "mine", "ours")
    assert modules["trackio"].calls[0][2]["project"] == "sums"
    assert modules["mlflow"].calls[0] == ("set_experiment", ("sums",), {})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    modules["mlflow"].calls.clear()
    trackers(("mlflow",), tracked(tmp_path)).close()
    assert modules["mlflow"].calls[0][0] == "start_run"


def test_a_part_of_a_run_is_grouped_under_it(package: Any, tmp_path: Path) -> None:
    """A seed of several, or a stage of a chain, lies in the directory of the whole."""
    module = package("wandb")
    home = tmp_path / "gym-seeds-1"
    with Run.create(home, "gym", {}), Run.create(home / "seed-0", "gym", {}, ("wandb",)) as run:
        run.log(1, {"reward": 0.5})
    with Run.create(tmp_path / "alone", "gym", {}, ("wandb",)) as run:
        run.log(1, {"reward": 0.5})
    starts = [named for name, *_, named in (c for c in module.calls if c[0] == "init")]
    assert [(s["name"], s["group"]) for s in starts] == [
        ("seed-0", "gym-seeds-1"),
        ("alone", None),
    ]


class Mine:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict]] = []

    def log(self, step: int, metrics: dict) -> None:
        self.seen.append((step, metrics))


class Closing(Mine):
    def close(self) -> None:
        self.seen.append((-1, {}))


def test_an_object_with_log_is_a_tracker(package: Any, tmp_path: Path) -> None:
    plain, closing = Mine(), Closing()
    with Run.create(tmp_path / "run", "rl", {}, trackers=(plain, closing)) as run:
        run.log(1, {"reward": 0.5})
    assert plain.seen == [(1, {"reward": 0.5})]
    assert closing.seen == [(1, {"reward": 0.5}), (-1, {})]
    with pytest.raises(UserError, match=r"an object with log\(step, metrics\); 3 is neither"):
        Run.create(tmp_path / "other", "rl", {}, trackers=(3,))
    assert not (tmp_path / "other").exists()


def test_an_object_that_fails_is_left_alone(
    package: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def log(self, step: int, metrics: dict) -> None:
            raise ValueError("no room")

    with Run.create(tmp_path / "run", "rl", {}, trackers=(Failing(),)) as run:
        run.log(1, {"reward": 0.5})
        run.log(2, {"reward": 0.5})
    assert caplog.text.count("the tracker Failing failed and is off now (no room)") == 1


def test_mlflow(package: Any, tmp_path: Path) -> None:
    module = package("mlflow")
    for _ in range(2):
        track = trackers(("mlflow",), tracked(tmp_path))
        track.log(3, {"eval/pass@4": 1})
        track.close()
    assert [c for c in module.calls if c[0] == "start_run"] == [
        ("start_run", (), {"run_name": "addition", "tags": None}),
        ("start_run", (), {"run_id": "id7"}),
    ]
    assert ("log_metrics", ({"eval/pass_4": 1.0},), {"step": 3}) in module.calls
    assert ("log_params", ({"lr": "0.1"},), {}) in module.calls and module.calls[-1][0] == "end_run"


def test_unknown_and_missing_ones_are_refused(package: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tracker 'wandbb'; did you mean wandb"):
        trackers(("wandbb",), tracked(tmp_path))
    with pytest.raises(
        UserError, match="unknown tracker 'x'; there are: tensorboard, wandb, trackio, mlflow"
    ):
        trackers(("x",), tracked(tmp_path))
    for name in ("mlflow", "tensorboard"):
        with pytest.raises(UserError, match=f"{name} is not installed: pip install {name}"):
            trackers((name,), tracked(tmp_path))


def test_a_failing_tracker_is_reported_once_and_training_goes_on(
    package: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = package("wandb")
    module.log_ = lambda *_, **__: 1 / 0
    with Run.create(tmp_path / "run", "rl", {}, trackers=("wandb",)) as run:
        for step in (1, 2, 3):
            run.log(step, {"reward": step})
    assert [row["step"] for row in read_metrics(run.path)] == [1, 2, 3]
    assert caplog.text.count("the tracker wandb failed and is off now (division by zero)") == 1


def test_a_tracker_that_cannot_start_does_not_stop_the_run(
    package: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package("trackio").init = lambda **_: 1 / 0
    trackers(("trackio",), tracked(tmp_path)).log(1, {})
    assert "the tracker trackio failed" in caplog.text
    assert "tensorboard" not in caplog.text  # nobody asked for it

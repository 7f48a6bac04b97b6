"""Where metrics go besides the run's own `metrics.jsonl`: TensorBoard always; wandb, trackio,
mlflow when asked for.

    track = trackers(("wandb",), TrackedRun("addition", Path("runs/addition"), arguments))
    track.log(10, {"reward": 0.5}); track.close()

A new one is a class with `log` and `close` and a row of `NAMED`. A tracker that fails never stops
training: it is reported once and then left alone. Packages are imported only here, and only when
    used.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from logpi.errors import UserError, did_you_mean

notices = logging.getLogger("logpi")


class Tracker(Protocol):
    """Something that takes numbers as they come."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker needs to know of a run.

    Attributes:
        name: for people. path: the run's directory. arguments: plain values, shown as its
            configuration.
        resumed_at: the first step that is (again) to come, or None for a new run.
    """

    name: str
    path: Path
    arguments: Mapping[str, Any]
    resumed_at: int | None = None


class TensorBoard:
    """Event files in `tensorboard/`. After a resume the steps that are done again replace the lost
    ones."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _hush_writers()
        self.writer = SummaryWriter(
            str(run.path / "tensorboard"), purge_step=run.resumed_at, flush_secs=10
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


@cache
def _hush_writers() -> None:
    """A failing disk is said once, by `_Guarded`: not also as a traceback of the thread that
    writes."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook


class Wandb:
    """Weights & Biases. The run's id is kept in the run's directory, so a resumed run goes on in
    the same place."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        known = run.path / "wandb_id"
        saved = {"id": known.read_text().strip()} if known.exists() else {}
        self.run = wandb.init(
            project="logpi",
            name=run.name,
            dir=str(run.path),
            config=dict(run.arguments),
            resume="allow",
            **saved,
        )
        known.write_text(self.run.id + "\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """Trackio, Hugging Face's local-first tracker. A resumed run is found by its name; a new one
    joins none."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        resume = "never" if run.resumed_at is None else "allow"
        self.run = trackio.init(
            project="logpi", name=run.name, config=dict(run.arguments), resume=resume
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI or its default. The run's id is kept in the run's
    directory."""

    def __init__(self, run: TrackedRun) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        known = run.path / "mlflow_id"
        self.mlflow = mlflow
        mlflow.set_experiment("logpi")
        if known.exists():
            self.run = mlflow.start_run(run_id=known.read_text().strip())
        else:
            self.run = mlflow.start_run(run_name=run.name)
            known.write_text(self.run.info.run_id + "\n")
            mlflow.log_params({k: str(v)[:500] for k, v in run.arguments.items()})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.mlflow.log_metrics({_mlflow_name(k): float(v) for k, v in metrics.items()}, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


def _mlflow_name(name: str) -> str:
    """`pass@4` -> `pass_4`: it takes letters, digits and `_-. /` only."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


# name -> (class, the package it needs, what to install)
NAMED: dict[str, tuple[Callable[[TrackedRun], Tracker], str, str]] = {
    "tensorboard": (TensorBoard, "tensorboard", "tensorboard"),
    "wandb": (Wandb, "wandb", "wandb"),
    "trackio": (Trackio, "trackio", "trackio"),
    "mlflow": (MLflow, "mlflow", "mlflow"),
}


def check(names: Sequence[str]) -> None:
    """Refuse an unknown tracker, or one whose package is not installed, before any work is done.

    Raises:
        UserError: naming the nearest known one, or the command that installs it.
    """
    for name in names:
        if name not in NAMED:
            hint = did_you_mean(name, NAMED) or f"; there are: {', '.join(NAMED)}"
            raise UserError(f"unknown tracker {name!r}{hint}")
        if not _installed(NAMED[name][1]):
            raise UserError(f"the tracker {name} is not installed: pip install {NAMED[name][2]}")


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module put into sys.modules by hand
        return True


class _Guarded:
    """Keeps a tracker's failures away from training: the first is reported, and then it is left
    alone."""

    def __init__(self, name: str, run: TrackedRun) -> None:
        self.name = name
        self.tracker: Tracker | None = None
        self._try(self._open, run)

    def _open(self, run: TrackedRun) -> None:
        self.tracker = NAMED[self.name][0](run)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            self.tracker = None
            notices.warning(
                "the tracker %s failed and is off now (%s); metrics.jsonl has everything",
                self.name,
                error,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.tracker:
            self._try(self.tracker.log, step, metrics)

    def close(self) -> None:
        if self.tracker:
            self._try(self.tracker.close)


@dataclass(frozen=True)
class _Several:
    all: tuple[Tracker, ...]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for tracker in self.all:
            tracker.log(step, metrics)

    def close(self) -> None:
        for tracker in self.all:
            tracker.close()


def trackers(names: Sequence[str], run: TrackedRun) -> Tracker:
    """TensorBoard and the named trackers as one, started.

    Raises:
        UserError: see `check`. (A missing TensorBoard is only a notice.)
    """
    check(names)
    wanted = list(dict.fromkeys(names))
    if "tensorboard" not in wanted:
        if _installed("tensorboard"):
            wanted.insert(0, "tensorboard")
        else:
            notices.warning(
                "tensorboard is not installed, so there are no event files (pip install"
                " tensorboard)"
            )
    return _Several(tuple(_Guarded(name, run) for name in wanted))

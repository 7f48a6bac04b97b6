"""Where metrics go besides the run's own `metrics.jsonl`: TensorBoard where it is installed; wandb,
trackio, mlflow when named; and any object of the user's with `log(step, metrics)`.

    track = trackers(("wandb", mine), TrackedRun("addition", Path("runs/addition"), arguments))
    track.log(10, {"reward": 0.5}); track.close()

A further named one is a function that starts it, and a row of `NAMED`. A tracker that fails never
stops training: it is reported once and then left alone. Packages are imported only when used.
Left out: anything but numbers (samples and models stay in the run's directory).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from logpi.errors import UserError, did_you_mean

notices = logging.getLogger("logpi")


class Tracker(Protocol):
    """Something that takes numbers as they come. A method `close()`, if there is one, is called at
    the end of the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...


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

    @property
    def group(self) -> str | None:
        """The run that this one is a part of (a seed of several, a stage of a chain), or None."""
        parent = self.path.resolve().parent
        return parent.name if (parent / "arguments.json").is_file() else None

    def saved_id(self, tracker: str) -> str | None:
        """The id that a tracker gave this run before; a resumed run continues in the same
        place."""
        file = self.path / f"{tracker}_id"
        return file.read_text().strip() if file.exists() else None

    def save_id(self, tracker: str, value: str) -> None:
        """Remember the id that a tracker gave this run."""
        (self.path / f"{tracker}_id").write_text(value + "\n")


@dataclass(frozen=True)
class Started:
    """A named tracker at work."""

    log: Callable[[int, Mapping[str, float]], Any]
    close: Callable[[], Any]


def _tensorboard(run: TrackedRun) -> Started:
    """Event files in `tensorboard/`. After a resume the steps that are done again replace the lost
    ones."""
    from torch.utils.tensorboard import SummaryWriter

    _hush_writers()
    place = str(run.path / "tensorboard")
    writer = SummaryWriter(place, purge_step=run.resumed_at, flush_secs=10)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return Started(log, writer.close)


@cache
def _hush_writers() -> None:
    """A failing disk is reported once, by `_Guarded`: not also as a traceback of the thread that
    writes."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook


def _wandb(run: TrackedRun) -> Started:
    """Weights & Biases. WANDB_PROJECT, WANDB_NAME and WANDB_RUN_GROUP win, as everywhere."""
    import wandb  # pyright: ignore[reportMissingImports]

    started = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "logpi"),
        name=os.environ.get("WANDB_NAME", run.name),
        group=os.environ.get("WANDB_RUN_GROUP", run.group),
        id=run.saved_id("wandb"),
        resume="allow",
        config=dict(run.arguments),
        dir=str(run.path),
    )
    run.save_id("wandb", started.id)
    return Started(lambda step, metrics: started.log(dict(metrics), step=step), started.finish)


def _trackio(run: TrackedRun) -> Started:
    """Trackio, Hugging Face's local-first tracker: TRACKIO_PROJECT wins. It finds a resumed run by
    its name."""
    import trackio  # pyright: ignore[reportMissingImports]

    started = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", "logpi"),
        name=run.name,
        group=run.group,
        resume="never" if run.resumed_at is None else "allow",
        config=dict(run.arguments),
    )
    return Started(lambda step, metrics: started.log(dict(metrics), step=step), started.finish)


def _mlflow(run: TrackedRun) -> Started:
    """MLflow, at MLFLOW_TRACKING_URI or its default; MLFLOW_EXPERIMENT_NAME and _ID win."""
    import mlflow  # pyright: ignore[reportMissingImports]

    if "MLFLOW_EXPERIMENT_ID" not in os.environ:
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "logpi"))
    saved = run.saved_id("mlflow")
    if saved:
        mlflow.start_run(run_id=saved)
    else:
        tags = {"group": run.group} if run.group else None
        started = mlflow.start_run(run_name=run.name, tags=tags)
        run.save_id("mlflow", started.info.run_id)
        mlflow.log_params({k: str(v)[:500] for k, v in run.arguments.items()})

    def log(step: int, metrics: Mapping[str, float]) -> None:
        mlflow.log_metrics({_mlflow_name(k): v for k, v in metrics.items()}, step=step)

    return Started(log, mlflow.end_run)


def _mlflow_name(name: str) -> str:
    """`pass@4` -> `pass_4`: it takes letters, digits and `_-. /` only."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


# name, which is that of the package too -> what starts it
NAMED: dict[str, Callable[[TrackedRun], Started]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}


def check(wanted: Sequence[str | Tracker]) -> None:
    """Refuse what is no tracker, or one whose package is not installed, before any work is done.

    Raises:
        UserError: naming the nearest known one, or the command that installs it.
    """
    for tracker in wanted:
        if isinstance(tracker, str):
            if tracker not in NAMED:
                hint = did_you_mean(tracker, NAMED) or f"; there are: {', '.join(NAMED)}"
                raise UserError(f"unknown tracker {tracker!r}{hint}")
            if not _installed(tracker):
                raise UserError(f"the tracker {tracker} is not installed: pip install {tracker}")
        elif not callable(getattr(tracker, "log", None)):
            raise UserError(
                f"a tracker is a name ({', '.join(NAMED)}) or an object with log(step, metrics);"
                f" {tracker!r} is neither"
            )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module put into sys.modules by hand
        return True


class _Guarded:
    """Keeps a tracker's failures away from training: the first is reported, and then it is left
    alone."""

    def __init__(self, tracker: str | Tracker, run: TrackedRun) -> None:
        self.name = tracker if isinstance(tracker, str) else type(tracker).__name__
        self.tracker: Any = None
        self._try(self._start, tracker, run)

    def _start(self, tracker: str | Tracker, run: TrackedRun) -> None:
        self.tracker = NAMED[tracker](run) if isinstance(tracker, str) else tracker

    def _try(self, action: Callable[..., Any], *arguments: Any) -> None:
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
        if self.tracker is not None:
            self._try(self.tracker.log, step, metrics)

    def close(self) -> None:
        close = getattr(self.tracker, "close", None)
        if close is not None:
            self._try(close)


@dataclass(frozen=True)
class Trackers:
    """Several trackers as one."""

    all: tuple[_Guarded, ...]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for tracker in self.all:
            tracker.log(step, metrics)

    def close(self) -> None:
        for tracker in self.all:
            tracker.close()


def trackers(wanted: Sequence[str | Tracker], run: TrackedRun) -> Trackers:
    """The wanted trackers, started; and TensorBoard before them, where it is installed.

    Raises:
        UserError: see `check`.
    """
    check(wanted)
    first = ["tensorboard"] if _installed("tensorboard") and "tensorboard" not in wanted else []
    once = [t for i, t in enumerate(wanted) if not (isinstance(t, str) and t in wanted[:i])]
    return Trackers(tuple(_Guarded(tracker, run) for tracker in [*first, *once]))

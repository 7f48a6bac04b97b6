"""A run is a directory: everything that went in and came out, safe against a kill at any instant.

    runs/addition/
      arguments.json         command and every argument: `logpi repeat` needs no more
      versions.json          python, packages, platform, threads, git commit
      metrics.jsonl          one record for each `log`
      samples/               step-000010.jsonl: every rollout with its reward parts
      checkpoints/           step-000010/ …
      best                   the name of the best checkpoint
      model/                 the final model
      curves.png  tensorboard/

    with Run.create("runs/addition", "rl", arguments) as run: ...      # or Run.open(path) to go on with one
        run.log(step, metrics); run.samples(step, rows)
        run.checkpoint(step, state)                                    # last of all for that step

To resume: `step, state = run.latest()`, then `run.rewind(step)`. What was logged after `step` is dropped, so that the
files of a resumed run equal those of one that was never stopped, but for the metrics that measure time.

Reading a run needs none of this and takes no lock: `read_metrics(path)`, `checkpoint.load(...)`, the JSON files.
Left out: what is in a state, when to write one (`train`), and drawing (`plots`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from logpi.errors import RunError
from logpi.runs import checkpoint as checkpoints
from logpi.runs import disk, metrics
from logpi.runs.trackers import TrackedRun, Tracker, check, trackers
from logpi.runs.versions import differences, versions

__all__ = ["Run", "read_arguments", "refuse_taken"]

notices = logging.getLogger("logpi")


def read_arguments(path: str | Path) -> tuple[str, dict[str, Any]]:
    """The command and the arguments of a run, e.g. to repeat it.

    Raises:
        RunError: there is no run at `path`.
    """
    try:
        saved = json.loads((Path(path) / "arguments.json").read_text())
        return saved["command"], saved["arguments"]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"there is no run at {path} (it has no arguments.json)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {path}/arguments.json: {error}") from None


def keep_argument(path: Path, name: str, value: Any) -> None:
    """Change one of a run's arguments for good."""
    command, arguments = read_arguments(path)
    with disk.reported(f"write {path / 'arguments.json'}"):
        _write_arguments(path, command, arguments | {name: value})


class Run:
    """A run that is being written; made by `Run.create` or `Run.open`. One process at a time: the directory is locked.

    Attributes:
        path: the directory. command, arguments: what it runs. model: where `save_model` puts the final model.
    """

    def __init__(self, path: Path, held: IO[bytes], extra_trackers: Sequence[str]) -> None:
        self.path = path
        self.command, self.arguments = read_arguments(path)
        self.model = path / "model"
        self._lock = held
        self._extra_trackers = tuple(extra_trackers)
        self._tracker: Tracker | None = None  # started by the first `log`
        self._resumed_at: int | None = None
        self._unsynced: set[Path] = set()

    # ----------------------------------------------------------------------- making and opening

    @classmethod
    def create(cls, path: str | Path, command: str, arguments: Mapping[str, Any], trackers: Sequence[str] = ()) -> Run:
        """A new run. `trackers` are those besides TensorBoard.

        Raises:
            RunError: the directory holds another run or other files, or cannot be made.
            UserError: an unknown tracker, or one that is not installed.
        """
        path = Path(path)
        check(trackers)
        refuse_taken(path)
        with disk.reported(f"make the run {path}", "give another --out"):
            path.mkdir(parents=True, exist_ok=True)
            held = disk.lock(path / ".lock")
            disk.write(path / "versions.json", json.dumps(versions(), indent=2).encode())
            _write_arguments(path, command, arguments)  # last: this makes it a run
        return cls(path, held, trackers)

    @classmethod
    def open(cls, path: str | Path, trackers: Sequence[str] = ()) -> Run:
        """A run to go on with. Clears what a killed writer left; says so if the software has changed since.

        Raises:
            RunError: there is no run, another process is writing it, or permission is missing.
        """
        path = Path(path)
        check(trackers)
        read_arguments(path)
        with disk.reported(f"go on with the run {path}"):
            held = disk.lock(path / ".lock")
            for place in (path, path / "samples", path / "checkpoints"):
                disk.settle(place)
            metrics.cut_torn_line(path / "metrics.jsonl")
        _notice_changes(path)
        return cls(path, held, trackers)

    def rearrange(self, arguments: Mapping[str, Any]) -> None:
        """From now on it is a run of these arguments."""
        with disk.reported(f"write {self.path / 'arguments.json'}"):
            _write_arguments(self.path, self.command, arguments)
        self.arguments = dict(arguments)

    def close(self) -> None:
        """Finish the trackers and let others write the run."""
        if self._tracker:
            self._tracker.close()
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----------------------------------------------------------------------- writing

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a record of numbers. Several for one step are fine; all of them before that step's checkpoint."""
        record = {name: float(value) for name, value in values.items()}
        self._append(self.path / "metrics.jsonl", [{"step": step, **record}])
        if self._tracker is None:
            known = TrackedRun(self.path.resolve().name, self.path, self.arguments, self._resumed_at)
            self._tracker = trackers(self._extra_trackers, known)
        self._tracker.log(step, record)

    def samples(self, step: int, rows: Iterable[Mapping[str, Any]], kind: str = "step") -> None:
        """Add rows for people to read to `samples/<kind>-<step>.jsonl`."""
        self._append(self.path / "samples" / f"{kind}-{step:06d}.jsonl", rows)

    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None:
        """Write the state after `step`; keep the last `keep`, and the last that was marked `best`.

        Raises:
            RunError: the disk failed; the message names the last good checkpoint, which is still there.
        """
        directory = self.path / "checkpoints" / _name(step)
        with self._reported(f"write {directory}"):
            for path in sorted(self._unsynced):  # the log must not end before the state does, power cut or not
                disk.sync(path)
            self._unsynced.clear()
        checkpoints.save(state, directory, {"step": step, "best": best}, self._advice())
        with self._reported(f"write {self.path / 'best'}"):
            self._prune(keep)

    def save_model(self, save: Callable[[Path], object]) -> Path:
        """Make `model/`, or replace it whole: `save` fills the directory that it is given."""
        with self._reported(f"write {self.model}"), disk.replaced(self.model) as partial:
            save(partial)
        return self.model

    # ----------------------------------------------------------------------- resuming

    def latest(self) -> tuple[int, Any] | None:
        """The newest sound checkpoint as (step, state), or None. A damaged one is passed over with a notice."""
        return self._newest(reversed(self._checkpoints()))

    def best(self) -> tuple[int, Any] | None:
        """The checkpoint last marked best as (step, state), or None."""
        return self._newest(x for x in reversed(self._checkpoints()) if _is_best(x))

    def rewind(self, step: int) -> None:
        """Forget everything after `step` (-1: everything), so that the run can go on from there."""
        with disk.reported(f"rewind the run {self.path}"):
            metrics.keep_until(self.path / "metrics.jsonl", step)
            for path in (self.path / "samples").glob("*.jsonl"):
                if _step(path) > step:
                    path.unlink()
            for path in self._checkpoints():
                if _step(path) > step:
                    disk.remove(path)
            self._point_to_best()
        self._resumed_at = step + 1

    # ----------------------------------------------------------------------- inside

    def _append(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        data = b"".join(metrics.encode(row) for row in rows)
        with self._reported(f"write {path}"):
            path.parent.mkdir(exist_ok=True)  # `samples/` is there only if there are any
            disk.append(path, data)
        self._unsynced |= {path, path.parent}

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        with disk.reported(what, self._advice()):
            yield

    def _advice(self) -> str:
        last = next(reversed(self._checkpoints()), None)
        if last is None:
            return "there is no checkpoint to go back to"
        return f"the last good checkpoint is {last}; mend the disk and go on with --resume"

    def _checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"), key=_step)

    def _newest(self, candidates: Iterable[Path]) -> tuple[int, Any] | None:
        for path in candidates:
            try:
                return _step(path), checkpoints.load(path)
            except RunError as error:
                notices.warning("%s; going back to the one before", error)
        return None

    def _prune(self, keep: int) -> None:
        everything = self._checkpoints()
        kept = set(everything[-max(keep, 1) :]) | set([x for x in everything if _is_best(x)][-1:])
        for path in everything:
            if path not in kept:
                disk.remove(path)
        self._point_to_best()

    def _point_to_best(self) -> None:
        """`best` only repeats, for people, what the checkpoints say of themselves: it can never disagree for long."""
        marked = [x for x in self._checkpoints() if _is_best(x)]
        if marked:
            disk.write(self.path / "best", f"checkpoints/{marked[-1].name}\n".encode())
        else:
            (self.path / "best").unlink(missing_ok=True)


def _write_arguments(path: Path, command: str, arguments: Mapping[str, Any]) -> None:
    record = {"command": command, "arguments": dict(arguments)}
    disk.write(path / "arguments.json", json.dumps(record, indent=2, default=str).encode())


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _step(path: Path) -> int:
    found = re.search(r"-(\d+)(\.jsonl)?$", path.name)
    return int(found[1]) if found else -1


def _is_best(directory: Path) -> bool:
    return bool(checkpoints.about(directory).get("best"))


def refuse_taken(path: Path) -> None:
    """Raises RunError unless a new run can be made at `path`: for saying so before other work is done."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; give another --out")
    if (path / "arguments.json").exists():
        raise RunError(f"{path} already holds a run; give another --out, or --resume to go on with it")
    if path.is_dir() and any(_foreign(p) for p in path.iterdir()):
        raise RunError(f"{path} is not empty and holds no run; give another --out")


def _foreign(path: Path) -> bool:
    """Whether a file is not one that `create` makes before a directory becomes a run (it may have been killed)."""
    empty = path.name in ("samples", "checkpoints") and not any(path.iterdir())
    return not (empty or path.name.startswith(".") or path.name == "versions.json")


def _notice_changes(path: Path) -> None:
    try:
        before = json.loads((path / "versions.json").read_text())
    except (OSError, ValueError):
        return
    changed = differences(before, versions())
    if changed:
        notices.warning("since this run began: %s; it goes on, but not bit for bit", ", ".join(changed))

"""A run is a directory: everything that went in and came out, safe against a kill at any instant.

    runs/addition/
      arguments.json         command and every argument: `logpi repeat` needs no more
      versions.json          python, packages, platform, threads, git commit
      metrics.jsonl          one record for each `log`
      samples/               step-000010.jsonl: every rollout with its reward parts
      checkpoints/           step-000010/ …
      latest  best           the names of the newest and of the best checkpoint
      model/                 the final model
      tokenizer/             tokenizer.json, to read the tokens of samples with
      curves.png  tensorboard/

    with Run.create("runs/addition", "rl", arguments) as run:   # or Run.open(path), to resume
        run.log(step, metrics)
        run.samples(step, rows)
        run.checkpoint(step, state)                             # last of all for that step

To resume: `step, state = run.latest()`, then `run.rewind(step)`. What was logged after `step` is
dropped, so that the files of a resumed run equal those of one that was never stopped, but for the
metrics that measure time.
A run is written in place, so nothing in it may be a link: a resumed run never touches a file
elsewhere.

Left out: reading a run, which takes no lock (`reading.py`), what is in a state and when to write
one (`train`), which checkpoints are kept (`history`), whose run it is (`trust`), and drawing
(`plots`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import RunError
from logpi.runs import checkpoint as checkpoints
from logpi.runs import disk, metrics, trust
from logpi.runs.arguments import read_arguments, read_record
from logpi.runs.history import History
from logpi.runs.trackers import TrackedRun, Tracker, Trackers, check, trackers
from logpi.runs.versions import differences, versions

if TYPE_CHECKING:
    from filelock import FileLock
    from torch.distributed.device_mesh import DeviceMesh

notices = logging.getLogger("logpi")


def next_path(command: str, parent: Path = Path("runs")) -> Path:
    """Where the next run of a command goes: `runs/COMMAND-1`, or the first number that is free.

    So the cell of a notebook that is run again makes a run of its own.
    """
    return next(p for i in count(1) if not (p := parent / f"{command}-{i}").exists())


def allow(path: Path, trusted: bool) -> None:
    """Raises UserError if a run's arguments name code and the user neither made nor trusts it."""
    trust.allow(path, read_record(path), trusted)


class Run:
    """A run that is being written; made by `Run.create` or `Run.open`. One process at a time: the
    directory is locked.

    Attributes:
        path: the directory. command, arguments: what it runs. model: where `save_model` puts the
            final model.
    """

    def __init__(
        self, path: Path, file_lock: FileLock, extra_trackers: Sequence[str | Tracker]
    ) -> None:
        self.path = path
        self.command, self.arguments = read_arguments(path)
        self.model = path / "model"
        self.history = History(path)
        self._lock = file_lock
        self._extra_trackers = tuple(extra_trackers)
        self._tracker: Trackers | None = None  # started by the first `log`
        self._resumed_at: int | None = None
        self._pending: Mapping[str, Any] | None = None  # its arguments once it is resumed
        self._unsynced: set[Path] = set()

    # ----------------------------------------------------------------------- making and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        command: str,
        arguments: Mapping[str, Any],
        trackers: Sequence[str | Tracker] = (),
    ) -> Run:
        """A new run. `trackers`: names, or objects with `log(step, metrics)`, besides TensorBoard.

        Raises:
            RunError: the directory holds another run or other files, or cannot be made.
            UserError: an unknown tracker, or one that is not installed.
        """
        path = Path(path)
        check(trackers)
        refuse_taken(path)
        with disk.reported(f"make the run {path}", "give another --out"):
            path.mkdir(parents=True, exist_ok=True)
            refuse_links(path)
            file_lock = disk.lock(path / ".lock")
            disk.write(path / "versions.json", json.dumps(versions(), indent=2).encode())
            _write_arguments(path, command, arguments)  # last: this makes it a run
        return cls(path, file_lock, trackers)

    @classmethod
    def open(
        cls,
        path: str | Path,
        trackers: Sequence[str | Tracker] = (),
        arguments: Mapping[str, Any] | None = None,
    ) -> Run:
        """A run to resume. Clears what a killed writer left; warns if the software has changed
        since.

        Args:
            arguments: of the run once it is resumed (`rewind`) or has ended. Default: as they
                were.
        Raises:
            RunError: there is no run, another process is writing it, something in it is a link, or
                permission is missing.
        """
        path = Path(path)
        check(trackers)
        read_arguments(path)
        with disk.reported(f"go on with the run {path}"):
            refuse_links(path)
            file_lock = disk.lock(path / ".lock")
            for place in (path, path / "samples", path / "checkpoints"):
                disk.settle(place)
            metrics.mend(path / "metrics.jsonl")
        _notice_changes(path)
        run = cls(path, file_lock, trackers)
        run._pending = arguments
        return run

    def rearrange(self, arguments: Mapping[str, Any]) -> None:
        """From now on it is a run of these arguments."""
        self.arguments, self._pending = dict(arguments), None
        with disk.reported(f"write {self.path / 'arguments.json'}"):
            _write_arguments(self.path, self.command, self.arguments)

    def close(self) -> None:
        """Finish the trackers and let others write the run."""
        if self._tracker:
            self._tracker.close()
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if error is None and self._pending is not None:
                self.rearrange(self._pending)
        finally:
            self.close()
        if isinstance(error, OSError):
            self._check_there()

    # ----------------------------------------------------------------------- writing

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a record of numbers. Several for one step are fine; all of them before that step's
        checkpoint."""
        record = {name: float(value) for name, value in values.items()}
        self._append(self.path / "metrics.jsonl", [{"step": step, **record}])
        if self._tracker is None:
            run = TrackedRun(self.path.resolve().name, self.path, self.arguments, self._resumed_at)
            self._tracker = trackers(self._extra_trackers, run)
        self._tracker.log(step, record)

    def samples(self, step: int, rows: Iterable[Mapping[str, Any]], kind: str = "step") -> None:
        """Add rows for people to read to `samples/<kind>-<step>.jsonl`."""
        self._append(self.path / "samples" / f"{kind}-{step:06d}.jsonl", rows)

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Write files that the run is read with, each whole; those that are there stay."""
        for name, data in files.items():
            path = self.path / name
            if not path.exists():
                with self._reported(f"write {path}"):
                    path.parent.mkdir(exist_ok=True)
                    disk.write(path, data)

    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None:
        """Write the state after `step`; keep the last `keep`, and the last that was marked `best`.

        Raises:
            RunError: the disk failed; the message names the last good checkpoint, which is still
                there.
        """
        self.sync(step)
        about = {"step": step, "best": best}
        checkpoints.save(state, self.history.directory(step), about, self.advice())
        self.prune(keep)

    def sync(self, step: int) -> None:
        """The log must not end before the state of `step` does, power cut or not."""
        with self._reported(f"write {self.history.directory(step)}"):
            for path in sorted(self._unsynced):
                disk.sync(path)
            self._unsynced.clear()

    def prune(self, keep: int) -> None:
        """Keep the last `keep` checkpoints, and the last best one."""
        with self._reported(f"write {self.path / 'latest'}"):
            self.history.prune(keep)

    def save_model(self, save: Callable[[Path], object]) -> Path:
        """Make `model/`, or replace it whole: `save` fills the directory that it is given."""
        with self.model_replaced() as partial:
            save(partial)
        return self.model

    @contextmanager
    def model_replaced(self) -> Iterator[Path]:
        """An empty directory that becomes `model/`."""
        with self._reported(f"write {self.model}"), disk.replaced(self.model) as partial:
            yield partial

    # ----------------------------------------------------------------------- resuming

    def latest(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        """The newest sound checkpoint as (step, state), or None if there was never one.

        A damaged one is put aside with a notice.

        Args:
            mesh: where tensors in shards go (`sharding.mesh_of`); without it they come whole.

        Raises:
            RunError: it cannot be read, or all are lost or damaged; nothing was changed.
        """
        return self.history.newest(mesh)

    def best(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        """The checkpoint last marked best as (step, state), or None; as `latest`."""
        return self.history.best(mesh)

    def rewind(self, step: int) -> None:
        """Forget everything after `step` (-1: everything); the run can continue from there."""
        with disk.reported(f"rewind the run {self.path}"):
            metrics.keep_until(self.path / "metrics.jsonl", step)
            for path in (self.path / "samples").glob("*.jsonl"):
                named = re.fullmatch(r"[a-z]+-([0-9]{6,})\.jsonl", path.name)
                if named and int(named[1]) > step:
                    path.unlink()
            self.history.drop_after(step)
        self._resumed_at = step + 1
        if self._pending is not None:
            self.rearrange(self._pending)

    # ----------------------------------------------------------------------- inside

    def _append(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        data = b"".join(metrics.encode(row) for row in rows)
        with self._reported(f"write {path}"):
            path.parent.mkdir(exist_ok=True)  # `samples/` is there only if there are any
            disk.append(path, data)
        self._unsynced |= {path, path.parent}

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        self._check_there()
        try:
            yield
        except OSError as error:
            self._check_there()
            with disk.reported(what, self.advice()):
                raise error

    def _check_there(self) -> None:
        """Raises RunError if the directory was taken away: what is written would be half a run."""
        try:
            (self.path / "arguments.json").stat()
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} was removed or renamed while the run was being written, so it ends"
                " here; if it is somewhere else now, go on with it there: --resume"
            ) from None
        except OSError:
            pass

    def advice(self) -> str:
        """What to do when the disk has failed."""
        last: Path | None = None
        with suppress(RunError):  # a disk that fails may not be listed either
            last = next(reversed(self.history.whole()), None)
        if last is None:
            return "there is no checkpoint to go back to"
        return f"the last good checkpoint is {last}; mend the disk and go on with --resume"


def _write_arguments(path: Path, command: str, arguments: Mapping[str, Any]) -> None:
    record = trust.sign(path, {"command": command, "arguments": dict(arguments)})
    data = json.dumps(record, indent=2, default=str).encode()
    file = path / "arguments.json"
    if not file.exists() or file.read_bytes() != data:
        disk.write(file, data)


def refuse_links(run: Path) -> None:
    """Raises RunError if something in a run is a link, a pipe or a device.

    To write or clear it would reach elsewhere. Models (replaced whole) and a tracker's own
    directory are not looked into.
    """
    with os.scandir(run) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in ("model", "base", "wandb", "mlruns", "tensorboard"):
                    refuse_links(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                kind = "neither a file nor a directory"
                kind = f"a link to {os.readlink(entry.path)}" if entry.is_symlink() else kind
                raise RunError(
                    f"{entry.path} is {kind}, and a run is written and cleared in place: put the"
                    " real one there (a run as a whole may be reached by a link)"
                )


def refuse_taken(path: Path) -> None:
    """Raises RunError unless a new run can be made at `path`: for saying so before other work is
    done."""
    disk.refuse_unwritable(path, "give another --out")
    with disk.reported(f"make the run {path}", "give another --out"):
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; give another --out")
        if (path / "arguments.json").exists():
            raise RunError(
                f"{path} already holds a run; give another --out, or --resume to go on with it"
            )
        if path.is_dir() and any(_foreign(p) for p in path.iterdir()):
            raise RunError(f"{path} is not empty and holds no run; give another --out")


def _foreign(path: Path) -> bool:
    """Whether a file is not one that `create` makes before a directory becomes a run (it may have
    been killed)."""
    empty = path.name in ("samples", "checkpoints") and not any(path.iterdir())
    return not (empty or path.name.startswith(".") or path.name == "versions.json")


def _notice_changes(path: Path) -> None:
    try:
        before = json.loads((path / "versions.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    changed = differences(before, versions()) if isinstance(before, dict) else []
    if changed:
        notices.warning(
            "since this run began: %s; it goes on, but not bit for bit", ", ".join(changed)
        )

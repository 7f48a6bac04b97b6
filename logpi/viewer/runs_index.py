"""Which runs are there, and the record of each in the list: its state, step, reward, time left.

Asked every few seconds, it reads only what is new: the list of folders is kept for a moment, and of
metrics only the lines that were added. A folder that is no whole run says in a line why. Left out:
one run's page (`run_page.py`).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from logpi.runs.summary import Summary
from logpi.viewer.files import Folders, ViewError, read_json
from logpi.viewer.metrics_tail import read_on
from logpi.viewer.samples_lines import has_responses

# Folders without runs, and with many files.
PASSED = {"samples", "checkpoints", "model", "tokenizer", "tensorboard", "wandb", "mlruns"}
DEEPEST, MOST = 8, 20_000
PATIENCE = 1.0  # seconds that a list may take to read metrics
KEPT = 2.0  # seconds that the list of folders is kept
FRESH = 60.0  # seconds in which a run of another machine that logs is taken for running
# Files that a command without metrics leaves when it has ended.
PRODUCTS = ("results.json", "seeds.json", "report.json", "compute.json", "counts.json")


@dataclass(frozen=True)
class FoundRun:
    """A folder that is a run, or half of one.

    Attributes:
        id: short and stable: of the real path. path: real. shown: relative to the given folder.
    """

    id: str
    path: Path
    shown: str


class RunsIndex:
    """The runs inside some folders."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._found: dict[str, FoundRun] = {}
        self._searched = float("-inf")
        self._records: dict[str, RunRecord] = {}
        self.notes: list[str] = []

    def runs(self) -> list[FoundRun]:
        """All of them, in the order of their paths."""
        if time.monotonic() - self._searched > KEPT:
            self._search()
        return list(self._found.values())

    def run(self, id: str) -> FoundRun:
        """One of them. Raises ViewError: it is not there, or not any more."""
        if id not in self._found:
            self._search()
        run = self._found.get(id)
        if run is None:
            raise ViewError("there is no such run here")
        if not run.path.is_dir():
            self._searched = float("-inf")
            raise ViewError(f"{run.shown} was deleted or renamed")
        return run

    def below(self, run: FoundRun) -> list[FoundRun]:
        """The runs that a run holds: its seeds, its cells, its stages."""
        return [r for r in self.runs() if run.path in r.path.parents]

    def record(self, run: FoundRun, deadline: float = math.inf) -> RunRecord:
        """What is known of a run, read on to the newest, or until a time."""
        record = self._records.setdefault(run.id, RunRecord(self.folders, run))
        record.read_on(deadline)
        return record

    def listed(self) -> dict[str, Any]:
        """The list as JSON. Of many long runs the metrics are read over several requests."""
        locks, runs, deadline = locked(), self.runs(), time.monotonic() + PATIENCE
        rows = []
        for run in runs:
            with suppress(ViewError):
                rows.append(self.shown(run, locks, deadline))
        roots = [str(root) for root in self.folders.roots]
        return {"roots": roots, "runs": rows, "notes": self.notes}

    def shown(
        self, run: FoundRun, locks: set[int] | None = None, deadline: float = math.inf
    ) -> dict[str, Any]:
        """One run of the list as JSON. Raises ViewError: it was deleted."""
        locks = locked() if locks is None else locks
        record = self.record(run, deadline)
        children = [] if record.summary.names else self.below(run)
        states = [self.record(child, deadline).state(locks, ()) for child in children]
        return record.shown(locks, states)

    def _search(self) -> None:
        found: dict[str, FoundRun] = {}
        self.notes = []
        several = len(self.folders.roots) > 1
        for root in self.folders.roots:
            for path in self._walk(root):
                inner = path.relative_to(root).as_posix()
                shown = root.name if inner == "." else f"{root.name}/{inner}" if several else inner
                id = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
                found.setdefault(id, FoundRun(id, path, _readable(shown)))
        self._found, self._searched = found, time.monotonic()
        self._records = {id: r for id, r in self._records.items() if id in found}

    def _walk(self, root: Path) -> Iterator[Path]:
        """Every folder that is a run, or half of one; links are passed over."""
        waiting, visited = [(root, 0)], 0
        while waiting:
            path, depth = waiting.pop()
            visited += 1
            if visited > MOST:
                self.notes.append(f"{root} has more than {MOST} folders; the rest is not searched")
                return
            names, folders = _listed(path)
            if "arguments.json" in names or "metrics.jsonl" in names or "versions.json" in names:
                yield path
            if depth < DEEPEST:
                waiting += [(path / name, depth + 1) for name in folders if name not in PASSED]


def _listed(path: Path) -> tuple[set[str], list[str]]:
    """Names of files, and of folders that are no links, last first; none if it is unreadable."""
    names, folders = set(), []
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders += [entry.name] if not entry.name.startswith(".") else []
            else:
                names.add(entry.name)
    return names, sorted(folders, key=_natural, reverse=True)


def _natural(name: str) -> list[Any]:
    """rl-2 comes before rl-10."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def locked() -> set[int] | None:
    """The inodes that processes of this machine hold locks on; None where nobody can say."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    return {int(m[1]) for line in lines if (m := re.search(r"[0-9a-f]+:[0-9a-f]+:(\d+) ", line))}


class RunRecord:
    """What is known of a run; `read_on` brings it up to date.

    Attributes:
        command, arguments: what it runs; why: in a line, why it cannot be read; "" if it can.
        summary: of its metrics.
    """

    def __init__(self, folders: Folders, run: FoundRun) -> None:
        self.folders, self.run = folders, run
        self.command: str = ""
        self.arguments: Mapping[str, Any] = {}
        self.why = ""
        self.summary = Summary()
        self._stamp: tuple[int, int] | None = None
        self._end = 0
        self._lock = Lock()
        self._responses = False

    def read_on(self, deadline: float = math.inf) -> None:
        """Read what was added, until a time. Raises ViewError: the run was deleted."""
        if not self.run.path.is_dir():
            raise ViewError(f"{self.run.shown} was deleted or renamed")
        # several requests may ask at once
        with self._lock:
            self._read_arguments()
            self._read_metrics(deadline)

    def _read_metrics(self, deadline: float) -> None:
        more = True
        while more and time.monotonic() < deadline:
            try:
                with self.folders.open(self.run.path / "metrics.jsonl") as file:
                    reading = read_on(file, self._end)
            except ViewError:
                return
            if reading.rewound:
                self.summary = Summary()
            self.summary.add(reading.records)
            self._end, more = reading.end, reading.more

    def _read_arguments(self) -> None:
        file = self.run.path / "arguments.json"
        try:
            status = file.stat()
        except OSError:
            self.why = "half a run: it has no arguments.json"
            return
        if self._stamp == (stamp := (status.st_mtime_ns, status.st_ino)):
            return
        self._stamp, self.command, self.arguments = stamp, "", {}
        try:
            record = read_json(self.folders, file)
        except ViewError as error:
            self.why = str(error)
            return
        known = isinstance(record, dict) and isinstance(record.get("arguments"), dict)
        self.why = "" if known else "arguments.json holds no command with arguments"
        if known:
            self.command, self.arguments = str(record.get("command", "")), record["arguments"]

    # ----------------------------------------------------------------------- facts

    @property
    def steps(self) -> int | None:
        """Updates in all, as far as one knows. Of a job that counts environment steps they follow
        from those so far."""
        if self.command == "gym":
            updates, wanted = self.arguments.get("updates"), self.arguments.get("steps")
            if type(updates) is int:
                return updates
            seen, step = self.summary.seen, self.summary.step
            if type(wanted) is not int or not seen or not step:
                return None
            return max(step, wanted * step // round(seen))
        steps = self.arguments.get("steps")
        return steps if type(steps) is int and self.summary.names else None

    def held(self, locks: set[int] | None) -> bool:
        """Whether a process writes the run: it holds the lock. For another machine's run, it logged
        a moment ago."""
        lock = self.run.path / ".lock"
        try:
            inode = lock.stat().st_ino
        except OSError:
            return False
        if locks is not None and inode in locks:
            return True
        if locks is not None and self._here(lock):
            return False
        return time.time() - (_modified(self.run.path / "metrics.jsonl") or 0.0) < FRESH

    def state(self, locks: set[int] | None, children: Sequence[str]) -> str:
        """running, done, collapsed, stopped or unreadable. A run without metrics of its own is done
        when those that it holds are."""
        if self.why:
            return "unreadable"
        if self.summary.collapse.warned:
            return "collapsed"
        if self.held(locks):
            return "running"
        logged = _modified(self.run.path / "metrics.jsonl")
        saved = _modified(self.run.path / "model")
        if logged is not None:
            ended = self.steps is not None and (self.summary.step or 0) >= self.steps
            return "done" if saved is not None and (ended or saved >= logged) else "stopped"
        if saved or any((self.run.path / name).is_file() for name in PRODUCTS):
            return "done"
        return (
            "done" if children and all(s in ("done", "collapsed") for s in children) else "stopped"
        )

    def shown(self, locks: set[int] | None, children: Sequence[str] = ()) -> dict[str, Any]:
        """The run in the list as JSON."""
        summary, path = self.summary, self.run.path
        state = self.state(locks, children)
        live = self.held(locks)
        chief, value = self._chief()
        times = [_modified(path / name) for name in ("metrics.jsonl", "arguments.json")]
        return {
            "id": self.run.id,
            "path": self.run.shown,
            "command": self.command,
            **{name: self._word(*names) for name, names in WORDS.items()},
            "seed": _whole(self.arguments.get("seed")),
            "state": state,
            "live": live,
            "step": summary.step,
            "steps": self.steps,
            "reward": value,
            "metric": chief,
            "eta_s": summary.seconds_left(self.steps) if live else None,
            "started": _modified(path / "versions.json"),
            "updated": max((t for t in times if t), default=0.0),
            "spark": summary.spark(),
            "samples": self._has_responses(),
            "why": self.why or (summary.sentence if state == "collapsed" else ""),
        }

    def _has_responses(self) -> bool:
        """Whether responses are kept, by one of the files; asked again until there are some."""
        if not self._responses:
            names = _listed(self.run.path / "samples")[0]
            places = [self.run.path / "samples" / name for name in sorted(names)[-1:]]
            for path in [*places, self.run.path / "responses.jsonl"]:
                with suppress(ViewError), self.folders.open(path) as file:
                    self._responses |= has_responses(file)
        return self._responses

    def _chief(self) -> tuple[str | None, float | None]:
        """The metric that stands for the run, with its last value."""
        name = self.summary.chief
        if name is not None:
            return name, self.summary.last.get(name)
        with suppress(ViewError, AttributeError, KeyError, TypeError, StopIteration):
            numbers = read_json(self.folders, self.run.path / "results.json")["numbers"]
            first = next(iter(numbers))
            return first, float(numbers[first]["mean"])
        return None, None

    def _here(self, lock: Path) -> bool:
        """Whether a lock's file names this machine."""
        try:
            with self.folders.open(lock) as file:
                owner = file.read(200).decode("utf-8", "replace")
        except ViewError:
            return False
        return owner.rpartition(" on ")[2] == os.uname().nodename

    def _word(self, *names: str) -> str | None:
        """The first of these arguments that is there, as a word; an object by its description."""
        for name in names:
            value = self.arguments.get(name)
            if isinstance(value, Mapping) and isinstance(value.get("object"), str):
                return value["object"]
            if isinstance(value, str) and value:
                return value
        return None


# what a run shows -> the arguments that may say it
WORDS = {"algorithm": ("algorithm",), "model": ("model",), "task": ("task", "data", "env")}


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _modified(path: Path) -> float | None:
    """When a file was last written; None: it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None

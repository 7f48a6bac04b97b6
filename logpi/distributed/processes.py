"""Processes that end together: a command with its environment, and waiting for several of them.

    LocalProcess           a command, in a session of its own
    finished(processes)    waits: the first failure ends all
    passed_on(processes)   Ctrl-C and SIGTERM go to each

A rank has as long as it likes to save after a signal; after a failure the others have `patience`
seconds. A launcher that is killed takes its ranks along: they get SIGTERM (Linux). Left out: what
is started (`launch.py`), and on other machines (`launch_ray.py`).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

__all__ = ["LOOK", "LocalProcess", "Process", "finished", "passed_on"]

# seconds between looks; that a process has after SIGTERM
LOOK, GRACE = 0.1, 15.0
PR_SET_PDEATHSIG = 1


class Process(Protocol):
    """A command that runs here or elsewhere."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None: it runs."""
        ...

    def send_signal(self, number: int) -> None: ...

    def reason(self) -> str:
        """Why it ended, in its own words; "" if it said nothing."""
        ...


class LocalProcess:
    """A command here, in a session of its own: a terminal's Ctrl-C comes to it through us, once."""

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], cwd: str | None = None
    ) -> None:
        self.home = tempfile.mkdtemp(prefix="logpi-rank-")
        self.error = Path(self.home, "error.json")
        self.process = subprocess.Popen(
            words,
            env={**os.environ, **env, "TORCHELASTIC_ERROR_FILE": str(self.error)},
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def poll(self) -> int | None:
        return self.process.poll()

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            # a killed rank's own children go too: workers, a sampler
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def reason(self) -> str:
        try:
            return str(json.loads(self.error.read_text(encoding="utf-8"))["message"]["message"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def close(self) -> None:
        """End it and what it started, in whatever state."""
        if self.poll() is None:
            self.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def _end_with_parent() -> None:
    """In the child: when whoever started it is gone, it gets SIGTERM, and saves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def finished(processes: Sequence[Process], patience: float) -> int:
    """Wait for all ranks; the exit code of the first that failed, or 0.

    After a failure the others have `patience` seconds to end by themselves, then SIGTERM, then
    SIGKILL. One line on stderr says which rank failed, and why.
    """
    failed, ended, stopped = -1, {}, 0
    deadline = float("inf")
    while len(ended) < len(processes):
        for rank, process in enumerate(processes):
            if rank not in ended and (code := process.poll()) is not None:
                ended[rank] = code
                if code and failed < 0:
                    failed, deadline = rank, time.monotonic() + patience
        if time.monotonic() > deadline:
            number = (signal.SIGTERM, signal.SIGKILL)[min(stopped, 1)]
            for rank, process in enumerate(processes):
                if rank not in ended:
                    process.send_signal(number)
            stopped, deadline = stopped + 1, time.monotonic() + GRACE
        time.sleep(LOOK)
    if failed < 0:
        return 0
    code = ended[failed]
    # what all ranks agreed on, a stop or a mistake in a command, was said by rank 0
    if len({*ended.values()}) > 1 or code < 0 or stopped:
        print(f"logpi launch: {_told(failed, code, processes[failed])}", file=sys.stderr)
    return 128 - code if code < 0 else code


def _told(rank: int, code: int, process: Process) -> str:
    reason = process.reason()
    if code < 0:
        reason = reason or ("out of memory?" if code == -signal.SIGKILL else "")
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return f"rank {rank} {how}{f' ({reason})' if reason else ''}, and so all ranks ended"


@contextmanager
def passed_on(processes: Sequence[Process]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to every process: the first lets a run save, a second ends it at once,
    and after a third nothing is waited for."""
    came = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came += 1
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if came > 2 else number)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

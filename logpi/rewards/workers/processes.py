"""Worker processes that can be killed: one of them, and a pool.

A worker (`worker.py`) loads one function of one file and answers calls. A call has a deadline: a
timer kills the process when it is late (it works off the main thread and stops C code too), and a
fresh one is started at the next call. In a pool the kernel limits each call's CPU time, so how busy
the machine is decides nothing. Left out: what is called and what a missing reply means (`user.py`,
`math.py`).
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from logpi.rewards.workers import worker

# importing the user's file may import torch
START_SECONDS = 120.0
# seconds of wall clock for one of CPU time: what sleeps or waits for so long is ended too
PATIENCE = 15.0


@dataclass(frozen=True)
class Failure:
    """Why a sample has no verdict.

    Attributes:
        kind: raised, hung, died, nan (or infinite), type, length, given_up; of a verifier also
            unavailable, invalid, failed.
        message: one line for people.
    """

    kind: str
    message: str

    @property
    def of_function(self) -> bool:
        """Of a whole call: what was returned is wrong whatever the samples are."""
        return self.kind in ("type", "length")

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def call(prompts: Any, completions: Any, completion_ids: Any, columns: dict[str, Any]) -> bytes:
    """A call as the bytes that a worker reads."""
    return pickle.dumps((prompts, completions, completion_ids, columns))


def _kill_all(process: subprocess.Popen) -> None:
    """Kill a process and whatever it started."""
    try:
        # not yet reaped: its id is still its own
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    # already gone
    except OSError:
        pass


class Process:
    """One worker process: a call with a deadline, killed when it is late, started again when next
    needed.

    Args:
        path, function: what it loads.
        memory: bytes of address space it may use; 0 for no limit.
    """

    def __init__(self, path: str, function: str, memory: int = 0) -> None:
        self.path = path
        self.command = [sys.executable, "-P", worker.__file__, path, function, str(memory)]
        self.process: subprocess.Popen | None = None
        self.needs: tuple[str, ...] = ()

    def ask(self, call: bytes, seconds: float, cpu: float = 0.0) -> dict[str, Any]:
        """The worker's reply, or {"failed": {...}} of kind hung or died; a file that no longer
        loads has died.

        Args:
            seconds: of wall clock. cpu: seconds of CPU time, 0 for no limit.
        """
        try:
            process = self.start()
        except ValueError as error:
            return {"failed": {"kind": "died", "message": str(error)}}
        return self._exchange(process, call, seconds, cpu)

    def start(self) -> subprocess.Popen:
        """The process, the file loaded in it. Raises ValueError with the file's own error."""
        if self.process is not None:
            return self.process
        pipe = subprocess.PIPE
        process = self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, start_new_session=True
        )
        atexit.register(self.kill)
        hello = self._exchange(process, b"", START_SECONDS)
        if "failed" in hello:
            self.kill()
            raise ValueError(
                f"reward file {self.path} cannot be loaded: {hello['failed']['message']}"
            )
        self.needs = tuple(hello["needs"])
        return process

    def _exchange(
        self, process: subprocess.Popen, call: bytes, seconds: float, cpu: float = 0.0
    ) -> dict[str, Any]:
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), _kill_all(process)))
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin and process.stdout
            if call:
                worker.write_frame(process.stdin, worker.LIMIT.pack(cpu) + call)
            return json.loads(worker.read_frame(process.stdout))
        except (EOFError, OSError, ValueError):
            self.kill()
            if late.is_set():
                return {
                    "failed": {
                        "kind": "hung",
                        "message": f"no answer in {seconds:g} s; the process was killed",
                    }
                }
            if process.returncode == -signal.SIGPROF:
                return {
                    "failed": {
                        "kind": "hung",
                        "message": f"no answer in {cpu:g} s of CPU time; the process was ended",
                    }
                }
            return {"failed": {"kind": "died", "message": "its process ended without an answer"}}
        # Ctrl-C: the reply to this call must not be taken for the next one's
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the worker and forget it; harmless when there is none."""
        process = self.process
        if process is None:
            return
        _kill_all(process)
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                if stream:
                    stream.close()
            # unsent bytes of a call that was cut off
            except OSError:
                pass
        self.process = None
        atexit.unregister(self.kill)


class Workers:
    """A few equal workers that share calls; they start when first needed and stay warm.
    Thread-safe."""

    def __init__(self, path: str, function: str, count: int, memory: int = 0) -> None:
        self.processes = [Process(path, function, memory) for _ in range(count)]
        # the warmest first
        self._free: queue.LifoQueue[Process] = queue.LifoQueue()
        for process in self.processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="verifier")

    def map(self, calls: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
        """The reply to each call, in order; never raises. `seconds` are of CPU time, for each."""
        return list(self._threads.map(lambda c: self.ask(c, seconds), calls))

    def ask(self, call: bytes, seconds: float) -> dict[str, Any]:
        process = self._free.get()
        try:
            return process.ask(call, PATIENCE * seconds, seconds)
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End the processes; the next call starts others."""
        for process in self.processes:
            process.kill()

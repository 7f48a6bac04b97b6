"""Worker processes that can be killed: a single one, and a pool.

A worker (`worker.py`) loads one function of one file and answers calls. Each call has a deadline. A
timer kills a late process, even in C code, and the next call starts a fresh one. In a pool the
kernel limits the CPU time of each call, so a busy machine changes no verdict. Left out: the
functions, and the meaning of a missing reply (`user.py`, `math.py`).
"""

from __future__ import annotations

import atexit
import contextlib
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
# seconds of wall clock for each second of CPU time: this ends a call that sleeps or waits
PATIENCE = 15.0


@dataclass(frozen=True)
class Failure:
    """The reason why a sample has no verdict.

    Attributes:
        kind: raised, hung, died, nan (or infinite), type, length, given_up; from a verifier also
            unavailable, invalid, failed.
        message: one line for people.
    """

    kind: str
    message: str

    @property
    def of_function(self) -> bool:
        """Whether the fault is the function's, whatever the samples are: its result is wrong."""
        return self.kind in ("type", "length")

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def call(prompts: Any, completions: Any, completion_ids: Any, columns: dict[str, Any]) -> bytes:
    """The bytes of a call, as a worker reads them."""
    return pickle.dumps((prompts, completions, completion_ids, columns))


def _kill_session(process: subprocess.Popen) -> None:
    """Kill a process and the processes of its session."""
    # a process that is not reaped keeps its id; it may have ended by itself
    if process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


class Process:
    """One worker process. A late call kills it; the next call starts another.

    Args:
        path, function: the function that it loads, and its file.
        memory: its limit of address space in bytes; 0 for no limit.
    """

    def __init__(self, path: str, function: str, memory: int = 0) -> None:
        self.path = path
        self.command = [sys.executable, "-P", worker.__file__, path, function, str(memory)]
        self.process: subprocess.Popen | None = None
        self.needs: tuple[str, ...] = ()

    def ask(self, call: bytes, seconds: float, cpu: float = 0.0) -> dict[str, Any]:
        """The worker's reply, or {"failed": {...}} of kind hung or died.

        A file that no longer loads gives "died".

        Args:
            seconds: the limit of wall-clock time.
            cpu: the limit of CPU time in seconds; 0 for no limit.
        """
        try:
            return self._exchange(self.start(), call, seconds, cpu)
        except ValueError as error:
            return _failed("died", str(error))

    def start(self) -> subprocess.Popen:
        """The process with the file loaded. Raises ValueError with the file's own error."""
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
        timer = threading.Timer(seconds, lambda: (late.set(), _kill_session(process)))
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
                return _failed("hung", f"no answer in {seconds:g} s; the process was killed")
            if process.returncode == -signal.SIGPROF:
                message = f"no answer in {cpu:g} s of CPU time; the process was ended"
                return _failed("hung", message)
            return _failed("died", "its process ended without an answer")
        # Ctrl-C: the next call must not read the reply to this one
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the worker, if there is one."""
        process = self.process
        if process is None:
            return
        _kill_session(process)
        process.wait()
        for stream in (process.stdin, process.stdout):
            # closing flushes the unsent bytes of an interrupted call
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        self.process = None
        atexit.unregister(self.kill)


def _failed(kind: str, message: str) -> dict[str, Any]:
    return {"failed": {"kind": kind, "message": message}}


class Workers:
    """A pool of equal workers. Each starts at its first call and stays warm. Thread-safe."""

    def __init__(self, path: str, function: str, count: int, memory: int = 0) -> None:
        self.processes = [Process(path, function, memory) for _ in range(count)]
        # the warmest first
        self._free: queue.LifoQueue[Process] = queue.LifoQueue()
        for process in self.processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="verifier")

    def map(self, calls: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
        """The replies to the calls, in order; never raises. Each has `seconds` of CPU time."""
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

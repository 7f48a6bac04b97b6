"""A running program, seen from the main process: its place in the queue, its output, its end.

Left out: starting it (`local.py`), and its code (`jobs.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from logpi.sandbox.jobs import MEMORY_EXIT

if TYPE_CHECKING:
    from logpi.sandbox.protocol import ProgramLimits

# sleeping programs for each core
SLEEPERS = 8


class ProgramQueue:
    """Lets one program a core run, and up to `SLEEPERS` more a core sleep."""

    def __init__(self, workers: int) -> None:
        self.working = threading.BoundedSemaphore(workers)
        self.asleep = threading.BoundedSemaphore(SLEEPERS * workers)

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[], None]]:
        """Wait for a place in the queue. Call the result when the program sleeps, so that another
        may run."""
        turn = [self.working]
        self.working.acquire()

        def leave() -> None:
            if turn[0] is self.working and self.asleep.acquire(blocking=False):
                turn[0] = self.asleep
                self.working.release()

        try:
            yield leave
        finally:
            turn[0].release()


class Child:
    """A running program. `let_go` kills it.

    Attributes:
        streams: its output so far, by descriptor.
        over: whether it wrote too much.
        facts: its end as the kernel reports it; None while it runs.
    """

    def __init__(
        self,
        report: int,
        outputs: Sequence[int],
        limit: int,
        group: int,
        on_sleep: Callable[[], None],
    ) -> None:
        self.report, self.limit, self.group, self.on_sleep = report, limit, group, on_sleep
        self.streams: dict[int, bytearray] = {fd: bytearray() for fd in outputs}
        self.facts: dict[str, Any] | None = None
        self.over = False

    def follow(self, deadline: float) -> bool:
        """Read until the program and its output have ended or it has written too much; False at
        the deadline."""
        poll = select.poll()
        for fd in (self.report, *self.streams):
            poll.register(fd, select.POLLIN)
        open_fds = {self.report, *self.streams}
        while open_fds:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                return False
            for fd, _ in ready:
                data = os.read(fd, 1 << 16)
                if fd == self.report:
                    data = self._report(data)
                elif len(self.streams[fd]) + len(data) > self.limit:
                    self.over = True
                    self.streams[fd] += data[: self.limit - len(self.streams[fd])]
                    return True
                else:
                    self.streams[fd] += data
                if not data:
                    poll.unregister(fd)
                    open_fds.discard(fd)
        return True

    def _report(self, data: bytes) -> bytes:
        """Read the fork server's report; b"" after the report of the child's end."""
        for line in data.splitlines():
            facts = json.loads(line)
            if "code" in facts:
                self.facts = facts
                return b""
            self.on_sleep()
        if not data:
            self.facts = {}
        return data

    def let_go(self) -> None:
        for fd in (self.report, *self.streams):
            os.close(fd)


def describe(child: Child, ended: bool, limits: ProgramLimits) -> tuple[str, int | None]:
    """The end of a child as a `ProgramResult.status`, and its exit code."""
    if not ended:
        return "timeout", None
    if child.over:
        return "output", None
    if not child.facts:
        return "failed", None
    code = child.facts["code"]
    if code < 0:
        spent = child.facts["late"] or child.facts["cpu"] > limits.cpu_seconds - 1
        limited = spent and -code in (signal.SIGKILL, signal.SIGXCPU)
        return "timeout" if limited else "killed", None
    return {0: "ok", MEMORY_EXIT: "memory"}.get(code, "error"), code

"""A program on its way, as the main process sees it: its place among the others, what it wrote, how it
ended.

Left out: starting it (`local.py`), and what it does (`jobs.py`).
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

SLEEPERS = 8  # programs that sleep, for each core


class Slots:
    """As many programs at a time as there are cores, and those beside that only sleep, up to
    `SLEEPERS` for each core."""

    def __init__(self, workers: int) -> None:
        self.working = threading.BoundedSemaphore(workers)
        self.asleep = threading.BoundedSemaphore(SLEEPERS * workers)

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[], None]]:
        """A place; it is left for good by calling what this gives, once the program sleeps."""
        held = [self.working]
        self.working.acquire()

        def leave() -> None:
            if held[0] is self.working and self.asleep.acquire(blocking=False):
                held[0] = self.asleep
                self.working.release()

        try:
            yield leave
        finally:
            held[0].release()


class Child:
    """A program on its way: what it wrote so far, and how it ended once it did. Letting go of it
    kills it."""

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
        """Read until it has ended and its output too, or writes too much (`over`); False at the
        deadline."""
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
                    data = self._told(data)
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

    def _told(self, data: bytes) -> bytes:
        """Take what the fork server says; nothing once it has said how the child ended."""
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
    """How a child ended, as `ProgramResult.status`, and its exit code."""
    if not ended:
        return "timeout", None
    if child.over:
        return "output", None
    if not child.facts:
        return "failed", None
    code = child.facts["code"]
    if code < 0:
        spent = child.facts["late"] or child.facts["cpu"] > limits.cpu_seconds - 1
        return (
            "timeout" if spent and -code in (signal.SIGKILL, signal.SIGXCPU) else "killed"
        ), None
    return {0: "ok", MEMORY_EXIT: "memory"}.get(code, "error"), code

"""Ctrl-C and SIGTERM during a step of a run.

Left out: what is saved then (`logpi.train`), and the exit code (`errors.Stopped`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from logpi.distributed.world import current


class StopSignals:
    """The first Ctrl-C (or SIGTERM) lets the step end and be saved; the second interrupts at once.

    Between steps, when a caller's own code runs, signals mean what they always mean.

    Attributes:
        came: the first signal's number, or 0.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note, self.came = note, 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self) -> int:
        """The signal that came to any of the ranks, which all call this at the same place; or 0."""
        # only then written, or a signal that comes meanwhile would be lost
        if agreed := int(current().max(self.came)):
            self.came = agreed
        return agreed

    def _handle(self, number: int, frame: Any) -> None:
        if self.came:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.came = number
        with suppress(RuntimeError):  # it came while a line was being written
            self.note("stopping when this step is done and saved; Ctrl-C again stops at once")

"""Progress for people: step, the numbers that matter, tokens a second, time left.

A terminal gets one line that is rewritten in place; a pipe or a file gets plain lines, at most one
in `every` seconds.

    with Progress(total=200) as progress:
        progress.phase("generating 12/64")                    # terminals only: what a long step is doing
        progress.step(7, {"reward": 0.41}, tokens=5120)
        progress.note("evaluation: 0.62")                     # a line that stays

Left out: which numbers matter (the caller's choice), and files (`Run.log`).
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

_WINDOW = 20  # steps over which speed is measured: the pace changes as responses grow
_REDRAW = 0.1  # seconds


def duration(seconds: float) -> str:
    """42s, 3m05s, 2h07m, 3d04h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def number(value: float) -> str:
    """Four figures or so: 0.4125, 12.35, 15.3k, 2.1e-05."""
    size = abs(value)
    if size < 1e4 and value == int(value):
        return str(int(value))
    if 1e4 <= size < 1e6:
        return f"{value / 1e3:.1f}k"
    return f"{value:.1e}" if size < 1e-3 else f"{value:.4g}"


class Progress:
    """Shows how a run gets on.

    Args:
        total: the last step.
        stream: where to; standard error, so that a command's output can be piped.
        every: seconds between plain lines. The first and the last step are always shown.
        clock: seconds, for tests.
        unit: what is counted each step: tokens, or steps of an environment.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "tokens",
    ) -> None:
        self.total, self.every, self.clock, self.unit = total, every, clock, unit
        self.stream = stream if stream is not None else sys.stderr
        self.live = self.stream.isatty()
        self._marks: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)], maxlen=_WINDOW + 1)
        self._line, self._phase, self._shown_at = "", "", float("-inf")
        self._handler = _ToProgress(self)

    def begin(self, step: int) -> None:
        """The run goes on from `step`: the pace is measured from here and now."""
        self._marks.clear()
        self._marks.append((self.clock(), step, 0))

    def step(self, step: int, values: Mapping[str, float], tokens: int = 0) -> None:
        """One step is done: what came of it, and how many tokens (or environment steps) it took."""
        now = self.clock()
        self._marks.append((now, step, self._marks[-1][2] + tokens))
        self._line, self._phase = self._describe(step, values), ""
        due = now - self._shown_at >= (_REDRAW if self.live else self.every)
        if due or step >= self.total:
            self._shown_at = now
            self._draw() if self.live else self._print(self._line)

    def phase(self, text: str) -> None:
        """What is going on inside a long step. Nothing is printed to a pipe."""
        self._phase, now = text, self.clock()
        if self.live and now - self._shown_at >= _REDRAW:
            self._shown_at = now
            self._draw()

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self._erase()
        self._print(text)
        if self.live and self._line:
            self._draw()

    def close(self) -> None:
        """Leave the last line standing."""
        if self.live and self._line:
            self._erase()
            self._print(self._line)
        self._line = ""

    def __enter__(self) -> Progress:
        logging.getLogger("logpi").addHandler(
            self._handler
        )  # notices go above the live line, not into it
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("logpi").removeHandler(self._handler)
        self.close()

    # ----------------------------------------------------------------------- inside

    def _describe(self, step: int, values: Mapping[str, float]) -> str:
        width = len(str(self.total))
        parts = [
            f"step {step:>{width}}/{self.total}",
            *(f"{name} {number(v)}" for name, v in values.items()),
        ]
        (then, step_then, tokens_then), (now, _, tokens) = self._marks[0], self._marks[-1]
        seconds = max(now - then, 1e-9)
        if tokens > tokens_then:
            parts.append(f"{number(round((tokens - tokens_then) / seconds))} {self.unit}/s")
        if step > step_then:
            left = (self.total - step) * seconds / (step - step_then)
            parts.append(f"{duration(left)} left" if step < self.total else "done")
        return " · ".join(parts)

    def _draw(self) -> None:
        text = (
            f"{self._line} · {self._phase}"
            if self._line and self._phase
            else self._line or self._phase
        )
        columns = shutil.get_terminal_size().columns
        if len(text) >= columns:  # a line that wraps cannot be rewritten
            text = text[: columns - 2] + "…"
        self._write(f"\r\x1b[K{text}")

    def _erase(self) -> None:
        if self.live:
            self._write("\r\x1b[K")

    def _print(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # the terminal has gone away; the run goes on
            self.live = False


class _ToProgress(logging.Handler):
    """Sends the library's notices through `note`."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.note(record.getMessage())

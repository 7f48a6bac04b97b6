"""Progress for people: step, the numbers that matter, tokens a second, time left.

    a terminal       one line that is rewritten in place, notes above it
    a notebook       one output that is updated, notes above the line
    a pipe, a file   plain lines, at most one in `every` seconds; no carriage returns

    with Progress(total=200) as progress:
        progress.phase("generating 12/64")     # what a long step is doing; not in a file
        progress.step(7, {"reward": 0.41}, tokens=5120)
        progress.note("evaluation: 0.62")      # a line that stays

Left out: which numbers matter (the caller's choice), and files (`Run.log`).
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from logpi.distributed.world import current

_WINDOW = 20  # steps over which speed is measured: the pace changes as responses grow
_REDRAW = 0.1  # seconds between drawings of a terminal
_UPDATE = 0.5  # and of a notebook, whose messages cross a network


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


class LogFile:
    """A pipe or a file: each drawing of the line is a line. Also the base of the other screens.

    Attributes:
        live: the line is rewritten, so that it can show what a long step is doing.
        every: least seconds between two drawings of the line.
    """

    live: bool = False

    def __init__(self, stream: TextIO, every: float) -> None:
        self.stream, self.every = stream, every

    def draw(self, line: str) -> None:
        """Show the line as it is now."""
        self.write(f"{line}\n")

    def note(self, text: str, line: str) -> None:
        """Show a text that stays, above the line."""
        self.write(f"{text}\n")

    def close(self, line: str) -> None:
        """Leave the line standing."""

    def write(self, text: str) -> None:
        # A terminal or a reader that has gone away does not end the run.
        with suppress(OSError, ValueError):
            self.stream.write(text)
            self.stream.flush()


class Terminal(LogFile):
    """One line, rewritten in place."""

    live: bool = True
    erase = "\r\x1b[K"

    def draw(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns
        if len(line) >= columns:  # a line that wraps cannot be rewritten
            line = line[: columns - 2] + "…"
        self.write(self.erase + line)

    def note(self, text: str, line: str) -> None:
        self.write(f"{self.erase}{text}\n")
        if line:
            self.draw(line)

    def close(self, line: str) -> None:
        self.write(f"{self.erase}{line}\n")


class Nowhere(LogFile):
    """Ranks other than the first show nothing."""

    def __init__(self) -> None:
        super().__init__(sys.stderr, float("inf"))

    def write(self, text: str) -> None:
        pass


class Notebook(LogFile):
    """One output of a cell, updated: the notes, and the line below them."""

    live: bool = True

    def __init__(self) -> None:
        super().__init__(sys.stderr, _UPDATE)
        self.notes: list[str] = []
        self.handle: Any = None

    def draw(self, line: str) -> None:
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        text = {"text/plain": "\n".join([*self.notes, line] if line else self.notes)}
        if self.handle is None:
            self.handle = display(text, raw=True, display_id=True)
        else:
            self.handle.update(text, raw=True)

    def note(self, text: str, line: str) -> None:
        self.notes.append(text)
        self.draw(line)

    def close(self, line: str) -> None:
        self.draw(line)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (IPython at a terminal is none)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def screen(stream: TextIO | None, every: float) -> LogFile:
    """The screen for a stream; for None, the notebook if this is one, else standard error."""
    if stream is None and not current().first:
        return Nowhere()
    if stream is None and in_notebook():
        return Notebook()
    out: TextIO = stream if stream is not None else sys.stderr
    return Terminal(out, _REDRAW) if out.isatty() else LogFile(out, every)


class Progress:
    """Shows the progress of a run.

    Args:
        total: the last step.
        stream: where to. None: a notebook's cell, or standard error, so that a command's output can
            be piped.
        every: seconds between the lines of a file. The first and the last step are always shown.
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
        self.total, self.clock, self.unit = total, clock, unit
        self.screen = screen(stream, every)
        self._marks: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)], maxlen=_WINDOW + 1)
        self._line, self._phase, self._drawn_at = "", "", float("-inf")
        self._handler = _ToProgress(self)

    def begin(self, step: int) -> None:
        """The run continues from `step`: speed is measured from now on."""
        self._marks.clear()
        self._marks.append((self.clock(), step, 0))

    def step(self, step: int, values: Mapping[str, float], tokens: int = 0) -> None:
        """One step is done: its metrics, and how many tokens (or environment steps) it took."""
        self._marks.append((self.clock(), step, self._marks[-1][2] + tokens))
        self._line, self._phase = self._describe(step, values), ""
        self._draw(step >= self.total)

    def phase(self, text: str) -> None:
        """Show what a long step is doing. A file does not show it."""
        self._phase = text
        if self.screen.live:
            self._draw()

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self.screen.note(text, self._text())

    def close(self) -> None:
        """Leave the last line standing."""
        if self._line:
            self.screen.close(self._line)
        self._line = self._phase = ""

    def __enter__(self) -> Progress:
        # Notices go above the live line, not into it.
        logging.getLogger("logpi").addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("logpi").removeHandler(self._handler)
        self.close()

    # ----------------------------------------------------------------------- inside

    def _text(self) -> str:
        return " · ".join(part for part in (self._line, self._phase) if part)

    def _draw(self, last: bool = False) -> None:
        """Draw the line, unless it was drawn a moment ago."""
        now = self.clock()
        if last or now - self._drawn_at >= self.screen.every:
            self._drawn_at = now
            self.screen.draw(self._text())

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


class _ToProgress(logging.Handler):
    """Sends the library's notices through `note`."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.note(record.getMessage())

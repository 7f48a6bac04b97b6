"""Progress in a terminal and in a pipe, with a clock of our own."""

from __future__ import annotations

import io
import logging

import pytest

from logpi.runs import Progress
from logpi.runs.progress import duration, number


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_for_a_pipe() -> None:
    clock, out = Clock(), io.StringIO()
    with Progress(total=100, stream=out, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 0.25
            progress.phase("generating")
            progress.step(step, {"reward": step / 100, "kl": 1e-5}, tokens=1000)
    lines = out.getvalue().splitlines()
    assert lines[0] == "step   1/100 · reward 0.01 · kl 1.0e-05 · 4000 tokens/s · 25s left"
    assert lines[-1] == "step 100/100 · reward 1 · kl 1.0e-05 · 4000 tokens/s · done"
    assert len(lines) == 26  # one a second, the first and the last
    assert "\r" not in out.getvalue() and "generating" not in out.getvalue()


def test_a_terminal_has_one_live_line_and_notes_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    clock, out = Clock(), Terminal()
    with Progress(total=3, stream=out, clock=clock) as progress:
        for step in (1, 2, 3):
            clock.now += 10
            progress.phase("generating 12/64 " + "x" * 60)
            progress.step(step, {"reward": 0.5})
            if step == 2:
                progress.note("evaluation: 0.62")
                logging.getLogger("logpi").warning("a notice")
    text = out.getvalue()
    screen = [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]
    assert screen == ["evaluation: 0.62", "a notice", "step 3/3 · reward 0.5 · done", ""]
    drawn = [part for line in text.split("\n") for part in line.split("\r\x1b[K")]
    assert all(len(part) < 60 for part in drawn) and any(part.endswith("…") for part in drawn)


def test_time_left_follows_the_present_pace_and_a_resumed_run_s_own_steps() -> None:
    clock, out = Clock(), io.StringIO()
    progress = Progress(total=200, stream=out, every=0, clock=clock)
    clock.now += 50  # loading
    progress.begin(100)
    for step in range(101, 151):
        clock.now += 1 if step < 120 else 4
        progress.step(step, {})
    assert out.getvalue().splitlines()[0].endswith("1m39s left")
    assert out.getvalue().splitlines()[-1].endswith("3m20s left")


def test_a_terminal_that_went_away_does_not_stop_the_run() -> None:
    out = Terminal()
    with Progress(total=2, stream=out) as progress:
        progress.step(1, {})
        out.close()
        progress.step(2, {})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (273600, "3d04h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.41249, "0.4125"),
        (12.3456, "12.35"),
        (15321.0, "15.3k"),
        (2.1e-5, "2.1e-05"),
        (3.0, "3"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-2e9, "-2e+09"),
        (9999.0, "9999"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text

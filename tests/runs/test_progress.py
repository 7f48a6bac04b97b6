"""Progress in a terminal, a notebook and a pipe, with a clock of our own."""

from __future__ import annotations

import io
import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest

from logpi.runs.progress import Progress, duration, number


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


class Display:
    """IPython's display: what each output of the cell shows, and how often one was sent."""

    def __init__(self) -> None:
        self.outputs: list[str] = []
        self.sent = 0

    def __call__(self, data: dict, raw: bool, display_id: bool) -> Display:
        assert raw and display_id
        self.outputs.append("")
        self.update(data, raw)
        return self

    def update(self, data: dict, raw: bool) -> None:
        self.outputs[-1] = data["text/plain"]
        self.sent += 1


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    shown = Display()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", ModuleType("IPython.display"))
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(sys.modules["IPython.display"], "display", shown, raising=False)
    return shown


def test_a_notebook_has_one_output_that_is_updated(
    notebook: Display, capsys: pytest.CaptureFixture
) -> None:
    clock = Clock()
    with Progress(total=1000, clock=clock) as progress:
        for step in range(1, 1001):
            clock.now += 0.01
            progress.phase("generating")
            progress.step(step, {"reward": 0.5})
            if step == 500:
                progress.note("evaluation: 0.62")
                assert notebook.outputs[-1].startswith("evaluation: 0.62\nstep  500/1000")
    assert notebook.outputs == ["evaluation: 0.62\nstep 1000/1000 · reward 0.5 · done"]
    assert notebook.sent < 30  # twice a second, and the note
    assert capsys.readouterr() == ("", "")


def test_ipython_at_a_terminal_is_no_notebook(
    notebook: Display, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace())
    with Progress(total=1) as progress:
        progress.step(1, {})
    assert capsys.readouterr().err == "step 1/1 · done\n"
    assert not notebook.outputs


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
        progress.note("nobody reads this")


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

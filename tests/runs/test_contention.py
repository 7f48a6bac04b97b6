"""The alarm when threads wait for a core: the table of its docstring, once, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from logpi.runs.contention import Contention, waited

TABLE = ((1.0, 0.0), (2.5, 1.6), (2.4, 1.5), (2.6, 1.7), (2.5, 1.6))


def alarms(steps: tuple[tuple[float, float], ...]) -> list[str]:
    """What is said after each of these steps of (seconds, waited)."""
    now = [0.0, 0.0]
    # 64 more that wait a hundredth each, which is no contention
    contention = Contention(
        clock=lambda: now[0],
        counter=lambda: {"main": now[1], **{str(n): now[0] / 100 for n in range(64)}},
    )
    said = []
    for number, (seconds, waiting) in enumerate(steps, 1):
        # an evaluation between steps counts for nothing
        now[0] += 100.0
        contention.start()
        now[0], now[1] = now[0] + seconds, now[1] + waiting
        said.append(contention(number) or "")
    return said


def test_the_table_of_the_docstring() -> None:
    said = alarms(TABLE)
    assert [bool(x) for x in said] == [False, False, False, True, False]
    assert said[3].startswith("step 4: in 7.5 s a thread of this process waited 4.8 s for a core:")


def test_a_free_step_in_between_begins_anew() -> None:
    assert not any(alarms((*TABLE[:3], (1.0, 0.1), *TABLE[3:])))


def test_short_steps_need_more_of_them() -> None:
    assert [bool(x) for x in alarms(((0.5, 0.4),) * 10)] == [False] * 9 + [True]


def test_the_remedy_keeps_the_bits_where_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert "OMP_WAIT_POLICY=PASSIVE in the environment (the same numbers)" in alarms(TABLE)[3]
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "OMP_WAIT_POLICY" not in alarms(TABLE)[3] and "--threads 1" in alarms(TABLE)[3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert "only fewer neighbours help" in alarms(TABLE)[3]


def test_waiting_of_each_thread(tmp_path: Path) -> None:
    for name, text in (("7", "9 250000000 3\n"), ("8", "1 500000000 2\n"), ("9", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    assert waited(tmp_path) == {"7": 0.25, "8": 0.5}
    assert waited(tmp_path / "nosuch") == {}

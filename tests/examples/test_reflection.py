"""examples/reflection.py: its measures by hand, and the whole of it in small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "reflection.py"))


def test_measures_by_hand():
    said = ["hg wait kcd", "hgcd", "hk wait kcd", "hkcd"]
    told = EXAMPLE["measures"](("hkcd>", text) for text in said)
    assert told == {
        # of two slips; of 3 + 1, 3, 5 and 4 letters that are right
        "wait after a slip": 1 / 2,
        "wait after a right letter": pytest.approx(1 / 16),
        "slips a response": 2 / 4,
        "waits a response": 2 / 4,
        "right, corrections applied": 3 / 4,
        "right, first letters": 2 / 4,
    }


def test_both_lanes_start_alike_and_leave_a_report(tmp_path, capsys):
    runs = EXAMPLE["main"](tmp_path, seeds=(0,), sft=(2, 2), steps=1, items=4)
    [pays], [cannot] = runs["it can pay"], runs["it cannot"]
    # the same model, the same prompts and the same draws: only the verdicts differ
    assert pays["before"] == cannot["before"] and pays["1"] == cannot["1"]
    assert json.loads((tmp_path / "report.json").read_text()) == runs
    assert (tmp_path / "report.txt").read_text() == capsys.readouterr().out
    assert (tmp_path / "reflection.png").stat().st_size > 10_000

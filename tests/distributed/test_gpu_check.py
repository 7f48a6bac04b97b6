"""`make gpu-check` without GPUs: what is missing is one line; and how its parts are counted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import gpu_check

TESTS = """\
import os, pytest
def test_right(): assert os.environ["LOGPI_DEVICE"] == "cuda"
def test_wrong(): assert 1 == 2
def test_absent(): pytest.skip("no")
"""


def test_a_part_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TESTS)
    outcome = gpu_check.run(str(file), 100)
    assert outcome.state == "failed"
    assert outcome.counts() == "1 passed, 1 failed, 1 skipped"
    assert outcome.tests["test_wrong"].startswith("assert 1 == 2")
    text = gpu_check.table({"the world": None, "whole jobs": outcome}, ["A GPU"])
    assert "1 x A GPU" in text and "| the world | not run: needs 2 GPUs | | |" in text
    assert "| whole jobs | failed | 1 passed, 1 failed, 1 skipped |" in text


def test_every_part_is_there() -> None:
    assert all((gpu_check.ROOT / path).exists() for _, path in gpu_check.PARTS.values())


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "gpus", list)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit, match="torch sees no CUDA GPU"):
        gpu_check.main()

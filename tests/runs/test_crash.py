"""Real SIGKILLs in the middle of checkpoint writes; see crash.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def crash(*arguments: object) -> dict:
    env = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "crash.py"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "step", [3, 2]
)  # a new step; and one that replaces a checkpoint already there
def test_killed_at_every_file_system_call(tmp_path: Path, step: int) -> None:
    report = crash("points", tmp_path, step)
    assert report["calls"] > 15 and report["last"] == step
    if step == 3:
        assert report["old"] > 5 and report["new"] > 5  # both sides of the rename were met


def test_killed_at_random_moments(tmp_path: Path) -> None:
    report = crash("times", tmp_path, 25)
    assert report["steps"] > 5

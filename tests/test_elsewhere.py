"""A device that is not the CPU: the cases of `elsewhere_cases.py`, in a process of their own, for such a device is process-wide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_all_of_it_runs_on_a_device_that_is_not_the_cpu(which):
    cases = Path(__file__).with_name("elsewhere_cases.py")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", which, str(cases)]
    done = subprocess.run(
        words,
        cwd=cases.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout

"""A device that is not the CPU: the cases of `elsewhere_cases.py` and `elsewhere_waits.py`, in a
process of their own: it is process-wide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_all_of_it_runs_on_a_device_that_is_not_the_cpu(which):
    here = Path(__file__).parent
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", which]
    words += [str(here / "elsewhere_cases.py"), str(here / "elsewhere_waits.py")]
    done = subprocess.run(
        words,
        cwd=here.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout

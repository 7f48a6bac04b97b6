"""A part of the tests with the lowest or the newest packages that pyproject.toml allows.

`python scripts/ranges.py lowest` pins every package that logpi names to the lower bound of its
range, `newest` lets pip choose up to the upper bound; both in a new environment under build/.
Packages that those packages need are pip's choice. What follows `--` goes to pytest.

PyPI's torch for Linux brings CUDA along, some gigabytes; `--torch VERSION` pins another build that
pip can reach.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("data", "gguf", "control", "lora", "reasoning-gym", "tensorboard")
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "polgrad")
# The tests that use the packages most, about five minutes of one core.
TESTS = """
    tests/test_learner.py tests/test_cli.py tests/updates tests/testing/test_polgrad.py
    tests/policies/test_causal_lm.py tests/policies/test_heads.py tests/policies/test_lora.py
    tests/policies/test_hub.py tests/policies/test_chat_template.py tests/policies/fast tests/engine
    tests/rollouts/test_text_rollout.py tests/rollouts/test_gym.py tests/jobs/test_gym.py
    tests/envs/control tests/envs/test_data.py tests/envs/test_files.py tests/algorithms
    tests/envs/tools/test_search.py tests/runs/test_trackers.py tests/runs/test_plots.py
""".split()


def ranges() -> list[str]:
    """What logpi, its extras and its tests need: `numpy>=1.26`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    tools = [r for r in optional["dev"] if re.split(r"[\[<>=]", r)[0] in TOOLS]
    needed = [*project["dependencies"], *(r for e in EXTRAS for r in optional[e]), *tools]
    return [r for r in needed if not r.startswith("logpi[")]


def lowest(requirement: str) -> str:
    """
    >>> lowest("gymnasium[classic-control]>=1.1,<2")
    'gymnasium[classic-control]==1.1'
    """
    return re.sub(r">=([^,;]+)(,[^;]*)?", r"==\1", requirement)


def pins(which: str, torch: str | None) -> list[str]:
    """pip's arguments."""
    chosen = [lowest(r) if which == "lowest" else r for r in ranges()]
    if torch:
        chosen = [f"torch=={torch}" if r.startswith("torch") else r for r in chosen]
    return chosen


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--torch", metavar="VERSION")
    end = argv.index("--") if "--" in argv else len(argv)
    chosen, tests = parser.parse_args(argv[:end]), argv[end + 1 :] or TESTS
    where = ROOT / "build" / chosen.which
    python = where / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", where], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*install, "pip"], check=True)
    subprocess.run([*install, *pins(chosen.which, chosen.torch)], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
    subprocess.run([python, "-m", "pip", "list"], check=True)
    return subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"},
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

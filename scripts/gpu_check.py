"""What needs GPUs, run on those that are there: `make gpu-check`.

On one GPU the cases that the tests run on a simulated device (`tests/elsewhere_cases.py`); on two
or more the laws of several ranks by NCCL (`tests/distributed/`). Each part is a pytest of its own,
so one that dies says so and the others run. Writes a JSON with every test, and a table. Without a
GPU it says what is missing, and exits with 1.

Left out: speed (`make bench DEVICE=cuda`), vLLM, models that somebody would train.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# name -> GPUs that it needs, its files
PARTS = {
    "the library on a GPU": (1, "tests/elsewhere_cases.py"),
    "gradients of every row, 1 = 2 = 3 ranks": (2, "tests/distributed/test_laws.py"),
    "the world": (2, "tests/distributed/test_world.py"),
    "weights in shards": (2, "tests/distributed/test_sharding.py"),
    "checkpoints at another number of ranks": (2, "tests/distributed/test_checkpoints.py"),
    "whole jobs": (2, "tests/distributed/test_jobs.py"),
    "what goes wrong": (2, "tests/distributed/test_failures.py"),
    "logpi launch": (2, "tests/distributed/test_launch.py"),
}
# seconds for a part
LIMIT = 1800


@dataclass(frozen=True)
class Outcome:
    """One part.

    Attributes:
        tests: "passed", "skipped", or why one failed, by name. state: of the whole. seconds: taken.
    """

    state: str
    tests: dict[str, str]
    seconds: float

    def counts(self) -> str:
        said = [*self.tests.values()]
        bad = len(said) - said.count("passed") - said.count("skipped")
        return f"{said.count('passed')} passed, {bad} failed, {said.count('skipped')} skipped"


def gpus() -> list[str]:
    """The names of those that torch sees."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def run(path: str, limit: float) -> Outcome:
    """One part's tests on GPUs."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        report = Path(home, "report.xml")
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
        env = os.environ | {"LOGPI_DEVICE": "cuda"}
        try:
            done = subprocess.run(
                [*words, f"--junitxml={report}"], cwd=ROOT, env=env, timeout=limit
            )
            state = {0: "passed", 1: "failed"}.get(done.returncode, f"code {done.returncode}")
        except subprocess.TimeoutExpired:
            state = f"no end in {limit:.0f} s"
        tests = read(report) if report.exists() else {}
    return Outcome(state, tests, round(time.monotonic() - begin, 1))


def read(report: Path) -> dict[str, str]:
    """What pytest's report says of each test."""
    out = {}
    for case in ET.parse(report).iter("testcase"):
        bad = next((c for c in case if c.tag in ("failure", "error")), None)
        skipped = case.find("skipped") is not None
        why = "" if bad is None else (bad.get("message") or bad.tag).partition("\n")[0]
        out[case.get("name", "?")] = why or ("skipped" if skipped else "passed")
    return out


def table(outcomes: dict[str, Outcome | None], names: list[str]) -> str:
    """Markdown; None: too few GPUs."""
    lines = [f"{len(names)} x {names[0]}", "", "| | result | tests | s |", "|---|---|---|---|"]
    for name, outcome in outcomes.items():
        if outcome is None:
            lines.append(f"| {name} | not run: needs {PARTS[name][0]} GPUs | | |")
        else:
            lines.append(f"| {name} | {outcome.state} | {outcome.counts()} | {outcome.seconds} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check.json")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each part")
    a = parser.parse_args()
    names = gpus()
    if not names:
        sys.exit("gpu-check: torch sees no CUDA GPU here; the laws of several ranks need two")
    outcomes: dict[str, Outcome | None] = {}
    for name, (least, path) in PARTS.items():
        outcomes[name] = run(path, a.limit) if len(names) >= least else None
    a.out.parent.mkdir(parents=True, exist_ok=True)
    results = {name: o and asdict(o) for name, o in outcomes.items()}
    a.out.write_text(json.dumps({"gpus": names, "parts": results}, indent=1) + "\n")
    text = table(outcomes, names)
    a.out.with_suffix(".md").write_text(text)
    print(text)
    if any(o and o.state != "passed" for o in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What the benchmarks share: a process for each measurement, its memory, the machine's limits, results that outlive an interruption.

A script measures by calling itself (`child`) with another interpreter or other arguments; the child prints one line, `RESULT {json}`.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Results", "child", "loaded", "machine", "peak", "report", "spread"]

RESULTS = Path(__file__).parent / "results"


def child(script: str, arguments: Mapping[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """Run `script` with `--name value` for each argument; what it reported.

    Raises:
        SystemExit: it failed; its last words.
    """
    words = [python, script]
    for name, value in arguments.items():
        if value is not None and value is not False:
            words += [
                f"--{name}",
                *(map(str, value) if isinstance(value, list) else [] if value is True else [str(value)]),
            ]
    path = str(Path(__file__).parent.parent)
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(found[-1].removeprefix("RESULT "))


def report(result: Mapping[str, Any]) -> None:
    """What a child prints."""
    print("RESULT " + json.dumps(result), flush=True)


def loaded() -> float:
    """MB this process holds now; its high-water mark begins again here (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak() -> float:
    """MB this process held at most since `loaded`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """What the machine can do, measured now in float32 with torch's threads: bytes read and operations of a large product, a second."""
    import torch

    x, a = torch.ones(2**26), torch.randn(1024, 1024)
    out = torch.empty_like(a)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = [name for name in ("avx2", "avx512f", "amx_tile", "asimd") if f" {name}" in flags]
    return {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "isa": known or platform.machine(),
        "read_gb_s": 2**28 / _quickest(x.sum) / 1e9,
        "matmul_gflop_s": 2 * 1024**3 / _quickest(lambda: torch.mm(a, a, out=out)) / 1e9,
        "python": platform.python_version(), "torch": torch.__version__, "load": os.getloadavg()[0],
    }  # fmt: skip


def _quickest(f: Any, times: int = 9) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Results:
    """Measurements by key in a JSON file, written after each; with `resume` those of the same arguments are not made again."""

    def __init__(self, path: Path | None, resume: bool, arguments: Mapping[str, Any]) -> None:
        model = arguments.get("model")
        self.path, self.arguments = path, {**arguments, "model": Path(model).name if model else "small"}
        kept = json.loads(path.read_text()) if path is not None and resume and path.is_file() else {}
        if not isinstance(kept, dict) or kept.get("arguments") != self.arguments:
            kept = {}
        self.runs: dict[str, Any] = kept.get("runs", {})
        self.summary: dict[str, Any] = kept.get("summary", {})
        self.machine = kept.get("machine") or machine()

    def measure(self, key: str, make: Any) -> Any:
        if key not in self.runs:
            self.runs[key] = make()
            self.save()
        return self.runs[key]

    def save(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            about = {"machine": self.machine, "arguments": self.arguments}
            whole = {**about, "summary": self.summary, "runs": self.runs}
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps(whole, indent=1) + "\n")
            temporary.replace(self.path)

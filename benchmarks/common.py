"""Shared by the benchmarks: a process for each measurement, its memory, the machine's limits,
results that survive an interruption, and the device: the CPU, or one GPU (`--device cuda`;
CUDA_VISIBLE_DEVICES chooses it).

A script measures by calling itself (`child`) with another interpreter or other arguments; the child
prints one line, `RESULT {json}`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Place", "Results", "child", "report", "spread"]

RESULTS = Path(__file__).parent / "results"


def child(
    script: str, arguments: Mapping[str, Any], python: str = sys.executable
) -> dict[str, Any]:
    """Run `script` with `--name value` for each argument; what it reported.

    Raises:
        SystemExit: it failed; its last words.
    """
    words = [python, script]
    for name, value in arguments.items():
        if value is not None and value is not False:
            words += [
                f"--{name}",
                *(
                    map(str, value)
                    if isinstance(value, list)
                    else []
                    if value is True
                    else [str(value)]
                ),
            ]
    path = str(Path(__file__).parent.parent)
    one = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    }  # with several, a peer would use them all
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path} | one
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return json.loads(found[-1].removeprefix("RESULT "))


def report(result: Mapping[str, Any]) -> None:
    """What a child prints."""
    print("RESULT " + json.dumps(result), flush=True)


@dataclass(frozen=True)
class Place:
    """Where a benchmark computes, and with weights of which type."""

    device: str = "cpu"
    dtype: str = "float32"

    @staticmethod
    def options(p: argparse.ArgumentParser) -> None:
        """`--device` and `--dtype`, for both sides of a comparison."""
        p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")

    @classmethod
    def of(cls, a: argparse.Namespace) -> Place:
        return cls(a.device, a.dtype)

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def size(self) -> int:
        """Bytes of a weight."""
        return {"float32": 4, "bfloat16": 2}[self.dtype]

    def given(self) -> dict[str, str]:
        """What to tell a child, and to note beside results: nothing where it is as it always
        was."""
        return {} if self == Place() else {"device": self.device, "dtype": self.dtype}

    def now(self) -> float:
        """The clock, once all that was asked of the device is done."""
        if self.gpu:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, f: Any, *args: Any, **options: Any) -> float:
        begin = self.now()
        f(*args, **options)
        return self.now() - begin

    def loaded(self) -> float:
        """MB this process holds now, on a GPU there; its high-water mark begins again here
        (Linux)."""
        if self.gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    def peak(self) -> float:
        """MB this process held at most since `loaded`."""
        if self.gpu:
            import torch

            return torch.cuda.max_memory_allocated() / 2**20
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def machine(self) -> dict[str, Any]:
        """What the machine can do, measured now in this place: bytes read and operations of a large
        product, a second."""
        import torch

        here, n = (
            {"device": self.device, "dtype": getattr(torch, self.dtype)},
            8192 if self.gpu else 1024,
        )
        x, a = torch.ones(2**28 // self.size, **here), torch.randn(n, n, **here)
        out = torch.empty_like(a)
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        known = [name for name in ("avx2", "avx512f", "amx_tile", "asimd") if f" {name}" in flags]
        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if self.gpu else {}
        return gpu | {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "isa": known or platform.machine(),
            "read_gb_s": 2**28 / min(self.seconds(x.sum) for _ in range(9)) / 1e9,
            "matmul_gflop_s": 2
            * n**3
            / min(self.seconds(torch.mm, a, a, out=out) for _ in range(9))
            / 1e9,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "load": os.getloadavg()[0],
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Results:
    """Measurements by key in a JSON file, written after each; with `resume` those of the same
    arguments are not made again."""

    def __init__(
        self,
        path: Path | None,
        resume: bool,
        arguments: Mapping[str, Any],
        place: Place | None = None,
    ) -> None:
        model = arguments.get("model")
        self.path, self.arguments = (
            path,
            {**arguments, "model": Path(model).name if model else "small"},
        )
        kept = (
            json.loads(path.read_text()) if path is not None and resume and path.is_file() else {}
        )
        if not isinstance(kept, dict) or kept.get("arguments") != self.arguments:
            kept = {}
        self.runs: dict[str, Any] = kept.get("runs", {})
        self.summary: dict[str, Any] = kept.get("summary", {})
        self.machine = kept.get("machine") or (place or Place()).machine()

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

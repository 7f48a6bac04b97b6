"""What needs a GPU, run on those that are there, in at most eight minutes on one: `make gpu-check`.

    python scripts/gpu_check.py                   # the same without setting up; needs no network
    python scripts/gpu_check.py --device cpu      # a rehearsal: the same parts, tiny, in a minute

On one GPU: the cases that the tests run on a simulated device, decoding with CUDA graphs and
without, a GRPO step (beside TRL, if this Python has it, or `--peer PYTHON`), two ranks on one
device. On two or more, after that and with limits of their own, the laws of several ranks by NCCL.
Each part is a process that ends when its time is up; one that fails is a row with its reason, and
the others run. Writes one JSON and one table. Without a GPU it says so, and exits with 1.

Left out: vLLM, and models that somebody would train (`make bench-full MODEL=DIR`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# seconds for all parts on one GPU, and for each of those on several
BUDGET, LIMIT = 470.0, 1800.0
# seconds in which a part that was interrupted writes its report
GRACE = 8.0


@dataclass(frozen=True)
class Outcome:
    """One part.

    Attributes:
        state: "passed", "failed" or why there is no more. seconds: taken.
        tests: "passed", "skipped", or why one failed, by name. figures: what was measured.
    """

    state: str
    tests: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def counts(self) -> str:
        said = [*self.tests.values()]
        bad = len(said) - said.count("passed") - said.count("skipped")
        return f"{said.count('passed')} passed, {bad} failed, {said.count('skipped')} skipped"

    def shown(self) -> str:
        return self.counts() if self.tests else " · ".join(_lines(self.figures))


@dataclass(frozen=True)
class Part:
    """Something to run in a process of its own.

    Attributes:
        words: after the interpreter, on a GPU. tiny: the same, for a rehearsal on the CPU.
        seconds: most that it may take. least: GPUs that it needs.
        read: figures of what it printed and of the file that `{out}` in its words names; None: it
            is a file of tests.
    """

    words: tuple[str, ...]
    tiny: tuple[str, ...] = ()
    seconds: float = LIMIT
    least: int = 1
    read: Callable[[str, Path], dict[str, Any]] | None = None


def reported(printed: str, _: Path) -> dict[str, Any]:
    """The line `RESULT {json}` of a benchmark's process."""
    return json.loads(printed.rpartition("RESULT ")[2].partition("\n")[0])


def summary(_: str, out: Path) -> dict[str, Any]:
    """The summary in a benchmark's file."""
    return json.loads(out.read_text())["summary"]


FIGURES = "benchmarks/device_figures.py"
ON_GPU, SMALL = ("--device", "cuda"), ("--width", "64", "--layers", "2", "--batch", "1", "4")
STEP = ("benchmarks/grpo_step.py", "--rounds", "1", "--json", "{out}")
PARTS = {
    "the library on a GPU": Part(
        ("tests/elsewhere_cases.py",),
        ("tests/elsewhere_cases.py", "-k", "test_what_is_saved"),
        seconds=190,
    ),
    "decoding": Part(
        (FIGURES, "decode", *ON_GPU, "--dtype", "bfloat16"),
        (FIGURES, "decode", *SMALL, "--tokens", "4", "--prompt", "4"),
        seconds=80,
        read=reported,
    ),
    "a GRPO step": Part(
        (*STEP, *ON_GPU, "--dtype", "bfloat16", "--steps", "3", "--tokens", "128"),
        (*STEP, "--steps", "1", "--prompts", "2", "--group", "2", "--tokens", "4"),
        seconds=140,
        read=summary,
    ),
    "two ranks on one device": Part(
        (FIGURES, "ranks", *ON_GPU), (FIGURES, "ranks"), seconds=60, read=reported
    ),
    "gradients of every row, 1 = 2 = 3 ranks": Part(("tests/distributed/test_laws.py",), least=2),
    "the world": Part(("tests/distributed/test_world.py",), least=2),
    "weights in shards": Part(("tests/distributed/test_sharding.py",), least=2),
    "checkpoints at another number of ranks": Part(
        ("tests/distributed/test_checkpoints.py",), least=2
    ),
    "whole jobs": Part(("tests/distributed/test_jobs.py",), least=2),
    "what goes wrong": Part(("tests/distributed/test_failures.py",), least=2),
    "logpi launch": Part(("tests/distributed/test_launch.py",), least=2),
}


def gpus() -> list[str]:
    """The names of those that torch sees."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def machine(device: str, names: list[str]) -> dict[str, Any]:
    """What the figures belong to."""
    import torch
    import transformers

    return {
        "device": f"{len(names)} x {names[0]}" if names else f"{device} ({os.cpu_count()} cores)",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def run(part: Part, device: str, limit: float, peer: str = "") -> Outcome:
    """Run a part on a device, for at most `limit` seconds."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "report")
        words = [w.replace("{out}", str(file)) for w in _words(part, device)]
        if part.read is None:
            pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={file}"]
            words = [*pytest, *words]
        elif peer and "benchmarks/grpo_step.py" in words:
            words += ["--peer", peer]
        code, printed = ended([sys.executable, *words], environment(device), limit)
        state = {0: "passed", 1: "failed"}.get(code, f"code {code}")
        if code is None:
            state = f"no end in {limit:.0f} s"
        tests, figures = {}, {}
        if part.read is None:
            tests = read(file) if file.exists() else {}
        elif code == 0:
            figures = part.read(printed, file)
        if state != "passed" and not tests:
            state += f": {_last(printed)}"
    return Outcome(state, tests, figures, round(time.monotonic() - begin, 1))


def _words(part: Part, device: str) -> tuple[str, ...]:
    return part.words if device == "cuda" else part.tiny


def environment(device: str) -> dict[str, str]:
    """Of a part's process: it finds logpi here, asks no network, and uses the device."""
    there = {"LOGPI_DEVICE": "cuda"} if device == "cuda" else {}
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | offline | there | {"PYTHONPATH": str(ROOT)}


def ended(words: list[str], env: Mapping[str, str], limit: float) -> tuple[int | None, str]:
    """A process's exit code and what it printed; None: it was interrupted when its time was up, and
    with it all that it had started."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
            # a shell's background job ignores it, and so would its children
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        code = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            # pytest writes its report then
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        return code, out.read()


def read(report: Path) -> dict[str, str]:
    """What pytest's report says of each test."""
    out = {}
    for case in ET.parse(report).iter("testcase"):
        bad = next((c for c in case if c.tag in ("failure", "error")), None)
        skipped = case.find("skipped") is not None
        why = "" if bad is None else (bad.get("message") or bad.tag).partition("\n")[0]
        out[case.get("name", "?")] = why or ("skipped" if skipped else "passed")
    return out


def _last(printed: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def _lines(figures: Mapping[str, Any], before: str = "") -> list[str]:
    """Figures as words: {'rows': {'1': {'ratio': 2.0}}} is rows 1 ratio 2."""
    out = []
    for name, value in figures.items():
        label = f"{before} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            out += _lines(value, label)
        elif value is not None:
            out.append(f"{label} {value:.4g}" if isinstance(value, float) else f"{label} {value}")
    return out


def table(outcomes: Mapping[str, Outcome], about: Mapping[str, Any]) -> str:
    """Markdown."""
    title = ", ".join([about["device"], *(f"{k} {about[k]}" for k in about if k != "device")])
    lines = [title, "", "| | result | tests, figures | s |", "|---|---|---|---|"]
    for name, outcome in outcomes.items():
        cells = [outcome.state, outcome.shown()]
        shown = " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells)
        lines.append(f"| {name} | {shown} | {outcome.seconds} |")
    return "\n".join(lines) + "\n"


def check(
    device: str, number: int, budget: float = BUDGET, limit: float = LIMIT, peer: str = ""
) -> dict[str, Outcome]:
    """Run the parts one after another; those on one GPU share the budget."""
    end = time.monotonic() + budget
    outcomes = {}
    for name, part in PARTS.items():
        if part.least > number:
            outcomes[name] = Outcome(f"not run: needs {part.least} GPUs")
            continue
        left = limit if part.least > 1 else min(part.seconds, end - time.monotonic() - GRACE)
        if left < 1:
            outcomes[name] = Outcome(f"not run: the {budget:.0f} s are over")
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        outcomes[name] = run(part, device, left, peer)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds, on one GPU")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds, each part on several")
    parser.add_argument("--peer", default="", help="a Python that has trl (default: this one)")
    a = parser.parse_args()
    names = gpus() if a.device == "cuda" else []
    if a.device == "cuda" and not names:
        sys.exit("gpu-check: torch sees no CUDA GPU here; --device cpu rehearses")
    peer = a.peer or (sys.executable if importlib.util.find_spec("trl") else "")
    about = machine(a.device, names)
    outcomes = check(a.device, len(names) or 1, a.budget, a.limit, peer)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    results = {name: asdict(o) for name, o in outcomes.items()}
    a.out.write_text(json.dumps({"machine": about, "parts": results}, indent=1) + "\n")
    text = table(outcomes, about)
    a.out.with_suffix(".md").write_text(text)
    print(text)
    if any(
        o.state != "passed" and not o.state.startswith("not run: needs") for o in outcomes.values()
    ):
        sys.exit(1)


if __name__ == "__main__":
    main()

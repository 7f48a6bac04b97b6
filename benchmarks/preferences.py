"""DPO and SFT beside TRL: seconds a step, pairs (or rows) a second, memory, and the losses of the
same batches.

    python benchmarks/preferences.py --model DIR --data pairs.jsonl [--peer PYTHON] [--jobs sft dpo]
    [--pairs 4] [--steps 3]
                                     [--max-length 256] [--micro-tokens 512] [--lr 1e-6]
                                     [--peer-rows 0] [--json]

PYTHON is an interpreter that has trl. Each side runs in a process of its own, on the same rows in
the same order, float32, with the same AdamW; the first step is a warm-up and not timed. CPU seconds
are those of all threads: compare them where other jobs run. TRL runs with its defaults (padded,
eager reference model), all pairs of a step at once, or --peer-rows at a time. Ours takes
--micro-tokens at a time, which changes no gradient. Peak is the process's largest resident set with
the model loaded; "above" is its part above the process that has just loaded the model: gradients,
Adam's moments, activations, reference.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

JOBS = ("sft", "dpo")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--peer", help="a Python with trl")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--micro-tokens", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument(
        "--peer-rows",
        type=int,
        default=0,
        help="rows of a forward for trl, the rest accumulated; 0: all",
    )
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=JOBS)
    parser.add_argument(
        "--json", action="store_true", help="a line of JSON for each run, not a table"
    )
    parser.add_argument("--side", choices=("logpi", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        a.rows = json.loads(Path(a.data).read_text())
        print("RESULT " + json.dumps((_logpi if a.side == "logpi" else _trl)(a)))
        return
    sides = {"logpi": sys.executable} | ({"trl": a.peer} if a.peer else {})
    if not a.json:
        print(
            f"{'job':<6}{'side':<8}{'s/step':>8}{'CPU s':>8}{'pairs/s':>9}"
            f"{'peak GB':>9}{'above':>8}   losses"
        )
    with tempfile.TemporaryDirectory() as out:
        rows = Path(out) / "rows.json"
        rows.write_text(json.dumps(_rows(a)))
        for job in a.jobs:
            for side, python in sides.items():
                r = _child(python, a, side, job, rows)
                shown = " ".join(f"{x:.4f}" for x in r["losses"])
                speed = (
                    f"{r['seconds']:>8.2f}{r['cpu']:>8.2f}{a.pairs / r['seconds']:>9.2f}"
                    f"{r['peak']:>9.2f}{r['above']:>8.2f}"
                )
                line = (
                    json.dumps({"job": job, "side": side, **r})
                    if a.json
                    else f"{job:<6}{side:<8}{speed}   {shown}"
                )
                print(line, flush=True)


def _child(python: str, a: argparse.Namespace, side: str, job: str, rows: Path) -> dict[str, Any]:
    same = {
        "model": a.model,
        "data": rows,
        "pairs": a.pairs,
        "steps": a.steps,
        "max-length": a.max_length,
        "lr": a.lr,
        "micro-tokens": a.micro_tokens,
        "peer-rows": a.peer_rows,
        "side": side,
        "job": job,
    }
    words = [
        python,
        __file__,
        *(word for name, value in same.items() for word in (f"--{name}", str(value))),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(f"{side} failed at {job}:\n{done.stderr[-2000:]}")
    return json.loads(found[-1].removeprefix("RESULT "))


def _rows(a: argparse.Namespace) -> list[dict[str, Any]]:
    """The first rows of the data, as explicit prompts, for both sides."""
    from logpi.envs.data import load_rows
    from logpi.rollouts.preference_pairs import continuation, without_empty

    rows = without_empty(load_rows(a.data)[: 4 * a.pairs * (a.steps + 1)])
    made = [
        {"prompt": r["prompt"], **{s: continuation(r, s, i) for s in ("chosen", "rejected")}}
        for i, r in enumerate(rows)
    ]
    short = [r for r in made if len(r["prompt"]) < 2 * a.max_length]  # room for a response
    return short[: a.pairs * (a.steps + 1)]


def _resident() -> float:
    """GB of this process now; from here on its largest is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def _now() -> tuple[float, float]:
    """Seconds on the clock, and of CPU."""
    return time.perf_counter(), time.process_time()


def _result(marks: list[tuple[float, float]], losses: list[float], loaded: float) -> dict[str, Any]:
    """marks: before and after each step, by turns."""
    took = [
        [after[i] - before[i] for before, after in zip(marks[::2], marks[1::2], strict=True)]
        for i in (0, 1)
    ]
    seconds, cpu = (fmean(x[1:] or x) for x in took)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "above": peak - loaded, "losses": losses}


def _logpi(a: argparse.Namespace) -> dict[str, Any]:
    from logpi.algorithms import algorithm
    from logpi.jobs.sft import CHUNK
    from logpi.learner import Learner
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.preference_pairs import Preferences, read_pairs
    from logpi.updates.adamw import AdamW

    policy = CausalLM.load(a.model, **({"chunk": CHUNK} if a.job == "sft" else {}))
    loaded = _resident()
    groups = read_pairs(policy, a.rows, max_length=a.max_length).groups[: a.pairs * (a.steps + 1)]
    data = Preferences(groups, size=a.pairs)
    if a.job == "dpo":
        data.record(policy, tokens=a.micro_tokens)
    pieces: dict[str, Any] = {"micro_tokens": a.micro_tokens}
    made = (
        algorithm("dpo", recorded=True, **pieces) if a.job == "dpo" else algorithm("sft", **pieces)
    )
    learner = Learner(policy, made, AdamW(a.lr, betas=(0.9, 0.999)))
    marks, losses = [], []
    for batch in data.batches():
        part = batch if a.job == "dpo" else batch.rows(batch.reward.sum(1) > 0)  # the chosen ones
        marks.append(_now())
        report = learner.update(part)
        marks.append(_now())
        losses.append(report["loss"])
    return _result(marks, losses, loaded)


def _trl(a: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    rows = a.rows
    if a.job == "sft":
        rows = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    marks = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__) -> None:
            marks.append(_now())

        def on_step_end(self, *_, **__) -> None:
            marks.append(_now())

    make, config = (DPOTrainer, DPOConfig) if a.job == "dpo" else (SFTTrainer, SFTConfig)
    with tempfile.TemporaryDirectory() as out:
        arguments = config(
            output_dir=out,
            per_device_train_batch_size=a.peer_rows or a.pairs,
            gradient_accumulation_steps=a.pairs // (a.peer_rows or a.pairs),
            max_length=a.max_length,
            max_steps=a.steps + 1,
            learning_rate=a.lr,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_num_workers=0,
        )

        class Ordered(make):  # type: ignore[valid-type, misc]
            def _get_train_sampler(self, *_: Any) -> SequentialSampler:
                return SequentialSampler(self.train_dataset)

        model = AutoModelForCausalLM.from_pretrained(a.model, dtype="float32")
        loaded = _resident()
        trainer = Ordered(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(a.model),
            callbacks=[Clock()],
        )
        trainer.train()
    losses = [x["loss"] for x in trainer.state.log_history if "loss" in x]
    return _result(marks, losses, loaded)


if __name__ == "__main__":
    main()

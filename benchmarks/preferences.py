"""DPO and SFT beside TRL: seconds a step, pairs (or rows) a second, peak memory, and the losses of the same batches.

    python benchmarks/preferences.py --model DIR --data pairs.jsonl [--peer PYTHON] [--pairs 4] [--steps 3] [--max-length 256]

PYTHON is an interpreter that has trl. Each side runs in a process of its own, on the same rows in the same order, float32,
with the same AdamW; the first step is a warm-up and not timed. TRL runs with its defaults for this (padded, eager reference
model). Peak memory is the process's largest resident set, loading included.
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
    parser.add_argument("--side", choices=("logpi", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        a.rows = json.loads(Path(a.data).read_text())
        print("RESULT " + json.dumps((_logpi if a.side == "logpi" else _trl)(a)))
        return
    sides = {"logpi": sys.executable} | ({"trl": a.peer} if a.peer else {})
    print(f"{'job':<6}{'side':<8}{'s/step':>8}{'pairs/s':>9}{'peak GB':>9}   losses")
    with tempfile.TemporaryDirectory() as out:
        rows = Path(out) / "rows.json"
        rows.write_text(json.dumps(_rows(a)))
        for job in JOBS:
            for side, python in sides.items():
                r = _child(python, a, side, job, rows)
                shown = " ".join(f"{x:.4f}" for x in r["losses"])
                speed = f"{r['seconds']:>8.2f}{a.pairs / r['seconds']:>9.2f}{r['peak']:>9.2f}"
                print(f"{job:<6}{side:<8}{speed}   {shown}", flush=True)


def _child(python: str, a: argparse.Namespace, side: str, job: str, rows: Path) -> dict[str, Any]:
    words = [python, __file__, "--model", a.model, "--data", str(rows), "--pairs", str(a.pairs), "--steps", str(a.steps),
             "--max-length", str(a.max_length), "--side", side, "--job", job]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(f"{side} failed at {job}:\n{done.stderr[-2000:]}")
    return json.loads(found[-1].removeprefix("RESULT "))


def _rows(a: argparse.Namespace) -> list[dict[str, Any]]:
    """The first rows of the data, as explicit prompts, for both sides."""
    from logpi.envs.data import load_rows
    from logpi.rollouts.pairs import continuation, without_empty

    rows = without_empty(load_rows(a.data)[: 4 * a.pairs * (a.steps + 1)])
    made = [{"prompt": r["prompt"], **{s: continuation(r, s, i) for s in ("chosen", "rejected")}}
            for i, r in enumerate(rows)]  # fmt: skip
    short = [r for r in made if len(r["prompt"]) < 2 * a.max_length]  # room for a response
    return short[: a.pairs * (a.steps + 1)]


def _result(seconds: list[float], losses: list[float]) -> dict[str, Any]:
    timed = seconds[1:] or seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": sum(timed) / len(timed), "peak": peak, "losses": losses}


def _logpi(a: argparse.Namespace) -> dict[str, Any]:
    from logpi.algorithms import algorithm
    from logpi.learner import Learner
    from logpi.optimizers import AdamW
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.pairs import Preferences, read_pairs

    policy = CausalLM.load(a.model)
    groups = read_pairs(policy, a.rows, max_length=a.max_length).groups[: a.pairs * (a.steps + 1)]
    data = Preferences(groups, size=a.pairs)
    if a.job == "dpo":
        data.record(policy)
    made = algorithm("dpo", recorded=True) if a.job == "dpo" else algorithm("sft")
    learner = Learner(policy, made, AdamW(1e-6, betas=(0.9, 0.999)))
    seconds, losses = [], []
    for batch in data.batches():
        part = batch if a.job == "dpo" else batch.rows(batch.reward.sum(1) > 0)  # the chosen ones
        start = time.perf_counter()
        report = learner.update(part)
        seconds.append(time.perf_counter() - start)
        losses.append(report["loss"])
    return _result(seconds, losses)


def _trl(a: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    rows = a.rows
    if a.job == "sft":
        rows = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    seconds, begun = [], [0.0]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__) -> None:
            begun[0] = time.perf_counter()

        def on_step_end(self, *_, **__) -> None:
            seconds.append(time.perf_counter() - begun[0])

    make, config = (DPOTrainer, DPOConfig) if a.job == "dpo" else (SFTTrainer, SFTConfig)
    with tempfile.TemporaryDirectory() as out:
        arguments = config(
            output_dir=out, per_device_train_batch_size=a.pairs, max_length=a.max_length, max_steps=a.steps + 1,
            learning_rate=1e-6, lr_scheduler_type="constant", logging_steps=1, report_to=[], save_strategy="no",
            bf16=False, gradient_checkpointing=False, use_cpu=True, dataloader_num_workers=0,
        )  # fmt: skip

        class Ordered(make):  # type: ignore[valid-type, misc]
            def _get_train_sampler(self, *_: Any) -> SequentialSampler:
                return SequentialSampler(self.train_dataset)

        trainer = Ordered(
            model=AutoModelForCausalLM.from_pretrained(a.model, dtype="float32"), args=arguments,
            train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(a.model),
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    losses = [x["loss"] for x in trainer.state.log_history if "loss" in x]
    return _result(seconds, losses)


if __name__ == "__main__":
    main()

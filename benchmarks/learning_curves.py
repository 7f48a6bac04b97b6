"""Learning beside TRL's trainers: `logpi rl` and GRPOTrainer, `logpi prefer` and DPOTrainer, from
the same model on the same rows; held-out accuracy against samples, seconds and CPU seconds.

    python benchmarks/learning_curves.py --peer PYTHON [--seeds 3] [--jobs rl dpo]
        the demonstration's model of 1.2 M parameters, after SFT on two-digit addition
    python benchmarks/learning_curves.py --peer PYTHON --model DIR --task ROWS --jobs rl --lr 1e-5 \
        --prompts 8 --tokens 20 --every 20
        ROWS: a folder with train.jsonl and test.jsonl of prompt and answer

PYTHON is an interpreter that has trl. Each side runs in a process of its own for each seed.
Same for both: weights at the start, rows, prompts and responses an update, their longest length,
loss (GRPO without KL; DPO with β 0.1), AdamW's rates and betas, warm-up, clip norm, number of
updates. Different: the order of rows and the samples, which the libraries draw themselves, so
curves agree on average only. Both are measured by logpi's evaluator on the same held-out items,
with the clock stopped. Pairs of DPO: the right answer, worked, against a wrong one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import Place, Results, child, report, spread

SIDES = ("logpi", "trl")
WARMUP, BETAS, BETA = 5, (0.9, 0.95), 0.1


def score(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """1 for the answer behind the last #, or for the last number of a text without one."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [float(_last(t) == right) for t, right in zip(texts, answer, strict=True)]


def _last(text: str) -> str:
    import re

    found = re.findall(r"-?\d+", text.rpartition("#")[2])
    return found[-1] if found else ""


class Clock:
    """Seconds and CPU seconds of the updates alone; and the curve."""

    def __init__(self, save: Callable[[Path], object], a: argparse.Namespace) -> None:
        self.save, self.a = save, a
        self.spent, self.since = [0.0, 0.0], [0.0, 0.0]
        self.points: list[dict[str, float]] = []

    def go(self) -> None:
        self.since = [time.perf_counter(), time.process_time()]

    def stop(self, step: int) -> None:
        now = (time.perf_counter(), time.process_time())
        self.spent = [s + n - b for s, n, b in zip(self.spent, now, self.since, strict=True)]
        if step % self.a.every == 0 or step == self.a.steps:
            self.measure(step)

    def measure(self, step: int) -> None:
        """A point of the curve."""
        from logpi.engine.engine import Engine
        from logpi.engine.sampling import Sampling
        from logpi.envs.tasks import task
        from logpi.evaluation.evaluator import Evaluator
        from logpi.policies.causal_lm import CausalLM
        from logpi.rewards import rewards

        # a copy: each library has its own way with the weights that it trains
        point = Path(self.a.home) / "point"
        self.save(point)
        policy = CausalLM.load(point)
        items = list(task(self.a.rows).rows("test")[: self.a.items])
        numbers, _ = Evaluator(
            policy,
            Engine(policy, slots=256),
            items,
            rewards([f"{__file__}:score"]),
            Sampling(max_tokens=self.a.tokens),
            4,
        )()
        seconds, cpu = self.spent
        self.points.append(
            {"step": step, "right": numbers["eval/pass@1"], "seconds": seconds, "cpu": cpu}
        )


def logpi_side(a: argparse.Namespace) -> list[dict[str, float]]:
    import logpi
    from logpi.policies.causal_lm import CausalLM

    policy = CausalLM.load(a.model)
    clock = Clock(policy.save, a)
    clock.measure(0)
    shared: dict[str, Any] = {
        "model": policy,
        "steps": a.steps,
        "warmup": WARMUP,
        "lr": a.lr,
        "seed": a.seed,
        "eval_items": 1,
        "device": "cpu",
    }
    if a.job == "rl":
        job: Any = logpi.RL(
            task=a.rows,
            rewards=[f"{__file__}:score"],
            algorithm="grpo",
            beta=0,
            prompts=a.prompts,
            num_generations=a.group,
            max_completion_length=a.tokens,
            slots=256,
            **shared,
        )
    else:
        pairs = str(Path(a.rows) / "pairs.jsonl")
        job = logpi.Prefer(
            data=pairs, algorithm="dpo", beta=BETA, pairs=a.prompts, schedule="constant", **shared
        )
    setup = job.setup()
    clock.go()
    # DPO's reference, which TRL computes within its steps
    setup.begin()
    for step in range(1, a.steps + 1):
        setup.learner.update(setup.rollout().batch)
        clock.stop(step)
        clock.go()
    return clock.points


def trl_side(a: argparse.Namespace) -> list[dict[str, float]]:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import (  # pyright: ignore[reportMissingImports]
        DPOConfig,
        DPOTrainer,
        GRPOConfig,
        GRPOTrainer,
    )

    model: Any = AutoModelForCausalLM.from_pretrained(a.model, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(a.model)

    def save(path: Path) -> None:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)

    clock = Clock(save, a)
    clock.measure(0)

    class Marks(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not clock.spent[0]:
                clock.go()

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            clock.stop(state.global_step)
            clock.go()

    shared: dict[str, Any] = {
        "output_dir": f"{a.home}/trl",
        "max_steps": a.steps,
        "learning_rate": a.lr,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": WARMUP,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "max_grad_norm": 1.0,
        "seed": a.seed,
        "logging_steps": a.steps,
        "report_to": [],
        "save_strategy": "no",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "beta": 0.0 if a.job == "rl" else BETA,
    }
    common: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "callbacks": [Marks()],
    }
    name = "train" if a.job == "rl" else "pairs"
    data = load_dataset(
        "json", data_files=f"{a.rows}/{name}.jsonl", split="train", cache_dir=f"{a.home}/cache"
    )
    if a.job == "rl":
        trainer = GRPOTrainer(
            reward_funcs=score,
            args=GRPOConfig(
                per_device_train_batch_size=a.prompts * a.group,
                num_generations=a.group,
                max_completion_length=a.tokens,
                temperature=1.0,
                loss_type="grpo",
                **shared,
            ),
            train_dataset=data,
            **common,
        )
    else:
        trainer = DPOTrainer(
            args=DPOConfig(per_device_train_batch_size=a.prompts, max_length=256, **shared),
            train_dataset=data,
            **common,
        )
    trainer.train()
    return clock.points


def prepared(a: argparse.Namespace, home: Path) -> None:
    """The model and the rows, where they are not given."""
    if a.model:
        return
    import logpi
    from logpi.envs.tasks import Addition
    from logpi.jobs.rejection import write_rows
    from logpi.policies.small import small_policy

    task = Addition(worked=0.3)
    small_policy(task.alphabet, seed=0).save(home / "base")
    for split in ("train", "test"):
        rows = [dict(r) for r in task.rows(split, 0)[:4000]]
        write_rows(home / "rows" / f"{split}.jsonl", [_sum(r) for r in rows])
    write_rows(home / "rows" / "pairs.jsonl", _pairs(task))
    sft = logpi.SFT(
        model=str(home / "base"),
        task="addition(worked=0.3)",
        steps=a.sft_steps,
        rows=128,
        lr=2e-3,
        warmup=20,
        device="cpu",
        out=home / "sft",
    )
    sft.run()
    a.model, a.rows = str(home / "sft" / "model"), str(home / "rows")


def _sum(row: dict[str, Any]) -> dict[str, str]:
    return {"prompt": row["prompt"], "answer": row["answer"]}


def _pairs(task: Any) -> list[dict[str, str]]:
    """For each sum of the first 2,000: worked out, and a near miss."""
    from dataclasses import replace

    worked = replace(task, worked=1.0).rows("train", 0)[:2000]
    blurt = replace(task, worked=0.0).rows("train", 0)[:2000]
    return [
        {"prompt": w["prompt"], "chosen": w["completion"], "rejected": b["completion"]}
        for w, b in zip(worked, blurt, strict=True)
        if w["prompt"] == b["prompt"]
    ]


def summary(curves: dict[str, list[list[dict[str, float]]]], a: argparse.Namespace) -> Any:
    """Means over seeds at each measured step; the ratio of times, and of last accuracies."""
    table: dict[str, Any] = {}
    for side, runs in curves.items():
        table[side] = [
            {
                key: round(fmean(p[key] for p in points), 4)
                for key in ("step", "right", "seconds", "cpu")
            }
            for points in zip(*runs, strict=True)
        ]
        table[side + " last"] = spread([r[-1]["right"] for r in runs])
    if len(curves) == 2:
        ends = [[r[-1] for r in curves[side]] for side in SIDES]
        for key in ("seconds", "cpu"):
            table[f"ratio_{key}"] = spread([t[key] / o[key] for o, t in zip(*ends, strict=True)])
        table["difference_right"] = spread(
            [o["right"] - t["right"] for o, t in zip(*ends, strict=True)]
        )
    return table


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--peer", help="a Python that has trl (left out: only ours)")
    p.add_argument("--model", help="a directory (default: made on the spot)")
    p.add_argument("--task", dest="rows", help="a folder of train.jsonl and test.jsonl")
    p.add_argument("--jobs", nargs="+", choices=("rl", "dpo"), default=["rl", "dpo"])
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--every", type=int, default=10, help="updates between measurements")
    p.add_argument("--prompts", type=int, default=32, help="of an update; pairs, for DPO")
    p.add_argument("--group", type=int, default=8)
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--items", type=int, default=200)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--sft-steps", type=int, default=600)
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--resume", action="store_true", help="go on with what FILE holds")
    p.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    p.add_argument("--job", help=argparse.SUPPRESS)
    p.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    p.add_argument("--home", help=argparse.SUPPRESS)
    return p


def _both(a: argparse.Namespace, job: str, measure: Callable[..., Any]) -> Any:
    """The curves of both sides, seed by seed."""
    curves: dict[str, list[Any]] = {}
    for seed in range(a.seeds):
        for side in SIDES if seed % 2 == 0 else SIDES[::-1]:
            if side == "logpi" or a.peer:
                points = measure(job, side, seed)
                curves.setdefault(side, []).append(points)
                p = points[-1]
                print(f"{job} seed {seed} {side:<6} right {p['right']:.3f} after"
                      f" {p['seconds']:.1f} s, {p['cpu']:.1f} s of CPU", flush=True)  # fmt: skip
    return summary(curves, a)


def main() -> None:
    a = options().parse_args()
    if a.side:
        report({"points": logpi_side(a) if a.side == "logpi" else trl_side(a)})
        return
    names = ("steps", "every", "prompts", "group", "tokens", "items", "lr")
    given = {k: getattr(a, k) for k in names}
    results = Results(a.json, a.resume, given | {"model": a.model, "rows": a.rows}, Place())
    with tempfile.TemporaryDirectory() as home:
        prepared(a, Path(home))

        def measure(job: str, side: str, seed: int) -> list[dict[str, float]]:
            with tempfile.TemporaryDirectory() as own:
                words = given | {"model": a.model, "task": a.rows, "home": own}
                words |= {"job": job, "side": side, "seed": seed}
                python = sys.executable if side == "logpi" else a.peer
                run = lambda: child(__file__, words, python)  # noqa: E731
                return results.measure(f"{job} {side} {seed}", run)["points"]

        results.summary = {job: _both(a, job, measure) for job in a.jobs}
    results.save()
    print(json.dumps(results.summary, indent=1))


if __name__ == "__main__":
    main()

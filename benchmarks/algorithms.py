"""Every algorithm of the table on the demo's task with the same budget, from the same fine-tuned
models, over several seeds.

    python benchmarks/algorithms.py --seeds 3 --steps 30 --out runs/table

For each seed it fine-tunes one model as `logpi demo` does; each algorithm then gets the same number
of updates of 32 × 8 completions at the same learning rate. Prints held-out accuracy per algorithm
as mean and range over seeds, and writes `--json`. Two jobs run side by side, one thread each. Left
out: tuning; a method that needs another learning rate looks worse here.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from logpi.algorithms import NAMES
from logpi.demos.demo import ReasoningDemo, base, rl, sft
from logpi.errors import UserError
from logpi.jobs.options.fields import setting
from logpi.runs.metrics import read_metrics


def fine_tuned(root: Path, seed: int) -> None:
    """Make the demo's model after supervised fine-tuning, unless it exists."""
    home = root / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "sft" / "model" / "config.json").exists():
        base(ReasoningDemo(seed=seed), home)
        sft(ReasoningDemo(seed=seed), home).run()


def job(
    root: Path, seed: int, algorithm: str, steps: int, lr: float, options: dict[str, object]
) -> dict:
    """One algorithm on one seed: the numbers before and after, or what went wrong."""
    torch.set_num_threads(1)
    home = root / f"seed-{seed}" / algorithm
    arguments = rl(
        ReasoningDemo(algorithm=algorithm, seed=seed, steps=steps, lr=lr, options=options),
        root / f"seed-{seed}",
    )
    start = time.perf_counter()
    try:
        replace(arguments, out=home, eval_every=0).run()
    except (UserError, ValueError, RuntimeError) as error:
        return {"algorithm": algorithm, "seed": seed, "failed": f"{type(error).__name__}: {error}"}
    records = read_metrics(home)
    before, after = [r for r in records if "eval/pass@1" in r]
    done = [r for r in records if "reward" in r]
    return {
        "algorithm": algorithm,
        "seed": seed,
        "before": before["eval/pass@1"],
        "after": after["eval/pass@1"],
        "greedy": after["eval/greedy"],
        "length": after["eval/mean_length"],
        "update_seconds": sum(r["time/update"] for r in done),
        "rollout_seconds": sum(r["time/rollout"] for r in done),
        "wall": time.perf_counter() - start,
    }


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument(
        "--algorithms", nargs="*", default=[n for n in NAMES if n not in ("sft", "distill")]
    )
    p.add_argument(
        "--options", nargs="*", default=[], help="of these algorithms, e.g. fisher_fraction=0.1"
    )
    p.add_argument("--out", type=Path, default=Path("runs/table"))
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    rows = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(fine_tuned, [a.out] * a.seeds, range(a.seeds)))
        jobs = [
            (a.out, s, name, a.steps, a.lr, dict(map(setting, a.options)))
            for name in a.algorithms
            for s in range(a.seeds)
        ]
        for row in pool.map(job, *zip(*jobs, strict=True)):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if a.json:
                about = {"seeds": a.seeds, "steps": a.steps, "lr": a.lr}
                a.json.write_text(json.dumps({"arguments": about, "rows": rows}, indent=1))
    print(
        f"\n{'algorithm':<30}{'before':>8}{'after':>8}  range          {'greedy':>8}{'tokens':>8}"
    )
    for name in a.algorithms:
        mine = [r for r in rows if r["algorithm"] == name and "after" in r]
        failed = a.seeds - len(mine)
        if mine:
            after = [r["after"] for r in mine]
            print(
                f"{name:<30}{fmean(r['before'] for r in mine):>8.3f}{fmean(after):>8.3f} "
                f" {min(after):.3f}–{max(after):.3f}   "
                f" {fmean(r['greedy'] for r in mine):>8.3f}{fmean(r['length'] for r in mine):>8.1f}"
                + (f"   {failed} failed" if failed else "")
            )
        else:
            print(
                f"{name:<30}  failed: {[r['failed'] for r in rows if r['algorithm'] == name][:1]}"
            )


if __name__ == "__main__":
    main()

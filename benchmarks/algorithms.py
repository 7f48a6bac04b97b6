"""Every algorithm of the table on the demo's task with the same budget, from the same fine-tuned models, over several seeds.

    python benchmarks/algorithms.py --seeds 3 --steps 40 --out runs/table

For each seed one supervised model is made (as `logpi demo` makes it); each algorithm then gets the same number of updates of 32 × 8 completions
at the same learning rate. Prints held-out accuracy per algorithm as mean and range over seeds, and writes `--json`. Two jobs run side by side, one
thread each. Left out: tuning; a method that likes another learning rate shows it here.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from logpi.algorithms import NAMES
from logpi.arguments import to_json
from logpi.recipes.demo import Demo, base, rl, sft
from logpi.recipes.repeat import words_of
from logpi.runs.metrics import read_metrics


def logpi(words: list[str], log: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with open(log, "w") as file:
        subprocess.run([sys.executable, "-m", "logpi", *words], env=environment, stdout=file, stderr=file, check=False)


def fine_tuned(root: Path, seed: int) -> None:
    """The demo's model after supervised fine-tuning, unless it is there."""
    home = root / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "sft" / "model" / "config.json").exists():
        base(Demo(seed=seed), home)
        logpi(["sft", *words_of(to_json(sft(Demo(seed=seed), home)))], home / "sft.log")


def job(root: Path, seed: int, algorithm: str, steps: int, lr: float) -> dict:
    """One algorithm on one seed: the numbers before and after."""
    home = root / f"seed-{seed}"
    made = rl(Demo(algorithm=algorithm, seed=seed, steps=steps, lr=lr), home)
    made = replace(made, out=home / algorithm)
    start = time.perf_counter()
    logpi(["rl", *words_of(to_json(made))], home / f"{algorithm}.log")
    records = read_metrics(home / algorithm) if (home / algorithm / "metrics.jsonl").exists() else []
    measured = [r for r in records if "eval/pass@1" in r]
    done = [r for r in records if "reward" in r]
    if not measured or len(done) < steps:
        last = (home / f"{algorithm}.log").read_text().strip().splitlines()[-1]
        return {"algorithm": algorithm, "seed": seed, "failed": last, "steps": len(done)}
    return {
        "algorithm": algorithm, "seed": seed, "before": measured[0]["eval/pass@1"], "after": measured[-1]["eval/pass@1"],
        "best": max(r["eval/pass@1"] for r in measured), "greedy": measured[-1]["eval/greedy"],
        "length": measured[-1]["eval/mean_length"], "update_seconds": sum(r["time/update"] for r in done),
        "rollout_seconds": sum(r["time/rollout"] for r in done), "wall": time.perf_counter() - start,
    }  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--algorithms", nargs="*", default=[n for n in NAMES if n != "sft"])
    p.add_argument("--out", type=Path, default=Path("runs/table"))
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    rows = []
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: fine_tuned(a.out, seed), range(a.seeds)))
        jobs = [(a.out, s, name, a.steps, a.lr) for name in a.algorithms for s in range(a.seeds)]
        for row in pool.map(lambda j: job(*j), jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if a.json:
                a.json.write_text(
                    json.dumps(
                        {"arguments": vars(a) | {"out": str(a.out), "json": str(a.json)}, "rows": rows}, indent=1
                    )
                )
    print(f"\n{'algorithm':<30}{'before':>8}{'after':>8}  range          {'greedy':>8}{'tokens':>8}")
    for name in a.algorithms:
        mine = [r for r in rows if r["algorithm"] == name and "after" in r]
        failed = a.seeds - len(mine)
        if mine:
            after = [r["after"] for r in mine]
            print(
                f"{name:<30}{fmean(r['before'] for r in mine):>8.3f}{fmean(after):>8.3f}  {min(after):.3f}–{max(after):.3f}"
                f"    {fmean(r['greedy'] for r in mine):>8.3f}{fmean(r['length'] for r in mine):>8.1f}"
                + (f"   {failed} failed" if failed else "")
            )
        else:
            print(f"{name:<30}  failed: {[r['failed'] for r in rows if r['algorithm'] == name][:1]}")


if __name__ == "__main__":
    main()

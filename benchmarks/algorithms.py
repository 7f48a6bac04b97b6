"""Every algorithm of the table on the demo's task with the same budget, from the same fine-tuned models, over several seeds.

    python benchmarks/algorithms.py --seeds 3 --steps 60 --out runs/table

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
from pathlib import Path
from statistics import fmean

from logpi.algorithms import NAMES
from logpi.runs.metrics import read_metrics


def demo(out: Path, seed: int, algorithm: str, steps: int, lr: float) -> None:
    """`logpi demo` in a directory that may already hold its first stage."""
    words = ["demo", f"--out={out}", f"--seed={seed}", f"--algorithm={algorithm}", f"--steps={steps}", f"--lr={lr}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with open(out / f"{algorithm}.log", "w") as log:
        subprocess.run([sys.executable, "-m", "logpi", *words], env=environment, stdout=log, stderr=log, check=False)


def job(root: Path, seed: int, algorithm: str, steps: int, lr: float) -> dict:
    """One algorithm on one seed: the numbers before and after."""
    home = root / f"seed-{seed}-{algorithm}"
    home.mkdir(parents=True, exist_ok=True)
    for stage in ("base", "sft"):
        if not (home / stage).exists():
            (home / stage).symlink_to((root / f"seed-{seed}" / stage).resolve())
    start = time.perf_counter()
    demo(home, seed, algorithm, steps, lr)
    records = read_metrics(home / "rl") if (home / "rl" / "metrics.jsonl").exists() else []
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
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--algorithms", nargs="*", default=[n for n in NAMES if n != "sft"])
    p.add_argument("--out", type=Path, default=Path("runs/table"))
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    rows = []
    with ThreadPoolExecutor(2) as pool:
        for seed in range(a.seeds):
            (a.out / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        list(pool.map(lambda s: demo(a.out / f"seed-{s}", s, "grpo", 1, a.lr), range(a.seeds)))
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

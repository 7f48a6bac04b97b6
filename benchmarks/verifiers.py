"""The speed of the verifiers, and whether they accept the published solutions of GSM8K, HumanEval
and MBPP.

    python benchmarks/verifiers.py --gsm8k test.jsonl --humaneval HumanEval.jsonl.gz --mbpp
    mbpp.jsonl

Rates are wall clock; beside them stand CPU seconds, which a busy machine does not change. Left out:
a policy's scores on these sets (`logpi eval`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import resource
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from logpi.rewards import Math
from logpi.sandbox import LocalSandbox

OUT = Path(__file__).parent / "results" / "verifiers.json"


def read(path: str) -> list[dict[str, Any]]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as file:
        return [json.loads(line) for line in file]


def cpu() -> float:
    """CPU seconds of this process and the children it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in both)


def timed(work: Callable[[], Any], items: int) -> tuple[Any, dict[str, float]]:
    start, spent = time.perf_counter(), cpu()
    result = work()
    seconds, spent = time.perf_counter() - start, cpu() - spent
    return result, {
        "items": items,
        "per_second": round(items / seconds, 1),
        "cpu_seconds": round(spent, 3),
    }


def math_rates(rows: list[dict[str, Any]], repeat: int) -> dict[str, Any]:
    """The published solutions against themselves, and against each other (mostly wrong)."""
    solutions = [r["answer"] for r in rows] * repeat
    shuffled = random.Random(0).sample(solutions, len(solutions))
    judge = Math()
    out = {}
    for name, given in (("right", solutions), ("wrong", shuffled)):
        verdicts, rate = timed(
            lambda given=given: judge([None] * len(given), given, answer=solutions), len(given)
        )
        out[name] = rate | {"accepted": verdicts.count(1.0)}
    boxed = [rf"… \boxed{{{s.rpartition('####')[2].strip()}}}" for s in solutions]
    verdicts, rate = timed(lambda: judge([None] * len(boxed), boxed, answer=solutions), len(boxed))
    out["boxed"] = rate | {"accepted": verdicts.count(1.0)}
    pairs = [(rf"{2 * i}\sqrt{{3}}", rf"\sqrt{{{12 * i * i}}}") for i in range(1, 101)]
    judge.equal([(r"\pi", r"\pi+0")])  # the workers are warm now
    found, rate = timed(lambda: judge.equal(pairs), len(pairs))
    return out | {"symbolic": rate | {"accepted": sum(v is True for v in found.values())}}


def code_rates(
    box: LocalSandbox, humaneval: list[dict[str, Any]], mbpp: list[dict[str, Any]]
) -> dict[str, Any]:
    """Published solutions against published tests, two at a time."""
    jobs: dict[str, list[tuple]] = {
        "humaneval": [
            (
                r["prompt"] + r["canonical_solution"],
                [f"{r['test']}\ncheck({r['entry_point']})"],
                r["prompt"],
                r["entry_point"],
            )
            for r in humaneval
        ],
        "mbpp": [(r["code"], r["test_list"], r["test_setup_code"]) for r in mbpp],
    }
    out = {}
    for name, rows in jobs.items():
        with ThreadPoolExecutor(2) as threads:
            verdicts, rate = timed(
                lambda rows=rows: list(threads.map(lambda r: box.judge(*r), rows)), len(rows)
            )
        missed = [
            f"{i}: {v.status}: {v.message}"[:120]
            for i, v in enumerate(verdicts)
            if v.status != "ok"
        ]
        out[name] = rate | {"accepted": len(rows) - len(missed), "missed": missed[:10]}
    scripts, rate = timed(lambda: [box.run("print(1)") for _ in range(200)], 200)
    return out | {"script": rate | {"accepted": sum(s.status == "ok" for s in scripts)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in ("gsm8k", "humaneval", "mbpp"):
        parser.add_argument(f"--{name}", required=True, help="the published file")
    parser.add_argument(
        "--repeat", type=int, default=40, help="times GSM8K is judged, for a steady clock"
    )
    a = parser.parse_args()
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }
    result: dict[str, Any] = {
        "date": str(date.today()),
        "machine": machine,
        "math": math_rates(read(a.gsm8k), a.repeat),
    }
    for backend in ("landlock", *(["bubblewrap"] if shutil.which("bwrap") else [])):
        box = LocalSandbox(backend, workers=2)
        box.start()
        before = cpu()
        result[backend] = code_rates(box, read(a.humaneval), read(a.mbpp))
        box.close()
        if backend == "landlock":  # bubblewrap's children are not ours to count
            result[backend]["cpu_seconds_with_children"] = round(cpu() - before, 2)
    OUT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()

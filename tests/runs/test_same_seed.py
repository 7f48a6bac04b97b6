"""Two runs of one seed are the same bits, whatever else the machine does and in whatever order sets
and dictionaries are hashed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from logpi.runs.metrics import read_metrics

JOBS = """
import sys
from pathlib import Path
import logpi
from logpi.envs.tasks import Bilingual
from logpi.policies.small import small_policy

out, task = Path(sys.argv[1]), "bilingual(digits=1)"
shape = Bilingual()
model = small_policy(shape.alphabet, words=shape.words, width=32, layers=2, seed=3)
logpi.SFT(model=model, task=task, steps=6, rows=16, lr=3e-3, seed=3, out=out / "sft").run()
logpi.RL(
    model=str(out / "sft" / "model"), task=task, rewards=("tag_answer", "think_answer", "language"),
    algorithm="grpo_r1", steps=3, prompts=4, num_generations=4, max_completion_length=24,
    lr=1e-3, seed=3, eval_items=4, out=out / "rl",
).run()
"""
BUSY = "while True: sum(range(10**6))"


def contents(run: Path) -> tuple[bytes, list[dict[str, object]], list[bytes]]:
    """The model, the metrics without times, and the samples."""
    metrics = [{k: v for k, v in record.items() if "time" not in k} for record in read_metrics(run)]
    samples = [p.read_bytes() for p in sorted((run / "samples").glob("*.jsonl"))]
    return (run / "model" / "model.safetensors").read_bytes(), metrics, samples


def run(out: Path, hashes: str) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": hashes,
    }
    words = [sys.executable, "-c", JOBS, str(out)]
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=300)


def test_a_seed_is_the_same_bits_under_load_and_another_order_of_hashes(tmp_path: Path) -> None:
    run(tmp_path / "one", "1")
    neighbour = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        run(tmp_path / "two", "2")
    finally:
        neighbour.kill()
        neighbour.wait()
    for stage in ("sft", "rl"):
        one, two = (contents(tmp_path / name / stage) for name in ("one", "two"))
        assert repr(one) == repr(two), stage
    assert one[2]  # there were samples to compare

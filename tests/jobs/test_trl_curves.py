"""The same curve as TRL's trainers on the same batches: ten steps of SFT and of DPO. Skipped where
trl is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer

pytest.importorskip("trl", reason="a comparison for developers: pip install trl==1.16")
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "preferences.py"


@pytest.mark.slow
def test_ten_steps_of_sft_and_dpo_have_trls_losses(tmp_path):
    CausalLM(tiny_model("llama", std=0.1), tiny_tokenizer(chat_template=None)).save(
        tmp_path / "base"
    )
    rows = [
        {"prompt": f"{i}+{i}=", "chosen": str(2 * i), "rejected": f"{i}, or so {i}"}
        for i in range(80)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = [
        sys.executable,
        str(BENCHMARK),
        "--model",
        str(tmp_path / "base"),
        "--data",
        str(tmp_path / "pairs.jsonl"),
        "--peer",
        sys.executable,
        "--pairs",
        "4",
        "--steps",
        "9",
        "--lr",
        "1e-3",
        "--micro-tokens",
        "30",
        "--json",
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(BENCHMARK.parents[1]),
    }  # an interpreter with trl need not have logpi installed
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
    found = {(r["job"], r["side"]): r["losses"] for r in map(json.loads, done.stdout.splitlines())}
    for job, moved in (("sft", 0.3), ("dpo", 0.02)):
        ours, theirs = found[job, "logpi"], found[job, "trl"]
        assert len(ours) == len(theirs) == 10 and max(ours) - min(ours) > moved
        assert ours == pytest.approx(theirs, abs=2e-4), job  # TRL logs four decimals or so

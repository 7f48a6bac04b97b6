"""What a job saves is a model that vLLM loads: its tokenizer reads the same tokens, and it says
greedily what our own engine says. Where LOGPI_VLLM_PYTHON names vLLM's interpreter
(scripts/vllm_cpu.sh makes one):

    LOGPI_VLLM_PYTHON=DIR/bin/python python -m pytest -q tests/engine/test_vllm_loads.py

Left out: sampling by vLLM for a learner (`test_vllm_real.py`), 16-bit weights, GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import logpi
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.envs.tasks import Addition
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy

PYTHON = os.environ.get("LOGPI_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="LOGPI_VLLM_PYTHON names no vLLM"),
    pytest.mark.slow,
]
TEXTS = ("12+34=", "7+8=", "99+1=", "3+3=")
TOKENS = 16


def greedy(path: Path, ids: list[list[int]]) -> dict[str, Any]:
    """vLLM's tokens after these prompts, and its reading of `TEXTS`."""
    words = [PYTHON, str(Path(__file__).with_name("vllm_greedy.py")), str(path)]
    asked = json.dumps({"ids": ids, "texts": TEXTS, "tokens": TOKENS})
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | own
    done = subprocess.run([*words, asked], env=env, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, (done.stdout + done.stderr)[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT "))


def whole(home: Path) -> Path:
    """Small as the demo's model, after a few steps of its first stage; its output layer is tied."""
    return tuned(home, lora=0)


def with_adapters(home: Path) -> Path:
    """The same with LoRA, which the job merges when it saves."""
    return tuned(home, lora=4)


def tuned(home: Path, lora: int) -> Path:
    """Heads of 32: the demo's have 40, for which vLLM's CPU build has no kernel."""
    small_policy(Addition().alphabet, width=128, layers=2, seed=1).save(home / "base")
    job = logpi.SFT(
        model=str(home / "base"),
        task="addition",
        steps=6,
        rows=16,
        lr=3e-3,
        lora=lora,
        out=home / "run",
    )
    return job.run().path / "model"


@pytest.mark.parametrize("make", [whole, with_adapters])
def test_vllm_says_what_our_engine_says(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    policy = CausalLM.load(path)
    assert policy.model.config.tie_word_embeddings
    ids = [policy.render(text) for text in TEXTS]
    requests = [Request(prompt, 1, greedy=True) for prompt in ids]
    rows = Engine(policy).generate(requests, Sampling(max_tokens=TOKENS))
    expected = [completion.tokens.tolist() for row in rows for completion in row]
    theirs = greedy(path, ids)
    assert theirs["tokens"] == expected
    assert theirs["read"] == ids

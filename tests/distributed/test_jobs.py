"""Whole jobs on one, two and three ranks: the same samples token for token, the same metrics, one
run on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import logpi
from logpi.policies.causal_lm import CausalLM
from logpi.runs.metrics import read_metrics
from tests.distributed.several import on_ranks
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(40)]
PAIRS = [
    {"prompt": f"say {i}: ", "chosen": "ab" * (i % 4 + 1), "rejected": "zz" * (i % 3 + 1)}
    for i in range(40)
]
SMALL = {"lr": 1e-3, "save_every": 2, "eval_items": 4}


def vowels(completions: list[str], **_: Any) -> list[float]:
    """Something that differs within a group."""
    return [sum(c in "aeiou02468" for c in text) / 4 for text in completions]


def jobs(model: str, home: Path) -> dict[str, Any]:
    rl = {**SMALL, "prompts": 3, "num_generations": 4, "max_completion_length": 10, "eval_every": 2}
    prefer = {**SMALL, "pairs": 4}
    sft = {"lr": 1e-3, "save_every": 2, "rows": 4}
    return {
        "rl": logpi.RL(model=model, task=ROWS, rewards=[vowels], steps=3, out=home / "rl", **rl),
        "dapo": logpi.RL(
            model=model,
            task=ROWS,
            rewards=[vowels],
            algorithm="dapo",
            steps=2,
            epochs=2,
            out=home / "dapo",
            **rl,
        ),
        "ppo": logpi.RL(
            model=model,
            task=ROWS,
            rewards=[vowels],
            algorithm="ppo",
            steps=2,
            out=home / "ppo",
            **rl,
        ),
        "sft": logpi.SFT(
            model=model,
            task=[{"prompt": r["prompt"], "completion": r["answer"]} for r in ROWS],
            steps=3,
            out=home / "sft",
            **sft,
        ),
        "dpo": logpi.Prefer(model=model, data=PAIRS, steps=3, out=home / "dpo", **prefer),
        "reward": logpi.RewardModel(
            model=model, data=PAIRS, steps=3, out=home / "reward", **prefer
        ),
    }


def run_all(model: str, home: Path) -> dict[str, tuple[str, dict[str, float]]]:
    """Of each job where its run is, and its last evaluation."""
    results = {name: job.run() for name, job in jobs(model, home).items()}
    return {
        name: (str(r.path), {k: v for k, v in r.last.items() if "time" not in k})
        for name, r in results.items()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    CausalLM(tiny_model(), tiny_tokenizer()).save(path)
    return str(path)


def samples(run: Path) -> list[dict[str, Any]]:
    files = sorted((run / "samples").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_one_rank_is_two_and_three(model: str, tmp_path: Path) -> None:
    run_all(model, tmp_path / "1")
    for ranks in (2, 3):
        results = on_ranks(ranks, run_all, model, tmp_path / str(ranks))
        assert all(r == results[0] for r in results[1:]), "ranks tell different things"
        for name in results[0]:
            alone, several = (tmp_path / str(n) / name for n in (1, ranks))
            assert (several / "model" / "model.safetensors").exists()
            for a, b in zip(samples(alone), samples(several), strict=True):
                for key in ("prompt", "completion", "ids", "reward", "rewards", "stop", "group"):
                    assert a.get(key) == b.get(key), (name, key)
            for a, b in zip(read_metrics(alone), read_metrics(several), strict=True):
                for key, value in a.items():
                    if "time" not in key:
                        assert b[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)

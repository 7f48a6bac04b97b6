"""Whole jobs on one, two and three ranks: the same samples token for token, the same metrics, one
run on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import logpi
from logpi.distributed.world import current
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


def shards() -> str:
    return str(current().size) if current().size > 1 else "none"


def in_shards(model: str, judge: str, home: Path) -> dict[str, str]:
    small = {"model": model, "task": ROWS, "prompts": 3, "num_generations": 4, "shard": shards()}
    small |= {"max_completion_length": 8, "lr": 1e-3, "save_every": 1, "eval_items": 4}
    with_critic = {**small, "rewards": [f"model:{judge}"], "algorithm": "ppo", "steps": 2}
    jobs = {
        "grpo": logpi.RL(**small, rewards=[vowels], steps=3, out=home / "grpo"),
        "ppo": logpi.RL(**with_critic, out=home / "ppo"),
        "dpo": logpi.Prefer(
            model=model, data=PAIRS, pairs=4, lr=1e-3, steps=2, shard=shards(), out=home / "dpo"
        ),
    }
    return {name: str(job.run().path) for name, job in jobs.items()}


def whole_again(model: str, judge: str, home: Path) -> None:
    """What two ranks left in shards, gone on with by one."""
    logpi.RL(
        model=model,
        task=ROWS,
        prompts=3,
        num_generations=4,
        max_completion_length=8,
        lr=1e-3,
        save_every=1,
        eval_items=4,
        rewards=[vowels],
        steps=5,
        shard="none",
        resume=home / "grpo",
    ).run()


def test_weights_in_shards_change_nothing(model: str, tmp_path: Path) -> None:
    judge = tmp_path / "judge"
    logpi.RewardModel(model=model, data=PAIRS, pairs=4, steps=1, lr=1e-2, out=judge).run()
    place = str(judge / "model")
    on_ranks(2, in_shards, model, place, tmp_path / "shards")
    in_shards(model, place, tmp_path / "one")
    for name in ("grpo", "ppo", "dpo"):
        one, two = (tmp_path / n / name for n in ("one", "shards"))
        a, b = (load_file(run / "model" / "model.safetensors") for run in (one, two))
        assert a.keys() == b.keys()
        # a hundredth of a step: Adam divides rounding by small second moments
        assert max(float((a[k] - b[k]).abs().max()) for k in a) <= 1e-5, name
        for x, y in zip(samples(one), samples(two), strict=True):
            assert x.get("ids") == y.get("ids"), name
        assert not (two / "model" / "config.json").read_text().count("distributed")
    whole_again(model, place, tmp_path / "shards")
    steps = [r["step"] for r in read_metrics(tmp_path / "shards" / "grpo") if "loss" in r]
    assert steps == [1, 2, 3, 4, 5]


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

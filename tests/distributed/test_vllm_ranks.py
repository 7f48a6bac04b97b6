"""Several ranks with vLLM servers: the first rank samples for all, weights in shards get there too,
and when no server is left every rank stops and what is done is saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import logpi
from logpi.distributed.world import current
from logpi.engine.vllm import sampler
from logpi.policies.small import small_policy
from tests.distributed.several import on_ranks, outcomes
from tests.distributed.test_jobs import samples, shards
from tests.engine.fake_vllm import FakeVLLM
from tests.jobs.test_sampler_options import ALPHABET, digits

ROWS = [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(120)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    small_policy(ALPHABET, width=32, layers=1, heads=2).save(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def fake(model: str) -> Iterator[FakeVLLM]:
    server = FakeVLLM(small_policy(ALPHABET, width=32, layers=1, heads=2))
    yield server
    server.kill()


def job(model: str, url: str, out: Path, **options) -> logpi.RL:
    small = {"prompts": 3, "num_generations": 3, "max_completion_length": 6, "eval_items": 3}
    small |= {"model": model, "task": ROWS, "rewards": [digits], "sampler": f"vllm:{url}"}
    return logpi.RL(**{**small, "lr": 1e-2, "save_every": 10, "steps": 3, "out": out, **options})


def train(model: str, url: str, out: Path, **options) -> list[float]:
    """Train; the gaps that were found after weights were sent."""
    steps = job(model, url, out, **options)
    return [step.metrics.get("gap_sync", float("nan")) for step in steps]


def plain(model: str, url: str, out: Path) -> list[float]:
    return train(model, url, out)


def in_shards(model: str, url: str, out: Path) -> list[float]:
    return train(model, url, out, shard=shards())


def ahead(model: str, url: str, out: Path) -> list[float]:
    return train(model, url, out, ahead=1)


def test_the_first_rank_samples_for_all(model: str, fake: FakeVLLM, tmp_path: Path) -> None:
    plain(model, fake.url, tmp_path / "one")
    for work in (plain, in_shards):
        first, _ = on_ranks(2, work, model, fake.url, tmp_path / work.__name__)
        assert all(gap < 1e-5 for gap in first[1:]), first
        for a, b in zip(samples(tmp_path / "one"), samples(tmp_path / work.__name__), strict=True):
            assert a.get("ids") == b.get("ids"), work.__name__


def test_batches_are_sampled_ahead_on_all_ranks(model: str, fake: FakeVLLM, tmp_path: Path) -> None:
    on_ranks(2, ahead, model, fake.url, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    refused = outcomes(2, in_shards_ahead, model, fake.url, tmp_path / "refused")
    assert [text for text, _ in refused] == [
        "UserError: ahead needs weights that are whole on the first rank: shard none"
    ] * 2


def in_shards_ahead(model: str, url: str, out: Path) -> list[float]:
    return train(model, url, out, shard=shards(), ahead=1)


def loses_its_server(model: str, url: str, out: Path, pid: int) -> list[float]:
    sampler.PATIENCE = 1.0
    for step in job(model, url, out, steps=5):
        if step.number == 2 and current().first:
            os.kill(pid, signal.SIGUSR1)
    return []


def test_when_no_server_is_left_all_stop_and_the_steps_are_saved(
    model: str, fake: FakeVLLM, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: fake.kill())
    try:
        results = outcomes(2, loses_its_server, model, fake.url, tmp_path / "run", os.getpid())
    finally:
        signal.signal(signal.SIGUSR1, before)
    for text, _ in results:
        assert text.startswith("SamplerLost: "), results
        assert "Step 2 is saved" in text
    assert (tmp_path / "run" / "latest").read_text() == "checkpoints/step-000002\n"

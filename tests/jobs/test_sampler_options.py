"""`logpi rl --sampler …`: which sampler it is, what it changes in the method, and how a run ends
whose servers are gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import logpi
from logpi.engine.engine import Engine, refuse_half
from logpi.errors import SamplerLost, UserError
from logpi.jobs.rl_parts import algorithm_of
from logpi.policies.small import small_policy
from tests.engine.fake_vllm import FakeVLLM

ALPHABET = "0123456789+-*/=() abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!'\n"


@pytest.fixture
def fake() -> Iterator[FakeVLLM]:
    server = FakeVLLM(small_policy(ALPHABET, width=32, layers=1, heads=2))
    yield server
    server.kill()


def digits(prompts, completions, **_) -> list[float]:
    return [float(sum(c.isdigit() for c in text)) for text in completions]


def job(fake: FakeVLLM, out: Path | None, **options) -> logpi.RL:
    given = {
        "model": small_policy(ALPHABET, width=32, layers=1, heads=2),
        "task": [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(120)],
        "rewards": [digits],
        "sampler": f"vllm:{fake.url}",
        "steps": 3,
        "prompts": 3,
        "num_generations": 3,
        "max_completion_length": 6,
        "lr": 1e-2,
        "eval_items": 3,
        "out": out,
    }
    return logpi.RL(**{**given, **options})


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def samples(out: Path) -> list[dict]:
    return [
        json.loads(line)
        for file in sorted((out / "samples").glob("step-*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def test_a_run_by_vllm_is_the_run_by_our_decoder(fake, tmp_path) -> None:
    """Same seeds, same tokens: samples agree; versions and gaps are logged."""
    job(fake, tmp_path / "own", sampler="own").run()
    job(fake, tmp_path / "vllm").run()
    rows = samples(tmp_path / "vllm")
    assert [r["ids"] for r in samples(tmp_path / "own")] == [r["ids"] for r in rows]
    trained = [m for m in metrics(tmp_path / "vllm") if "loss" in m]
    assert [m["version/min"] for m in trained] == [0.0, 1.0, 2.0]
    assert all(m["gap_sampler/mean"] < 1e-5 and m["gap_sync"] < 1e-5 for m in trained[1:])
    assert rows[0]["version"] == [0, 0] and rows[-1]["version"] == [2, 2]


def test_the_method_corrects_for_another_engine(fake, tmp_path) -> None:
    assert algorithm_of(job(fake, tmp_path)).objective.correction == logpi.TruncatedIS()
    assert algorithm_of(job(fake, tmp_path, sampler="own")).objective.correction is None
    setup = job(fake, tmp_path).setup()
    assert not setup.learner.trust.sampler
    setup.close()


def test_adapters_go_merged(fake, tmp_path) -> None:
    job(fake, tmp_path / "run", lora=4, steps=2).run()
    trained = [m for m in metrics(tmp_path / "run") if "loss" in m]
    assert trained[1]["version/max"] == 1.0 and trained[1]["gap_sampler/max"] < 1e-4
    with pytest.raises(UserError, match="lora needs sync files"):
        job(fake, tmp_path / "other", lora=4, sync="nccl").run()


def test_a_sampler_object_stands_for_the_word(fake, tmp_path) -> None:
    policy = small_policy(ALPHABET, width=32, layers=1, heads=2)
    run = job(fake, tmp_path / "run", model=policy, sampler=Engine(policy), steps=1)
    run.run()
    assert run.learner.objective.correction == logpi.TruncatedIS()


def test_when_all_servers_are_gone_the_run_is_saved_and_goes_on(
    fake, tmp_path, monkeypatch
) -> None:
    """The step under way is taken back: the resumed run is the whole one."""
    monkeypatch.setattr("logpi.engine.vllm.sampler.PATIENCE", 0.3)
    job(fake, tmp_path / "whole").run()
    fake.kill()
    fake.start()
    broken = job(fake, tmp_path / "broken")
    steps = iter(broken)
    next(steps)
    fake.wrong.dies_after = 2
    with pytest.raises(
        SamplerLost, match=r"no vLLM server answers: .* Step 1 is saved; resume with"
    ):
        list(steps)
    fake.wrong.dies_after = -1
    fake.start()
    job(fake, None, resume=tmp_path / "broken").run()
    whole, broken = ([r["ids"] for r in samples(tmp_path / d)] for d in ("whole", "broken"))
    assert whole == broken


def test_bad_words_are_one_line(fake, tmp_path, monkeypatch) -> None:
    for options, match in (
        ({"sampler": "vlm"}, "there are own, vllm and vllm:URL"),
        ({"sampler": "vllm:http://a,,"}, "there are own, vllm and"),
        ({"sampler": "vllm:http://127.0.0.1:9"}, "no vLLM server answers at"),
        ({"sync": "ftp"}, "there are auto, files"),
        ({"sync": "nccl:x"}, "there are auto, files"),
        ({"sync": "ipc"}, "takes weights by files, not by ipc"),
        ({"sampler": "vllm", "vllm_python": "/nowhere/python"}, "cannot be run"),
        ({"sampler": "vllm"}, "has no vLLM: name the interpreter"),
    ):
        monkeypatch.delenv("LOGPI_VLLM_PYTHON", raising=False)
        with pytest.raises(UserError, match=match):
            job(fake, tmp_path / "bad", **options).run()
        assert not (tmp_path / "bad").exists()


def own(out: Path | None = None, **options) -> logpi.RL:
    given = {
        "model": small_policy(ALPHABET, width=32, layers=1, heads=2),
        "task": [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(120)],
        "rewards": [digits],
        "steps": 2,
        "prompts": 3,
        "num_generations": 3,
        "max_completion_length": 20,
        "eval_items": 3,
        "sampler_dtype": "bfloat16",
        "out": out,
    }
    return logpi.RL(**{**given, **options})


def test_bfloat16_is_refused_where_the_cpu_has_no_instructions_for_it(monkeypatch) -> None:
    monkeypatch.setattr("logpi.engine.engine.has_bfloat16", lambda: False)
    with pytest.raises(UserError, match=r"no instructions for bfloat16 .* leave sampler_dtype out"):
        own().run()
    with pytest.raises(ValueError, match="on cuda give all weights 16 bits"):
        refuse_half("cuda")
    with pytest.raises(UserError, match="our own decoder's"):
        own(sampler="vllm").run()


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this CPU"
)
def test_samples_of_bfloat16_are_corrected_like_another_engines(tmp_path, monkeypatch) -> None:
    """The learner's own log-probabilities are the old ones, and the gap is measured and small."""
    monkeypatch.setattr("logpi.engine.engine.has_bfloat16", lambda: True)
    own(tmp_path / "run").run()
    gaps = [r["gap_sampler/mean"] for r in metrics(tmp_path / "run") if "gap_sampler/mean" in r]
    assert len(gaps) == 2 and all(1e-6 < gap < 0.02 for gap in gaps), gaps
    method = algorithm_of(own())
    assert method.objective == algorithm_of(own(sampler_dtype="auto")).objective.corrected()

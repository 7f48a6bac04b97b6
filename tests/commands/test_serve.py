"""`logpi serve` as a process, the weights that it takes up, and the run that it follows."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch

import logpi
from logpi.commands.serve import Serve, follow, service_of
from logpi.commands.serve_weights import START, Weights, newest
from logpi.engine.language_model import LanguageModel
from logpi.errors import UserError
from logpi.policies.small import small_policy

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(5) for b in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "base"
    small_policy("0123456789+=", width=32, layers=1, context=64).save(path)
    return path


def job(model: Path, out: Path, **options) -> logpi.RL:
    settings = {"prompts": 2, "num_generations": 2, "max_completion_length": 3, "eval_items": 2}
    settings |= {"beta": 0, "lr": 1e-2, "save_every": 1, **options}
    return logpi.RL(model=str(model), task=ROWS, out=out, algorithm="grpo", **settings)


def same(one: LanguageModel, other: LanguageModel) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_process_that_serves_until_ctrl_c(model: Path) -> None:
    words = [sys.executable, "-m", "logpi", "serve", "--model", str(model), "--port", "0"]
    words += ["--served-model-name", "m"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout
    address = server.stdout.readline().split()[0]
    body = {"model": "m", "prompt": "1+1=", "max_tokens": 3}
    answer = httpx.post(f"{address}/completions", json=body, timeout=60).json()
    assert answer["usage"]["prompt_tokens"] == 5 and answer["system_fingerprint"] == "logpi-base-1"
    # weights anew from where they came from, and from another place
    for path, version in ((None, "base-2"), (str(model), "base-3")):
        body = {"path": path} if path else {}
        changed = httpx.post(f"{address}/weights", json=body, timeout=60)
        assert changed.json()["version"] == version
    missing = httpx.post(f"{address}/weights", json={"path": "/nosuch"}, timeout=60)
    assert missing.status_code == 400 and "no directory" in missing.text
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=20)
    assert "Traceback" not in errors and server.returncode in (0, 130, -signal.SIGINT)


def test_it_follows_a_run(model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """A run that goes on, step by step, and its model at the end."""
    monkeypatch.setattr("logpi.commands.serve.LOOK", 0.02)
    run = tmp_path / "run"
    steps = iter(job(model, run, steps=3))
    next(steps)
    found = newest(run)
    assert found.name in (START, "step-000001")
    service, ended = service_of(Serve(follow=run, device="cpu")), threading.Event()
    thread = threading.Thread(target=follow, args=(service, run, ended))
    thread.start()
    try:
        seen = {service.scheduler.version}
        for _ in steps:
            wait(lambda: newest(run).name == service.scheduler.version)
            seen.add(service.scheduler.version)
        wait(lambda: service.scheduler.version.startswith("model-"))
        final = LanguageModel.load(str(run / "model"))
        assert same(final, service.scheduler.policy) and "step-000002" in seen
        # weights of elsewhere stay: the run has none that are newer
        service.load({"path": str(model)})
        time.sleep(0.3)
        assert service.scheduler.version.startswith("base-")
    finally:
        ended.set()
        thread.join()
        service.close()
    assert "weights: model-" in capsys.readouterr().err


def wait(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_checkpoint_is_the_policy_of_its_step(model: Path, tmp_path: Path, lora: int) -> None:
    """With adapters too: the tokens are those of the merged model."""
    run = tmp_path / "run"
    job(model, run, steps=2, lora=lora).run()
    found = newest(run)
    assert found.name.startswith("model-")
    (run / "model").rename(tmp_path / "model")
    assert newest(run).name == "step-000002"
    policy, version = Weights("", run, {"device": "cpu"})(None)
    assert version == "step-000002"
    final = LanguageModel.load(tmp_path / "model")
    ask = {"greedy": True, "max_tokens": 20}
    assert policy.generate(["1+2="], **ask) == final.generate(["1+2="], **ask)
    assert same(final, policy) is not bool(lora)


def test_answers_end_as_in_the_run(model: Path, tmp_path: Path) -> None:
    """At every checkpoint, unless the server is told otherwise."""
    run = tmp_path / "run"
    job(model, run, steps=1, end_token="=").run()
    (run / "model").rename(tmp_path / "model")
    for loading, end in (({}, "="), ({"end_token": ""}, "="), ({"end_token": "+"}, "+")):
        policy, _ = Weights("", run, {"device": "cpu", **loading})(None)
        assert policy.template.end_text == end


def test_a_checkpoint_of_another_model(model: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    job(model, run, steps=1).run()
    (run / "model").rename(tmp_path / "model")
    small_policy("0123456789+=", width=16, layers=1, context=64).save(other)
    with pytest.raises(UserError, match="does not fit"):
        Weights(str(other), run, {"device": "cpu"})(None)

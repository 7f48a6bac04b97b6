"""examples/compose.yaml says to vLLM what a learner needs, and to logpi what its options are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import logpi
from logpi.engine.vllm.launch import ENVIRONMENT, serve_arguments
from logpi.jobs.options.run import read

FILE = Path(__file__).resolve().parents[2] / "examples" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]


def gpus(service: dict[str, Any]) -> set[str]:
    devices = service["deploy"]["resources"]["reservations"]["devices"]
    return {name for device in devices for name in device["device_ids"]}


def test_the_server_is_told_what_a_run_tells_its_own(services: dict[str, Any]) -> None:
    words = iter(serve_arguments("Qwen/Qwen2.5-0.5B-Instruct", 8000, "files", {}))
    # `--port 8000` is written `--port=8000` there
    expected: list[str] = []
    for word in words:
        if expected and not word.startswith("--") and expected[-1].startswith("--"):
            expected[-1] += f"={word}"
        else:
            expected.append(word)
    server = services["server"]
    assert set(expected) <= set(server["command"])
    assert server["command"][0] == expected[0]
    name = "VLLM_SERVER_DEV_MODE"
    assert server["environment"][name] == ENVIRONMENT[name]


def test_the_learner_finds_the_server(services: dict[str, Any]) -> None:
    learner, server = services["learner"], services["server"]
    command, *words = learner["command"]
    job = read(logpi.RL, words, command, "")
    assert command == "rl" and job.sampler == "vllm:http://127.0.0.1:8000"
    assert job.model == server["command"][0] and f"--dtype={job.dtype}" in server["command"]
    assert learner["network_mode"] == "service:server"
    assert not gpus(learner) & gpus(server)
    shared = job.sync.removeprefix("files:")
    for service in (learner, server):
        assert f"weights:{shared}" in service["volumes"]

"""Runs with tools: killed ones go on bit for bit, and a tool that hangs holds up neither the end of
a run nor Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

import logpi
from logpi.envs.tasks import Facts
from logpi.policies.small import small_policy
from logpi.rollouts.demonstrations import Demonstrations
from logpi.runs.metrics import read_metrics
from logpi.updates.adamw import AdamW
from tests.runs.test_resume import STEPS, contents
from tests.runs.test_resume import logpi as run_logpi

HANGING = Path(__file__).with_name("hanging_tool.py")
# Patience without end: whatever a busy machine does to the threads, replies are read at the same
# step of the decoder.
ARGUMENTS = [
    "--task=facts(people=3, relations=1)",
    "--algorithm=ppo",
    "--options",
    "epochs=2",
    "minibatches=2",
    f"--steps={STEPS}",
    "--prompts=3",
    "--num-generations=4",
    "--max-completion-length=24",
    "--max-turns=3",
    "--tool-patience=inf",
    "--lr=1e-3",
    "--eval-every=3",
    "--eval-items=6",
    "--save-every=2",
    "--seed=5",
]
KILLS = [("rollout", 5), ("update", 6), ("write", 2)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small model that has seen some searches."""
    path = tmp_path_factory.mktemp("model")
    task = Facts(people=3, relations=1, searched=1.0)
    policy = small_policy(Facts().alphabet, words=Facts.words, width=32, layers=2, heads=2, seed=1)
    source = Demonstrations(policy, task, rows=16)
    learner = logpi.Learner(policy, logpi.algorithm("sft"), AdamW(1e-2))
    for _ in range(40):
        learner.update(source().batch)
    policy.save(path)
    return path


def test_a_killed_run_with_tools_goes_on_bit_for_bit(model: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run_logpi("never", 0, "rl", f"--model={model}", f"--out={whole}", *ARGUMENTS) == 0
    for i, (where, count) in enumerate(KILLS):
        words = (
            ["rl", "--resume", str(torn)]
            if i
            else ["rl", f"--model={model}", f"--out={torn}", *ARGUMENTS]
        )
        assert run_logpi(where, count, *words) == -signal.SIGKILL, (
            f"kill {i} ({where}) came too late"
        )
    assert run_logpi("never", 0, "rl", "--resume", str(torn)) == 0
    expected, found = contents(whole), contents(torn)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name] == found[name], f"{name} differs"
    steps = [r for r in read_metrics(whole) if "reward" in r]
    assert len(steps) == STEPS and all(r["turns/mean"] > 1 for r in steps)
    assert sum(r["tools/searches"] for r in steps) > STEPS / 2  # tools were really called


def started(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, str(HANGING), *words], stderr=subprocess.PIPE, text=True, env=environment
    )


def read_to(lines: Iterable[str], word: str) -> None:
    for line in lines:
        if line.startswith(word):
            return
    raise AssertionError(f"no line {word!r}")


def test_a_hanging_tool_keeps_no_process_alive(model: Path, tmp_path: Path) -> None:
    words = (
        "rl",
        f"--model={model}",
        f"--out={tmp_path / 'run'}",
        *ARGUMENTS,
        "--steps=1",
        "--tool-timeout=0.2",
    )
    process = started(*words, "--tool-patience=0")
    assert process.stderr is not None
    read_to(process.stderr, "step 1")
    begin = time.monotonic()
    process.stderr.read()
    assert process.wait(timeout=60) == 0 and time.monotonic() - begin < 60
    (record,) = [r for r in read_metrics(tmp_path / "run") if "reward" in r]
    assert record["tools/timeouts"] > 0 and record["tools/calls"] == 0


def test_ctrl_c_twice_leaves_a_tool_that_hangs(model: Path, tmp_path: Path) -> None:
    process = started(
        "rl", f"--model={model}", f"--out={tmp_path / 'run'}", *ARGUMENTS, "--tool-timeout=86400"
    )
    assert process.stderr is not None
    read_to(process.stderr, "asked")
    time.sleep(0.5)  # the decoder has nothing else to do now but to wait
    process.send_signal(signal.SIGINT)  # the step may end
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130 and time.monotonic() - begin < 20
    assert (
        "interrupted; what was saved can be resumed: --resume" in rest and "Traceback" not in rest
    )

"""A run killed with SIGKILL again and again, and gone on with each time, ends with the same bits as
one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from logpi.envs.tasks import Addition
from logpi.policies.small import small_policy
from logpi.runs.metrics import read_metrics

DRIVER = Path(__file__).with_name("resume_driver.py")
STEPS = 7
# PPO with everything that has a state: critic, moving KL coefficient, reference refresh, shuffled
# minibatches, schedule.
ARGUMENTS = [
    "--task=addition",
    "--algorithm=ppo",
    "--options",
    "beta=0.05",
    "kl_target=0.5",
    "epochs=2",
    "minibatches=2",
    f"--steps={STEPS}",
    "--prompts=3",
    "--num-generations=4",
    "--max-completion-length=8",
    "--lr=1e-3",
    "--warmup=2",
    "--schedule=cosine",
    "--refresh-reference=3",
    "--eval-every=3",
    "--eval-items=6",
    "--save-every=2",
    "--seed=5",
]
KILLS = [("rollout", 7), ("update", 6), ("log", 1), ("write", 1), ("update", 1)]


def logpi(where: str, count: int, *words: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), where, str(count), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def contents(run: Path) -> dict[str, object]:
    """All that a run leaves behind, but for times."""
    found: dict[str, object] = {
        str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "samples").iterdir())
    }
    found |= {
        str(p.relative_to(run)): p.read_bytes()
        for p in sorted((run / "model").glob("*.safetensors"))
    }
    found["metrics"] = [
        {k: v for k, v in record.items() if not k.startswith(("time/", "step_time"))}
        for record in read_metrics(run)
    ]
    last = run / "checkpoints" / f"step-{STEPS:06d}"
    found["state"] = (last / "state.safetensors").read_bytes()
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small_policy(Addition().alphabet, width=32, layers=2, heads=2, seed=1).save(path)
    return path


def test_a_killed_run_goes_on_bit_for_bit(model: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert logpi("never", 0, "rl", f"--model={model}", f"--out={whole}", *ARGUMENTS) == 0
    first = ["rl", f"--model={model}", f"--out={torn}", *ARGUMENTS]
    for i, (where, count) in enumerate(KILLS):
        words = first if i == 0 else ["rl", "--resume", str(torn)]
        assert logpi(where, count, *words) == -signal.SIGKILL, f"kill {i} ({where}) came too late"
    assert logpi("never", 0, "rl", "--resume", str(torn)) == 0
    expected, found = contents(whole), contents(torn)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name] == found[name], f"{name} differs"
    steps = [r["step"] for r in found["metrics"] if "reward" in r]  # type: ignore[union-attr]
    assert steps == list(range(1, STEPS + 1))


def test_ctrl_c_saves_and_leaves_cleanly(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        sys.executable,
        "-m",
        "logpi",
        "rl",
        f"--model={model}",
        f"--out={out}",
        *ARGUMENTS,
        "--steps=100000",
    ]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert f"--resume {out}" in rest
    last = sorted((out / "checkpoints").iterdir())[-1]
    assert int(last.name.partition("-")[2]) == read_metrics(out)[-1]["step"]
    assert json.loads((out / "arguments.json").read_text())["command"] == "rl"
    assert torch.isfinite(torch.tensor(read_metrics(out)[-1]["loss"]))

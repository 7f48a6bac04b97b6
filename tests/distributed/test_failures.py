"""What goes wrong on one of several ranks: all stop with one line, nothing saved is lost, and
another number of ranks goes on."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import logpi
from logpi.distributed.world import current
from logpi.errors import Stopped
from logpi.policies.causal_lm import CausalLM
from logpi.runs.metrics import read_metrics
from tests.distributed.several import environment, free_port, on_ranks, outcomes
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    CausalLM(tiny_model(), tiny_tokenizer()).save(path)
    return str(path)


def even(completions: list[str], **_: Any) -> list[float]:
    return [sum(c in "aeiou02468" for c in text) / 4 for text in completions]


def job(model: str, **options: Any) -> Any:
    small = {"prompts": 2, "num_generations": 4, "max_completion_length": 8, "eval_items": 2}
    return logpi.RL(
        model=model, task=ROWS, rewards=[even], lr=1e-3, save_every=1, **{**small, **options}
    )


def train(model: str, fault: Callable[[Any], None] | None = None, **options: Any) -> int:
    """Train, with a fault before the third step; the number of steps done."""
    done = 0
    running = job(model, **options)
    for step in running:
        done = step.number
        if fault is not None and done == 2:
            fault(running)
    return done


def on_rank_1(do: Callable[[], Any]) -> Callable[..., Any]:
    """Before the sampler of rank 1 samples."""

    def fault(running: Any) -> None:
        sampler = running.rollout.sampler
        generate = sampler.generate

        def broken(*args: Any, **kwargs: Any) -> Any:
            do()
            return generate(*args, **kwargs)

        if current().rank == 1:
            sampler.generate = broken

    return fault


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hanging() -> None:
    time.sleep(600)


def raising() -> None:
    raise ValueError("the tool's server said no")


def with_fault(model: str, out: Path, do: Callable[[], Any]) -> int:
    return train(model, on_rank_1(do), steps=4, out=out)


def resumed(model: str, out: Path) -> int:
    return train(model, steps=4, resume=out)


def whole(model: str, out: Path) -> int:
    return train(model, steps=4, out=out)


def weights(run: Path) -> torch.Tensor:
    tensors = load_file(run / "model" / "model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def test_a_killed_rank_stops_all_and_another_number_goes_on(model: str, tmp_path: Path) -> None:
    first, second = outcomes(2, with_fault, model, tmp_path / "killed", killed)
    assert first[0].startswith("RunError: another rank is gone"), first
    assert second[0] == f"exit code -{signal.SIGKILL.value}"
    assert whole(model, tmp_path / "whole") == 4
    for ranks in (1, 3):
        home = tmp_path / f"resumed-{ranks}"
        subprocess.run(["cp", "-r", tmp_path / "killed", home], check=True)
        assert on_ranks(ranks, resumed, model, home) == [4] * ranks
        assert [r["step"] for r in read_metrics(home) if "loss" in r] == [1, 2, 3, 4]
        gap = (weights(home) - weights(tmp_path / "whole")).abs().max()
        assert gap <= 1e-6, f"{ranks} ranks: weights differ by {gap}"


def test_a_hanging_rank_is_given_up_at_the_time_out(model: str, tmp_path: Path) -> None:
    first, second = outcomes(
        2, with_fault, model, tmp_path / "run", hanging, timeout=60, LOGPI_DATA_TIMEOUT="15"
    )
    assert first[0].startswith("RunError: another rank does not answer in time"), first
    assert second[0] == "timed out"


def test_what_one_rank_raises_is_said_once_for_all(model: str, tmp_path: Path) -> None:
    texts = [text for text, _ in outcomes(2, with_fault, model, tmp_path / "run", raising)]
    assert texts == [
        "RunError: rank 1: the tool's server said no",
        "ValueError: the tool's server said no",
    ]


def nan_on_rank_1(model: str, out: Path) -> list[float]:
    """Whether each step was left out."""

    def fault(running: Any) -> None:
        policy = running.policy
        evaluate = policy.evaluate

        def broken(batch: Any) -> Any:
            policy.evaluate = evaluate
            output = evaluate(batch)
            output.logp.register_hook(lambda gradient: gradient * float("nan"))
            return output

        if current().rank == 1:
            policy.evaluate = broken

    skipped = []
    running = job(model, steps=4, out=out)
    for step in running:
        skipped.append(step.metrics["skipped"])
        if step.number == 2:
            fault(running)
    return skipped


def test_a_gradient_that_is_no_number_on_one_rank_is_left_out_on_all(
    model: str, tmp_path: Path
) -> None:
    results = outcomes(2, nan_on_rank_1, model, tmp_path / "run")
    assert [value for value, _ in results] == [[0.0, 0.0, 1.0, 0.0]] * 2, results


def one_group(model: str, out: Path) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stderr(said):
        return train(model, steps=2, out=out, prompts=1), said.getvalue()


def test_ranks_without_work_keep_step(model: str, tmp_path: Path) -> None:
    results = on_ranks(3, one_group, model, tmp_path / "run")
    assert [steps for steps, _ in results] == [2, 2, 2]
    said = [text for _, text in results]
    assert "3 ranks share 1 prompts, so 2 of them have nothing to sample" in said[0]
    assert said[1] == said[2] == ""


def signalled(model: str, out: Path) -> str:
    def fault(running: Any) -> None:
        if current().rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    running = job(model, steps=50, out=out)
    steps = running._steps(alone=True)
    try:
        for step in steps:
            if step.number == 2:
                fault(running)
    except Stopped as stopped:
        return str(stopped)
    return "not stopped"


def test_a_signal_to_one_rank_stops_and_saves_all(model: str, tmp_path: Path) -> None:
    first, second = on_ranks(2, signalled, model, tmp_path / "run")
    assert first == second
    assert first.startswith("stopped after step 2; resume with: resume=")
    assert (tmp_path / "run" / "latest").read_text() == "checkpoints/step-000002\n"


def full_disk(model: str, out: Path) -> int:
    from logpi.runs import disk

    def fault(running: Any) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        disk.sync = full

    return train(model, fault, steps=4, out=out)


def test_a_full_disk_on_the_first_rank_stops_all_with_its_line(model: str, tmp_path: Path) -> None:
    texts = [text for text, _ in outcomes(2, full_disk, model, tmp_path / "run")]
    for text in texts:
        assert "cannot write" in text and "No space left on device" in text, texts
        assert "the last good checkpoint is" in text


def command(*words: str, ranks: int = 2) -> list[subprocess.CompletedProcess]:
    """`logpi …` on each rank."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "logpi", *words],
            env=os.environ | environment(rank, ranks, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    out = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=200)
        out.append(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    return out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gym", "--env", "CartPole-v1"], "logpi gym works in one process, and 2 were started"),
        (
            ["rl", "--model", "/nowhere", "--task", "addition"],
            "/nowhere: no such file or directory",
        ),
        (["rl", "--model", "MODEL", "--algorithm", "trpo"], "works in one process"),
        (["rl", "--model", "MODEL", "--stepz", "3"], "--stepz"),
        (["rl", "--model", "MODEL", "--seeds", "2"], "--seeds starts a process for each seed"),
    ],
)
def test_bad_input_is_one_line_on_one_rank(words: list[str], line: str, model: str) -> None:
    first, second = command(*[model if w == "MODEL" else w for w in words])
    assert first.returncode == second.returncode == 2
    assert line in first.stderr and first.stderr.count("\n") == 1, first.stderr
    assert second.stderr == second.stdout == "", second.stderr

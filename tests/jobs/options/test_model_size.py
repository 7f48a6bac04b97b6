"""What a job takes from its model's size, and what its run records of that."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import logpi
from logpi.errors import UserError
from logpi.jobs.job import Setup
from logpi.jobs.options.model_size import SETTINGS, by_size, parameters, said, settled
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(8) for b in range(8)]
SHORT: dict[str, Any] = {
    "task": ROWS,
    "steps": 1,
    "num_generations": 2,
    "max_completion_length": 2,
    "eval_items": 2,
    "eval_every": 0,
    "device": "cpu",
}


@pytest.mark.parametrize(
    ("parameters", "lr", "prompts"),
    [(8e5, 3e-4, 32), (9_999_999, 3e-4, 32), (10e6, 5e-6, 8), (135e6, 5e-6, 8), (7e9, 1e-6, 32)],
)
def test_the_line_of_a_size(parameters: float, lr: float, prompts: int) -> None:
    assert (by_size("rl", parameters)["lr"], by_size("rl", parameters)["prompts"]) == (lr, prompts)


def test_adapters_learn_ten_times_faster_within_a_bound() -> None:
    assert by_size("sft", 135e6, lora=True)["lr"] == pytest.approx(1e-3)
    assert by_size("prefer", 135e6, lora=True)["lr"] == pytest.approx(5e-5)
    assert by_size("sft", 1e6, lora=True)["lr"] == 1e-3


def test_larger_models_learn_more_slowly() -> None:
    for settings in SETTINGS.values():
        rates = list(settings["lr"])
        assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates)


def test_a_run_records_what_was_settled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = logpi.RL(
        model=tiny_model(), tokenizer=tiny_tokenizer(), **SHORT, prompts=2, out=tmp_path / "run"
    )
    assert job.lr is None
    plain = sum(p.numel() for p in job.model.parameters())
    job.run()
    saved = json.loads((tmp_path / "run/arguments.json").read_text())["arguments"]
    assert (saved["lr"], saved["warmup"], saved["prompts"]) == (3e-4, 5, 2)
    said = capsys.readouterr().err
    assert f"{plain / 1e3:.3g} k parameters, so by default: lr 0.0003, warmup 5\n" in said
    assert job.result.metrics["lr"].values.tolist() == pytest.approx([3e-4 / 5])


def test_a_weight_of_four_bits_counts_as_what_it_was_packed_from() -> None:
    """As bitsandbytes keeps it: two numbers in a byte, their shape beside them. With real ones:
    tests/policies/test_lora.py."""
    model = nn.Linear(64, 32, bias=False)
    model.weight = nn.Parameter(torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False)
    model.weight.quant_state = SimpleNamespace(shape=torch.Size([32, 64]))
    assert parameters(nn.Sequential(model, nn.Linear(3, 1))) == 64 * 32 + 4


def test_what_was_chosen_stays(capsys: pytest.CaptureFixture[str]) -> None:
    job = logpi.RL(model="m", task=ROWS, lr=1e-2, warmup=0, prompts=3)
    given = []

    def set_up(known: logpi.RL) -> Setup:
        given.append(known)
        return Setup(None, None, None, None, 1)

    setup = settled(job, nn.Linear(3, 3), set_up)
    assert (setup.settled.lr, setup.settled.warmup, setup.settled.prompts) == (1e-2, 0, 3)
    assert given == [setup.settled] and capsys.readouterr().err == ""


def test_a_refused_job_says_only_why(capsys: pytest.CaptureFixture[str]) -> None:
    """What it would have had by default comes after all that can refuse it."""

    def refuse(job: logpi.RL) -> Setup:
        raise UserError("no")

    with pytest.raises(UserError):
        settled(logpi.RL(model="m", task=ROWS), nn.Linear(3, 3), refuse)
    assert capsys.readouterr().err == ""


def test_help_says_every_size() -> None:
    assert (
        said("rl", "lr") == "by the model: 0.0003 below 10 M parameters, 5e-06 below 300 M,"
        " else 1e-06; with --lora 10 times that, at most 0.001"
    )

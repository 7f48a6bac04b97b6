"""What a job takes from its model's size, and what its run records of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import logpi
from logpi.jobs.options.model_size import SIZES, by_size, said, settled
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
    for command in SIZES[0].commands:
        rates = [s.commands[command]["lr"] for s in SIZES]
        assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates)


def test_a_run_records_what_was_settled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = logpi.RL(
        model=tiny_model(), tokenizer=tiny_tokenizer(), **SHORT, prompts=2, out=tmp_path / "run"
    )
    assert job.lr is None
    job.run()
    saved = json.loads((tmp_path / "run/arguments.json").read_text())["arguments"]
    assert (saved["lr"], saved["warmup"], saved["prompts"]) == (3e-4, 5, 2)
    assert "k parameters, so by default: lr 0.0003, warmup 5\n" in capsys.readouterr().err
    assert job.result.metrics["lr"].values.tolist() == pytest.approx([3e-4 / 5])


def test_what_was_chosen_stays() -> None:
    job = logpi.RL(model="m", task=ROWS, lr=1e-2, warmup=0, prompts=3)
    known = settled(job, nn.Linear(3, 3))
    assert (known.lr, known.warmup, known.prompts) == (1e-2, 0, 3)


def test_help_says_every_size() -> None:
    assert (
        said("rl", "lr") == "by the model: 0.0003 below 10 M parameters, 5e-06 below 300 M,"
        " else 1e-06"
    )

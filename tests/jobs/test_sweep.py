"""`logpi sweep`: every combination or Optuna's, a table with the best, going on after a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from logpi.cli import main
from logpi.jobs.gym import Gym
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.sweep import arguments
from logpi.jobs.sweep_cells import Cell, Space, grid
from logpi.jobs.sweep_table import SweepTable
from tests.jobs.alone import watch

FIXED = "-- --env logpi/GridWorld-v0 --steps 256 --eval-episodes 2 --evaluations 0"


def space(**vary: Any) -> Space:
    return Space.of(CommandLine(Gym, "logpi gym"), vary, [])


def test_words_in_front_of_the_dashes_vary() -> None:
    a = arguments("gym --lr 1e-3 1e-2 --gae-lambda 0.9 --seeds 2 --out x -- --env E".split())
    assert (a.job, a.seeds, a.out, a.words) == ("gym", 2, Path("x"), ("--env", "E"))
    assert a.vary == {"lr": ["1e-3", "1e-2"], "gae_lambda": ["0.9"]}
    b = arguments(["rl", "--lr=1e-3", "--beta", "-1", "0", "--", "--lora", "4"])
    assert b.vary == {"lr": ["1e-3"], "beta": ["-1", "0"]} and b.words == ("--lora", "4")


def test_every_combination_in_order() -> None:
    cells = grid(space(lr=["1e-3", "1e-2"], hidden=["", "16 16"], normalize=["true", "false"]))
    assert len(cells) == 8 and [c.number for c in cells] == list(range(8))
    assert cells[1].words == ("--lr=1e-3", "--hidden", "--no-normalize")
    assert cells[6].words == ("--lr=1e-2", "--hidden", "16", "16", "--normalize")
    assert cells[6].name == "006-lr=1e-2-hidden=16-16-normalize=true"


def test_settings_of_every_algorithm_that_is_tried() -> None:
    cells = grid(space(algorithm=["trpo", "ppo"], max_kl=["0.01"]))
    assert [c.label for c in cells] == ["algorithm=trpo max_kl=0.01", "algorithm=ppo max_kl=0.01"]


def test_a_range_is_one_of_whole_numbers_if_it_is_written_so() -> None:
    whole, log = space(n_steps=["16..64"], lr=["1e-4..1e-2:log"]).axes
    assert (whole.low, whole.high, whole.log, whole.whole) == ("16", "64", False, True)
    assert (log.low, log.high, log.log, log.whole) == ("1e-4", "1e-2", True, False)


def test_a_grid_its_table_and_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, out = watch(monkeypatch), tmp_path / "s"
    line = f"sweep gym --lr 1e-3 1e-2 --gamma 0.9 --seeds 2 --out {out} {FIXED}"
    assert main(line.split()) == 0
    assert [(j.seed, j.options["lr"], j.options["gamma"]) for j in jobs] == [
        (0, 1e-3, 0.9),
        (1, 1e-3, 0.9),
        (0, 1e-2, 0.9),
        (1, 1e-2, 0.9),
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["lr", "gamma", "eval/reward", "±", "95", "%"]
    assert said[3].startswith("best: lr=")
    assert (out / "000-lr=1e-3-gamma=0.9" / "seed-1" / "model").exists()
    before = (out / "sweep.json").read_text()
    assert main(["sweep", "--resume", str(out)]) == 0
    assert all(j.resume == j.out for j in jobs[4:]) and (out / "sweep.json").read_text() == before


def test_optuna_looks_in_a_range_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    jobs, out = watch(monkeypatch), tmp_path / "s"
    line = f"sweep gym --lr 1e-4..1e-2:log --n-steps 16 32 --trials 3 --out {out} {FIXED}"
    assert main(line.split()) == 0
    rates = [j.options["lr"] for j in jobs]
    assert len(set(rates)) == 3 and all(1e-4 <= lr <= 1e-2 for lr in rates)
    saved = json.loads((out / "sweep.json").read_text())
    last = list(saved["cells"])[-1]
    saved["cells"][last] |= {"runs": {}, "done": False}  # as if it had been stopped there
    (out / "sweep.json").write_text(json.dumps(saved))
    assert main(["sweep", "--resume", str(out)]) == 0
    assert [j.resume for j in jobs[3:]] == [out / last]
    assert json.loads((out / "sweep.json").read_text())["cells"][last]["done"]


def test_the_table_orders_by_the_measure_and_failures_last(tmp_path: Path) -> None:
    table = SweepTable(tmp_path, "eval/loss")
    for i, loss in enumerate((2.0, 1.0, math.nan)):
        cell, run = Cell(i, {"lr": str(i)}), tmp_path / f"{i:03d}-lr={i}"
        run.mkdir()
        (run / "metrics.jsonl").write_text(f'{{"step": 1, "eval/loss": {loss}}}\n')
        (run / "arguments.json").write_text('{"command": "sft", "arguments": {}}')
        table.add(cell, run, "diverged" if math.isnan(loss) else "")
        table.end(cell)
    assert table.minimise and [c.number for c in table.ordered()] == [1, 0, 2]
    assert table.text().splitlines()[-1] == f"best: lr=1  {tmp_path}/001-lr=1"
    again = SweepTable(tmp_path)
    assert again.text() == table.text() and again.said(tmp_path / "002-lr=2") == "diverged"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gym --lrr 1 2", "unknown option --lrr; did you mean --lr?"),
        ("gym --lr 1..2", "--trials 20"),
        ("gym --lr 2..1 --trials 3", "from a lower bound to a higher one"),
        ("gym --lr", "--lr has no values"),
        ("gym --lr 1 x -- --env logpi/GridWorld-v0", "--lr: 'x' is not a number"),
        ("gym --seed 1 2 -- --out x", "a sweep's own --out stands in front of --"),
        ("gym --normalize x", "'x' is not true or false"),
        ("gym --algorithm daapo", "did you mean dapo?"),
        ("gym", "say what varies"),
        ("", "JOB must be given"),
        ("gm --lr 1", "unknown value 'gm'; did you mean gym?"),
    ],
)
def test_a_wrong_sweep_is_one_line_before_anything_is_trained(
    line: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = watch(monkeypatch)
    try:
        code = main(["sweep", *line.split()])
    except SystemExit as stop:
        code = int(str(stop.code))
    said = capsys.readouterr().err.strip()
    assert code == 2 and "\n" not in said and says in said and not jobs

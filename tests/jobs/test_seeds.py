"""Several seeds of one job: the same runs as one by one, a table with intervals, going on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from logpi.cli import main
from logpi.envs.tasks import Addition
from logpi.errors import UserError
from logpi.jobs import seed_report
from logpi.policies.small import small_policy
from logpi.runs.metrics import read_metrics
from tests.jobs.alone import watch

RL = "--steps 2 --prompts 2 --num-generations 2 --max-completion-length 4 --eval-items 4 --beta 0"
SFT = "--task addition --steps 2 --rows 4 --eval-items 4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small_policy(Addition().alphabet, width=16, layers=1, heads=2, seed=1).save(path)
    return path


@pytest.mark.parametrize(
    ("command", "words", "measure"),
    [("rl", RL, "eval/pass@1"), ("sft", SFT, "eval/loss")],
)
def test_the_seeds_of_a_language_model_s_job(
    command: str,
    words: str,
    measure: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = watch(monkeypatch)
    line = [command, "--model", str(model), *words.split(), "--seed", "3"]
    assert main([*line, "--seeds", "2", "--out", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().err
    assert [j.seed for j in jobs] == [3, 4] and "seed-3" in said and "± 95 %" in said
    record = json.loads((tmp_path / "s" / "seeds.json").read_text())
    values = record["measures"][measure]["values"]
    mean, half = seed_report.interval(values)
    assert record["measures"][measure] == {"values": values, "mean": mean, "interval95": half}
    assert (tmp_path / "s" / "curves.png").exists()
    assert main([*line, "--out", str(tmp_path / "one")]) == 0
    alone = read_metrics(tmp_path / "one")[-1][measure]
    assert values[0] == alone  # the first seed is the run by itself


def test_a_stopped_run_of_seeds_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    jobs, out = watch(monkeypatch), tmp_path / "s"
    line = ["sft", "--model", str(model), *SFT.split(), "--seeds", "2", "--out", str(out)]
    assert main(line) == 0
    first = (out / "seeds.json").read_text()
    shutil.rmtree(out / "seed-1")
    assert main(["sft", "--resume", str(out)]) == 0
    assert [j.resume for j in jobs] == [None, None, out / "seed-0", None]
    assert (out / "seeds.json").read_text() == first
    assert main(line) == 2  # not over another's


def test_a_seed_that_fails_is_named(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch(monkeypatch)
    line = ["rl", "--model", str(model), "--task", "nosuch.jsonl", "--seeds", "2"]
    assert main([*line, "--out", str(tmp_path / "s")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("logpi: seed 0: ") and "nosuch.jsonl" in said and "seed-0.log" in said
    assert "nosuch.jsonl" in (tmp_path / "s" / "seed-0.log").read_text()


@pytest.mark.slow
def test_seeds_in_processes_of_their_own(model: Path, tmp_path: Path) -> None:
    line = ["sft", "--model", str(model), *SFT.split(), "--seeds", "2", "--at-once", "2"]
    assert main([*line, "--out", str(tmp_path / "s")]) == 0
    assert (tmp_path / "s" / "seed-1" / "model").exists()


def test_the_table_has_what_every_run_measured(tmp_path: Path) -> None:
    for i, extra in enumerate(({"eval/b": 1}, {})):
        home = tmp_path / f"seed-{i}"
        home.mkdir()
        rows = [{"step": 0, "eval/a": 9.0}, {"step": 1, "eval/a": float(i), **extra}, {"step": 2}]
        (home / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (home / "arguments.json").write_text('{"command": "rl", "arguments": {}}')
    runs = [tmp_path / "seed-0", tmp_path / "seed-1"]
    assert seed_report.measures(runs) == {"eval/a": [0.0, 1.0]}
    text = seed_report.table(seed_report.measures(runs), ["seed-0", "seed-1"])
    # 12.71 · stdev([0, 1]) / √2
    half = 12.71 * math.sqrt(0.5) / math.sqrt(2)
    assert text.splitlines()[1].split() == ["eval/a", "0.5", f"{half:.2g}", "0", "1"]
    assert "no curve" in seed_report.report(tmp_path, runs, "x")
    for run in runs:
        (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="measured anything"):
        seed_report.report(tmp_path, runs, "x")

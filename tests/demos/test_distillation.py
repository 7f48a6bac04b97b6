"""`logpi distill-demo`, shortened: what its lanes share, what the report reads, and a teacher with
nothing to copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import logpi
from logpi.cli import main
from logpi.demos import demo
from logpi.demos.distillation import LANES
from logpi.demos.distillation_report import Curve, curve, report
from logpi.envs.tasks import Addition
from logpi.policies.small import small_policy
from logpi.runs.metrics import read_metrics
from logpi.runs.reading import RunView

ROWS = [
    {"prompt": f"{a}+{9 - a}=", "answer": "9", "completion": "9"} for a in range(10)
]  # one answer to all: a teacher learns it in no time


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Rows, a teacher that is always right, and one that has learned nothing."""
    path = tmp_path_factory.mktemp("distill")
    for split in ("train", "test"):
        (path / "rows").mkdir(exist_ok=True)
        text = "".join(json.dumps(r) + "\n" for r in ROWS)
        (path / "rows" / f"{split}.jsonl").write_text(text)
    teacher = small_policy(Addition().alphabet, width=32, layers=1)
    teacher.save(path / "fool")
    logpi.SFT(model=teacher, task=ROWS, steps=40, rows=10, lr=1e-2, out=path / "wise").run()
    return path


@pytest.fixture(scope="module")
def small(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TASK", str(home / "rows"))
        patch.setattr(demo, "PROMPTS", 2)
        patch.setattr(demo, "LENGTH", 4)
        # the runs' own pictures, a second each
        patch.setattr("logpi.runs.plots.curves", lambda *_: None)
        yield


def run(out: Path, teacher: Path, *more: str) -> int:
    words = ["distill-demo", "--teacher", str(teacher), "--base-steps", "3", "--steps", "2"]
    return main([*words, "--out", str(out), *more])


@pytest.fixture(scope="module")
def out(home, small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("out") / "demo"
    assert run(path, home / "wise" / "model") == 0
    return path


def test_lanes_begin_with_one_student_and_learn_as_much(out):
    curves = {lane.name: curve(out / "seed-0", lane) for lane in LANES}
    assert len({(c.sampled[0], c.greedy[0], c.length[0]) for c in curves.values()}) == 1
    assert all(c.updates == [0, 2] and c.seconds > 0 for c in curves.values())
    # a right answer has two tokens, 9 and the end; each of two updates takes whole answers
    copied, own = curves["harvest-sft"].tokens[-1], curves["distill"].tokens[-1]
    assert copied % 4 == 0 and abs(copied - own) <= 2


def test_lanes_that_sample_have_the_same_prompts(out):
    seen = {
        lane.name: [s["prompt"] for s in RunView(out / "seed-0" / lane.name).samples(1)]
        for lane in LANES
        if lane.name != "harvest-sft"
    }
    assert len(seen) == 3 and len({tuple(v) for v in seen.values()}) == 1


def test_the_teacher_is_in_the_lanes_that_have_one(out):
    teachers = {
        lane.name: "kl" in read_metrics(out / "seed-0" / lane.name)[1]
        for lane in LANES
        if lane.name != "harvest-sft"
    }
    assert teachers == {"distill": True, "reverse": True, "grpo": False}


def test_what_is_done_is_not_done_again(out, home, small, capsys):
    before = {p: p.stat().st_mtime_ns for p in out.rglob("metrics.jsonl")}
    assert run(out, home / "wise" / "model") == 0
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("metrics.jsonl")}
    shown = capsys.readouterr().out
    assert all(shown.count(f"\n{lane.label}") == 1 for lane in LANES) and "±" not in shown
    assert (out / "distillation.png").read_bytes().startswith(b"\x89PNG")


def test_a_teacher_without_a_right_answer_is_one_line(home, small, tmp_path, capsys):
    assert run(tmp_path / "demo", home / "fool") == 2
    assert "logpi: none of 8 samples passed: " in capsys.readouterr().err


def test_the_table_has_means_over_seeds(tmp_path, capsys, monkeypatch):
    """Two seeds of one lane, by hand: .5 and .7 are .6 ± 12.71 · .1 (t with one degree of
    freedom)."""
    monkeypatch.setattr(
        "logpi.demos.distillation_report.curve",
        lambda home, lane: Curve(
            [0, 5], [0.0, 100.0], [0.1, 0.5 + 0.2 * int(home.name)], [0.0, 1.0], [4.0, 8.0], 3.0
        ),
    )
    for seed in "01":
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "teacher.json").write_text(
            '{"teacher": 1000, "student": 100, "eval/pass@1": 0.9, "eval/greedy": 1.0,'
            ' "eval/mean_length": 9.0}'
        )
        (tmp_path / seed / "cpu.json").write_text('{"teacher/rl": 7.0, "sft": 2.0}')
    report(LANES[:1], [tmp_path / "0", tmp_path / "1"], tmp_path)
    lines = [line.split() for line in (tmp_path / "distillation.txt").read_text().splitlines()]
    assert lines[1][2:] == ["90.0", "±", "0.0%", "100.0", "±", "0.0%", "9.0", "7"]
    assert lines[2][2:] == ["10.0", "±", "0.0%", "0.0", "±", "0.0%", "4.0", "2"]
    assert lines[3][-10:] == ["60.0", "±", "127.1%", "100.0", "±", "0.0%", "8.0", "5", "100", "3"]

"""`make gpu-check` without GPUs: what is missing is one line; how its parts are counted and ended;
and, slowly, the whole of it as a rehearsal."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from scripts import gpu_check
from scripts.gpu_check import Outcome, Part

TESTS = """\
import os, pytest
def test_right(): assert os.environ["LOGPI_DEVICE"] == "cuda"
def test_wrong(): assert 1 == 2
def test_absent(): pytest.skip("no")
"""
ABOUT = {"device": "1 x A GPU", "torch": "2.13"}


@pytest.fixture
def tests(tmp_path: Path) -> Part:
    (tmp_path / "test_it.py").write_text(TESTS)
    return Part((str(tmp_path / "test_it.py"),))


def program(tmp_path: Path, text: str) -> Part:
    (tmp_path / "it.py").write_text(text)
    return Part((str(tmp_path / "it.py"), "{out}"), read=gpu_check.reported)


def test_a_part_of_tests_is_counted(tests: Part) -> None:
    outcome = gpu_check.run(tests, "cuda", 100)
    assert outcome.state == "failed"
    assert outcome.counts() == "1 passed, 1 failed, 1 skipped"
    assert outcome.tests["test_wrong"].startswith("assert 1 == 2")
    text = gpu_check.table({"the world": Outcome("not run: x"), "whole jobs": outcome}, ABOUT)
    assert (
        text.startswith("1 x A GPU, torch 2.13\n") and "| the world | not run: x |  | 0.0 |" in text
    )
    assert "| whole jobs | failed | 1 passed, 1 failed, 1 skipped |" in text


def test_a_process_whose_time_is_up_is_interrupted_so_that_it_can_write_its_report() -> None:
    text = "import time\ntry: time.sleep(300)\nexcept KeyboardInterrupt: print('so far')"
    begin = time.monotonic()
    assert gpu_check.ended([sys.executable, "-I", "-c", text], os.environ, 4) == (None, "so far\n")
    assert time.monotonic() - begin < 60


def test_a_part_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    outcome = gpu_check.run(program(tmp_path, "raise ValueError('no kernel')"), "cuda", 100)
    assert (outcome.state, outcome.figures) == ("failed: ValueError: no kernel", {})
    assert "ValueError: no kernel" in gpu_check.table({"it": outcome}, ABOUT)


def test_figures_are_read_and_shown(tmp_path: Path) -> None:
    figures = {"rows": {"1": {"a_ratio": 2.0, "none": None}}, "gloo": "refused: x|y"}
    text = f"print('RESULT ' + {json.dumps(figures)!r})"
    outcome = gpu_check.run(program(tmp_path, text), "cuda", 100)
    assert outcome.state == "passed"
    assert outcome.shown() == "rows 1 a ratio 2 · gloo refused: x|y"
    assert "| it | passed | rows 1 a ratio 2 · gloo refused: x/y |" in gpu_check.table(
        {"it": outcome}, ABOUT
    )


def test_what_a_part_started_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    text = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\n"
        "raise SystemExit(3)"
    )
    gpu_check.run(program(tmp_path, text), "cuda", 100)
    time.sleep(0.2)
    status = Path(f"/proc/{file.read_text()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_the_budget_is_shared_and_what_does_not_fit_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {}

    def taken(part: Part, device: str, limit: float, peer: str) -> Outcome:
        limits[part.words[0]] = limit
        return Outcome("passed")

    monkeypatch.setattr(gpu_check, "run", taken)
    a, b = Part(("a",), seconds=50), Part(("b",), seconds=500)
    monkeypatch.setattr(gpu_check, "PARTS", {"a": a, "b": b, "c": Part(("c",), least=2)})
    states = {name: o.state for name, o in gpu_check.check("cuda", 1, 100).items()}
    assert states == {"a": "passed", "b": "passed", "c": "not run: needs 2 GPUs"}
    assert limits["a"] == 50 and 80 < limits["b"] <= 100 - gpu_check.GRACE
    assert gpu_check.check("cuda", 1, 5)["a"].state == "not run: the 5 s are over"
    gpu_check.check("cuda", 2, 5, 1000)
    assert limits["c"] == 1000


def test_eight_minutes_hold_all_parts_of_one_gpu() -> None:
    one = [part for part in gpu_check.PARTS.values() if part.least == 1]
    assert sum(part.seconds for part in one) <= gpu_check.BUDGET
    assert gpu_check.BUDGET + gpu_check.GRACE <= 480
    assert all(part.tiny for part in one)


def test_every_part_is_there() -> None:
    assert all((gpu_check.ROOT / part.words[0]).exists() for part in gpu_check.PARTS.values())


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "gpus", list)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit, match="torch sees no CUDA GPU"):
        gpu_check.main()


@pytest.mark.slow
def test_a_rehearsal_runs_every_part_of_one_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "check.json"
    words = ["gpu_check.py", "--device", "cpu", "--out", str(out), "--budget", "900"]
    monkeypatch.setattr(sys, "argv", words)
    slower = {n: Part(**{**vars(p), "seconds": 220}) for n, p in gpu_check.PARTS.items()}
    monkeypatch.setattr(gpu_check, "PARTS", slower)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    gpu_check.main()
    parts = json.loads(out.read_text())["parts"]
    assert parts["decoding"]["figures"]["rows"]["4"]["plain_tokens_per_s"] > 0
    assert parts["a GRPO step"]["figures"]["logpi"]["s_per_step"]["median"] > 0
    assert parts["two ranks on one device"]["figures"]["gloo"] < 1e-4
    assert [p["state"] for p in parts.values()][:4] == ["passed"] * 4
    assert out.with_suffix(".md").read_text().count("\n| ") >= len(parts)

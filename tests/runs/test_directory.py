"""A run's directory: what is in it, what is refused, and that a stopped and resumed run leaves the
same files."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from logpi.errors import RunError, UserError
from logpi.runs.directory import Run, next_path, read_arguments
from logpi.runs.metrics import is_time, read_metrics


class Nowhere:
    def log(self, *_: object) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def no_event_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard has its own tests."""
    monkeypatch.setattr("logpi.runs.directory.trackers", lambda *_: Nowhere())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.create(tmp_path / "run", "rl", {"lr": 0.1, "out": "x"}) as run:
        yield run


def test_what_a_run_holds(run: Run) -> None:
    run.log(
        1,
        {
            "reward": 0.5,
            "kl": float("nan"),
            "ratio/max": float("inf"),
            "accuracy": torch.tensor(0.25),
        },
    )
    run.samples(
        1,
        [
            {
                "prompt": "1+1=\n",
                "rewards": {"exact": 1.0},
                "tokens": torch.tensor([1, 2]),
                "none": None,
            }
        ],
    )
    run.samples(1, [{"prompt": "é"}], kind="eval")
    run.checkpoint(1, {"w": torch.ones(2)}, best=True)

    assert (
        read_arguments(run.path) == ("rl", {"lr": 0.1, "out": "x"}) == (run.command, run.arguments)
    )
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["torch"] == torch.__version__ and {
        "python",
        "logpi",
        "platform",
        "cpus",
        "git",
    } <= set(versions)
    line = (run.path / "metrics.jsonl").read_text()
    assert line == '{"step": 1, "reward": 0.5, "kl": "nan", "ratio/max": "inf", "accuracy": 0.25}\n'
    (row,) = read_metrics(run.path)
    assert row["kl"] != row["kl"] and row["ratio/max"] == float("inf") and row["step"] == 1
    sample = json.loads((run.path / "samples/step-000001.jsonl").read_text())
    assert sample == {"prompt": "1+1=\n", "rewards": {"exact": 1.0}, "tokens": [1, 2], "none": None}
    assert (run.path / "samples/eval-000001.jsonl").read_text() == '{"prompt": "é"}\n'
    assert (run.path / "best").read_text() == "checkpoints/step-000001\n"
    assert run.model == run.path / "model" and not run.model.exists()


def test_the_last_ones_and_the_best_are_kept(run: Run) -> None:
    for step in range(1, 7):
        run.checkpoint(step, {"step": step}, keep=2, best=step in (1, 3))
    assert [p.name for p in sorted((run.path / "checkpoints").iterdir())] == [
        f"step-00000{i}" for i in (3, 5, 6)
    ]
    assert run.latest() == (6, {"step": 6}) and run.best() == (3, {"step": 3})


def test_an_empty_run_has_no_checkpoint(run: Run) -> None:
    assert run.latest() is None and run.best() is None


def test_steps_beyond_six_figures_sort_as_numbers(run: Run) -> None:
    for step in (999_999, 1_000_000):
        run.checkpoint(step, step, keep=2)
    assert run.latest() == (1_000_000, 1_000_000)


def test_the_model_is_replaced_whole_or_not_at_all(run: Run) -> None:
    def broken(directory: Path) -> None:
        (directory / "weights").write_text("half")
        raise ValueError("no such layer")

    run.save_model(lambda directory: (directory / "weights").write_text("first"))
    with pytest.raises(ValueError, match="no such layer"):
        run.save_model(broken)
    assert (run.model / "weights").read_text() == "first"
    assert run.save_model(lambda directory: (directory / "other").write_text("second")) == run.model
    assert [p.name for p in run.model.iterdir()] == ["other"]
    assert not [p for p in run.path.iterdir() if p.name.endswith((".partial", ".old"))]


# --- refusals ---


def test_files_that_are_kept_from_the_beginning_stay_as_they_are(run: Run) -> None:
    run.keep({"tokenizer/tokenizer.json": b"{}"})
    run.keep({"tokenizer/tokenizer.json": b"another"})
    assert (run.path / "tokenizer" / "tokenizer.json").read_bytes() == b"{}"
    assert [p.name for p in (run.path / "tokenizer").iterdir()] == ["tokenizer.json"]


def test_a_taken_directory_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="already holds a run; give another --out, or --resume"):
        Run.create(run.path, "rl", {})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not empty and holds no run; give another --out"):
        Run.create(tmp_path / "notes", "rl", {})
    with pytest.raises(RunError, match="is a file; give another --out"):
        Run.create(tmp_path / "notes" / "thesis.tex", "rl", {})
    with pytest.raises(RunError, match="Not a directory; give another --out"):
        Run.create(tmp_path / "notes" / "thesis.tex" / "run", "rl", {})


def test_a_creation_that_was_killed_can_be_done_again(run: Run) -> None:
    run.close()
    (run.path / "arguments.json").unlink()
    Run.create(run.path, "sft", {}).close()
    assert read_arguments(run.path)[0] == "sft"


def test_no_run_to_open(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        Run.open(tmp_path / "none")
    (tmp_path / "arguments.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*arguments.json"):
        Run.open(tmp_path)


def test_trackers_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tracker 'wandbb'; did you mean wandb"):
        Run.create(tmp_path / "run", "rl", {}, trackers=("wandbb",))
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_write_one_run(run: Run) -> None:
    code = (
        "import sys; from logpi.runs.directory import Run\ntry: Run.open(sys.argv[1])\n"
        "except Exception as e: print(e)"
    )
    command = [sys.executable, "-c", code, str(run.path)]

    def other() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    owner = f"{os.getpid()} on {platform.node()}"
    text = f"{run.path} is in use by another process ({owner}); wait for it, or give another --out"
    assert other() == text + "\n"
    run.close()
    assert other() == ""


def test_a_killed_writer_frees_its_run_although_its_child_lives_on(run: Run) -> None:
    """The child is forked, as a server of programs or a data loader is."""
    run.close()
    code = (
        "import os, sys, time; from logpi.runs.directory import Run\nrun = Run.open(sys.argv[1])\n"
        "if os.fork() == 0: print('held', flush=True)\ntime.sleep(30)"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=rf"is in use by another process \({writer.pid} on "):
            Run.open(run.path)
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        Run.open(run.path).close()
        os.killpg(writer.pid, signal.SIGKILL)


# --- resuming ---


def work(run: Run, first: int, last: int, torn_at: int | None = None) -> None:
    """A run of pretend: deterministic values, a checkpoint every second step."""
    for step in range(first, last + 1):
        run.log(
            step,
            {
                "reward": step / 7,
                "kl": float("nan") if step == 3 else 0.1,
                "time/step": os.urandom(1)[0],
            },
        )
        run.samples(
            step, [{"prompt": f"p{step}", "reward": step}, {"prompt": f"q{step}", "reward": 0}]
        )
        if step == torn_at:
            return
        if step % 2 == 0:
            run.log(step, {"eval/accuracy": step / 10})
            run.checkpoint(step, {"w": torch.full((3,), float(step))}, best=step in (2, 6))


def contents(path: Path) -> dict[str, object]:
    """Every file of a run that must be the same, the metrics without times."""
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    for name in ("versions.json", "arguments.json", ".lock"):
        files.pop(name)
    rows = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
    return files | {"metrics": [{k: v for k, v in row.items() if not is_time(k)} for row in rows]}


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7])
def test_a_resumed_run_leaves_the_files_of_one_that_never_stopped(
    tmp_path: Path, stop: int
) -> None:
    with Run.create(tmp_path / "whole", "rl", {}) as run:
        work(run, 1, 8)
    with Run.create(tmp_path / "cut", "rl", {}) as run:
        work(run, 1, 8, torn_at=stop)
    with open(tmp_path / "cut/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 9, "rew')
    with Run.open(tmp_path / "cut") as run:
        step = (run.latest() or (0, None))[0]
        assert step == (stop - 1) // 2 * 2
        run.rewind(step)
        work(run, step + 1, 8)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_rewinding_further_back(run: Run) -> None:
    work(run, 1, 8)
    run.rewind(6)
    assert run.latest()[0] == 6 and run.best()[0] == 6
    run.rewind(5)
    assert run.latest() is None and not (run.path / "best").exists()
    assert max(row["step"] for row in read_metrics(run.path)) == 5
    run.rewind(-1)
    assert read_metrics(run.path) == [] and list((run.path / "samples").iterdir()) == []


def test_a_torn_line_is_left_out_and_cut_off(run: Run) -> None:
    run.log(1, {"reward": 1})
    whole = (run.path / "metrics.jsonl").read_bytes()
    for torn in (b'{"step": 2, "r', b'{"step": 2}', b"\x00\x00\n", b"{"):
        (run.path / "metrics.jsonl").write_bytes(whole + torn)
        assert [row["step"] for row in read_metrics(run.path)] == [1]
        Run.open(run.path)
        assert (run.path / "metrics.jsonl").read_bytes() == whole


def test_a_line_spoilt_in_the_middle_costs_only_itself(run: Run) -> None:
    for step in (1, 2, 3):
        run.log(step, {"reward": 1})
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"step": 2', b'\x00"step": 2'))
    Run.open(run.path)
    assert [row["step"] for row in read_metrics(run.path)] == [1, 3]


def test_a_damaged_checkpoint_is_passed_over_with_a_notice(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        run.checkpoint(step, {"step": step}, best=step == 3, keep=3)
    os.truncate(run.path / "checkpoints/step-000003/state.json", 3)
    shutil.rmtree(run.path / "checkpoints/step-000002")
    (run.path / "checkpoints/step-000002").mkdir()
    with caplog.at_level(logging.WARNING, "logpi"):
        assert run.latest() == (1, {"step": 1})
    assert (
        "step-000003 is damaged" in caplog.text
        and "step-000002 is not a whole checkpoint" in caplog.text
    )
    run.rewind(1)  # what is damaged is never deleted
    names = sorted(p.name for p in (run.path / "checkpoints").iterdir())
    assert names == ["step-000001", "step-000002.damaged", "step-000003.damaged"]


def test_leftovers_of_killed_writers_are_cleared(run: Run) -> None:
    run.checkpoint(1, 1)
    (run.path / "checkpoints/.step-000002.partial").mkdir()
    (run.path / "checkpoints/step-000001").rename(run.path / "checkpoints/.step-000001.old")
    (run.path / ".metrics.jsonl.partial").write_text("x")
    with Run.open(run.path) as again:
        assert again.latest() == (1, 1)
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000001"]
    assert not (run.path / ".metrics.jsonl.partial").exists()


def test_changed_software_is_said(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    Run.open(run.path)
    assert caplog.text == ""
    saved = json.loads((run.path / "versions.json").read_text())
    (run.path / "versions.json").write_text(json.dumps(saved | {"torch": "1.0"}))
    Run.open(run.path)
    assert f"since this run began: torch 1.0 -> {torch.__version__}" in caplog.text


def test_a_run_that_keeps_nothing_has_no_empty_folders(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", "eval", {}):
        pass
    with Run.open(tmp_path / "run") as run:
        assert run.latest() is None and run.best() is None
        run.rewind(-1)
    assert sorted(p.name for p in run.path.iterdir()) == [
        ".lock",
        "arguments.json",
        "versions.json",
    ]


# --- a failing disk ---


def test_lost_permission_names_the_last_good_checkpoint() -> None:
    """Really lost: as root, by laying root down for a while."""
    root = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        run = Run.create(root / "run", "rl", {})
        run.checkpoint(1, {"step": 1})
        for path in (root, run.path, run.path / "checkpoints"):
            path.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(
            RunError, match=r"cannot write the checkpoint .*: Permission denied"
        ) as error:
            run.checkpoint(2, {"step": 2})
        assert f"the last good checkpoint is {run.path / 'checkpoints/step-000001'}" in str(
            error.value
        )
        with pytest.raises(
            RunError, match=r"cannot write .*step-000002.jsonl: Permission denied; the last good"
        ):
            run.samples(2, [{}])
        with pytest.raises(
            RunError, match=r"cannot make the run .*: Permission denied; give another --out"
        ):
            Run.create(root / "another", "rl", {})
    finally:
        os.seteuid(user)
        for path in (root, *[p for p in root.rglob("*") if p.is_dir()]):
            path.chmod(0o755)
        assert run.latest() == (1, {"step": 1})
        run.close()
        shutil.rmtree(root)


def test_a_full_disk_leaves_whole_lines(run: Run) -> None:
    import resource

    run.log(1, {"reward": 1})
    run.checkpoint(1, {"step": 1})
    size = (run.path / "metrics.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(
            RunError, match=r"metrics.jsonl: File too large; the last good .* is .*step-000001;"
        ):
            run.log(2, {"reward": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (
        run.path / "metrics.jsonl"
    ).stat().st_size == size  # the half that fitted was taken back
    run.log(2, {"reward": 2})
    assert [row["step"] for row in read_metrics(run.path)] == [1, 2]


def test_the_next_run_takes_the_first_free_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's cell that is run again makes a run of its own."""
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):
        with Run.create(next_path("rl"), "rl", {}) as run:
            paths.append(run.path)
    assert paths == [Path("runs/rl-1"), Path("runs/rl-2"), Path("runs/rl-3")]
    assert next_path("sft") == Path("runs/sft-1") and not Path("runs/sft-1").exists()
    assert next_path("before", tmp_path) == tmp_path / "before-1"

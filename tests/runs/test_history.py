"""Which checkpoint a run goes on from: what cannot be read stops it, what is damaged is put aside,
and nothing of either is deleted."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logpi.errors import RunError
from logpi.runs.checkpoint import Damaged, _fingerprint, load
from logpi.runs.directory import Run
from logpi.runs.metrics import mend, read_metrics


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Steps 1, 2 and 3 with a checkpoint each, of which the last two are kept."""
    monkeypatch.setattr(
        "logpi.runs.directory.trackers",
        lambda *_: type("Nowhere", (), {"log": lambda *_: 0, "close": lambda *_: 0})(),
    )
    with Run.create(tmp_path / "run", "sft", {"lr": 0.1}) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 1 / step})
            run.samples(step, [{"prompt": "?"}])
            run.checkpoint(step, {"step": step})
        yield run


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def place(run: Run, step: int = 3) -> Path:
    return run.history.directory(step)


def test_the_newest_is_named_and_taken_up(run: Run) -> None:
    assert (run.path / "latest").read_text() == "checkpoints/step-000003\n"
    assert run.latest() == (3, {"step": 3})


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("file", ["manifest.json", "state.json", "state.safetensors"])
def test_a_checkpoint_that_cannot_be_read_stops_everything(
    run: Run, monkeypatch, file: str, code: int
) -> None:
    """The gravest fault that was: all that could not be read was taken for damaged, and the run
    began at step 0 without its files."""
    before, real = contents(run.path), io.open

    def broken(name, *args, **options):
        if str(name).endswith(f"step-000003/{file}"):
            raise OSError(code, os.strerror(code), str(name))
        return real(name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("io.open", broken)
        patch.setattr("builtins.open", broken)
        with pytest.raises(
            RunError,
            match=(
                f"cannot read the checkpoint .*step-000003: {os.strerror(code)}.*nothing was"
                " changed"
            ),
        ):
            run.latest()
    assert contents(run.path) == before and run.latest() == (3, {"step": 3})


def test_a_directory_that_cannot_be_listed_stops_everything(run: Run, monkeypatch) -> None:
    real = os.scandir

    def broken(path="."):
        if str(path).endswith("checkpoints"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", broken)
    with pytest.raises(
        RunError, match=r"cannot list .*checkpoints: Permission denied; nothing was changed"
    ):
        run.latest()


@pytest.mark.parametrize(
    "hidden",
    [
        "checkpoints",
        "checkpoints/step-000003",
        "checkpoints/step-000003/state.json",
        "arguments.json",
    ],
)
def test_lost_permission_is_met_for_real(run: Run, hidden: str) -> None:
    """As root, by laying root down for a while."""
    root, user = Path(tempfile.mkdtemp()), os.geteuid()
    root.chmod(0o755)
    path = Path(shutil.copytree(run.path, root / "run"))
    before = contents(path)
    try:
        for each in [path, *path.rglob("*")]:
            each.chmod(0o777)
        (path / hidden).chmod(0o000)
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(RunError, match="Permission denied"):
            Run.open(path).latest()
    finally:
        os.seteuid(user)
        (path / hidden).chmod(0o777)
        after = contents(path)
        shutil.rmtree(root)
    assert after == before


def test_a_directory_in_place_of_a_file_stops_everything(run: Run) -> None:
    for file in ("manifest.json", "state.json"):
        (place(run) / file).unlink()
        (place(run) / file).mkdir()
        with pytest.raises(RunError, match="cannot read the checkpoint") as error:
            run.latest()
        assert not isinstance(error.value, Damaged)


@pytest.mark.parametrize("lose", ["all of them", "the directory"])
def test_checkpoints_that_are_gone_are_missed(run: Run, lose: str) -> None:
    """A disk that is not mounted leaves an empty directory, or none: this is not a run that has not
    begun."""
    for path in (run.path / "checkpoints").iterdir():
        shutil.rmtree(path)
    if lose == "the directory":
        (run.path / "checkpoints").rmdir()
    before = contents(run.path)
    with pytest.raises(
        RunError,
        match=(
            r"holds no checkpoint any more.*not mounted\?.*begin anew elsewhere: logpi repeat .*run"
            r" --out"
        ),
    ):
        run.latest()
    assert contents(run.path) == before


def test_all_damaged_is_an_end_and_nothing_is_touched(run: Run) -> None:
    for step in (2, 3):
        os.truncate(place(run, step) / "state.json", 3)
    before = contents(run.path)
    with pytest.raises(
        RunError, match=r"step-000003 is damaged.*no other to go on from; nothing was changed"
    ):
        run.latest()
    assert contents(run.path) == before


def forged(run: Run) -> None:
    """A copy of a sound one, under another name."""
    shutil.copytree(place(run), run.path / "checkpoints/step-999999999")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda run: (run.path / "checkpoints/step-999999999").mkdir(), "manifest.json is missing"),
        (forged, "is not a checkpoint of step 999999999"),
    ],
)
def test_a_name_is_not_believed(
    run: Run, caplog: pytest.LogCaptureFixture, make: Callable[[Run], None], says: str
) -> None:
    make(run)
    with caplog.at_level(logging.WARNING, "logpi"):
        assert run.latest() == (3, {"step": 3})
    assert says in caplog.text and "it is kept as step-999999999.damaged" in caplog.text
    assert (run.path / "checkpoints/step-999999999.damaged").is_dir()


def test_what_is_no_checkpoint_neither_counts_nor_is_deleted(run: Run) -> None:
    """Two of these, the newest by their names, made every real one superfluous."""
    for name in ("step-999999998", "step-999999999", "step-x", "notes"):
        (run.path / "checkpoints" / name).mkdir()
    (run.path / "checkpoints/step-000009").write_text("a file")
    for step in (4, 5):
        run.checkpoint(step, {"step": step})
    left = {p.name for p in (run.path / "checkpoints").iterdir()}
    assert left == {
        "step-000004",
        "step-000005",
        "step-000009",
        "step-999999998",
        "step-999999999",
        "step-x",
        "notes",
    }
    assert run.latest() == (5, {"step": 5})


def test_a_file_of_ones_own_among_the_samples_stays(run: Run) -> None:
    (run.path / "samples/notes-2024.jsonl").write_text("mine\n")
    run.rewind(1)
    assert sorted(p.name for p in (run.path / "samples").iterdir()) == [
        "notes-2024.jsonl",
        "step-000001.jsonl",
    ]


@pytest.mark.parametrize(
    "state",
    [
        {"w": {"$tensor": "../../etc/passwd"}},
        {"w": {"$tensor": [1]}},
        {"w": {"$tuple": 5}},
        {"w": {"$dict": [[{}, 1]]}},
        {"w": {"$float": "abc"}},
        {"w": {"$bytes": "é"}},
        {"w": {"$array": "x"}},
        "[" * 50_000,
    ],
)
def test_a_state_that_was_made_up_is_damaged(run: Run, state: object) -> None:
    """Its sums are right, for whoever made it up made them too."""
    (place(run) / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    manifest = json.loads((place(run) / "manifest.json").read_text())
    manifest["state.json"] = _fingerprint(place(run) / "state.json")
    (place(run) / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match="step-000003 is damaged: "):
        load(place(run))


def test_a_tag_of_a_newer_version_stops_and_is_not_damage(run: Run) -> None:
    (place(run) / "state.json").write_text('{"w": {"$pickle\\u001b[2J": "x"}}')
    manifest = json.loads((place(run) / "manifest.json").read_text())
    manifest["state.json"] = _fingerprint(place(run) / "state.json")
    (place(run) / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        RunError, match=r"has a '\$pickle\\x1b\[2J' that this version does not know"
    ):
        run.latest()


# --- metrics ---


def test_garbled_metrics_are_kept_aside_and_said(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    spoilt = whole.replace(b'{"step": 2', b'\x00"step": 2') + b'{"step": "four"}\n'
    path.write_bytes(spoilt)
    mend(path)
    assert (
        f"{path}: 2 of 4 lines are garbled and left out; as it was, it is kept as"
        " metrics.jsonl.damaged" in caplog.text
    )
    assert (run.path / "metrics.jsonl.damaged").read_bytes() == spoilt
    assert [r["step"] for r in read_metrics(run.path)] == [1, 3]


def test_an_unfinished_last_line_is_no_news(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 4, "lo')
    mend(path)
    assert (
        path.read_bytes() == whole
        and not caplog.text
        and not (run.path / "metrics.jsonl.damaged").exists()
    )


def test_the_checkpoints_that_are_kept_are_those_of_the_docstring(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", "rl", {}) as run:

        def steps() -> list[int]:
            return [int(p.name.removeprefix("step-")) for p in run.history.named()]

        for step in (10, 20, 30, 40, 50):
            run.checkpoint(step, None, keep=9, best=step in (20, 30))
        run.history.prune(2)
        assert steps() == [30, 40, 50]
        run.checkpoint(60, None, keep=2, best=True)
        assert steps() == [50, 60]

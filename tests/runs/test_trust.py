"""A stranger's run is not carried out unasked: what its arguments name as code, and where its links
lead."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from logpi.cli import main
from logpi.envs.tasks import Addition
from logpi.errors import RunError, UserError
from logpi.policies.small import small_policy
from logpi.runs.directory import Run, allow
from logpi.runs.trust import code_named, sign

ARGUMENTS = {"rewards": ["exact", "judge.py:score"], "steps": 3}


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home/logpi/key"


def made(path: Path, **arguments: Any) -> Path:
    Run.create(path, "rl", ARGUMENTS | arguments).close()
    return path


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "arguments.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            {
                "rewards": ["exact", "math:0.5"],
                "model": "runs/sft/model",
                "env": "CartPole-v1",
                "task": "qa(corpus=wiki.jsonl):x",
            },
            [],
        ),
        ({"rewards": ["judge.py:score:0.5"]}, ["--rewards judge.py:score:0.5"]),
        ({"judge": "command('rm -r x')"}, ["--judge command('rm -r x')"]),
        (
            {"rewards": ["ｃommand('x')"]},
            ["--rewards ｃommand('x')"],
        ),  # Python reads these letters as c
        ({"set": ['zero.rewards=["x\\u002epy:f"]']}, ['--set zero.rewards=["x\\u002epy:f"]']),
        ({"env": "mine:Maze-v0"}, ["--env mine:Maze-v0"]),
        (
            {"env": "GymV21Environment-v0", "env_options": ["env_id=mine:Maze-v0"]},
            ["--env-options env_id=mine:Maze-v0"],
        ),
        ({"task": "openenv:http://localhost"}, ["--task openenv:http://localhost"]),
        ({"task": "verifiers(config={'a': '\n'}):x"}, ["--task verifiers(config={'a': '\n'}):x"]),
        ({"task": "owner/verifiers", "model": "openenv.gguf"}, []),
        ({"task": "mcp(uvx time)"}, ["--task mcp(uvx time)"]),
        ({"env_options": ["a=b"], "steps": 5, "out": None}, []),
        # the grid world's ends have colons, and name no module
        ({"env_options": {"terminals": "(3,0):-5, (3,1):5.5"}}, []),
        ({"env_options": {"terminals": "mine:Maze"}}, ["--env-options terminals=mine:Maze"]),
        ({"env_options": {"env_id": "(3,0):5"}}, ["--env-options env_id=(3,0):5"]),
        (
            {"env": "GymV21Environment-v0", "env_options": {"env_id": "mine:Maze-v0"}},
            ["--env-options env_id=mine:Maze-v0"],
        ),
        ({"options": {"weight": ["a", "mine.py:f"]}}, ["--options weight=mine.py:f"]),
        ({"options": {"beta": 0.1}, "env_options": {"slip": 0.2, "a": "b"}}, []),
    ],
)
def test_what_names_code_is_found(arguments: dict[str, Any], named: list[str]) -> None:
    assert code_named(arguments) == named


def test_one_s_own_run_is_never_asked_for(tmp_path: Path, key: Path) -> None:
    run = made(tmp_path / "run")
    allow(run, trusted=False)
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    (tmp_path / "alias").symlink_to(run)
    allow(tmp_path / "alias", trusted=False)


def test_what_names_no_code_is_not_signed(tmp_path: Path, key: Path) -> None:
    run = made(tmp_path / "run", rewards=["exact"])
    assert "signature" not in record(run) and not key.exists()
    shutil.copytree(run, tmp_path / "copy")
    allow(tmp_path / "copy", trusted=False)


def test_a_stranger_s_is_refused_until_it_is_trusted(tmp_path: Path, key: Path) -> None:
    run, other = made(tmp_path / "run"), tmp_path / "other"
    shutil.copytree(run, other)
    with pytest.raises(
        UserError,
        match=r"was not made by you .* run code: --rewards judge.py:score; .* add --trust$",
    ):
        allow(other, trusted=False)
    allow(other, trusted=True)
    with Run.open(other, arguments=record(other)["arguments"]):
        pass
    allow(other, trusted=False)  # it is the user's own from now on


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": ARGUMENTS | {"steps": 4}},
        {"command": "sft"},
        {"signature": None},
        {"signature": "0" * 64},
        {"signature": "é\ud800"},
    ],
)
def test_an_edited_one_is_a_stranger_s(tmp_path: Path, change: dict[str, Any]) -> None:
    run = made(tmp_path / "run")
    (run / "arguments.json").write_text(json.dumps(record(run) | change))
    with pytest.raises(UserError, match="--trust"):
        allow(run, trusted=False)


@pytest.mark.parametrize("lost", [None, b"short", bytes(32)])
def test_without_its_key_one_s_own_is_asked_for(
    tmp_path: Path, key: Path, lost: bytes | None
) -> None:
    run = made(tmp_path / "run")
    key.unlink()
    if lost is not None:
        key.write_bytes(lost)
    with pytest.raises(UserError, match="--trust"):
        allow(run, trusted=False)


def test_no_place_for_a_key_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    plain = {"command": "rl", "arguments": ARGUMENTS}
    assert sign(tmp_path, plain) == plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "passes"),
    [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("", False)],
)
def test_on_a_terminal_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, passes: bool
) -> None:
    other, screen = tmp_path / "other", Terminal()
    shutil.copytree(made(tmp_path / "run", rewards=["judge.py:score\x1b[2J\r"]), other)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", screen)
    if passes:
        allow(other, trusted=False)
    else:
        with pytest.raises(UserError, match="--trust"):
            allow(other, trusted=False)
    assert screen.getvalue().endswith("Run it? [y/N] ") and "\x1b" not in screen.getvalue()


# --- the commands ---


@pytest.fixture
def judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A run with a reward that leaves a trace where it is loaded."""
    small_policy(Addition().alphabet, width=16, layers=1, heads=2, seed=1).save(tmp_path / "model")
    (tmp_path / "judge.py").write_text(
        "open('ran', 'w')\ndef score(completions, **_):\n    return [0.0] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [
        "--model",
        "model",
        "--task",
        "addition",
        "--rewards",
        "judge.py:score",
        "--steps",
        "1",
        "--prompts",
        "2",
        "--num-generations",
        "2",
        "--max-completion-length",
        "4",
        "--eval-items",
        "2",
    ]
    assert main(["rl", *words, "--out", "own"]) == 0
    (tmp_path / "ran").unlink()
    shutil.copytree("own", "other")
    capsys.readouterr()
    return tmp_path


def test_resume_and_repeat_ask(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["rl", "--resume", "other"], ["repeat", "other", "--out", "again"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "--rewards judge.py:score" in said and said.count("\n") == 1
    assert not (judged / "ran").exists() and not (judged / "again").exists()
    assert main(["rl", "--resume", "own"]) == 0 and (judged / "ran").exists()
    assert main(["rl", "--resume", "own", "--steps", "2"]) == 0  # and is still one's own afterwards
    assert main(["rl", "--resume", "own"]) == 0
    assert (
        main(["rl", "--resume", "other", "--trust"]) == 0 and main(["rl", "--resume", "other"]) == 0
    )
    shutil.copytree("own", "third")
    assert (
        main(["repeat", "third", "--out", "again", "--trust"]) == 0
        and (judged / "again/model").is_dir()
    )


def test_saved_words_are_values_never_options(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list's items became words of a command line, and `--out=…` among them an option."""
    saved = record(judged / "other")
    saved["arguments"] |= {
        "rewards": ["exact"],
        "stop": ["--out=elsewhere", "--steps=9"],
        "out": "elsewhere",
        "trust": True,
    }
    (judged / "other/arguments.json").write_text(json.dumps(saved))
    assert main(["repeat", "other", "--out", "again"]) == 0
    assert not (judged / "elsewhere").exists()
    assert record(judged / "again")["arguments"]["stop"] == ["--out=elsewhere", "--steps=9"]


def test_play_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Run.create("run", "gym", {"env": "stranger:Maze-v0"}).close()
    shutil.copytree("run", "other")
    (tmp_path / "stranger.py").write_text("open('ran', 'w')\n")
    for command in (["play", "other"], ["gym", "--resume", "other"], ["repeat", "other"]):
        assert main(command) == 2
        assert (
            "--env stranger:Maze-v0; if you know what it is, add --trust" in capsys.readouterr().err
        )
    assert not (tmp_path / "ran").exists()


# --- links ---


@pytest.mark.parametrize(
    "name",
    [
        "samples",
        "checkpoints",
        "metrics.jsonl",
        "model",
        "best",
        "latest",
        "curves.png",
        "versions.json",
        "tensorboard",
        ".lock",
        "samples/step-000003.jsonl",
        "checkpoints/step-000009",
        "checkpoints/.step-000006.partial",
        ".model.old",
        "wandb_id",
    ],
)
def test_a_link_in_a_run_leads_nowhere(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "step-000099.jsonl").write_text("years of work")
    run, link = made(tmp_path / "run"), tmp_path / "run" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(precious if "." not in name.lstrip(".") else precious / "step-000099.jsonl")
    with pytest.raises(RunError, match=f"{name} is a link to {precious}"):
        Run.open(run)
    assert [p.name for p in precious.iterdir()] == ["step-000099.jsonl"]
    assert (precious / "step-000099.jsonl").read_text() == "years of work"


def test_a_run_as_a_whole_may_be_reached_by_a_link(tmp_path: Path) -> None:
    made(tmp_path / "big-disk")
    (tmp_path / "run").symlink_to(tmp_path / "big-disk")
    with Run.open(tmp_path / "run") as run:
        run.checkpoint(1, {"w": 1})
    assert (tmp_path / "big-disk/checkpoints/step-000001").is_dir()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(RunError, match=r"metrics.jsonl is neither a file nor a directory"):
        Run.open(run)

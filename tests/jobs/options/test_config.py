"""A job's options from a file: YAML, JSON or a run's own; the command line wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logpi.errors import UserError
from logpi.jobs.options.run import read
from logpi.jobs.options.saved import to_json
from logpi.jobs.rl import RL


def rl(path: Path, *words: str) -> RL:
    return read(RL, ["--config", str(path), *words], "rl", "")


def test_a_file_s_options_give_way_to_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("""
model: m
learning-rate: 1e-5       # TRL's name; YAML takes it for a text
rewards: [math, "think_answer:0.1"]
algorithm: dapo
high: 0.3
options: {entropy_coef: 1e-2, whiten: true}
stop: END
chat: null
curriculum: yes
""")
    a = rl(path, "--lr", "2e-5", "--low", "0.1", "--high=0.4")
    assert (a.model, a.algorithm, a.lr, a.rewards) == (
        "m", "dapo", 2e-5, ("math", "think_answer:0.1")
    )  # fmt: skip
    assert (a.stop, a.chat, a.curriculum) == (("END",), None, True)
    assert a.options == {"entropy_coef": 0.01, "whiten": True, "low": 0.1, "high": 0.4}
    assert rl(path).options["high"] == 0.3 and rl(path).lr == 1e-5


def test_json_and_a_run_s_arguments(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"model": "m", "steps": 3, "beta": 0}')
    assert (rl(path).steps, rl(path).options) == (3, {"beta": 0.0})
    saved = tmp_path / "arguments.json"
    saved.write_text(json.dumps({"command": "rl", "arguments": to_json(rl(path))}))
    assert rl(saved, "--steps", "4", "--out", "x") == rl(path, "--steps", "4", "--out", "x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modl: m", "unknown option 'modl'; did you mean model?"),
        ("model: m\nhihg: 1\nalgorithm: dapo", "unknown option 'hihg'; did you mean high?"),
        ("model: m\nsteps: many", "steps: 'many' is not a whole number"),
        ("model: m\nsteps: 0", "steps: must be at least 1, not 0"),
        ("model: m\nbeta: x", "beta: 'x' is not a number"),
        ("model: m\noptions: 3", "options: 3 is not a list of NAME=VALUE, nor a mapping"),
        ("model: {a: 1}", "model: {'a': 1} is not a text or a number"),
        ("- model", "has no options"),
        ("model: [", "cannot read"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
        ("resume: x", "unknown option 'resume'"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        rl(path)
    assert says in str(error.value) and str(path) in str(error.value)


def test_a_file_that_is_not_there_or_is_of_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="cannot read"):
        rl(tmp_path / "none.yaml")
    record = {"command": "sft", "arguments": {"model": "m"}}
    (tmp_path / "arguments.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is of a run of `logpi sft`, not rl"):
        rl(tmp_path / "arguments.json")


def test_a_stranger_s_run_that_names_code_must_be_trusted(tmp_path: Path) -> None:
    record = {"command": "rl", "arguments": {"model": "m", "rewards": ["evil.py:score"]}}
    (tmp_path / "arguments.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"evil.py:score; if you know what it is, add --trust"):
        rl(tmp_path / "arguments.json")
    assert rl(tmp_path / "arguments.json", "--trust").rewards == ("evil.py:score",)


def test_what_must_be_given_may_stand_in_the_file_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text("steps: 3")
    with pytest.raises(SystemExit):
        rl(tmp_path / "run.yaml")
    assert "--model must be given" in capsys.readouterr().err

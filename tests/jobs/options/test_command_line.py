"""The command line from a dataclass: every type, every kind of mistake, and the way back from a
saved run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from logpi.errors import RunError, UserError
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.saved import from_json, to_json

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Job:
    model: str = option(help="directory or hub name")
    algorithm: str = option("grpo", help="which", choices=lambda: ("grpo", "dapo", "rloo"))
    lr: float = option(1e-5, help="peak learning rate, 100% of it")
    low: float = 0.2
    max_steps: int = 100
    beta: float | None = None
    rewards: tuple[str, ...] = option(("exact",), help="what to reward")
    sizes: tuple[int, ...] = option((), least=1)
    patience: float = option(1.0, above=0)
    out: Path = Path("runs/x")
    resume: bool = option(False, help="go on")
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise UserError("--max-steps must be at least 1")


def read(line: str) -> Job:
    return parse(Job, line.split(), prog="logpi rl", description="Train 100 % of it.")


def mistake(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a mistake prints: one, on stderr, with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        read(line)
    out, err = capsys.readouterr()
    assert (
        stop.value.code == 2 and out == "" and err.count("\n") == 1 and err.startswith("logpi rl: ")
    )
    return err.removeprefix("logpi rl: ").removesuffix(" (see logpi rl --help)\n")


def test_defaults_are_the_dataclass_s_own() -> None:
    assert read("--model m") == Job("m")


def test_every_type() -> None:
    job = read(
        "--model m --lr 3e-4 --low -1e-3 --max-steps 1e3 --beta .5 --rewards a b --sizes 1 2 --out"
        " a/b --resume --no-shuffle"
    )
    assert job == Job(
        "m",
        lr=3e-4,
        low=-1e-3,
        max_steps=1000,
        beta=0.5,
        rewards=("a", "b"),
        sizes=(1, 2),
        out=Path("a/b"),
        resume=True,
        shuffle=False,
    )
    assert isinstance(job.max_steps, int) and isinstance(job.out, Path)


def test_dashes_and_underscores_are_the_same_but_values_are_left_alone() -> None:
    assert (
        read("--model a_b --max_steps 5")
        == read("--model=a_b --max-steps=5")
        == Job("a_b", max_steps=5)
    )


def test_optional_can_be_unset_and_tuples_emptied() -> None:
    job = read("--model m --beta none --rewards")
    assert job.beta is None and job.rewards == ()


def test_positional() -> None:
    @dataclass(frozen=True)
    class Describe:
        name: str = option(help="an algorithm", positional=True)
        width: int = 80

    globals()["Describe"] = Describe
    assert parse(Describe, ["dapo", "--width", "3"], "logpi describe") == Describe("dapo", 3)
    with pytest.raises(SystemExit):
        parse(Describe, [], "logpi describe")


@dataclass(frozen=True)
class Watch:
    run: Path = option(help="a run", positional=True)


@dataclass(frozen=True)
class Show:
    what: str = option("search", help="which", choices=("search", "mask"), positional=True)


def test_a_positional_left_out_is_missing_or_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not argparse's own mark for `nothing was given`, read as a path or as an unknown value."""
    with pytest.raises(SystemExit):
        parse(Watch, [], "logpi play")
    assert "RUN must be given" in capsys.readouterr().err
    assert parse(Show, [], "logpi tools-demo") == Show("search")
    assert parse(Show, ["mask"], "logpi tools-demo") == Show("mask")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "--algoritm dapo",
            "unknown option --algoritm; did you mean --algorithm?",
        ),  # and not that --model is missing
        ("--model m --algoritm=dapo", "unknown option --algoritm; did you mean --algorithm?"),
        ("--model m --no-shufle", "unknown option --no-shufle; did you mean --no-shuffle?"),
        ("--model m -lr 3", "unknown option -lr; did you mean --lr?"),
        ("--model m --xyzzy", "unknown option --xyzzy"),
        (
            "--model m --algo dapo",
            "unknown option --algo; did you mean --algorithm?",
        ),  # never guessed
        ("--model m dapo", "unexpected argument 'dapo'; every option needs its name in front"),
        ("--model m --algorithm gpro", "--algorithm: unknown value 'gpro'; did you mean grpo?"),
        ("--model m --algorithm xyz", "--algorithm: unknown value 'xyz'; one of: grpo, dapo, rloo"),
        ("--model m --lr fast", "--lr: 'fast' is not a number"),
        ("--model m --lr nan", "--lr: 'nan' is not a number"),
        ("--model m --max-steps 1.5", "--max-steps: '1.5' is not a whole number"),
        ("--model m --sizes 1 x", "--sizes: 'x' is not a whole number"),
        ("--model m --lr", "--lr: expected one argument"),
        ("--model m --max-steps 0", "--max-steps must be at least 1"),
        ("--model m --sizes 2 0", "--sizes: must be at least 1, not 0"),
        ("--model m --patience 0", "--patience: must be above 0, not 0"),
        ("", "--model must be given"),
    ],
)
def test_a_mistake_is_one_line(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(line, capsys) == says


def test_help_says_what_and_what_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read("--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for part in (
        "Train 100 % of it.",
        "peak learning rate, 100% of it (default: 1e-05)",
        "must be given",
    ):
        assert part in text
    for part in (
        "one of: grpo, dapo, rloo; default: grpo",
        "--shuffle, --no-shuffle",
        "default: on",
        "default: off",
    ):
        assert part in text


def test_saved_arguments_come_back_whole() -> None:
    job = Job(
        "m", lr=float("inf"), beta=0.1, rewards=("a", "b"), sizes=(3,), out=Path("x/y"), resume=True
    )
    saved = json.loads(json.dumps(to_json(job), allow_nan=False))
    assert from_json(Job, saved) == job
    assert from_json(Job, {"model": "m"}) == Job("m")  # an older version saved fewer


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ({"model": "m", "lrr": 1}, "unknown option 'lrr'; did you mean lr?"),
        ({}, "lack 'model'"),
        ({"model": "m", "lr": "x"}, "lr: 'x' is not a number"),
        ({"model": "m", "rewards": "x"}, "rewards: 'x' is not a list"),
        ({"model": "m", "shuffle": 3}, "shuffle: '3' is not true or false"),
    ],
)
def test_wrong_saved_arguments(saved: dict, says: str) -> None:
    with pytest.raises(UserError, match=says.replace("?", r"\?")):
        from_json(Job, saved)


def test_a_type_that_no_option_can_have_is_the_programmers_mistake() -> None:
    @dataclass(frozen=True)
    class Bad:
        x: dict[str, int]

    with pytest.raises(TypeError, match=r"Bad\.x"):
        parse(Bad, [], "x")


def test_light_import() -> None:
    code = (
        "import sys; import logpi.jobs.options.command_line; print(*{m.partition('.')[0] for m in"
        " sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert {n for n in run.stdout.split() if n != "__main__"} - sys.stdlib_module_names == {"logpi"}


def test_a_run_error_is_a_user_error() -> None:
    assert issubclass(RunError, UserError)

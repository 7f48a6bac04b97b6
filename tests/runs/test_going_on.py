"""Going on beyond the end of a finished run, for every job that trains; what may change on the way,
and what the schedule then does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from logpi.cli import main
from logpi.demos.r1_arguments import R1
from logpi.envs.tasks import Addition
from logpi.jobs.gym import Gym
from logpi.jobs.options.fields import changeable
from logpi.jobs.prefer import Prefer
from logpi.jobs.rl import RL
from logpi.jobs.sft import SFT
from logpi.policies.small import small_policy
from logpi.runs.metrics import read_metrics

RUN = ("--save-every", "2", "--seed", "3")
JOBS: dict[str, tuple[str, ...]] = {
    "sft": ("--task", "addition", "--rows", "4", "--lr", "1e-3", "--schedule", "constant"),
    "rl": (
        "--task",
        "addition",
        "--prompts",
        "2",
        "--num-generations",
        "2",
        "--max-completion-length",
        "4",
        "--lr",
        "1e-2",
        "--rewards",
        "soft_overlong(4, cache=4)",
        "--options",
        "beta=0",
        "--eval-items",
        "2",
        "--eval-every",
        "2",
    ),
    "prefer": ("--data", "pairs", "--pairs", "2", "--lr", "1e-3", "--eval-every", "2"),
    "reward-model": ("--data", "pairs", "--pairs", "2", "--lr", "1e-3", "--eval-every", "2"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_policy(Addition().alphabet, width=16, layers=1, heads=2, seed=1).save(tmp_path / "model")
    rows = [{"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": str(i)} for i in range(12)]
    (tmp_path / "pairs").mkdir()
    for split, some in (("train", rows[:9]), ("test", rows[9:])):
        (tmp_path / f"pairs/{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(run: Path) -> dict[str, list]:
    return {
        k: v.tolist()
        for p in (run / "model").glob("*.safetensors")
        for k, v in load_file(p).items()
    }


def numbers(run: Path) -> list[dict[str, object]]:
    return [
        {k: v for k, v in r.items() if not k.startswith(("time/", "step_time"))}
        for r in read_metrics(run)
    ]


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_without_a_schedule_the_longer_run_is_one_that_was_asked_for_at_once(
    command: str, home: Path
) -> None:
    words = [command, "--model", "model", *JOBS[command], *RUN]
    assert main([*words, "--steps", "6", "--out", "whole"]) == 0
    assert main([*words, "--steps", "2", "--out", "grown"]) == 0
    assert main([command, "--resume", "grown", "--steps", "6"]) == 0
    assert weights(home / "grown") == weights(home / "whole") and numbers(
        home / "grown"
    ) == numbers(home / "whole")
    assert json.loads((home / "grown/arguments.json").read_text())["arguments"]["steps"] == 6
    assert main([command, "--resume", "grown"]) == 0 and len(numbers(home / "grown")) == len(
        numbers(home / "whole")
    )


@pytest.mark.parametrize("command", ["prefer", "reward-model"])
def test_a_schedule_is_that_of_the_longer_run(
    command: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [command, "--model", "model", *JOBS[command], *RUN, "--warmup", "0"]
    assert main([*words, "--steps", "8", "--out", "whole"]) == 0
    assert main([*words, "--steps", "4", "--out", "grown"]) == 0 and not caplog.messages
    assert main([command, "--resume", "grown", "--steps", "8"]) == 0
    (said,) = caplog.messages
    assert (
        said
        == "schedules are now those of 8 updates, not of 4: the learning rate goes on at 0.00055,"
        " where it was 0.0001"
    )
    rates = [[r["lr"] for r in read_metrics(home / run) if "lr" in r] for run in ("whole", "grown")]
    assert rates[0][4:] == rates[1][4:] and rates[0][1:4] != rates[1][1:4]
    assert rates[1][4] == pytest.approx(0.00055)  # half-way down a cosine from 1e-3 to 1e-4
    assert [r["step"] for r in read_metrics(home / "grown") if "lr" in r] == list(range(1, 9))


def test_an_environment_s_run_goes_on(home: Path) -> None:
    words = [
        "gym",
        "--eval-episodes",
        "2",
        "--evaluations",
        "0",
        "--options",
        "n_steps=16",
        "envs=2",
        "linear=false",
        # Every schedule is of the whole run; without one, the grown run equals the whole.
        "clip_decay=false",
    ]
    assert main([*words, "--steps", "192", "--out", "whole"]) == 0
    assert main([*words, "--steps", "96", "--out", "grown"]) == 0
    assert main(["gym", "--resume", "grown", "--steps", "192"]) == 0
    assert (home / "grown/model/policy.safetensors").read_bytes() == (
        home / "whole/model/policy.safetensors"
    ).read_bytes()
    assert [r["step"] for r in read_metrics(home / "grown") if "loss" in r] == list(range(1, 7))


def test_several_seeds_go_on_together(home: Path) -> None:
    words = [
        "gym",
        "--seeds",
        "2",
        "--eval-episodes",
        "2",
        "--evaluations",
        "0",
        "--options",
        "n_steps=16",
        "envs=2",
    ]
    assert main([*words, "--steps", "32", "--out", "both"]) == 0
    assert main(["gym", "--resume", "both", "--steps", "64"]) == 0
    for path in ("both", "both/seed-0", "both/seed-1"):
        assert json.loads((home / path / "arguments.json").read_text())["arguments"]["steps"] == 64
    assert [r["step"] for r in read_metrics(home / "both/seed-1") if "loss" in r] == [1, 2]


def test_fewer_steps_than_there_are_is_refused_and_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["sft", "--model", "model", *JOBS["sft"], *RUN, "--steps", "4", "--out", "run"]) == 0
    )
    before = {p: p.read_bytes() for p in (home / "run").rglob("*") if p.is_file()}
    assert main(["sft", "--resume", "run", "--steps", "3"]) == 2
    assert (
        "run has 4 updates, more than the 3 that it shall have"
        in capsys.readouterr().err.splitlines()[-1]
    )
    after = {p: p.read_bytes() for p in (home / "run").rglob("*") if p.is_file()}
    assert {p: b for p, b in after.items() if "tensorboard" not in p.parts} == {
        p: b for p, b in before.items() if "tensorboard" not in p.parts
    }
    assert main(["sft", "--resume", "run"]) == 0


def test_what_does_not_go_on_changes_no_argument(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["sft", "--model", "model", *JOBS["sft"], *RUN, "--steps", "2", "--out", "run"]) == 0
    )
    (home / "run/checkpoints/step-000002/state.json").write_text("{}")
    assert main(["sft", "--resume", "run", "--steps", "4"]) == 2
    assert json.loads((home / "run/arguments.json").read_text())["arguments"]["steps"] == 2


@pytest.mark.parametrize(
    ("cls", "some"),
    [
        (SFT, {"steps", "save_every", "eval_every", "trackers", "device", "micro_tokens"}),
        (Prefer, {"steps", "eval_every", "device"}),
        (RL, {"steps", "slots", "tool_timeout", "tool_patience", "device"}),
        (Gym, {"steps", "updates", "evaluations", "save_every"}),
        (R1, {"device", "keep_checkpoints", "save_every"}),
    ],
)
def test_what_may_change_is_a_property_of_the_option(cls: type, some: set[str]) -> None:
    found = changeable(cls)
    fixed = {"seed", "lr", "model", "task", "out", "resume", "schedule", "rewards"}
    assert some <= found.keys() and not found.keys() & fixed


def test_what_may_change_is_said_where_something_else_is_given(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--model", "model", *JOBS["sft"], "--steps", "2", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["sft", "--resume", "run", "--lr", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "logpi: a run keeps its own arguments: --lr cannot change. --resume takes nothing else but "
    )
    assert said.count("\n") == 1 and all(
        flag in said
        for flag in ("--steps", "--save-every", "--eval-every", "--trackers", "--device")
    )
    assert (
        main(["sft", "--resume", "run", "--save-every", "1", "--eval-every", "3", "--steps", "3"])
        == 0
    )
    assert (home / "run/checkpoints/step-000003").is_dir()


# --- what was lost is said ---


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "has lost 4 of 4 steps, the first of them step 1"),
        (lambda path: path.write_bytes(b"\0" * 512), "has lost 4 of 4 steps"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'{"step": 2', b'x"step": 2')),
            "has lost 1 of 4 steps, the first of them step 2",
        ),
    ],
)
def test_lost_metrics_are_said(
    home: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object], says: str
) -> None:
    assert (
        main(["sft", "--model", "model", *JOBS["sft"], *RUN, "--steps", "4", "--out", "run"]) == 0
    )
    spoil(home / "run/metrics.jsonl")
    assert main(["sft", "--resume", "run", "--steps", "6"]) == 0
    assert sum(says in message for message in caplog.messages) == 1
    assert [r["step"] for r in read_metrics(home / "run")][-2:] == [5, 6]


def test_a_run_that_is_ended_before_its_first_checkpoint_begins_anew_and_says_so(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["sft", "--model", "model", *JOBS["sft"], "--seed", "3", "--save-every", "50"]
    assert main([*words, "--steps", "4", "--out", "whole"]) == 0
    assert main([*words, "--steps", "4", "--out", "run"]) == 0
    run = home / "run"
    for path in (run / "checkpoints/step-000004").iterdir():
        path.unlink()
    (run / "checkpoints/step-000004").rmdir()
    (run / "latest").unlink()  # as a kill after step 4 leaves it
    assert main(["sft", "--resume", "run"]) == 0
    assert (
        f"{'run'} was ended before its first checkpoint: its 4 steps are done again"
        in caplog.messages
    )
    assert weights(run) == weights(home / "whole") and numbers(run) == numbers(home / "whole")

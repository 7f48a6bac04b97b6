"""How a run ends when it does not come to its end: signals, a directory that is taken away, no
finite gradient, a launcher of many processes."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import logpi
from logpi.cli import main
from logpi.demos.chain import stage
from logpi.distributed.world import World
from logpi.envs.tasks import Addition
from logpi.errors import RunError, Stopped, UserError
from logpi.jobs import common
from logpi.jobs.common import settle
from logpi.jobs.sft import SFT
from logpi.policies.small import small_policy
from logpi.runs.directory import Run
from logpi.runs.progress import Progress
from logpi.runs.signals import StopSignals
from logpi.train import Outcome, complete, train
from logpi.updates.adamw import AdamW
from tests.test_train import Bandit, Table, parts

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small_policy(Addition().alphabet, width=16, layers=1, heads=2, seed=1).save(path)
    return path


def stopped(number: int, out: Path, *words: str) -> tuple[int, str]:
    """The exit code, and what was said, of a command that gets a signal after its first steps."""
    command = [sys.executable, "-m", "logpi", *words, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(number)
    rest = process.stderr.read()
    return process.wait(timeout=60), rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_is_no_success(
    model: Path, tmp_path: Path, number: int, code: int
) -> None:
    """`sft && rl` went on without a model."""
    words = (
        "sft",
        "--model",
        str(model),
        "--task",
        "addition",
        "--rows",
        "4",
        "--steps",
        "1000000",
    )
    ended, said = stopped(number, tmp_path / "run", *words)
    assert ended == code and "Traceback" not in said and not (tmp_path / "run/model").exists()
    assert said.splitlines()[-1].endswith(f"resume with: logpi sft --resume {tmp_path / 'run'}")
    assert (tmp_path / "run/latest").exists()


def test_a_signal_ends_a_chain_with_its_code(tmp_path: Path) -> None:
    ended, said = stopped(signal.SIGTERM, tmp_path / "demo", "demo", "--steps", "2")
    assert ended == 143 and "Traceback" not in said
    assert not (tmp_path / "demo/rl").exists() and (tmp_path / "demo/sft/latest").exists()


def test_a_signal_ends_an_environment_s_run_with_its_code(tmp_path: Path) -> None:
    ended, said = stopped(
        signal.SIGTERM, tmp_path / "gym", "gym", "--steps", "100000000", "--eval-episodes", "1"
    )
    assert ended == 143 and "Traceback" not in said and "resume with: logpi gym --resume" in said


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    class Hanging(Bandit):
        def __call__(self) -> logpi.Collected:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("never reached")

    _, learner = parts()
    with Run.create(tmp_path / "run", "sft", {}) as run, pytest.raises(SystemExit) as leave:
        complete(
            train(
                Hanging(learner.policy), learner, run, steps=5, progress=Progress(5, io.StringIO())
            )
        )
    assert leave.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_chain_s_stage_hands_the_signal_on(tmp_path: Path) -> None:
    class Stopping(SFT):
        def run(self):
            raise Stopped("stopped after step 3", signal.SIGTERM)

    with pytest.raises(Stopped) as leave:
        stage(Stopping(model="m", task="addition", out=tmp_path / "x"))
    assert leave.value.code == 143 and str(leave.value) == "stopped after step 3"


def test_what_stopped_can_be_sent_between_processes() -> None:
    import copy
    import pickle

    for again in (pickle.loads(pickle.dumps(Stopped("so", 15))), copy.copy(Stopped("so", 15))):
        assert (str(again), again.code, again.signal) == ("so", 143, 15)


# --- taken away ---


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_directory_that_is_taken_away_is_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run"

    class Thief(Bandit):
        def __call__(self) -> logpi.Collected:
            if path.exists():
                shutil.rmtree(path) if how == "removed" else path.rename(tmp_path / "elsewhere")
            return super().__call__()

    _, learner = parts()
    with (
        Run.create(path, "sft", {}) as run,
        pytest.raises(RunError, match=f"{path} was removed or renamed while the run"),
    ):
        complete(train(Thief(learner.policy), learner, run, steps=5))
    assert not path.exists()  # and is not made again, with half of what it had


def test_a_directory_that_is_taken_away_between_steps_and_model_is_one_line(
    tmp_path: Path, model: Path, capsys, monkeypatch
) -> None:
    def gone(run: Run, outcome: Outcome) -> None:
        shutil.rmtree(run.path)
        (run.path / "held_out.json").write_text("{}")  # what a job writes by itself

    monkeypatch.setattr(common, "settle", gone)
    words = ["sft", "--model", str(model), "--task", "addition", "--rows", "2", "--steps", "1"]
    words += ["--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert (
        "was removed or renamed while the run was being written"
        in capsys.readouterr().err.splitlines()[-1]
    )


# --- nothing learned ---


def hopeless() -> tuple[Bandit, logpi.Learner]:
    class Endless(Table):
        def evaluate(self, batch: logpi.Batch) -> logpi.PolicyOutput:
            found = super().evaluate(batch)
            return logpi.PolicyOutput(found.logp * torch.tensor(float("inf")), found.entropy)

    policy = Endless()
    return Bandit(policy), logpi.Learner(policy, logpi.algorithm("sft"), AdamW(0.1), total=3)


def test_a_run_whose_every_step_was_left_out_has_failed(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", "sft", {}) as run:
        outcome = complete(train(*hopeless(), run, steps=2))
        assert outcome.skipped == 2
        with pytest.raises(
            UserError,
            match=(
                r"no gradient was finite in any of the 2 steps .* begin anew with a lower learning"
                r" rate"
            ),
        ):
            settle(run, outcome)
    with Run.open(tmp_path / "run") as run:  # the count is the run's, not the call's
        assert complete(train(*hopeless(), run, steps=3)).skipped == 3
        settle(run, Outcome(3, 0, False, None, {}, {}, skipped=2))


def test_a_run_whose_every_step_was_left_out_does_not_exit_0(
    tmp_path: Path, model: Path, monkeypatch, capsys
) -> None:
    from logpi.policies.causal_lm import CausalLM

    evaluate = CausalLM.evaluate

    def endless(self, batch):
        found = evaluate(self, batch)
        return logpi.PolicyOutput(found.logp * torch.tensor(float("inf")), found.entropy)

    monkeypatch.setattr(CausalLM, "evaluate", endless)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no gradient was finite"):
        SFT(model=str(model), task="addition", rows=2, steps=2, out=out).run()
    assert not (out / "model").exists()


# --- one process ---


def test_a_launcher_of_several_processes_is_refused_by_what_cannot_share_its_work(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """Each would have done the whole experiment."""
    words = ["gym", "--env", "CartPole-v1", "--steps", "2048"]
    words += ["--out", str(tmp_path / "run")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "works in one process, and 2 were started (WORLD_SIZE)" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(words) == 0


def test_a_signal_that_comes_while_ranks_agree_is_not_lost(monkeypatch) -> None:
    signals = StopSignals(lambda text: None)

    def maximum(number: float) -> float:
        signals._handle(2, None)
        return number

    monkeypatch.setattr(World, "max", lambda self, number: maximum(number))
    assert signals.agreed() == 0
    monkeypatch.undo()
    assert signals.agreed() == 2

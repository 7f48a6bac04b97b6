"""The loop: what it logs, when it saves, what it says of a collapse, and what a full disk does to
it."""

from __future__ import annotations

import errno
import io
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import logpi
from logpi.errors import RunError
from logpi.runs import checkpoint
from logpi.runs.collapse import Collapse
from logpi.runs.directory import Run
from logpi.runs.metrics import read_metrics
from logpi.runs.progress import Progress
from logpi.train import _with_tokens, complete, train
from logpi.types import PolicyOutput
from logpi.updates.adamw import AdamW


class Bandit:
    """One action of four; the third is right."""

    def __init__(self, policy) -> None:
        self.policy, self.generator = policy, torch.Generator().manual_seed(0)

    def __call__(self) -> logpi.Collected:
        logits = self.policy.table.detach().log_softmax(0)
        action = torch.multinomial(logits.exp(), 16, replacement=True, generator=self.generator)[
            :, None
        ]
        reward = (action == 2).float()
        batch = logpi.Batch(
            obs=torch.zeros(16, 2, dtype=torch.long),
            action=action,
            mask=torch.ones(16, 1, dtype=torch.bool),
            reward=reward,
            terminated=torch.ones(16, dtype=torch.bool),
            group=torch.arange(16) // 4,
            logp=logits[action],
        )
        return logpi.Collected(batch, {"reward": float(reward.mean()), "num_tokens": 16.0})

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state) -> None:
        self.generator.set_state(state["generator"])


class Table(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(4))

    def evaluate(self, batch: logpi.Batch) -> logpi.PolicyOutput:
        logp = self.table.log_softmax(0)
        entropy = -(logp.exp() * logp).sum().expand(batch.mask.shape)
        return logpi.PolicyOutput(logp[batch.action], entropy)


def parts(lr=0.1):
    policy = Table()
    return Bandit(policy), logpi.Learner(
        policy, logpi.algorithm("rloo", beta=0), AdamW(lr), total=30
    )


def test_it_learns_logs_and_keeps_the_best(tmp_path):
    rollout, learner = parts()

    def evaluate(step):
        return {"eval/right": float(learner.policy.table.detach().softmax(0)[2])}, [{"step": step}]

    with Run.create(tmp_path / "run", "test", {}) as run:
        outcome = complete(
            train(rollout, learner, run, steps=30, evaluate=evaluate, eval_every=10, save_every=7)
        )
        assert (
            outcome.step == 30
            and not outcome.stopped
            and not outcome.collapsed
            and outcome.best_step == 30
        )
        assert outcome.first["eval/right"] == 0.25 and outcome.last["eval/right"] > 0.8
        best = run.best()
        assert best is not None and best[0] == 30
    records = read_metrics(tmp_path / "run")
    assert [r["step"] for r in records if "reward" in r] == list(range(1, 31))
    assert [r["step"] for r in records if "eval/right" in r] == [0, 10, 20, 30]
    assert {"loss", "grad_norm", "entropy", "frac_reward_zero_std", "lr", "step_time"} <= records[
        -2
    ].keys()


def test_a_finished_run_is_left_as_it_is(tmp_path):
    with Run.create(tmp_path / "run", "test", {}) as run:
        complete(train(*parts(), run, steps=4))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with Run.open(tmp_path / "run") as run:
        assert complete(train(*parts(), run, steps=4)).step == 4
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_resumed_run_s_time_left_is_of_the_steps_it_makes(tmp_path):
    rollout, learner = parts()
    with Run.create(tmp_path / "run", "test", {}) as run:
        complete(train(rollout, learner, run, steps=4))
    now, out = [0.0], io.StringIO()
    rollout, learner = parts()

    class Slow(Bandit):
        def __call__(self) -> logpi.Collected:
            now[0] += 10
            return super().__call__()

    with Run.open(tmp_path / "run") as run:
        progress = Progress(8, stream=out, every=0, clock=lambda: now[0])
        complete(train(Slow(rollout.policy), learner, run, steps=8, progress=progress))
    assert [line.rpartition(" · ")[2] for line in out.getvalue().splitlines()] == [
        "30s left",
        "20s left",
        "10s left",
        "done",
    ]


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    rollout, learner = parts()
    with Run.create(tmp_path / "run", "test", {}) as run:
        complete(train(rollout, learner, run, steps=4, save_every=2))

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoint, "_save_tensors", full)
        with pytest.raises(RunError, match=r"No space left.*step-000004.*--resume"):
            complete(train(*parts(), run, steps=8, save_every=2))
        monkeypatch.undo()
        found = run.latest()
        assert found is not None and found[0] == 4
        assert complete(train(*parts(), run, steps=8, save_every=2)).step == 8


def test_a_collapse_is_said_once_while_it_happens():
    watch = Collapse()
    rewards = [0.2, 0.3, 0.4, 0.5, 0.5, 0.4, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    said = [watch(i, {"reward": r, "lr": 1e-3}) for i, r in enumerate(rewards, 1)]
    found = [(i, s) for i, s in enumerate(said, 1) if s]
    assert len(found) == 1 and found[0][0] <= 11
    assert "collapsing" in found[0][1] and "learning rate" in found[0][1]


@pytest.mark.parametrize(
    "rewards",
    [
        [0.0, 0.2, 0.1, 0.4, 0.3, 0.5, 0.4, 0.6] * 3,  # noise on a climb
        [0.5] * 20,
        [-5.0, -4.0, -3.0, -2.5, -2.0, -2.0, -2.2, -2.0],  # negative rewards that rise
        [0.0] * 20,
    ],
)
def test_a_healthy_run_is_left_in_peace(rewards):
    watch = Collapse()
    assert not any(watch(i, {"reward": r}) for i, r in enumerate(rewards))


def test_the_first_ctrl_c_ends_the_step_saves_and_says_so(tmp_path):
    import os
    import signal

    class Interrupted(Bandit):
        def __call__(self) -> logpi.Collected:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__call__()

    _, learner = parts()
    shown = io.StringIO()
    with Run.create(tmp_path / "r", "rl", {}) as run:
        outcome = complete(
            train(Interrupted(learner.policy), learner, run, steps=5, progress=Progress(5, shown))
        )
    assert outcome.stopped and outcome.step == 1
    assert "Ctrl-C again" in shown.getvalue() and (tmp_path / "r/checkpoints/step-000001").exists()


def test_a_learning_rate_below_zero_is_refused():
    """The optimiser of small networks took it, and climbed the loss."""
    for wrong in (-1e-3, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="learning rate"):
            AdamW(wrong)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("grpo", {"epochs": 0}, "epochs must be at least 1"),
        ("grpo", {"minibatches": 0}, "minibatches must be at least 1"),
        ("grpo", {"micro_tokens": 0}, "micro_tokens must be at least 1"),
        ("grpo", {"max_grad_norm": -1}, "max_grad_norm must be above 0"),
        ("trpo", {"shrink": 1.0}, "shrink within"),
        ("trpo", {"cg_steps": 0}, "cg_steps, trials and trust_steps at least 1"),
    ],
)
def test_an_update_that_would_do_nothing_is_refused(name, given, says):
    """No pass at all trained nothing and said nothing; a negative norm turned the gradient
    round."""
    with pytest.raises(ValueError, match=says):
        logpi.algorithm(name, **given)


# --- step by step ---


def test_a_step_says_what_was_done(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", "test", {}) as run:
        taken = list(train(*parts(), run, steps=3, evaluate=lambda n: ({"eval/x": n}, [])))
    assert [s.number for s in taken] == [1, 2, 3]
    logged = [r for r in read_metrics(tmp_path / "run") if "reward" in r]
    assert [s.metrics["reward"] for s in taken] == [r["reward"] for r in logged]
    assert [s.evaluation for s in taken] == [None, None, {"eval/x": 3.0}]


def test_leaving_the_loop_saves_the_step_and_the_run_goes_on_alike(tmp_path: Path) -> None:
    rollout, learner = parts()
    for step in train(rollout, learner, tmp_path / "left", steps=6, save_every=5):
        if step.number == 3:
            break
    with Run.open(tmp_path / "left") as run:
        newest = run.latest()
    assert newest is not None and newest[0] == 3
    again = parts()
    complete(train(*again, tmp_path / "left", steps=6))
    straight = parts()
    complete(train(*straight, steps=6))
    torch.testing.assert_close(again[0].policy.table, straight[0].policy.table, rtol=0, atol=0)


def test_an_error_in_the_callers_loop_saves_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in train(*parts(), tmp_path / "run", steps=4, save_every=9):
            1 / 0  # noqa: B018
    with Run.open(tmp_path / "run") as run:
        newest = run.latest()
    assert newest is not None and newest[0] == 1


def test_signals_between_steps_are_the_callers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = train(*parts(), steps=3)
    next(steps)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert next(steps).number == 2


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete(train(*parts(), steps=2)).step == 2 and not list(tmp_path.iterdir())


def test_a_signal_after_the_steps_own_saving_is_saved_too(tmp_path: Path) -> None:
    """It comes while the caller has the step, when whole training holds signals."""
    steps = train(*parts(), tmp_path / "run", steps=9, save_every=9, alone=True)
    next(steps)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert (end.value.value.step, end.value.value.stopped) == (1, signal.SIGTERM)
    with Run.open(tmp_path / "run") as run:
        newest = run.latest()
    assert newest is not None and newest[0] == 1


def test_samples_have_the_numbers_of_their_own_tokens() -> None:
    """Two rows of three places; the second row's mask is empty, for it has no verdict."""
    mask = torch.tensor([[False, True, True], [False, False, False]])
    batch = SimpleNamespace(mask=mask, logp=torch.tensor([[0.0, -0.12345, -0.0], [0.0, 0.0, 0.0]]))
    collected = SimpleNamespace(batch=batch, samples=[{"tokens": 2}, {"tokens": 2}])
    output = PolicyOutput(batch.logp + 0.5, torch.full((2, 3), 0.25))

    def rows(now: PolicyOutput | None, sampler: bool, advantage: list[float]):
        values = torch.tensor([advantage, [0.0] * 3])
        trust = SimpleNamespace(sampler=sampler)
        learner = SimpleNamespace(advantage=values, evaluated=now, trust=trust)
        return _with_tokens(collected, learner)  # pyright: ignore[reportArgumentType]

    first, second = rows(None, True, [9.0, 0.5, 0.5])
    assert first == {"tokens": 2, "advantage": 0.5, "logp": [-0.1235, 0.0]}
    assert second == {"tokens": 2, "advantage": None, "logp": None}
    first, _ = rows(output, True, [9.0, 0.5, 1.0])
    assert first["advantage"] == [0.5, 1.0] and first["entropy"] == [0.25, 0.25]
    assert "ratio" not in first
    first, second = rows(output, False, [9.0, 0.5, 1.0])
    # exp(0.5)
    assert first["ratio"] == [1.6487, 1.6487] and second["ratio"] is None

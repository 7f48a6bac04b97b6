"""Batches that are sampled ahead: the same ones in the same order, no older than they may be, kept
in checkpoints, on all ranks alike; and a thread that always ends."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import logpi
from logpi.engine.engine import Engine
from logpi.engine.sampling import Completion, Sampling
from logpi.errors import SamplerLost, Stopped, UserError
from logpi.learner import Learner, Trust
from logpi.policies.small import small_policy
from logpi.rewards import rewards
from logpi.rollouts.ahead import Ahead, Correct, Drop, Refuse
from logpi.rollouts.prompt_sources import Curriculum, TaskPrompts
from logpi.rollouts.text_rollout import TextRollout
from logpi.runs.checkpoint import load, save
from logpi.types import Collected
from tests.distributed.several import on_ranks
from tests.engine.fake_vllm import FakeVLLM

ALPHABET = "0123456789+-*/=() abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!'\n"


def policy_of(seed: int = 0):
    return small_policy(ALPHABET, width=32, layers=1, heads=2, seed=seed)


def even(prompts, completions, **_) -> list[float]:
    return [float(len(c) % 2 == 0) for c in completions]


class Script:
    """A sampler whose weights never change, and whose tokens carry the version that was published
    last. It waits for `go`, and can fail in a given call."""

    def __init__(self, policy, updates, fails: int = -1) -> None:
        self.engine, self.updates, self.fails = Engine(policy), updates, fails
        self.version, self.calls, self.aborted = 0, 0, False
        self.older: dict[int, int] = {}
        self.go = threading.Event()
        self.go.set()

    def generate(self, requests, sampling=None, generator=None, progress=None, on_turn_end=None):
        self.calls += 1
        call = self.calls
        while not self.go.wait(0.01) and not self.aborted:
            pass
        if self.aborted:
            raise SamplerLost("sampling was ended")
        if call == self.fails:
            raise ZeroDivisionError("call of the script")
        groups = self.engine.generate(requests, sampling, generator)
        age = self.older.get(call, 0)
        return [
            [
                Completion(c.tokens, c.logp, c.stop, torch.full_like(c.tokens, self.version - age))
                for c in group
            ]
            for group in groups
        ]

    def follow(self, policy) -> None:
        self.policy = policy

    def publish(self) -> None:
        assert self.policy.locked()
        self.version = self.updates()

    def metrics(self) -> dict[str, float]:
        return {"time/sync": 0.0}

    def abort(self) -> None:
        self.aborted = True


class Counter:
    """Number of updates; what a learner is to `Ahead`."""

    number = 0

    def __call__(self) -> int:
        return self.number


class Rows:
    name = "rows"
    reward = None

    def rows(self, split="train", seed=0):
        return [{"prompt": f"{(a + 7 * seed) % 40}+1="} for a in range(40)]


def parts(fails: int = -1, seed: int = 0, **options) -> tuple[TextRollout, Script, Counter]:
    policy, updates = policy_of(seed), Counter()
    sampler = Script(policy, updates, fails)
    given = {
        "algorithm": logpi.algorithm("grpo", beta=0),
        "prompts": 2,
        "num_generations": 3,
        "sampling": Sampling(max_tokens=5),
        "source": Curriculum(TaskPrompts(Rows()), lookahead=2),
    }
    rollout = TextRollout(policy, sampler, Rows(), rewards([even]), **{**given, **options})
    return rollout, sampler, updates


@pytest.fixture
def opened() -> Iterator[list[Ahead]]:
    rollouts: list[Ahead] = []
    yield rollouts
    for ahead in rollouts:
        ahead.close()
    assert not [t for t in threading.enumerate() if t.name == "ahead"]


def learn(ahead, updates: Counter, steps: int) -> list[Collected]:
    """Take batches; each is an update."""
    out = []
    for _ in range(steps):
        out.append(ahead())
        updates.number += 1
    return out


def same(a: Collected, b: Collected) -> bool:
    tensors = [(x, y) for x, y in zip(vars(a.batch).values(), vars(b.batch).values(), strict=True)]
    rows = [[{**s, "version": None} for s in c.samples] for c in (a, b)]
    return rows[0] == rows[1] and all(
        y is None if x is None else torch.equal(x, y) for x, y in tensors
    )


def settled(ahead: Ahead) -> None:
    """All that was asked for is there."""
    while not all(f.done() for f in ahead.pending):
        time.sleep(0.005)


def interrupt() -> None:
    """Ctrl-C."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_batches_are_those_of_the_plain_rollout_in_its_order(opened, k) -> None:
    plain, _, updates = parts()
    expected = learn(plain, updates, 6)
    rollout, _, updates = parts()
    opened.append(ahead := Ahead(rollout, k, rollout.sampler, updates))
    assert all(map(same, learn(ahead, updates, 6), expected))


@pytest.mark.parametrize("k", [1, 3])
def test_at_most_k_batches_wait_and_tokens_are_at_most_k_updates_old(opened, k) -> None:
    rollout, sampler, updates = parts()
    opened.append(ahead := Ahead(rollout, k, sampler, updates, total=8))
    ages = []
    for step in range(8):
        ages.append(ahead().metrics)
        assert sampler.calls <= min(step + k + 1, 8)
        # the learner is slow, so the thread gets as far ahead as it may
        settled(ahead)
        assert len(ahead.pending) == min(k, 7 - step)
        updates.number += 1
    assert [m["staleness/max"] for m in ages] == [min(k, step) for step in range(8)]
    assert [m["staleness/mean"] for m in ages] == [min(k, step) for step in range(8)]
    assert all(m["staleness/dropped"] == 0 for m in ages) and sampler.calls == 8


def test_the_thread_reads_the_policy_only_while_it_stands_still(opened) -> None:
    rollout, sampler, updates = parts()
    opened.append(ahead := Ahead(rollout, 1, sampler, updates))
    for _ in range(2):
        ahead()
        assert sampler.policy.locked()
    assert ahead.resting(lambda x: (x, sampler.policy.locked(), len(ahead.pending)))(3) == (
        (3, False, 1)
    )
    assert sampler.policy.locked()


def test_an_evaluation_waits_for_the_thread(opened) -> None:
    rollout, sampler, updates = parts()
    opened.append(ahead := Ahead(rollout, 1, sampler, updates))
    ahead()
    settled(ahead)
    sampler.go.clear()
    ahead()
    threading.Timer(0.2, sampler.go.set).start()
    assert ahead.resting(lambda: [f.done() for f in ahead.pending])() == [True]


def test_groups_that_are_too_old_are_corrected_dropped_or_refused(opened) -> None:
    """The second call's tokens are five updates older than the script says."""
    batches = {}
    for stale in (Correct(), Drop(), Refuse()):
        rollout, sampler, updates = parts()
        sampler.older[2] = 5
        opened.append(ahead := Ahead(rollout, 1, sampler, updates, stale=stale))
        ahead()
        settled(ahead)
        updates.number += 1
        if stale == Refuse():
            with pytest.raises(UserError, match="6 of 6 rows .* a larger --ahead"):
                ahead()
            continue
        batches[stale] = ahead()
    kept, dropped = batches[Correct()], batches[Drop()]
    assert kept.metrics["staleness/max"] == dropped.metrics["staleness/max"] == 6
    assert kept.batch.mask.any(1).all() and not dropped.batch.mask.any()
    assert (kept.metrics["staleness/dropped"], dropped.metrics["staleness/dropped"]) == (0, 2)
    assert not dropped.batch.logp.any() and not dropped.batch.reward.any()


def test_one_old_row_takes_its_group_along() -> None:
    rollout, *_ = parts()
    batch = rollout().batch
    old = torch.tensor([False, False, False, True, True, True])
    learned = Drop()(batch, old)
    assert learned.mask.any(1).tolist() == [True] * 3 + [False] * 3
    assert torch.equal(learned.reward[:3], batch.reward[:3])


def test_a_dropped_batch_changes_nothing() -> None:
    rollout, *_ = parts()
    batch = rollout().batch
    learner = Learner(rollout.policy, logpi.algorithm("grpo", beta=0), trust=Trust(sampler=False))
    before = [p.clone() for p in rollout.policy.parameters()]
    learner.update(Drop()(batch, torch.ones(len(batch), dtype=torch.bool)))
    assert all(map(torch.equal, before, rollout.policy.parameters())) and learner.updates == 1


@pytest.mark.parametrize("under_way", [False, True])
def test_a_resumed_run_learns_from_the_same_batches(opened, tmp_path, under_way) -> None:
    """Batches that were ready come from the checkpoint, one that was under way is collected
    again."""
    plain, _, updates = parts()
    expected = learn(plain, updates, 7)
    rollout, sampler, updates = parts()
    opened.append(ahead := Ahead(rollout, 2, sampler, updates))
    learn(ahead, updates, 3)
    settled(ahead)
    if under_way:
        sampler.go.clear()
        ahead()
        updates.number += 1
    state = ahead.state_dict()
    assert len(state["pending"]) == (1 if under_way else 2)
    save(state, tmp_path / "state")
    done = updates.number
    again, sampler, updates = parts()
    updates.number = done
    opened.append(resumed := Ahead(again, 2, sampler, updates))
    resumed.load_state_dict(load(tmp_path / "state"))
    assert len(resumed.state_dict()["pending"]) == len(state["pending"])
    assert all(map(same, learn(resumed, updates, 7 - done), expected[done:]))
    assert sampler.calls >= 7 - done - len(state["pending"])


def test_an_error_in_the_thread_is_raised_by_the_call_that_wants_the_batch(opened) -> None:
    rollout, sampler, updates = parts(fails=3)
    opened.append(ahead := Ahead(rollout, 2, sampler, updates))
    learn(ahead, updates, 2)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="call of the script"):
            ahead()
    # what came before it can still be saved, and nothing came after it
    assert ahead.state_dict()["pending"] == [] and sampler.calls == 3


def test_closing_ends_what_is_under_way(opened) -> None:
    rollout, sampler, updates = parts()
    ahead = Ahead(rollout, 2, sampler, updates)
    ahead()
    settled(ahead)
    sampler.go.clear()
    ahead()
    begin = time.perf_counter()
    ahead.close()
    assert time.perf_counter() - begin < 2


def test_an_interrupt_while_it_waits_ends_it(opened) -> None:
    rollout, sampler, updates = parts()
    sampler.go.clear()
    opened.append(ahead := Ahead(rollout, 1, sampler, updates))
    threading.Timer(0.2, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        ahead()
    assert ahead.state_dict()["pending"] == [] and ahead.learning


def test_a_sampler_must_have_weights_of_its_own_and_say_which(opened) -> None:
    rollout, sampler, updates = parts()
    with pytest.raises(UserError, match="--ahead needs a sampler with weights of its own"):
        Ahead(rollout, 1, sampler.engine, updates)
    with pytest.raises(ValueError, match="at least 1 ahead, not 0"):
        Ahead(rollout, 0, sampler, updates)
    rollout.sampler = sampler.engine
    opened.append(ahead := Ahead(rollout, 1, sampler, updates))
    with pytest.raises(UserError, match="does not say which weights sampled a token"):
        ahead()


# --- ranks ---


def on_a_rank() -> list[tuple[list, list, dict[str, float]]]:
    from logpi.distributed.world import current

    rollout, sampler, updates = parts()
    out = []
    with Ahead(rollout, 2, sampler, updates) as ahead:
        for _ in range(4):
            collected = ahead()
            # the learner's own exchange, meanwhile
            assert current().gather(updates.number) == [updates.number] * current().size
            updates.number += 1
            ids = [s["ids"] for s in collected.samples]
            settled(ahead)
            out.append((ids, collected.batch.mask.tolist(), collected.metrics["staleness/max"]))
    return out


def fails_on_a_rank() -> str:
    from logpi.distributed.world import current

    fails = 2 if current().first else -1
    rollout, sampler, updates = parts(fails=fails)
    with Ahead(rollout, 2, sampler, updates) as ahead:
        try:
            learn(ahead, updates, 5)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def both_on_a_rank() -> tuple[list, str]:
    return on_a_rank(), fails_on_a_rank()


def test_ranks_hold_the_same_batches_and_an_error_on_one_ends_all() -> None:
    (batches, first), (others, second) = on_ranks(2, both_on_a_rank)
    assert batches == others == on_a_rank()
    assert first == "ZeroDivisionError: call of the script"
    assert second == "RunError: rank 0: ZeroDivisionError: call of the script"


# --- jobs ---


@pytest.fixture
def fake() -> Iterator[FakeVLLM]:
    server = FakeVLLM(policy_of())
    yield server
    server.kill()


def job(fake: FakeVLLM, out: Path | None, **options) -> logpi.RL:
    given = {
        "model": policy_of(),
        "task": [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(120)],
        "rewards": [even],
        "sampler": f"vllm:{fake.url}",
        "ahead": 1,
        "steps": 5,
        "prompts": 3,
        "num_generations": 3,
        "max_completion_length": 6,
        "lr": 1e-2,
        "eval_items": 3,
        "eval_every": 2,
        "save_every": 2,
        "out": out,
    }
    return logpi.RL(**{**given, **options})


def metrics(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def test_a_job_samples_ahead(fake, tmp_path) -> None:
    """Ages, gaps and corrections are logged; ratios are 1 before the first step."""
    job(fake, tmp_path / "run").run()
    rows = metrics(tmp_path / "run")
    assert [r["staleness/max"] for r in rows[:1]] == [0] and len(rows) == 5
    assert all(0 <= r["staleness/mean"] <= r["staleness/max"] <= 1 for r in rows)
    assert any(r["staleness/max"] == 1 and r["gap_sampler/mean"] > 1e-4 for r in rows[1:])
    assert all(r["gap_old/max"] < 1e-6 for r in rows)
    assert all(0.5 < r["correction/mean"] < 2 and 0 <= r["correction/capped"] < 1 for r in rows)
    assert all(r["gap_sync"] < 1e-5 for r in rows)


def test_a_job_without_it_is_the_plain_job(fake, tmp_path) -> None:
    job(fake, tmp_path / "own", sampler="own", ahead=0).run()
    job(fake, tmp_path / "vllm", **{"ahead": 0}).run()
    ids = [
        [json.loads(x)["ids"] for f in sorted(d.glob("step-*")) for x in f.read_text().splitlines()]
        for d in (tmp_path / "own/samples", tmp_path / "vllm/samples")
    ]
    assert ids[0] == ids[1] and "staleness/max" not in metrics(tmp_path / "vllm")[0]


def test_a_job_that_was_left_goes_on_with_its_pending_batches(fake, tmp_path) -> None:
    for step in job(fake, tmp_path / "run", steps=6, ahead=2):
        if step.number == 3:
            break
    fake.kill()
    fake.start()
    job(fake, None, resume=tmp_path / "run", steps=6, ahead=2).run()
    rows = metrics(tmp_path / "run")
    assert [r["step"] for r in rows] == [*range(1, 7)]
    assert all(r["staleness/max"] <= 2 for r in rows)


def test_ctrl_c_saves_and_the_job_goes_on(fake, tmp_path) -> None:
    """The signal comes while the thread judges its third batch."""
    calls = []

    def judge(prompts, completions, **_) -> list[float]:
        calls.append(prompts)
        if len(calls) == 4:
            interrupt()
        return even(prompts, completions)

    with pytest.raises(Stopped, match="stopped after step"):
        job(fake, tmp_path / "run", rewards=[judge], eval_every=0).run()
    stopped = len(metrics(tmp_path / "run"))
    assert stopped < 5 and not [t for t in threading.enumerate() if t.name == "ahead"]
    job(fake, None, resume=tmp_path / "run", rewards=[judge], eval_every=0).run()
    assert [r["step"] for r in metrics(tmp_path / "run")] == [*range(1, 6)]


def test_when_all_servers_are_gone_the_job_is_saved(fake, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("logpi.engine.vllm.sampler.PATIENCE", 0.3)
    steps = iter(job(fake, tmp_path / "run", eval_every=0))
    next(steps)
    fake.wrong.dies_after = 2
    with pytest.raises(SamplerLost, match=r"no vLLM server answers: .* is saved; resume with"):
        list(steps)
    assert not [t for t in threading.enumerate() if t.name == "ahead"]


def test_what_cannot_be_sampled_ahead_is_one_line(fake, tmp_path) -> None:
    for options, match in (
        ({"sampler": "own"}, "ahead needs a sampler with weights of its own"),
        ({"sampler": Engine(policy_of())}, "ahead needs a sampler with weights of its own"),
        ({"mask_observations": False}, "mask_observations=False reads the policy"),
        ({"stale": "dropp"}, "did you mean"),
    ):
        with pytest.raises(UserError, match=match):
            job(fake, tmp_path / "bad", **options).run()
        assert not (tmp_path / "bad").exists()


def test_the_flag_is_async() -> None:
    from logpi.jobs.options.command_line import CommandLine

    words = ["--model", "m", "--async", "2", "--stale", "drop"]
    assert CommandLine(logpi.RL, "logpi rl").options(words)["ahead"] == 2
    assert logpi.RL(model="m", **{"async": 2}).ahead == 2

"""vLLM itself, where LOGPI_VLLM_PYTHON names the interpreter of an environment that has it
(scripts/vllm_cpu.sh makes one): gaps before and after updates, turns, kills, hangs, a run.

    LOGPI_VLLM_PYTHON=DIR/bin/python python -m pytest -q -s tests/engine/test_vllm_real.py

It prints its figures. Left out: GPUs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import logpi
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.engine.turns import Continuation
from logpi.engine.vllm.launch import ServerProcess
from logpi.engine.vllm.sampler import VLLMSampler
from logpi.engine.vllm.server import started
from logpi.engine.vllm.weights import Files
from logpi.envs.conversation import Reply
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.rewards import rewards as make_rewards

PYTHON = os.environ.get("LOGPI_VLLM_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="LOGPI_VLLM_PYTHON names no vLLM")
SAMPLING = Sampling(max_tokens=24)


def make_policy(**options) -> CausalLM:
    """Heads of 32: vLLM's CPU build has no kernels for narrower ones. Its output layer is tied."""
    return small_policy(string.printable, width=64, layers=2, heads=2, **options)


def processes(marks: str = "vllm|VLLM") -> dict[int, str]:
    """Processes that are vLLM's, by what they call themselves."""
    out = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True).stdout
    lines = [line.split(None, 2) for line in out.splitlines()[1:]]
    return {
        int(pid): args for pid, stat, args in lines if "Z" not in stat and re.search(marks, args)
    }


class Live:
    """A server of our own, its policy, and updates of it."""

    def __init__(self) -> None:
        before = processes()
        self.policy, self.updates = make_policy(temperature=0.8), 0
        save = self.policy.save
        self.process = ServerProcess(PYTHON, save, "files", {"dtype": "float32"})
        begin = time.perf_counter()
        server = started(self.process, 600)
        print(f"\nvLLM {self.process.version} is up in {time.perf_counter() - begin:.0f} s")
        self.sampler = VLLMSampler(
            self.policy, [server], Files(save), version=lambda: self.updates, hang=15
        )
        self.own = set(processes()) - set(before)
        self.generate()

    @torch.no_grad()
    def update(self, size: float = 0.05) -> None:
        self.updates += 1
        generator = torch.Generator().manual_seed(self.updates)
        for p in self.policy.parameters():
            p.mul_(1 + size * torch.randn(p.shape, generator=generator))

    def generate(self, n: int = 6, sampling: Sampling = SAMPLING, **more):
        prompts = [self.policy.render(f"{a} + {a + 1} =") for a in range(6)]
        requests = [Request(p, n) for p in prompts] + [Request(prompts[0], 1, greedy=True)]
        return requests, self.sampler.generate(
            requests, sampling, torch.Generator().manual_seed(5), **more
        )

    def gaps(self, requests, groups) -> torch.Tensor:
        """|Δ| of every token, against the policy of the moment."""
        from logpi.engine.sampling import seeded
        from logpi.engine.vllm.rows import own_logp, rows_of

        rows = rows_of(seeded(requests, None), [1] * len(requests), [1] * len(requests))
        completions = [c for group in groups for c in group]
        for row, completion in zip(rows, completions, strict=True):
            row.ids += completion.tokens.tolist()
            row.own += [True] * len(completion.tokens)
        theirs = torch.cat([c.logp for c in completions])
        return (torch.cat(own_logp(self.policy, rows)) - theirs).abs()


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    made = Live()
    yield made
    made.sampler.close()
    time.sleep(1)
    assert not made.own & set(processes()), "something of vLLM was left behind"


def tokens(groups) -> list[list[int]]:
    return [c.tokens.tolist() for group in groups for c in group]


def test_log_probabilities_are_the_policys_before_and_after_updates(live) -> None:
    for size in (0.0, 0.05, 0.05, 0.001):
        if size:
            live.update(size)
        live.sampler.metrics()
        requests, groups = live.generate()
        gaps, numbers = live.gaps(requests, groups), live.sampler.metrics()
        print(
            f"update {live.updates}: {len(gaps)} tokens, gap mean {gaps.mean():.1e} max"
            f" {gaps.max():.1e} nats, {numbers}"
        )
        assert gaps.mean() < 1e-5 and gaps.max() < 1e-3
        assert {int(v) for g in groups for c in g for v in c.version} == {live.updates}
        greedy = Engine(live.policy).generate(requests[-1:], SAMPLING)
        assert tokens(greedy) == tokens(groups[-1:])


def test_stop_strings_end_rows_as_in_our_decoder(live) -> None:
    _, groups = live.generate(sampling=Sampling(max_tokens=40, stop=("1", "a", "Zz")))
    texts = [live.policy.tokenizer.decode(t) for t in tokens(groups)]
    reasons = [c.stop for group in groups for c in group]
    assert {"stop", "length"} <= set(reasons)
    for text, reason in zip(texts, reasons, strict=True):
        assert ("1" in text or "a" in text) == (reason == "stop"), (text, reason)
        assert not ("1" in text[:-5] or "a" in text[:-5])


def test_truncated_sampling_has_the_whole_distributions_log_probabilities(live) -> None:
    requests, groups = live.generate(sampling=Sampling(max_tokens=24, top_p=0.5))
    assert live.gaps(requests, groups).max() < 1e-3


def test_turns(live) -> None:
    observation = live.policy.tokenizer(" (7) ", add_special_tokens=False)["input_ids"]
    turns: dict[int, int] = {}

    def on_turn_end(ended, wait):
        out = []
        for end in ended:
            turns[end.row] = turns.get(end.row, 0) + 1
            over = turns[end.row] == 3 or end.left < 1
            out.append(Continuation(end.row, None if over else observation))
        return out

    sampling = Sampling(max_tokens=40, stop=tuple("0123456789abcdef"))
    _, groups = live.generate(sampling=sampling, on_turn_end=on_turn_end)
    first = dict(turns)
    turns.clear()
    _, again = live.generate(sampling=sampling, on_turn_end=on_turn_end)
    assert tokens(groups) == tokens(again) and first == turns and max(turns.values()) == 3
    print(f"{sum(turns.values())} turns of {len(turns)} rows, twice the same tokens")


@pytest.mark.parametrize("victim", ["EngineCore", "Worker", "serve", "hang"])
def test_a_killed_or_hung_server_loses_and_doubles_nothing(live, victim) -> None:
    """The same tokens as without the fault, from a server that was started anew and has the
    weights again."""
    whole = Sampling(max_tokens=150)
    live.process.starts = 1
    live.update()
    _, expected = live.generate(sampling=whole)
    name = "Worker" if victim == "hang" else victim
    pids = [p for p, args in processes(name).items() if p in live.own and "supervise" not in args]
    assert pids, f"no {name} among {[processes().get(p) for p in live.own]}"
    number = signal.SIGSTOP if victim == "hang" else signal.SIGKILL
    timer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -{int(number)} {pids[0]}"])
    before, begin = set(processes()), time.perf_counter()
    _, groups = live.generate(sampling=whole)
    timer.wait()
    seconds = time.perf_counter() - begin
    same = sum(a == b for a, b in zip(tokens(groups), tokens(expected), strict=True))
    print(f"{victim}: {same} of {len(tokens(expected))} rows the same, {seconds:.0f} s more")
    assert same == len(tokens(expected))
    assert live.process.starts == 2
    live.own |= set(processes()) - before


def test_a_run_and_its_death(tmp_path) -> None:
    """Some steps with turns through `--sampler vllm`; when the run is killed nothing stays."""
    before = set(processes())
    run = logpi.RL(
        model=make_policy(),
        task=Counting(),
        sampler="vllm",
        vllm_python=PYTHON,
        steps=4,
        prompts=3,
        num_generations=4,
        max_completion_length=30,
        lr=3e-3,
        eval_items=2,
        out=tmp_path / "run",
    )
    run.run()
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "loss" in row:
            kept = ("version/max", "gap_sampler/mean", "gap_sampler/max", "gap_sync", "time/sync")
            print({k: row[k] for k in ("step", "reward", "turns/mean", *kept)})
            assert row["gap_sampler/mean"] < 1e-5 and row["version/max"] == row["step"] - 1
    assert not set(processes()) - before


def test_a_run_that_samples_ahead(tmp_path) -> None:
    """Weights go while rows are sampled, which are read again under them, and no server is lost."""
    before = set(processes())
    run = logpi.RL(
        model=make_policy(),
        task=[{"prompt": f"{a} and {a + 1}:"} for a in range(64)],
        rewards=[_digits],
        sampler="vllm",
        vllm_python=PYTHON,
        ahead=1,
        steps=12,
        num_generations=8,
        max_completion_length=96,
        lr=3e-3,
        eval_items=2,
        eval_every=0,
        out=tmp_path / "run",
    )
    run.run()
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    for row in rows:
        kept = ("staleness/mean", "staleness/max", "gap_sampler/mean", "gap_sync", "time/sync")
        print({k: row[k] for k in ("step", "reward", "step_time", "time/rollout", *kept)})
        assert row["staleness/max"] <= 1 and 0 < row["gap_sync"] < 1e-5
    assert not set(processes()) - before


class Counting:
    """A task whose environment says how many characters a turn had, up to three times."""

    name = "counting"
    env: Counting

    def __init__(self) -> None:
        self.env = self
        self.reward = make_rewards([_digits])
        self.stop, self.tools = tuple("0123456789"), ()

    def rows(self, split="train", seed=0):
        return [{"prompt": f"{a} and {a + 1}:"} for a in range(40)]

    def start(self, row):
        return _Conversation(row["prompt"])


class _Conversation:
    def __init__(self, prompt: str) -> None:
        self.prompt, self.turns = prompt, 0

    def reply(self, text: str) -> Reply:
        self.turns += 1
        return Reply(f" [{len(text)}] ", done=self.turns == 3, metrics={"tool_calls": 1})


def _digits(prompts, completions, **_) -> list[float]:
    return [float(sum(c.isdigit() for c in text)) for text in completions]


def test_when_the_run_is_killed_nothing_of_the_server_stays(tmp_path) -> None:
    before = set(processes())
    script = f"""
import string, time
from pathlib import Path
from logpi.policies.small import small_policy
from logpi.engine.vllm.launch import ServerProcess
policy = small_policy(string.printable, width=64, layers=2, heads=2)
weights, options = Path({str(tmp_path / "weights")!r}), {{"dtype": "float32"}}
process = ServerProcess({PYTHON!r}, policy.save, "files", options, remove=[weights])
process.start()
print(process.home, flush=True)
time.sleep(1000)
"""
    (tmp_path / "weights").mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert parent.stdout is not None
    home = Path(parent.stdout.readline().strip())
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        new = {p: a for p, a in processes().items() if p not in before}
        if any("EngineCore" in a for a in new.values()):
            break
        time.sleep(0.5)
    parent.kill()
    begin = time.monotonic()
    while set(processes()) - before and time.monotonic() < begin + 30:
        time.sleep(0.2)
    left = {p: a for p, a in processes().items() if p not in before}
    print(f"{len(new)} processes gone {time.monotonic() - begin:.1f} s after the run's SIGKILL")
    assert not left and not home.exists() and not (tmp_path / "weights").exists()

"""Captured steps against plain ones. In place of a CUDA graph: a trace of the tensor operations,
run again by torch.fx.

Like a graph, a trace knows fixed tensors and sizes and nothing of the Python that made it.
"""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from logpi.engine.cuda_graphs import CapturedSteps, again
from logpi.engine.engine import Engine
from logpi.engine.kv_cache import Cache, DecodeStep
from logpi.engine.sampling import Request, Sampling
from logpi.engine.turns import Continuation
from logpi.policies.causal_lm import CausalLM
from tests.engine.test_engine import endless, make, prompts, same, seed
from tests.tiny import KINDS


class Traces:
    """A `Capture`; counts what it recorded and what was replayed."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self, run):
        result = run().clone()  # as with a graph: run before it is recorded
        trace = make_fx(run)()
        self.made += 1

        def replay() -> None:
            self.replayed += 1
            result.copy_(trace())

        return replay, result


@pytest.fixture(autouse=True)
def modules_decode(monkeypatch):
    """As on a GPU: no copy of the weights."""
    monkeypatch.setattr("logpi.engine.generation.decoder", lambda policy, *_: policy)


REQUESTS = [(5, 3), (2, 1), (9, 7), (1, 2), (30, 4)]  # tokens of the prompt, samples


def asked() -> list[Request]:
    return [
        Request(p, n=n)
        for p, (_, n) in zip(prompts(*(k for k, _ in REQUESTS)), REQUESTS, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_are_the_plain_ones(kind):
    policy, capture = make(kind), Traces()
    sampling = Sampling(max_tokens=30)
    plain = Engine(policy, slots=5).generate(asked(), sampling, seed())
    replayed = Engine(policy, slots=5, capture=capture).generate(asked(), sampling, seed())
    assert same(plain, replayed)
    for a, b in zip(plain, replayed, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x.logp, y.logp, atol=2e-5, rtol=0)
    assert (
        capture.made <= 4 and capture.replayed > 10 * capture.made
    )  # rows in 1, 2, 4, 5; columns in 256


def test_recordings_last_while_weights_change_in_place():
    policy, capture = make(), Traces()
    engine = Engine(policy, slots=8, capture=capture)
    engine.generate(asked(), Sampling(max_tokens=12), seed())
    made = capture.made
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.1)
    again_ = engine.generate(asked(), Sampling(max_tokens=12), seed())
    assert capture.made == made
    assert same(again_, Engine(policy, slots=8).generate(asked(), Sampling(max_tokens=12), seed()))


def test_recordings_of_weights_that_moved_are_forgotten():
    policy, capture = make(), Traces()
    engine = Engine(policy, slots=8, capture=capture)
    engine.generate(asked(), Sampling(max_tokens=12), seed())
    made = capture.made
    for p in policy.parameters():
        p.data = p.data * 1.1
    replayed = engine.generate(asked(), Sampling(max_tokens=12), seed())
    assert capture.made > made
    assert same(
        replayed, Engine(policy, slots=8).generate(asked(), Sampling(max_tokens=12), seed())
    )


def test_a_cache_that_grows_takes_its_recordings_with_it():
    policy, capture = endless(make()), Traces()
    engine = Engine(policy, slots=3, capture=capture)
    engine.generate([Request(prompts(4)[0], n=3)], Sampling(max_tokens=5), seed())
    short = engine.cache.length
    long = [Request(prompts(4)[0], n=3)]
    policy.context = 400
    replayed = engine.generate(long, Sampling(max_tokens=300), seed(1))
    assert engine.cache.length > short
    assert same(replayed, Engine(policy, slots=3).generate(long, Sampling(max_tokens=300), seed(1)))


def refuse(run):
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def mislead(run):
    """A replay that does nothing."""
    return (lambda: None), torch.zeros_like(run())


@pytest.mark.parametrize(
    "capture,cause",
    [
        (refuse, "operation not permitted when stream is capturing"),
        (mislead, "a replay finds other numbers"),
    ],
)
def test_what_cannot_be_recorded_is_run(capture, cause, recwarn):
    policy = make()
    engine = Engine(policy, slots=4, capture=capture)
    replayed = engine.generate(asked(), Sampling(max_tokens=12), seed())
    assert same(
        replayed, Engine(policy, slots=4).generate(asked(), Sampling(max_tokens=12), seed())
    )
    told = [str(w.message) for w in recwarn if "cannot be recorded" in str(w.message)]
    assert told == [f"steps of this model cannot be recorded, so decoding is slower: {cause}"]


def test_rows_that_fill_up_touch_no_slot():
    """Three rows in a recording of four: slot 3, where another row waits for a reply, stays as it
    is."""
    policy: CausalLM = make()
    cache, captured = Cache(), CapturedSteps(6, again)
    cache.reserve(7, 256, 256)
    with torch.no_grad():
        first = DecodeStep(cache, torch.arange(6), torch.zeros(6, dtype=torch.long), 1)
        policy.by_modules(first, torch.arange(4, 10), first.position)
        before = [x[3:6].clone() for pair in cache.layers.values() for x in pair]
        step = DecodeStep(cache, torch.arange(3), torch.ones(3, dtype=torch.long), 2)
        found = captured.hidden(policy, step, torch.arange(10, 13), 256)
        plain = policy.by_modules(step, torch.arange(10, 13), step.position)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)
    after = [x[3:6] for pair in cache.layers.values() for x in pair]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


class Slow:
    """An `on_turn_end` that continues every turn with the same tokens, some calls later; at most
    three times a row."""

    def __init__(self) -> None:
        self.due: list[tuple[int, int]] = []
        self.calls, self.turns = 0, {}

    def __call__(self, ended, wait: bool) -> list[Continuation]:
        for turn in ended:
            self.turns[turn.row] = self.turns.get(turn.row, 0) + 1
            self.due.append((self.calls + 3, turn.row))
        self.calls += 1
        rows = [row for at, row in self.due if wait or at <= self.calls]
        self.due = [x for x in self.due if x[1] not in rows]
        return [Continuation(row, (7, 8, 9) if self.turns[row] <= 3 else None) for row in rows]


def test_rows_that_wait_for_a_reply_are_left_alone():
    policy, capture = make(), Traces()
    sampling = Sampling(max_tokens=40, stop=("a", "e", "i", "1", "2", "3"))
    plain = Engine(policy, slots=6).generate(asked(), sampling, seed(), on_turn_end=Slow())
    slow = Slow()
    replayed = Engine(policy, slots=6, capture=capture).generate(
        asked(), sampling, seed(), on_turn_end=slow
    )
    assert same(plain, replayed) and capture.replayed > 50 and max(slow.turns.values()) > 1

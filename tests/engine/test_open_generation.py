"""Rows that join and leave: each samples what `Engine` does for its seed, whatever is beside it."""

from __future__ import annotations

import random

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.open_generation import OpenGeneration
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer

WARM, COLD, NARROW = Sampling(temperature=1.0), Sampling(temperature=0.5), Sampling(top_k=3)


def opened(policy: CausalLM, **settings) -> OpenGeneration:
    engine = Engine(policy, slots=settings["slots"])
    return OpenGeneration(policy, engine.cache, engine.captured, **settings)


def policy_of(kind: str = "llama") -> CausalLM:
    return CausalLM(tiny_model(kind), tiny_tokenizer())


def alone(policy: CausalLM, request: Request, sampling: Sampling) -> list[list[int]]:
    [rows] = Engine(policy).generate([request], sampling)
    return [row.tokens.tolist() for row in rows]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_rows_sample_what_they_would_alone(kind: str) -> None:
    """A dozen requests of all kinds come at random times into four slots, and numbers are used
    again."""
    chance, policy = random.Random(0), policy_of(kind)
    with torch.inference_mode():
        generation = opened(policy, slots=4, rows=8, longest=64)
        waiting = [
            (
                Request(
                    [1, *(chance.randrange(4, 99) for _ in range(chance.randint(1, 9)))],
                    n=chance.randint(1, 3),
                    greedy=i % 4 == 0,
                    max_tokens=chance.randint(1, 12),
                ),
                chance.choice([WARM, COLD, NARROW]),
            )
            for i in range(12)
        ]
        kept, made, owner = [], {}, {}
        while waiting or not generation.idle:
            while (
                waiting and len(generation.free_rows) >= waiting[0][0].n and chance.random() < 0.6
            ):
                request, sampling = waiting.pop(0)
                seeds = tuple(chance.randrange(2**40) for _ in range(request.n))
                request = Request(
                    request.prompt, request.n, request.greedy, request.max_tokens, seeds
                )
                for i, row in enumerate(generation.join(request, sampling)):
                    owner[row] = (len(kept), i)
                kept.append((request, sampling))
            steps = generation.step()
            for s in steps:
                made.setdefault(owner[s.row], []).append(s.token)
            generation.leave([s.row for s in steps if s.end])
    assert sorted(generation.free_rows) == sorted(generation.free_prompts) == list(range(8))
    for number, (request, sampling) in enumerate(kept):
        own = [made[number, i] for i in range(request.n)]
        assert own == alone(policy, request, sampling)


def test_rows_that_are_dropped_leave_the_others_alone() -> None:
    policy = policy_of()
    request = Request([1, 30, 31], n=4, max_tokens=20, seeds=(1, 2, 3, 4))
    with torch.inference_mode():
        generation = opened(policy, slots=2, rows=6, longest=64)
        rows = generation.join(request, WARM)
        made: dict[int, list[int]] = {row: [] for row in rows}
        for number in range(60):
            steps = generation.step()
            for s in steps:
                made[s.row].append(s.token)
            gone = {s.row for s in steps if s.end}
            # one that is live and one that waits
            gone |= {rows[0], rows[3]} if number == 2 else set()
            generation.leave(gone)
    expected = alone(policy, request, WARM)
    assert made[rows[1]] == expected[1] and made[rows[2]] == expected[2]
    assert len(made[rows[0]]) == 3 and not made[rows[3]] and generation.idle


def test_a_long_prompt_of_several_rows_is_held_once() -> None:
    policy = CausalLM(tiny_model(max_position_embeddings=1024), tiny_tokenizer())
    request = Request([1, *([30, 31, 32] * 100)], n=3, max_tokens=5, seeds=(1, 2, 3))
    with torch.inference_mode():
        generation = opened(policy, slots=4, rows=4, longest=400)
        rows = generation.join(request, WARM)
        made = [generation.step() for _ in range(5)]
        assert generation.prompts.held
    tokens = [[s.token for step in made for s in step if s.row == row] for row in rows]
    assert tokens == alone(policy, request, WARM)


def test_log_probabilities_are_untempered() -> None:
    policy = policy_of()
    request = Request([1, 30, 31], max_tokens=6, seeds=(7,))
    with torch.inference_mode():
        generation = opened(policy, slots=2, rows=2, longest=64)
        generation.join(request, COLD, top=3)
        steps = [s for _ in range(6) for s in generation.step()]
    ids = [1, 30, 31, *(s.token for s in steps)]
    logp = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
    for i, s in enumerate(steps):
        assert s.logp == pytest.approx(float(logp[2 + i, s.token]), abs=1e-5)
        values, tokens = logp[2 + i].topk(3)
        assert [t for t, _ in s.top] == tokens.tolist()
        assert [x for _, x in s.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_logits_that_are_no_numbers() -> None:
    policy = policy_of()
    policy.model.lm_head.weight.data[5] = float("nan")
    with torch.inference_mode():
        generation = opened(policy, slots=2, rows=2, longest=64)
        generation.join(Request([1, 30], max_tokens=6, seeds=(7,)), WARM)
        with pytest.raises(FloatingPointError, match="not numbers"):
            generation.step()

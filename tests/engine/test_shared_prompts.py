"""Long prompts held once while their rows decode: the same tokens and log-probabilities as with
every row holding its own."""

from __future__ import annotations

import pytest
import torch

from logpi.engine import shared_prompts as module
from logpi.engine.engine import Engine
from logpi.engine.kv_cache import GRAIN
from logpi.engine.sampling import Completion, Request, Sampling
from logpi.engine.shared_prompts import SharedStep
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.collate import collate
from logpi.types import Trajectory
from tests.tiny import KINDS, VOCABULARY, tiny_model, tiny_tokenizer

ALWAYS, NEVER = 1, 2**62


def make(kind: str = "llama", **options) -> CausalLM:
    return CausalLM(tiny_model(kind), tiny_tokenizer(), **options)


def texts(*lengths: int) -> list[list[int]]:
    g = torch.Generator().manual_seed(3)
    return [torch.randint(4, VOCABULARY, (n,), generator=g).tolist() for n in lengths]


def sample(policy: CausalLM, requests: list[Request], slots: int) -> list[list[Completion]]:
    return Engine(policy, slots=slots).generate(
        requests, Sampling(max_tokens=30), torch.Generator().manual_seed(0)
    )


def said(out: list[list[Completion]]) -> list[tuple[list[int], str]]:
    return [(c.tokens.tolist(), c.stop) for r in out for c in r]


@pytest.fixture
def joined(monkeypatch) -> list[int]:
    """Rows of each step that shared prompts."""
    steps, plain = [], SharedStep.attend

    def attend(self: SharedStep, layer: int, *rest):
        if layer == 0:
            steps.append(len(self.shared.offset))
        return plain(self, layer, *rest)

    monkeypatch.setattr(SharedStep, "attend", attend)
    return steps


@pytest.mark.parametrize("kind", KINDS)
def test_logp_is_the_learners(kind, monkeypatch, joined):
    monkeypatch.setattr(module, "SAVED", ALWAYS)
    policy = make(kind, temperature=0.8)
    prompts = texts(90, 1, 4, 37)
    requests = [Request(p, n=n) for p, n in zip(prompts, (4, 3, 1, 2), strict=True)]
    out = sample(policy, requests, slots=5)
    rows = []
    for i, (prompt, completions) in enumerate(zip(prompts, out, strict=True)):
        for c in completions:
            obs = torch.cat([torch.tensor(prompt), c.tokens])
            mine = torch.arange(len(obs) - 1) >= len(prompt) - 1
            logp = torch.zeros(len(mine)).masked_scatter(mine, c.logp)
            rows.append(
                Trajectory(obs, obs[1:], mine, torch.zeros(len(mine)), logp, c.stop == "eos", i)
            )
    batch = collate(rows)
    now = policy.evaluate(batch).logp
    torch.testing.assert_close(batch.logp[batch.mask], now[batch.mask], atol=2e-5, rtol=0)
    assert joined


def test_what_a_row_samples_does_not_depend_on_who_holds_its_prompt(monkeypatch, joined):
    policy = make()
    requests = [
        Request(p, n=n) for p, n in zip(texts(70, 2, 110, 70, 30), (3, 1, 7, 2, 4), strict=True)
    ]
    requests.append(
        Request(requests[2].prompt, greedy=True)
    )  # as a baseline: the same prompt again
    monkeypatch.setattr(module, "SAVED", NEVER)
    apart = said(sample(policy, requests, slots=64))
    assert not joined
    monkeypatch.setattr(module, "SAVED", ALWAYS)
    for slots in (64, 5, 3, 2):  # with few, a slot is handed from one prompt's row to another's
        assert said(sample(policy, requests, slots)) == apart
    assert max(joined) > 5
    joined.clear()
    assert said(sample(policy, requests, 1)) == apart and not joined


def test_slots_hold_what_was_sampled_only_and_prompts_go_with_their_rows(monkeypatch):
    kept = []
    plain = module.PromptCache.keep

    def keep(self, *sides):
        plain(self, *sides)
        kept.append(set(self.held))

    monkeypatch.setattr(module.PromptCache, "keep", keep)
    policy = make()
    policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token = None
    engine, prompts = Engine(policy, slots=8), texts(200, 180, 190)
    engine.generate([Request(p, n=8) for p in prompts], Sampling(max_tokens=20))
    assert engine.cache.length == GRAIN
    assert set(map(frozenset, kept)) == {
        frozenset({0}),
        frozenset({1}),
        frozenset({2}),
        frozenset(),
    }


def test_a_prompt_is_shared_where_that_saves_reading():
    def offsets(rows: int, *lengths: int) -> list[int]:
        prompts = [tuple(range(n)) for n in lengths]
        return module.PromptCache(
            make(), torch.device("cpu"), prompts, [rows] * len(prompts)
        ).offset

    assert offsets(8, 75, 74, 3) == [74, 0, 0]
    assert offsets(2, 513, 512) == [512, 0]
    assert offsets(1, 10_000) == [0] == offsets(0, 10_000)

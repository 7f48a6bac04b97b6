"""The decoder against the model's own generate, the policy's own evaluation, and the exact
distribution."""

from __future__ import annotations

import pytest
import torch

from logpi.engine import shared_prompts as prompts_module
from logpi.engine.engine import Engine
from logpi.engine.kv_cache import Cache
from logpi.engine.sampling import Completion, Request, Sampling, draw, invert, seeded, uniform
from logpi.policies.causal_lm import CausalLM
from logpi.policies.packing import pack
from logpi.rollouts.collate import collate
from logpi.types import Trajectory
from tests.tiny import KINDS, VOCABULARY, tiny_model, tiny_tokenizer


def make(kind: str = "llama", **options) -> CausalLM:
    return CausalLM(tiny_model(kind), tiny_tokenizer(), **options)


def endless(policy: CausalLM) -> CausalLM:
    policy.model.generation_config.eos_token_id = policy.tokenizer.eos_token = None
    return policy


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def prompts(*lengths: int) -> list[list[int]]:
    g = seed(3)
    return [torch.randint(4, VOCABULARY, (n,), generator=g).tolist() for n in lengths]


def trajectory(prompt: list[int], completion: Completion, group: int = 0) -> Trajectory:
    obs = torch.cat([torch.tensor(prompt), completion.tokens])
    mine = torch.arange(len(obs) - 1) >= len(prompt) - 1
    logp = torch.zeros(len(obs) - 1)
    logp[mine] = completion.logp
    return Trajectory(
        obs, obs[1:], mine, torch.zeros(len(mine)), logp, completion.stop == "eos", group
    )


def same(a: list[list[Completion]], b: list[list[Completion]]) -> bool:
    pairs = [(x, y) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True)]
    return all(torch.equal(x.tokens, y.tokens) and x.stop == y.stop for x, y in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_generate(kind):
    policy = make(kind)
    texts = prompts(1, 7, 3, 12)
    ours = Engine(policy, slots=3).generate(
        [Request(p, greedy=True) for p in texts], Sampling(max_tokens=20)
    )
    for prompt, (completion,) in zip(texts, ours, strict=True):
        with policy.plain_attention():
            ids = torch.tensor([prompt])
            out = policy.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
            )
        assert completion.tokens.tolist() == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_logp_is_the_learners(kind):
    policy = make(kind, temperature=0.8)
    texts = prompts(9, 1, 4)
    requests = [Request(texts[0], n=4), Request(texts[1], n=3), Request(texts[2], greedy=True)]
    out = Engine(policy, slots=3).generate(requests, Sampling(max_tokens=25), seed())
    batch = collate(
        [trajectory(p, c, i) for i, (p, r) in enumerate(zip(texts, out, strict=True)) for c in r]
    )
    now = policy.evaluate(batch).logp
    torch.testing.assert_close(batch.logp[batch.mask], now[batch.mask], atol=2e-5, rtol=0)


def test_what_a_row_samples_does_not_depend_on_slots_or_neighbours():
    policy = make()
    texts = prompts(5, 2, 9, 5, 30)
    requests = [Request(p, n=n) for p, n in zip(texts, (3, 1, 7, 2, 4), strict=True)]
    sampling = Sampling(max_tokens=30)
    out = Engine(policy, slots=64).generate(requests, sampling, seed())
    for slots in (1, 4, 16):
        assert same(out, Engine(policy, slots=slots).generate(requests, sampling, seed()))
    engine = Engine(policy, slots=5)
    first = engine.generate(requests, sampling, seed())
    engine.generate(requests[:2], sampling, seed(7))
    assert same(
        first, engine.generate(requests, sampling, seed())
    )  # the cache that is kept holds no memory
    alone = Engine(policy, slots=2).generate(requests[:1], sampling, seed())
    assert same(out[:1], alone)
    assert not same(out, engine.generate(requests, sampling, seed(1)))


def test_requests_with_seeds_may_be_sampled_apart():
    policy = make()
    requests = [Request(p, n) for p, n in zip(prompts(3, 5, 4, 6), (2, 3, 1, 4), strict=True)]
    together = Engine(policy).generate(requests, Sampling(max_tokens=12), seed())
    with_seeds = seeded(requests, seed())
    engine = Engine(policy, slots=2)
    apart = [engine.generate([r], Sampling(max_tokens=12))[0] for r in reversed(with_seeds)]
    assert same(together, apart[::-1])
    with pytest.raises(ValueError, match="request 1 has 1 seeds for 2 samples"):
        engine.generate([Request([5]), Request([5], 2, seeds=(3,))])


@pytest.mark.parametrize("kind", KINDS)
def test_what_prompts_open_with_is_read_once_and_changes_nothing(kind, monkeypatch):
    policy = make(kind)
    opening, tails = prompts(40)[0], prompts(9, 1, 4, 2)
    texts = [opening + tail for tail in tails]
    read = []
    monkeypatch.setattr(prompts_module, "pack", lambda *a: read.append(pack(*a)) or read[-1])
    out = Engine(policy).generate([Request(t, n=2) for t in texts], Sampling(max_tokens=20), seed())
    (packed,) = read
    assert len(packed.ids) == 39 + sum(
        len(t) - 40 for t in texts
    )  # of the opening all but what a row keeps as its own
    batch = collate(
        [trajectory(p, c, i) for i, (p, r) in enumerate(zip(texts, out, strict=True)) for c in r]
    )
    now = policy.evaluate(batch).logp
    torch.testing.assert_close(batch.logp[batch.mask], now[batch.mask], atol=2e-5, rtol=0)


def test_a_prompt_that_is_asked_twice_is_read_once_with_few_slots_too(monkeypatch):
    """As an evaluation asks: all items sampled, then all of them greedily. Each item's rows go one
    after the other, seeds stay theirs."""
    policy, texts = make(), prompts(9, 7, 8, 6)
    requests = [Request(t, n=2) for t in texts] + [Request(t, greedy=True) for t in texts]
    many = Engine(policy).generate(requests, Sampling(max_tokens=20), seed())
    read = []
    monkeypatch.setattr(prompts_module, "pack", lambda *a: read.append(pack(*a)) or read[-1])
    few = Engine(policy, slots=2).generate(requests, Sampling(max_tokens=20), seed())
    assert same(many, few) and sum(len(p.ids) for p in read) <= sum(len(t) - 1 for t in texts)


def test_the_cache_grows_no_longer_than_the_longest_row():
    """It doubles, but 60 prompt tokens and 130 more need 192 places and not 256."""
    engine = Engine(endless(make()), slots=3)
    engine.generate([Request(prompts(60)[0], n=3)], Sampling(max_tokens=130), seed())
    assert engine.cache.length == 192


def test_rows_of_a_group_differ_and_limits_are_kept():
    policy = endless(make())
    (prompt,) = prompts(6)
    requests = [
        Request(prompt, n=5),
        Request(prompt, n=2, max_tokens=3),
        Request(prompt, max_tokens=1),
    ]
    many, few, one = Engine(policy, slots=4).generate(requests, Sampling(max_tokens=9), seed())
    assert [len(c.tokens) for c in many + few + one] == [9] * 5 + [3] * 2 + [1]
    assert all(c.stop == "length" for c in many + few + one)
    assert len({tuple(c.tokens.tolist()) for c in many}) == 5


def test_the_end_token_is_part_of_the_completion_and_ends_it():
    policy = make()
    out = Engine(policy).generate(
        [Request(p, n=20) for p in prompts(3, 8)], Sampling(max_tokens=60), seed()
    )
    ended = [c for r in out for c in r if c.stop == "eos"]
    assert len(ended) >= 5
    assert all(c.tokens[-1] == 2 and not (c.tokens[:-1] == 2).any() for c in ended)
    assert all(not (c.tokens == 2).any() for r in out for c in r if c.stop == "length")


def test_stop_strings_end_a_row_and_keep_its_tokens():
    policy = endless(make())
    requests, limit = [Request(p, n=15) for p in prompts(4, 9)], Sampling(max_tokens=40)
    free = [c for r in Engine(policy, slots=7).generate(requests, limit, seed()) for c in r]
    decode = policy.tokenizer.decode
    stop = (decode(free[0].tokens[10:12]), decode(free[1].tokens[5]))
    out = Engine(policy, slots=7).generate(requests, Sampling(max_tokens=40, stop=stop), seed())
    ends = set()
    for got, whole in zip([c for r in out for c in r], free, strict=True):
        ends.add(got.stop)
        assert torch.equal(got.tokens, whole.tokens[: len(got.tokens)])
        found = [n for n in range(1, 41) if any(s in decode(whole.tokens[:n]) for s in stop)]
        assert len(got.tokens) == (found[0] if found else 40)
        assert got.stop == ("stop" if found else "length")
    assert ends == {"stop", "length"}


def test_frequencies_are_the_distribution():
    policy, n = endless(make(temperature=1.5)), 6000
    (prompt,) = prompts(5)
    out = Engine(policy, slots=512).generate(
        [Request(prompt, n=n)], Sampling(max_tokens=2), seed()
    )[0]
    with torch.no_grad(), policy.plain_attention():
        p = (policy.model(torch.tensor([prompt])).logits[0, -1] / 1.5).softmax(-1).double()
    assert_distributed(torch.stack([c.tokens[0] for c in out]), p)
    continued = torch.tensor([[*prompt, first] for first in range(VOCABULARY)])
    with torch.no_grad(), policy.plain_attention():
        after = (policy.model(continued).logits[:, -1] / 1.5).softmax(-1).double()
    assert_distributed(torch.stack([c.tokens[1] for c in out]), p @ after)


def assert_distributed(tokens: torch.Tensor, p: torch.Tensor) -> None:
    """Pearson's chi-square over tokens expected at least 5 times (the rest as one): within 4
    standard deviations."""
    counts, expected = tokens.bincount(minlength=len(p)).double(), p * len(tokens)
    big = expected >= 5
    if not big.all():
        counts = torch.cat([counts[big], counts[~big].sum()[None]])
        expected = torch.cat([expected[big], expected[~big].sum()[None]])
    chi2, degrees = float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1
    assert degrees >= 5 and abs(chi2 - degrees) < 4 * (2 * degrees) ** 0.5, (chi2, degrees)


def test_uniform_numbers_are_uniform_and_independent():
    u = uniform(torch.arange(200).repeat_interleave(500), torch.arange(500).repeat(200))
    assert float(u.min()) >= 0 and float(u.max()) < 1
    assert_distributed((u * 50).long(), torch.full((50,), 0.02).double())
    x = u.view(200, 500) - 0.5
    assert abs(float((x[:, 1:] * x[:, :-1]).mean() * 12)) < 0.015  # along a row, and across rows
    assert abs(float((x[1:] * x[:-1]).mean() * 12)) < 0.015


def test_top_k_and_top_p_keep_what_they_should_and_report_the_whole_distribution():
    p = torch.tensor([[0.4, 0.05, 0.3, 0.2, 0.05]])
    u, logits = (torch.arange(1000) + 0.5) / 1000, p.log().expand(1000, -1)
    cases = {
        (2, 1.0): {0, 2},
        (0, 0.6): {0, 2},
        (0, 0.75): {0, 2, 3},
        (3, 0.5): {0, 2},
        (0, 0.01): {0},
    }
    cases[9, 1.0] = set(range(5))
    for (k, top), kept in cases.items():
        token, logp = draw(logits, u, None, Sampling(top_k=k, top_p=top))
        assert set(token.tolist()) == kept
        torch.testing.assert_close(logp, p[0, token].log())
        mass = p[0, sorted(kept)].sum()
        torch.testing.assert_close((token == 0).float().mean(), p[0, 0] / mass, atol=2e-3, rtol=0)
    assert (
        Sampling(top_k=2).truncated and Sampling(top_p=0.9).truncated and not Sampling().truncated
    )


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([[0.0, -300.0, 0.0, -300.0]]).expand(3, -1)
    token, _ = draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), None, Sampling())
    assert token.tolist() == [0, 2, 2]


def test_a_change_of_the_weights_is_seen_at_once():
    policy = make()
    engine, requests = Engine(policy), [Request(p, greedy=True) for p in prompts(4, 6)]
    before = engine.generate(requests, Sampling(max_tokens=15))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.3)
    after = engine.generate(requests, Sampling(max_tokens=15))
    assert not same(before, after)
    assert same(after, Engine(policy).generate(requests, Sampling(max_tokens=15)))


def test_training_goes_on_after_sampling():
    policy = make(gradient_checkpointing=True)
    (prompt,) = prompts(4)
    out = Engine(policy).generate([Request(prompt, n=3)], Sampling(max_tokens=5), seed())[0]
    assert policy.model.training
    batch = collate([trajectory(prompt, c) for c in out])
    loss = -(torch.exp(policy.evaluate(batch).logp - batch.logp) * batch.logp)[batch.mask].sum()
    loss.backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_sampling_temperature_overrides_the_policys():
    policy = endless(make())
    (prompt,) = prompts(5)
    cold = Engine(policy).generate(
        [Request(prompt, n=50)], Sampling(max_tokens=1, temperature=0.2), seed()
    )[0]
    hot = Engine(policy).generate(
        [Request(prompt, n=50)], Sampling(max_tokens=1, temperature=5.0), seed()
    )[0]
    assert len({int(c.tokens) for c in cold}) < len({int(c.tokens) for c in hot})


def test_mistakes_are_one_clear_line():
    policy = make()
    engine = Engine(policy, slots=2)
    for words, request in {
        "empty": Request([]),
        "shorten": Request([5] * 256),
        "n=0": Request([5], n=0),
        "max_tokens=0": Request([5], max_tokens=0),
    }.items():
        with pytest.raises(ValueError, match=words):
            engine.generate([request])
    wrong = [
        ("temperature", 0.0),
        ("top_p", 0.0),
        ("top_k", -1),
        ("max_tokens", 0),
        ("stop", "x"),
        ("stop", ("",)),
    ]
    for name, bad in wrong:
        with pytest.raises(ValueError, match=name):
            Sampling(**{name: bad})
    with pytest.raises(ValueError, match="slots"):
        Engine(policy, slots=0)
    assert engine.generate([]) == []
    assert (
        len(engine.generate([Request([5] * 250, greedy=True)])[0][0].tokens) <= 6
    )  # the context is the limit


def test_weights_that_are_not_numbers_are_an_error_and_leave_no_trace():
    policy = make()
    engine, request = Engine(policy), [Request([5, 6, 7], n=2)]
    good = engine.generate(request, Sampling(max_tokens=5), seed())
    weight = policy.model.model.norm.weight
    keep = weight.detach().clone()
    weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="diverged"):
        engine.generate(request, Sampling(max_tokens=5), seed())
    weight.data.copy_(keep)
    assert same(good, engine.generate(request, Sampling(max_tokens=5), seed()))


def test_a_cache_that_does_not_fit_says_what_to_do():
    cache = Cache()
    cache.of(0, torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))
    with pytest.raises(MemoryError, match="fewer slots"):
        cache.reserve(1000, 2**45, 2**45)


def test_progress_is_told():
    seen = []
    requests = [Request(p, n=4) for p in prompts(3, 5)]
    Engine(make(), slots=3).generate(
        requests, Sampling(max_tokens=6), seed(), lambda *done: seen.append(done)
    )
    assert seen[-1] == (8, 8) and seen == sorted(seen)


def test_a_model_that_keeps_its_attention_is_decoded_by_its_own_generate():
    model = tiny_model()
    model._supports_attention_backend = False
    with pytest.warns(UserWarning, match="padded"):
        policy = CausalLM(model, tiny_tokenizer(), temperature=0.8)
    texts = prompts(4, 7)
    requests = [Request(texts[0], n=6), Request(texts[1], greedy=True)]
    out = Engine(policy).generate(requests, Sampling(max_tokens=20), seed())
    assert same(out, Engine(policy).generate(requests, Sampling(max_tokens=20), seed()))
    packed = Engine(make(temperature=0.8)).generate(requests[1:], Sampling(max_tokens=20))
    assert torch.equal(out[1][0].tokens, packed[0][0].tokens)
    batch = collate([trajectory(p, c) for p, r in zip(texts, out, strict=True) for c in r])
    torch.testing.assert_close(
        batch.logp[batch.mask], policy.evaluate(batch).logp[batch.mask], atol=2e-5, rtol=0
    )
    stop = policy.tokenizer.decode(out[0][0].tokens[2])
    cut = Engine(policy).generate(requests[:1], Sampling(max_tokens=20, stop=(stop,)), seed())[0][0]
    assert cut.stop == "stop" and len(cut.tokens) <= 3


@pytest.mark.parametrize("size", [3, 1024, 1025, 5000])
def test_inversion_is_exact_for_any_size_of_vocabulary(size):
    p = torch.rand(size, generator=seed()).masked_fill_(
        torch.rand(size, generator=seed(1)) < 0.3, 0
    )
    p[-1], u = 0, torch.rand(4000, generator=seed(2))
    index = invert((p / p.sum()).expand(len(u), -1), u)
    assert (p[index] > 0).all()
    cumulative = p.double().cumsum(0) / p.double().sum()
    assert (u < cumulative[index] + 1e-6).all() and (
        u > cumulative[index] - (p.double() / p.double().sum())[index] - 1e-6
    ).all()
    ends = invert((p / p.sum()).expand(2, -1), torch.tensor([0.0, 1 - 2**-24]))
    assert ends.tolist() == [int(p.nonzero()[0]), int(p.nonzero()[-1])]

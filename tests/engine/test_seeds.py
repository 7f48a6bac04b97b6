"""A row's tokens belong to its seed: shares of a call that are sampled apart are the whole call."""

from __future__ import annotations

import torch

from logpi.engine.engine import Engine, row_seeds
from logpi.engine.sampling import Request, Sampling
from logpi.policies.small import small_policy


def test_shares_of_a_call_are_the_whole_call() -> None:
    policy = small_policy("0123456789+=", width=32, layers=1, heads=2)
    engine, sampling = Engine(policy, slots=4), Sampling(max_tokens=12)
    requests = [Request(policy.render(f"{a}+{a}="), n=1 + a % 3) for a in range(5)]
    seeds = row_seeds(requests, torch.Generator().manual_seed(3)).tolist()
    whole = engine.generate(requests, sampling, torch.Generator().manual_seed(3))
    assert [len(group) for group in whole] == [1, 2, 3, 1, 2]
    first = engine.generate(requests[:2], sampling, seeds=seeds[:3])
    rest = engine.generate(requests[2:], sampling, seeds=seeds[3:])
    for group, same in zip(whole, first + rest, strict=True):
        for a, b in zip(group, same, strict=True):
            assert a.tokens.tolist() == b.tokens.tolist() and a.stop == b.stop
            assert (a.logp - b.logp).abs().max() < 1e-5
            assert a.version is None

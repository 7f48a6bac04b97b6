"""The fallback decoder: the model's own `generate`, one request at a time, for models that keep
their own attention.

It has the interface of `engine.py`, but is slower, and reproducible only on the same version of
`transformers`, which draws from torch's global generator (seeded here, and restored afterwards).

Some models compute other numbers from their cache, or state, than from the whole text on which they
learn (in `transformers` 5.23 RWKV beside another row, and Nemotron-H). They decode without a cache,
after one notice. Left out: more than one turn, which needs a cache that can be extended; the engine
refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from logpi.engine.sampling import Completion, Request, Sampling, draw
from logpi.policies.fast.probe import REFUSALS, agree, notice, sample_rows

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM


def plain_generate(
    policy: CausalLM,
    requests: Sequence[Request],
    limits: Sequence[int],
    sampling: Sampling,
    seeds: Tensor,
    progress: Callable[[int, int], None] | None,
) -> list[list[Completion]]:
    """As `Engine.generate`.

    Args:
        limits: most tokens of a row of each request.
        seeds: [rows] on the CPU. A request uses that of its first row.
    """
    out: list[list[Completion]] = []
    ends = accumulate(r.n for r in requests)
    if policy not in _CACHES:
        with policy.plain_attention(), torch.no_grad():
            _CACHES[policy] = _cache_agrees(policy)
    sample = _with_cache if _CACHES[policy] else _without_cache
    with torch.random.fork_rng(), policy.plain_attention(), torch.no_grad():
        for request, limit, end in zip(requests, limits, ends, strict=True):
            torch.manual_seed(int(seeds[end - request.n]))
            out.append(sample(policy, request, limit, sampling))
            if progress is not None:
                progress(sum(map(len, out)), sum(r.n for r in requests))
    return out


def _with_cache(
    policy: CausalLM, request: Request, limit: int, sampling: Sampling
) -> list[Completion]:
    """By the model's own `generate`."""
    temperature = sampling.temperature or policy.temperature
    choice: dict[str, Any] = {"do_sample": False}
    if not request.greedy:
        choice = {"do_sample": True, "temperature": temperature}
        choice |= {"top_k": sampling.top_k, "top_p": sampling.top_p}
    ids = torch.tensor([list(request.prompt)], device=policy.device).expand(request.n, -1)
    stops = list(policy.eos_ids) or None
    sequences, logits = _generated(policy, ids, limit, eos_token_id=stops, **choice)
    tokens = sequences[:, ids.shape[1] :].cpu()
    logp = (logits.cpu() / temperature).log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return _completions(policy, tokens, logp, sampling)


def _generated(policy: CausalLM, ids: Tensor, limit: int, **settings: Any) -> tuple[Tensor, Tensor]:
    """ids [n, W] and up to `limit` new tokens by the model's own `generate`, [n, W + t]; the new
    tokens' untempered logits [n, t, V]. Rows are padded by token 0 behind their end."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=limit,
        pad_token_id=0,
        repetition_penalty=1.0,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
        **settings,
    )
    out = policy.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out.sequences, torch.stack(out.logits, 1).float()


def _without_cache(
    policy: CausalLM, request: Request, limit: int, sampling: Sampling
) -> list[Completion]:
    """Every step reads the whole text."""
    temperature = sampling.temperature or policy.temperature
    ids = torch.tensor([list(request.prompt)], device=policy.device).expand(request.n, -1)
    greedy = torch.full((request.n,), request.greedy, device=policy.device)
    ended, logps = torch.zeros_like(greedy), []
    while len(logps) < limit and not ended.all():
        logits = policy.model(ids, use_cache=False).logits[:, -1].float() / temperature
        token, logp = draw(logits, torch.rand(request.n, device=policy.device), greedy, sampling)
        ids = torch.cat([ids, token[:, None]], 1)
        ended = ended | torch.isin(token, token.new_tensor(policy.eos_ids))
        logps.append(logp)
    tokens = ids[:, len(request.prompt) :].cpu()
    return _completions(policy, tokens, torch.stack(logps, 1).cpu(), sampling)


def _completions(
    policy: CausalLM, tokens: Tensor, logp: Tensor, sampling: Sampling
) -> list[Completion]:
    """Tokens and logp [n, t], each row up to its end."""
    rows = []
    for row, numbers in zip(tokens, logp, strict=True):
        length, stop = _end(policy, row, sampling)
        rows.append(Completion(row[:length].clone(), numbers[:length].clone(), stop))
    return rows


_CACHES: WeakKeyDictionary[CausalLM, bool] = WeakKeyDictionary()


def _cache_agrees(policy: CausalLM) -> bool:
    """Whether the model computes the same numbers from its cache, token by token and row beside
    row, as from the whole text; a notice if not."""
    ids, model = sample_rows(policy.vocabulary, 0, policy.device), policy.model
    try:
        sequences, stepped = _generated(policy, ids, ids.shape[1], do_sample=False)
        whole = model(sequences[:, :-1], use_cache=False).logits[:, ids.shape[1] - 1 :].float()
        same = agree(stepped, whole, 1e-3 if model.dtype == torch.float32 else 5e-2)
    except REFUSALS:
        # caches of some hybrids fail under `generate`
        same = False
    if not same:
        problem = "computes other numbers from its cache than from a whole text"
        notice(type(model).__name__, problem, "it decodes without a cache, slowly")
    return same


def _end(policy: CausalLM, tokens: Tensor, sampling: Sampling) -> tuple[int, str]:
    """Length and stop reason of a row that `generate` may have continued, or padded, beyond its
    end."""
    eos = set(policy.eos_ids)
    for n, token in enumerate(tokens.tolist(), 1):
        if token in eos:
            return n, "eos"
        if sampling.stop and any(s in policy.tokenizer.decode(tokens[:n]) for s in sampling.stop):
            return n, "stop"
    return len(tokens), "length"

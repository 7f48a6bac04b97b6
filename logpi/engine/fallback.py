"""The fallback decoder: the model's own `generate`, one request at a time, for models that keep
their own attention.

Interface and meaning are those of `engine.py`. It is slower, and reproducible only on the same
version of `transformers`, whose random numbers come from torch's global generator (seeded here, and
restored afterwards).

Some models give other numbers from their cache, or state, than from the whole text, on which they
are trained (in `transformers` 5.23 RWKV beside another row, and Nemotron-H): they decode without a
cache, after one notice. Left out: more than one turn, which needs a cache that can be extended (the
engine refuses it).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from logpi.engine.sampling import Completion, Request, Sampling, draw

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM


def plain_generate(
    policy: CausalLM,
    requests: Sequence[Request],
    limits: Sequence[int],
    sampling: Sampling,
    row_seeds: Sequence[int],
    progress: Callable[[int, int], None] | None,
) -> list[list[Completion]]:
    """As `Engine.generate`; `limits` are the requests' token limits.

    Each row has a seed, as there, though a request uses only its first: a resumed evaluation skips
    one seed for each row that it has.
    """
    ends = accumulate(r.n for r in requests)
    seeds = [row_seeds[end - r.n] for end, r in zip(ends, requests, strict=True)]
    out = []
    if policy not in _CACHES:
        with policy.plain_attention(), torch.no_grad():
            _CACHES[policy] = _cache_agrees(policy)
    sample = _with_cache if _CACHES[policy] else _without_cache
    with torch.random.fork_rng(), policy.plain_attention(), torch.no_grad():
        for request, limit, seed in zip(requests, limits, seeds, strict=True):
            torch.manual_seed(seed)
            out.append(sample(policy, request, limit, sampling))
            if progress is not None:
                progress(sum(map(len, out)), sum(r.n for r in requests))
    return out


def _with_cache(
    policy: CausalLM, request: Request, limit: int, sampling: Sampling
) -> list[Completion]:
    """By the model's own `generate`."""
    from transformers import GenerationConfig

    temperature = sampling.temperature or policy.temperature
    choice: dict[str, Any] = {"do_sample": False}
    if not request.greedy:
        choice = {"do_sample": True, "temperature": temperature}
        choice |= {"top_k": sampling.top_k, "top_p": sampling.top_p}
    config = GenerationConfig(
        max_new_tokens=limit,
        eos_token_id=list(policy.eos_ids) or None,
        pad_token_id=policy.eos_ids[0] if policy.eos_ids else 0,
        repetition_penalty=1.0,
        return_dict_in_generate=True,
        output_logits=True,
        **choice,
    )
    ids = torch.tensor([list(request.prompt)], device=policy.device).expand(request.n, -1)
    out = policy.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens = out.sequences[:, ids.shape[1] :].cpu()
    logits = torch.stack(out.logits, 1).float().cpu() / temperature
    logp = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return _completions(policy, tokens, logp, sampling)


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
# tokens of a probe, after as many of a prompt
STEPS = 16


def _cache_agrees(policy: CausalLM) -> bool:
    """Whether the model gives the same numbers from its cache, token by token and row beside row,
    as from the whole text. A warning if not."""
    from transformers import GenerationConfig

    model = policy.model
    ids = torch.arange(2 * STEPS, device=policy.device) * 7919 + 13
    ids = ids.view(2, STEPS) % policy.vocabulary
    config = GenerationConfig(
        max_new_tokens=STEPS,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    try:
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        stepped = torch.stack(out.logits, 1).float()
        whole = model(out.sequences[:, :-1], use_cache=False).logits[:, STEPS - 1 :].float()
        scale = 1e-3 if model.dtype == torch.float32 else 5e-2
        same = float((stepped - whole).abs().max()) <= scale * (1 + float(whole.abs().max()))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # caches of some hybrids fail under `generate`
        same = False
    if not same:
        name = type(model).__name__
        warnings.warn(
            f"{name} says something else from its cache than of a whole text: it decodes without,"
            " slowly",
            stacklevel=2,
        )
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

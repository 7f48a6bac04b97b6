"""The fallback decoder: the model's own `generate`, one request at a time, for models whose attention is their own.

Same interface and meaning as `engine.py`, slower, and reproducible only on the same version of `transformers`, whose
random numbers are drawn from torch's global generator (seeded here, and put back afterwards).

Left out: turns with a partner, which need a cache that can be gone on with (the engine refuses them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.sampling import Completion, Request, Sampling

__all__ = ["plain_generate"]


def plain_generate(
    policy: CausalLM,
    requests: Sequence[Request],
    limits: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator | None,
    progress: Callable[[int, int], None] | None,
) -> list[list[Completion]]:
    """As `Engine.generate`; `limits` are the requests' token limits.

    The generator gives a seed for each row, as there, though a request needs but its first: an evaluation that goes on passes over
    so many.
    """
    device = generator.device if generator is not None else "cpu"
    rows = torch.randint(2**63 - 1, (sum(r.n for r in requests),), generator=generator, device=device).tolist()
    seeds = [rows[end - r.n] for end, r in zip(accumulate(r.n for r in requests), requests, strict=True)]
    out = []
    with torch.random.fork_rng(), policy.plain_attention(), torch.no_grad():
        for request, limit, seed in zip(requests, limits, seeds, strict=True):
            torch.manual_seed(seed)
            out.append(_rows(policy, request, limit, sampling))
            if progress is not None:
                progress(sum(map(len, out)), sum(r.n for r in requests))
    return out


def _rows(policy: CausalLM, request: Request, limit: int, sampling: Sampling) -> list[Completion]:
    from transformers import GenerationConfig

    temperature = sampling.temperature or policy.temperature
    choice = (
        dict(do_sample=False)
        if request.greedy
        else dict(do_sample=True, temperature=temperature, top_k=sampling.top_k, top_p=sampling.top_p)
    )
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
    rows = []
    for row, numbers in zip(tokens, logp, strict=True):
        length, stop = _end(policy, row, sampling)
        rows.append(Completion(row[:length].clone(), numbers[:length].clone(), stop))
    return rows


def _end(policy: CausalLM, tokens: Tensor, sampling: Sampling) -> tuple[int, str]:
    """Length and reason of a row that `generate` may have carried on, or padded, beyond its end."""
    eos = set(policy.eos_ids)
    for n, token in enumerate(tokens.tolist(), 1):
        if token in eos:
            return n, "eos"
        if sampling.stop and any(s in policy.tokenizer.decode(tokens[:n]) for s in sampling.stop):
            return n, "stop"
    return len(tokens), "length"

"""From hidden states to log-probabilities and entropies of tokens, with one chunk of logits alive
at a time.

`Head` is the model's own output layer with the soft cap, scale and temperature behind it. `score`
applies it to the chosen positions only, in chunks. With several chunks, backward computes each
chunk's logits again, so memory does not grow with vocabulary × length. Second derivatives
(Fisher-vector products) need `Head.logits`. Left out: top-k and top-p, which belong to sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from logpi.distributed.sharding import inside, plain_class

# chunks from which on their gradients are added up in float32
MANY = 32


@dataclass(frozen=True)
class Head:
    """logits = softcap · tanh(scale · W h / softcap) / temperature.

    Attributes:
        linear: the model's output layer [V, d]. softcap: of Gemma 2 (`final_logit_softcapping`), or
            None.
        temperature: of the policy; > 0. It is part of π everywhere: sampling, log-probability,
            entropy.
        scale: of the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`).
    """

    linear: Any
    softcap: float | None = None
    temperature: float = 1.0
    scale: float = 1.0

    @classmethod
    def of(cls, model: Any, temperature: float) -> Head:
        """The head of a `transformers` causal language model."""
        config = model.config.get_text_config()
        factor, divisor = (
            getattr(config, n, None) or 1.0 for n in ("logit_scale", "logits_scaling")
        )
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(model.get_output_embeddings(), softcap, temperature, factor / divisor)

    def logits(self, hidden: Tensor) -> Tensor:
        """[M, V] of the tempered policy for hidden states [M, d]; at least float32."""
        logits = self.linear(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1.0 else logits / self.temperature

    def score(self, hidden: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """log π(actions) [M, A] and entropy [M] in nats, for hidden states [M, d] and A actions in
        each [M, A]."""
        logp = self.logits(hidden).log_softmax(-1)
        return logp.gather(-1, actions), -(logp.exp() * logp).sum(-1)


def score(
    head: Head, hidden: Tensor, actions: Tensor, vocabulary: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """`head.score` with at most `chunk` logits alive at a time. Carries gradients (once)."""
    rows = max(1, chunk // vocabulary)
    return inside(head.linear, partial(_score, head, rows), hidden, actions)


def _score(head: Head, rows: int, hidden: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """`score`, inside the output layer."""
    linear = head.linear
    if plain_class(linear) is nn.Linear and linear.bias is None and head.softcap is None:
        return _ScoreInChunks.apply(hidden, linear.weight, actions, head, rows)
    # in shards, which each call of the layer would gather anew
    if plain_class(linear) is not type(linear):
        product = partial(nn.functional.linear, weight=linear.weight, bias=linear.bias)
        head = replace(head, linear=product)
    run: Callable = head.score
    if torch.is_grad_enabled() and len(actions) > rows:
        run = partial(checkpoint, head.score, use_reentrant=False, preserve_rng_state=False)
    parts = [run(h, a) for h, a in zip(hidden.split(rows), actions.split(rows), strict=True)]
    logp, entropy = zip(*parts, strict=True)
    return torch.cat(logp), torch.cat(entropy)


# Five actions, V = 3 and chunk = 6: rows = 6 // 3 = 2, so the chunks are actions 0 1 | 2 3 | 4. The
# gradient by the logits of one action, π = (0.7, 0.2, 0.1), a = 1, ∂/∂log π(a) = 1, ∂/∂H = 0:
#
#     [i = a] − pᵢ       −0.7  0.8  −0.1           H = 0.802 nats
#     and of the entropy alone, −pᵢ (log pᵢ + H):  −0.312  0.162  0.150        (sums to 0)


class _ScoreInChunks(torch.autograd.Function):
    """`score` for a plain matrix, its derivative written out, with pᵢ = π(i) and H the entropy:

        ∂ log π(a) / ∂ logitᵢ = [i = a] − pᵢ          ∂ H / ∂ logitᵢ = −pᵢ (log pᵢ + H)

    Several actions of one state add up: Σₐ gₐ [i = a] − pᵢ Σₐ gₐ.

    It saves memory and time of autograd: one chunk's logits are alive at a time, the chunks add to
    one gradient of the matrix, and the entropy's part is left out where it has no slope. Sums of
    many chunks are in float32: with 128 of them bfloat16's gradient was 1.3 % off instead of 0.4 %.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, actions: Tensor, head: Head, rows: int
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        head = replace(head, linear=partial(nn.functional.linear, weight=weight))
        parts, last = [], None
        for h, a in zip(hidden.split(rows), actions.split(rows), strict=True):
            last = head.logits(h).log_softmax(-1)
            parts.append((last.gather(-1, a), -(last.exp() * last).sum(-1)))
        logp, entropy = (torch.cat(x) for x in zip(*parts, strict=True))
        ctx.head, ctx.rows = head, rows
        ctx.save_for_backward(hidden, weight, actions, entropy, last if len(parts) == 1 else None)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "`score` has a first derivative only; use `Head.logits` for a second one"
            )
        hidden, weight, actions, entropy, saved_logp = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            many = len(actions) > MANY * ctx.rows
            exact = torch.promote_types(weight.dtype, torch.float32)
            grad_weight = torch.zeros_like(weight, dtype=exact if many else weight.dtype)
        for start in range(0, len(actions), ctx.rows):
            part = slice(start, start + ctx.rows)
            h = hidden[part]
            logp = ctx.head.logits(h).log_softmax(-1) if saved_logp is None else saved_logp
            by_logp, by_entropy = (None if x is None else x[part] for x in grads)
            slope = _by_logits(logp, actions[part], entropy[part], by_logp, by_entropy)
            slope = slope.mul_(ctx.head.scale / ctx.head.temperature).to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = slope @ weight
            if grad_weight is not None and grad_weight.dtype == slope.dtype:
                grad_weight.addmm_(slope.T, h)
            elif grad_weight is not None:
                grad_weight += slope.T @ h
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None,
            None,
            None,
        )


def _by_logits(
    logp: Tensor,
    actions: Tensor,
    entropy: Tensor,
    by_logp: Tensor | None,
    by_entropy: Tensor | None,
) -> Tensor:
    """The gradient by the tempered logits [M, V] of one chunk; by_logp [M, A], by_entropy [M], or
    None."""
    slope = logp.exp()
    total = None if by_logp is None else by_logp.sum(-1, keepdim=True)
    if by_entropy is not None:
        weight = (logp + entropy[:, None]).mul_(by_entropy[:, None])
        slope.mul_(weight.neg_() if total is None else weight.add_(total).neg_())
    elif total is not None:
        slope.mul_(-total)
    if by_logp is not None:
        slope.scatter_add_(-1, actions, by_logp.to(slope.dtype))
    return slope

"""From hidden states to numbers about tokens: log-probability, entropy, value. Never more than one chunk of logits.

`Head` is the model's own output layer with everything that stands between it and a distribution (soft cap,
temperature). `score` applies it to the chosen positions only, in chunks; if there is more than one, backward computes
each chunk's logits again, so memory does not grow with vocabulary × length. Plain torch operations throughout: a second
derivative (Fisher-vector products) goes through. Left out: top-k and top-p, which belong to sampling alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Head", "score"]


@dataclass(frozen=True)
class Head:
    """logits = softcap · tanh(W h / softcap) / temperature.

    Attributes:
        linear: the model's output layer [V, d]. softcap: of Gemma 2 (`final_logit_softcapping`), or None.
        temperature: of the policy; > 0. It is part of π everywhere: sampling, log-probability, entropy.
    """

    linear: Any
    softcap: float | None = None
    temperature: float = 1.0

    def over(self, linear: Callable[[Tensor], Tensor]) -> Head:
        """The same head on another output layer."""
        return replace(self, linear=linear)

    def logits(self, hidden: Tensor) -> Tensor:
        """[M, V] of the tempered policy for hidden states [M, d]; at least float32."""
        logits = self.linear(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1.0 else logits / self.temperature

    def score(self, hidden: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """log π(action) and entropy, [M] nats each, for hidden states [M, d] and actions [M]."""
        logp = self.logits(hidden).log_softmax(-1)
        return logp.gather(-1, action[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


def score(head: Head, hidden: Tensor, action: Tensor, vocabulary: int, chunk: int) -> tuple[Tensor, Tensor]:
    """`head.score` with at most `chunk` logits alive at a time. [M] nats each; carries gradients."""
    rows = max(1, chunk // vocabulary)
    if len(action) <= rows:
        return head.score(hidden, action)
    run: Callable = head.score
    if torch.is_grad_enabled():
        run = lambda h, a: checkpoint(head.score, h, a, use_reentrant=False, preserve_rng_state=False)  # noqa: E731
    parts = [run(h, a) for h, a in zip(hidden.split(rows), action.split(rows), strict=True)]
    logp, entropy = zip(*parts, strict=True)
    return torch.cat(logp), torch.cat(entropy)

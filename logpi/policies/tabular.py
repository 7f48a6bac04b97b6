"""A table of logits as a policy: one row for each state, softmax over actions. The lab and worked
examples use it.

An `Index` maps an observation to a row of the table: by the observation itself (`States`) or by the
tokens so far (`Prefixes`). Left out: learning a critic (the table of values is constant).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from logpi.types import Batch, PolicyOutput


class Index(ABC):
    """Says which state each observation of a batch is."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """[B, T+1] long, rows of the table."""


@dataclass(frozen=True)
class States(Index):
    """The observation is the number of the state: obs [B, T+1] long."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.obs


@dataclass(frozen=True)
class Prefixes(Index):
    """The state is the sequence of tokens so far, found by walking a tree: obs [B, T+1] are token
    ids.

    Attributes:
        step: [S, V] long, the state after a token; the walk begins in state 0 before the first
            token. Sequences that the tree does not hold must lead to some state that leads to
            itself.
    """

    step: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        state = batch.obs.new_zeros(len(batch))
        out = []
        for t in range(batch.obs.shape[1]):
            state = self.step[state, batch.obs[:, t]]
            out.append(state)
        return torch.stack(out, 1)


class TabularPolicy(nn.Module):
    """π(a|s) = softmax(logits[s])ₐ. A `logpi.types.Policy`.

    Args:
        logits: [S, A] starting values; they are copied, and keep their dtype.
        index: finds the state of an observation.
        allowed: [S, A] bool, actions that exist; the others have probability 0. None for all.
        value: [S] or [T+1, S], the critic's constant values (by state, or by step and state), in
            units of return, or None.
    """

    allowed: Tensor | None
    value: Tensor | None

    def __init__(
        self,
        logits: Tensor,
        index: Index,
        allowed: Tensor | None = None,
        value: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())
        self.index = index
        self.register_buffer("allowed", allowed)
        self.register_buffer("value", value)

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """Log-probabilities and entropies of the recorded actions, and the given values."""
        state = self.index(batch)
        logp = self.log_probabilities(state[:, :-1])
        action = torch.where(batch.mask, batch.action, 0)
        action_logp = logp.gather(-1, action[..., None]).squeeze(-1)
        entropy = -(logp.exp() * logp.masked_fill(logp.isinf(), 0.0)).sum(-1)
        others = None if batch.others is None else logp.gather(-1, batch.others)
        return PolicyOutput(action_logp, entropy, self._values(state), others)

    @torch.no_grad()
    def likeliest(self, batch: Batch, number: int) -> tuple[Tensor, PolicyOutput]:
        """The likeliest actions at each step, [B, T, K], and the output with them as `others`."""
        logp = self.log_probabilities(self.index(batch)[:, :-1])
        actions = logp.topk(min(number, logp.shape[-1])).indices
        return actions, self.evaluate(replace(batch, others=actions))

    @torch.no_grad()
    def act(
        self,
        state: Any,
        *,
        greedy: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> Any:
        """The action in a state, or in several: rows of the table, as `index` numbers them.

        Args:
            state: a number, or an array of them [*]. greedy: the likeliest action; else one is
                sampled. rng: NumPy's random numbers, or a seed.
        Returns:
            A number, or an array [*].

        >>> policy = TabularPolicy(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), States())
        >>> policy.act(0), policy.act([0, 1, 1]).tolist()
        (1, [1, 0, 0])
        """
        logp = self.log_probabilities(torch.as_tensor(state)).cpu().numpy()
        if not greedy:
            # argmax(log π + Gumbel noise) is a sample of π
            logp = logp + np.random.default_rng(rng).gumbel(size=logp.shape)
        action = logp.argmax(-1)
        return action if action.ndim else int(action)

    def log_probabilities(self, state: Tensor) -> Tensor:
        """log π(·|s) of states [...]; [..., A] nats, −∞ for actions that do not exist."""
        logits = self.logits[state]
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed[state], -torch.inf)
        return logits.log_softmax(-1)

    def _values(self, state: Tensor) -> Tensor | None:
        if self.value is None:
            return None
        if self.value.ndim == 1:
            return self.value[state]
        step = torch.arange(state.shape[1], device=state.device).clamp(max=len(self.value) - 1)
        return self.value[step, state]

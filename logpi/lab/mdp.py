"""Finite Markov decision processes with a horizon, exactly, by dynamic programming.

They give J, its gradient, V, Q, A, how often each state is visited, the Fisher matrix, and every
trajectory with its probability. All tensors are float64. Left out: estimates (`expectation.py`),
and how a trajectory becomes a row of a batch (`worlds.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Path:
    """One trajectory. `states` has one entry more than `actions`; `luck` is the product of the
    environment's transition probabilities."""

    states: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    luck: float


@dataclass(frozen=True)
class MDP:
    """S states, A actions, at most `horizon` steps, no discount; J(θ) = E[Σₜ rₜ].

    Attributes:
        transition: P[s, a, s'] [S, A, S]. reward: R[s, a, s'] [S, A, S], units of return.
        start: [S] probabilities. terminal: [S] bool; such states lead to themselves with reward 0.
        horizon: number of steps after which a trajectory ends. The end is part of the process, so
            nothing is bootstrapped.
        allowed: [S, A] bool, actions that exist.
    """

    transition: Tensor
    reward: Tensor
    start: Tensor
    terminal: Tensor
    horizon: int
    allowed: Tensor

    def policy(self, logits: Tensor) -> Tensor:
        """π(a|s) = softmax of logits [S, A] over the actions that exist; [S, A], carries
        gradient."""
        return logits.masked_fill(~self.allowed, -torch.inf).softmax(-1)

    def values(self, pi: Tensor) -> tuple[Tensor, Tensor]:
        """V [H+1, *, S] and Q [H, *, S, A] under π [*, S, A], in units of return; carry gradient.

        V_H = 0,   Q_t(s,a) = Σ_s' P(s'|s,a) (R + V_{t+1}(s')),   V_t(s) = Σ_a π(a|s) Q_t(s,a).
        """
        v, q = [pi.new_zeros(pi.shape[:-1])], []
        # E[R | s, a]
        reward = (self.transition * self.reward).sum(-1)
        for _ in range(self.horizon):
            q.append(reward + torch.einsum("sat,...t->...sa", self.transition, v[-1]))
            v.append((pi * q[-1]).sum(-1))
        return torch.stack(v[::-1]), torch.stack(q[::-1])

    def advantage(self, pi: Tensor) -> Tensor:
        """A = Q − V [H, S, A], in units of return."""
        v, q = self.values(pi)
        return q - v[:-1, :, None]

    def expected_return(self, logits: Tensor) -> Tensor:
        """J(θ) [*] of logits [*, S, A], in units of return; carries gradient."""
        return (self.start * self.values(self.policy(logits))[0][0]).sum(-1)

    def gradient(self, logits: Tensor) -> Tensor:
        """∇J(θ) [S, A]."""
        theta = logits.detach().requires_grad_()
        return torch.autograd.grad(self.expected_return(theta), theta)[0]

    def occupancy(self, pi: Tensor) -> Tensor:
        """d_t(s) [H, S]: probability to act in state s at step t (0 for terminal states); carries
        gradient."""
        state, steps = self.start.to(pi.dtype), []
        for _ in range(self.horizon):
            steps.append(torch.where(self.terminal, 0.0, state))
            state = torch.einsum("s,sa,sat->t", state, pi, self.transition)
        return torch.stack(steps)

    def divergence(self, pi: Tensor, other: Tensor) -> Tensor:
        """KL(π‖other) of whole trajectories in nats: Σₜ Σ_s d_t(s) KL(π(·|s)‖other(·|s)); carries
        gradient."""
        return (self.occupancy(pi).sum(0) * self.state_divergence(pi, other)).sum()

    def state_divergence(self, pi: Tensor, other: Tensor) -> Tensor:
        """KL(π(·|s)‖other(·|s)) [S] nats; carries gradient."""
        ratio = torch.where(self.allowed, pi / torch.where(self.allowed, other, 1.0), 1.0)
        return (pi * ratio.log()).sum(-1)

    def fisher(self, pi: Tensor) -> Tensor:
        """Fisher matrix of whole trajectories [S·A, S·A], in nats: Σ_s d(s) (diag π(·|s) − π(·|s)
        π(·|s)ᵀ) in blocks."""
        visits = self.occupancy(pi).sum(0)
        blocks = visits[:, None, None] * (torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :])
        return torch.block_diag(*blocks)

    def paths(self, start: int) -> Iterator[Path]:
        """Every trajectory from a start state, depth first."""
        moves_of = [self._moves(s) for s in range(len(self.start))]
        stack = [Path((start,), (), (), 1.0)]
        while stack:
            path = stack.pop()
            moves = moves_of[path.states[-1]]
            if len(path.actions) == self.horizon or not moves:
                yield path
                continue
            stack.extend(
                Path(
                    (*path.states, after),
                    (*path.actions, action),
                    (*path.rewards, reward),
                    path.luck * chance,
                )
                for action, after, reward, chance in reversed(moves)
            )

    def _moves(self, state: int) -> list[tuple[int, int, float, float]]:
        """The moves from a state: (action, next state, reward, probability); none if it is
        terminal."""
        if bool(self.terminal[state]):
            return []
        possible = (self.transition[state] > 0) & self.allowed[state][:, None]
        return [
            (a, s, float(self.reward[state, a, s]), float(self.transition[state, a, s]))
            for a, s in possible.nonzero().tolist()
        ]

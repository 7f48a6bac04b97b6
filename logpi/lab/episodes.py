"""Episodes of a finite process, sampled for several independent runs at once.

The runs are copies of one table: run c has the states c·S … c·S + S−1, so one batch, one backward
pass and one optimiser step serve all of them. Left out: exact expectations (`expectation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from logpi.policies.tabular import States, TabularPolicy
from logpi.types import Batch

if TYPE_CHECKING:
    from logpi.lab.mdp import MDP


class ActorCritic(TabularPolicy):
    """A table of logits and a table of values, both learned: `value` [S] is a parameter."""

    def __init__(self, logits: Tensor, value: Tensor) -> None:
        super().__init__(logits, States())
        del self.value
        self.value = nn.Parameter(value.detach().clone())


@dataclass(frozen=True)
class Runs:
    """Independent runs on one process.

    Attributes:
        mdp: the process; all its actions exist, and it has one start. number: C, of the runs.
    """

    mdp: MDP
    number: int

    @property
    def states(self) -> int:
        """S, of one run."""
        return len(self.mdp.start)

    def repeat(self, table: Tensor) -> Tensor:
        """A table [S, *] for each run: [C·S, *]."""
        return table.repeat(self.number, *[1] * (table.ndim - 1))

    def apart(self, table: Tensor) -> Tensor:
        """The tables [C, S, *] of the runs in one [C·S, *]."""
        return table.view(self.number, self.states, *table.shape[1:])

    def expected_return(self, logits: Tensor) -> Tensor:
        """J of each run [C], exactly, for logits [C·S, A]."""
        return self.mdp.expected_return(self.apart(logits))

    def value(self, logits: Tensor) -> Tensor:
        """V^π of each run, exactly, by step and state: [H+1, C·S]."""
        return self.mdp.values(self.mdp.policy(self.apart(logits)))[0].flatten(1)

    def sample(self, logits: Tensor, episodes: int, generator: torch.Generator) -> Batch:
        """`episodes` of each run under its logits [C·S, A]; a run is a group. The end at the
        horizon is part of the process, so every row has terminated."""
        run = torch.arange(self.number).repeat_interleave(episodes)
        first = self.states * run
        state = self.mdp.start.argmax().expand_as(run)
        logp, alive = logits.log_softmax(-1), torch.ones_like(run, dtype=torch.bool)
        steps: list[tuple[Tensor, ...]] = []
        obs = [state + first]
        while len(steps) < self.mdp.horizon and bool(alive.any()):
            now = logp[state + first]
            action = draw(now.exp(), generator)
            after = draw(self.mdp.transition[state, action], generator)
            reward = self.mdp.reward[state, action, after]
            steps.append((action, alive, reward, now.gather(1, action[:, None]).squeeze(1)))
            state = torch.where(alive, after, state)
            alive = alive & ~self.mdp.terminal[state]
            obs.append(state + first)
        action, mask, reward, chosen = (torch.stack(x, 1) for x in zip(*steps, strict=True))
        ended = torch.ones_like(run, dtype=torch.bool)
        return Batch(torch.stack(obs, 1), action, mask, reward, ended, run, chosen)


def draw(p: Tensor, generator: torch.Generator) -> Tensor:
    """A sample of each distribution [N, n]; [N]."""
    u = torch.rand(len(p), 1, generator=generator, dtype=p.dtype)
    return (u > p.cumsum(-1)).sum(-1).clamp(max=p.shape[-1] - 1)

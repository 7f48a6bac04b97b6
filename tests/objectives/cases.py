"""Small batches of pairs, and worlds whose responses can be listed; for the tests of
preferences."""

from __future__ import annotations

import torch
from torch import Tensor

from logpi.policies.tabular import Prefixes, TabularPolicy
from logpi.types import Batch, PolicyOutput


def pairs(
    logp: list[list[float]], ref: list[list[float]] | None = None, reward: list[float] | None = None
):
    """A batch of ragged rows, two for each group (the first is chosen), with now's and the
    reference's evaluation."""
    width = max(map(len, logp))
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in logp])

    def pad(rows: list[list[float]]) -> Tensor:
        return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float64)

    now, rows = pad(logp), len(logp)
    there = pad(ref) if ref is not None else torch.zeros_like(now)
    last = mask.sum(1) - 1
    total = torch.tensor(
        reward if reward is not None else [1.0, 0.0] * (rows // 2), dtype=torch.float64
    )
    rewards = torch.zeros_like(now).scatter(1, last[:, None], total[:, None])
    obs = torch.arange(rows * (width + 1)).view(rows, -1)
    batch = Batch(
        obs=obs,
        action=obs[:, 1:],
        mask=mask,
        reward=rewards,
        terminated=torch.zeros(rows, dtype=torch.bool),
        group=torch.arange(rows) // 2,
        logp=there,
    )
    blank = torch.zeros_like(now)
    return batch, PolicyOutput(now, blank), PolicyOutput(there, blank)


def loss(
    objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the learner would compute on the whole batch."""
    targets = objective.prepare(batch, now, ref)
    return objective.loss(batch, targets, objective.weight(batch.mask, batch.group), now)


class Bandit:
    """One prompt, every response of `length` tokens of `words`, with a reward each: π* is known
    exactly.

    The prompt is token 0; states are the prefixes. `rows` holds every response once.
    """

    def __init__(self, words: int = 2, length: int = 2, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.words, self.length = words, length
        prefixes: list[tuple[int, ...]] = [()]
        for n in range(length):
            prefixes += [(*p, w) for p in prefixes if len(p) == n for w in range(words)]
        # state 0 is before the prompt
        number = {p: i + 1 for i, p in enumerate(prefixes)}
        step = torch.zeros(len(prefixes) + 1, words, dtype=torch.long)
        step[0] = 1
        for p, i in number.items():
            for w in range(words):
                step[i, w] = number.get((*p, w), 0)
        self.index = Prefixes(step)
        self.logits = torch.randn(len(prefixes) + 1, words, generator=g, dtype=torch.float64)
        full = [p for p in prefixes if len(p) == length]
        self.tokens = torch.tensor([(0, *p) for p in full])
        self.reward = torch.rand(len(full), generator=g, dtype=torch.float64)

    def policy(self) -> TabularPolicy:
        return TabularPolicy(self.logits, self.index)

    def batch(
        self, responses: Tensor, group: Tensor, reward: Tensor, logp: Tensor | None = None
    ) -> Batch:
        """Rows of these responses [B], with their final reward."""
        obs = self.tokens[responses]
        mask = torch.ones(len(responses), self.length, dtype=torch.bool)
        rewards = torch.zeros(mask.shape, dtype=torch.float64)
        rewards[:, -1] = reward
        blank = torch.zeros_like(rewards) if logp is None else logp
        done = torch.ones(len(responses), dtype=torch.bool)
        return Batch(
            obs=obs,
            action=obs[:, 1:],
            mask=mask,
            reward=rewards,
            terminated=done,
            group=group,
            logp=blank,
        )

    def logp(self, policy: TabularPolicy) -> Tensor:
        """log π(y) of every response [K]; carries gradient."""
        every = torch.arange(len(self.tokens))
        return policy.evaluate(self.batch(every, every, self.reward)).logp.sum(1)

    def optimum(self, beta: float) -> Tensor:
        """log π*(y) = log π_ref(y) + r(y)/β − log Z; [K]."""
        return (self.logp(self.policy()).detach() + self.reward / beta).log_softmax(0)

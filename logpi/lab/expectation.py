"""The expectation and the variance of an optimiser step's gradient, over every possible batch.

A batch is N prompts × M responses. Samples are exchangeable, so a group is a multiset of responses
with its multinomial probability, and a batch is a multiset of groups. Each batch goes through the
objective's own `prepare`, `weight` and `loss`, and autograd: this file has no formula of any
estimator. Left out: what the result should be (`claims.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from logpi.lab.worlds import World, double
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.groups import total_reward
from logpi.ops.selection import Keep, KeepAll
from logpi.ops.time import spread
from logpi.policies.tabular import Index, TabularPolicy
from logpi.types import Batch, Objective, PolicyOutput, Trajectory

# the largest number of batches that are listed
MOST = 200_000
# the number of batches that share one backward pass
CHUNK = 4096


@dataclass(frozen=True)
class Draws:
    """Every batch, up to the order of its rows.

    Attributes:
        rows: [K, N·M] row numbers of `world.paths`. probability: [K]. prompts: N.
    """

    rows: Tensor
    probability: Tensor
    prompts: int

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self) -> Tensor:
        """[K, N·M] the number of each row's prompt in its batch, from 0."""
        width = self.rows.shape[1]
        return (torch.arange(width) * self.prompts // width).expand_as(self.rows)

    def pick(self, index: Tensor) -> Draws:
        """Some of the batches."""
        return Draws(self.rows[index], self.probability[index], self.prompts)

    def reversed(self) -> Draws:
        """The same batches with the rows of each group in the opposite order."""
        by_group = self.rows.reshape(len(self.rows), self.prompts, -1)
        return Draws(by_group.flip(-1).flatten(1), self.probability, self.prompts)


@dataclass(frozen=True)
class Setting:
    """How batches are drawn.

    Attributes:
        prompts: N, drawn independently. responses: M to each prompt.
        keep: which groups enter a batch; the others are drawn again.
        critic: [S] or [T+1, S] values (`TabularPolicy.value`) for estimators with a critic; V^π if
            None.
        reference: [S, A] logits of the reference policy; the policy's own if None.
    """

    prompts: int = 1
    responses: int = 4
    keep: Keep = KeepAll()
    critic: Tensor | None = None
    reference: Tensor | None = None


def _multisets(probability: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Every multiset of `size` of n outcomes [n]: their numbers [K, size] and multinomial
    probabilities [K]."""
    n = len(probability)
    number = math.comb(n + size - 1, size)
    if number > MOST:
        raise ValueError(
            f"{number:,} different batches are too many to list (at most {MOST:,}): take fewer"
            " prompts or responses, or a smaller world"
        )
    chosen = torch.tensor(list(combinations_with_replacement(range(n), size)))
    counts = torch.zeros(len(chosen), n, dtype=torch.long).scatter_add_(
        1, chosen, torch.ones_like(chosen)
    )
    factorial = torch.tensor([math.factorial(k) for k in range(size + 1)], dtype=torch.float64)
    ways = factorial[size] / factorial[counts].prod(1)
    return chosen, ways * probability[chosen].prod(1)


def all_draws(world: World, setting: Setting) -> Draws:
    """Every batch of `setting.prompts` × `setting.responses` with its probability. The
    probabilities add up to 1.

    Raises:
        ValueError: too many batches to list, or `keep` keeps no group.
    """
    rows, probabilities = [], []
    for start in range(len(world.start)):
        paths = (world.paths.group == start).nonzero().flatten()
        chosen, probability = _multisets(world.conditional[paths], setting.responses)
        rows.append(paths[chosen])
        probabilities.append(world.start[start] * probability)
    groups, probability = _select(world, torch.cat(rows), torch.cat(probabilities), setting.keep)
    if setting.prompts == 1:
        return Draws(groups, probability, 1)
    chosen, probability = _multisets(probability, setting.prompts)
    return Draws(groups[chosen].flatten(1), probability, setting.prompts)


def _select(world: World, groups: Tensor, probability: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """The groups that enter a batch, with their probabilities rescaled: others are drawn again."""
    if keep == KeepAll():
        return groups, probability
    paths = world.paths
    rows = [
        Trajectory(
            paths.obs[k],
            paths.action[k],
            paths.mask[k],
            paths.reward[k],
            paths.logp[k],
            True,
            int(paths.group[k]),
        )
        for k in range(len(paths))
    ]
    good = torch.tensor([keep([rows[k] for k in group]) for group in groups.tolist()])
    if not bool(good.any()):
        raise ValueError(f"{keep} keeps no group at all in this world")
    return groups[good], probability[good] / probability[good].sum()


@dataclass(frozen=True)
class _Copies(Index):
    """Gives each batch its own copy of the table, so that one backward pass gives the gradients of
    all batches.

    A batch has `prompts` groups, numbered in order; copy k holds states k·S … (k+1)·S − 1.
    """

    index: Index
    states: int
    prompts: int

    def __call__(self, batch: Batch) -> Tensor:
        return self.index(batch) + self.states * (batch.group // self.prompts)[:, None]


def batch_gradient(
    policy: TabularPolicy, objective: Objective, batch: Batch, reference: PolicyOutput | None
) -> tuple[Tensor, Tensor]:
    """The gradient of the loss with respect to the policy's logits, as one optimiser step applies
    it, and the advantages.

    Args:
        policy: at the parameters that sampled the batch. batch: whole groups.
        reference: what the reference policy says of the batch, or None.
    Returns:
        [S, A] like `policy.logits`; [B, T] in units of return.
    """
    now = policy.evaluate(batch)
    targets = objective.prepare(batch, now, reference if objective.needs_reference else None)
    loss, _ = objective.loss(batch, targets, objective.weight(batch.mask, batch.group), now)
    if not loss.requires_grad:
        return torch.zeros_like(policy.logits), targets.credit(batch.mask)
    (grad,) = torch.autograd.grad(loss, policy.logits, allow_unused=True)
    return torch.zeros_like(policy.logits) if grad is None else grad, targets.credit(batch.mask)


def _separable(objective: Objective) -> bool:
    """Whether a batch's gradient depends on other groups in the same call by their number alone.
    Of parts that are not the library's own this is not known."""
    if type(objective) is not PolicyGradient or objective.whiten or objective.weight.by_action:
        return False
    if objective.advantage.whole_batch or objective.top_entropy < 1:
        return False
    parts = (objective.advantage, objective.weight)
    return all(type(part).__module__.startswith("logpi.ops.") for part in parts)


def _pieces(
    world: World, objective: Objective, setting: Setting, draws: Draws
) -> Iterator[tuple[int, Batch, Tensor, Tensor]]:
    """Every batch through the objective: (copies in this pass, the rows, gradient [copies·S, A],
    advantages [B, T])."""
    paths, reference = world.paths, world.policy(setting.reference)
    if number := objective.compared:
        others, said = reference.likeliest(paths, number)
        paths = replace(paths, others=others)
    else:
        with torch.no_grad():
            said = reference.evaluate(paths)
    value = setting.critic if setting.critic is not None else world.value
    many = _separable(objective)
    for rows, group in _chunks(draws, CHUNK if many else 1):
        n = len(rows)
        index = _Copies(world.index, len(world.logits), draws.prompts) if many else world.index
        policy = TabularPolicy(
            world.logits.repeat(n, 1),
            index,
            world.mdp.allowed.repeat(n, 1),
            value.repeat(*[1] * (value.ndim - 1), n),
        )
        batch, ref = _collect(paths, said, rows.flatten(), group.flatten())
        yield n, batch, *batch_gradient(policy, objective, batch, ref)


def gradients(
    world: World, objective: Objective, setting: Setting, draws: Draws | None = None
) -> Tensor:
    """∇L̂ of every batch: [K, S·A] in the order of `draws` (all of them if None).

    Batches share a backward pass where the objective is known to treat groups separately. Any other
    objective gets each batch alone, padded to its own longest row, as in training.
    """
    with double():
        draws = draws or all_draws(world, setting)
        pieces = _pieces(world, objective, setting, draws)
        # weights were made over all n batches
        return torch.cat([n * grad.reshape(n, -1) for n, _, grad, _ in pieces])


def advantages(
    world: World, objective: Objective, setting: Setting, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Â of every own action of every batch, and the return of its row; both [n]."""
    with double():
        pairs = [
            (advantage[batch.mask], spread(total_reward(batch), batch.mask)[batch.mask])
            for _, batch, _, advantage in _pieces(world, objective, setting, draws)
        ]
        return torch.cat([a for a, _ in pairs]), torch.cat([r for _, r in pairs])


def _chunks(draws: Draws, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`size` batches at a time: their rows, and the numbers of the rows' groups."""
    groups = draws.groups()
    for i in range(0, len(draws), size):
        rows = draws.rows[i : i + size]
        first = torch.arange(len(rows))[:, None] * draws.prompts
        yield rows, groups[i : i + size] + first


def _collect(
    paths: Batch, reference: PolicyOutput, rows: Tensor, group: Tensor
) -> tuple[Batch, PolicyOutput]:
    batch = paths.rows(rows)
    width = batch.mask.shape[1]

    def cut(x: Tensor) -> Tensor:
        return x[rows, :width]

    others = None if reference.others is None else cut(reference.others)
    ref = PolicyOutput(cut(reference.logp), cut(reference.entropy), others=others)
    return replace(batch, group=group), ref


@dataclass(frozen=True)
class Moments:
    """Exact first and second moments of ∇L̂.

    Attributes:
        mean: E[∇L̂] [S·A]. target: the gradient that it is compared with, −∇J [S·A].
        variance: trace of the covariance of ∇L̂. along: variance of its component along the target.
    """

    mean: Tensor
    target: Tensor
    variance: float
    along: float

    @property
    def cosine(self) -> float:
        """The cosine of the angle between E[∇L̂] and −∇J; NaN if either is 0."""
        size = float(self.mean.norm() * self.target.norm())
        return float(self.mean @ self.target) / size if size > 1e-12 else math.nan

    @property
    def scale(self) -> float:
        """The length of E[∇L̂] along −∇J, in lengths of ∇J."""
        return float(self.mean @ self.target / (self.target @ self.target))

    @property
    def off(self) -> float:
        """The share of E[∇L̂] that is not along −∇J: 0 for a (scaled) policy gradient, 1 for a
        direction that has nothing of it."""
        rest = self.mean - self.scale * self.target
        return float(rest.norm() / self.mean.norm().clamp(min=1e-300))

    @property
    def signal_to_noise(self) -> float:
        """‖E[∇L̂]‖² / tr Var[∇L̂] of one batch; it does not depend on scale."""
        return float(self.mean @ self.mean) / self.variance if self.variance > 0 else math.inf

    @property
    def verdict(self) -> str:
        """What the expected step is, in words."""
        if float(self.mean.norm()) < 1e-12:
            return "no gradient at all"
        if self.off > 1e-8:
            return "a different direction"
        if self.scale < 0:
            return "the opposite direction"
        return "the policy gradient" if abs(self.scale - 1) < 1e-9 else "a scaled policy gradient"


def moments(
    world: World, objective: Objective, setting: Setting | None = None, target: Tensor | None = None
) -> Moments:
    """Mean and variance of ∇L̂ over every batch, compared with `target` (−∇J if None) [S·A]."""
    setting = setting or Setting()
    draws = all_draws(world, setting)
    by_batch = gradients(world, objective, setting, draws)
    mean = draws.probability @ by_batch
    target = -world.gradient if target is None else target
    off = by_batch - mean
    along = off @ (target / target.norm().clamp(min=1e-300))
    return Moments(
        mean,
        target,
        float(draws.probability @ (off**2).sum(1)),
        float(draws.probability @ along**2),
    )

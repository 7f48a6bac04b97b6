"""The expectation and the variance of what an optimiser step would apply, over every batch that a
rollout could bring.

A batch is N prompts × M responses. Samples are exchangeable, so a group is a multiset of responses
with its multinomial probability, and a batch a multiset of groups. Each batch goes through the
objective's own `prepare`, `weight` and `loss`, and autograd: no formula of an estimator is written
here. Left out: what the result should be
    (`claims.py`).
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
from logpi.ops.advantages import (
    GAE,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    QValue,
    RewardToGo,
    TotalReward,
    Uniform,
)
from logpi.ops.groups import total_reward
from logpi.ops.selection import Keep, KeepAll
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum
from logpi.policies.tabular import Index, TabularPolicy
from logpi.types import Batch, Objective, PolicyOutput, Trajectory

# batches that are worth enumerating
MOST = 200_000
# batches that share one backward pass
CHUNK = 4096
_LOCAL_ADVANTAGES = (
    GAE,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    QValue,
    RewardToGo,
    TotalReward,
    Uniform,
)
_LOCAL_WEIGHTS = (FixedLength, GroupTokenMean, SequenceMean, SequenceSum)


@dataclass(frozen=True)
class Draws:
    """Every batch, up to the order of its rows. `rows` [K, N·M] are row numbers of `world.paths`,
    `probability` [K]."""

    rows: Tensor
    probability: Tensor
    prompts: int

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self) -> Tensor:
        """[K, N·M] which prompt slot of its batch a row belongs to."""
        return (
            torch.arange(self.rows.shape[1]).expand_as(self.rows)
            * self.prompts
            // self.rows.shape[1]
        )

    def pick(self, index: Tensor) -> Draws:
        """Some of the batches."""
        return Draws(self.rows[index], self.probability[index], self.prompts)

    def reversed(self) -> Draws:
        """The same batches with the rows of each group in the opposite order."""
        by_group = self.rows.reshape(len(self.rows), self.prompts, -1)
        return Draws(by_group.flip(-1).flatten(1), self.probability, self.prompts)


@dataclass(frozen=True)
class Setting:
    """How batches come about.

    Attributes:
        prompts: N, drawn independently. responses: M to each prompt.
        keep: which groups enter a batch (those that do not are drawn again).
        critic: [S] or [T+1, S] values (`TabularPolicy.value`) for estimators that read them; V^π if
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
    if math.comb(n + size - 1, size) > MOST:
        raise ValueError(
            f"{math.comb(n + size - 1, size):,} different batches are too many to list (at most"
            f" {MOST:,}): take fewer prompts or responses, or a smaller world"
        )
    chosen = torch.tensor(list(combinations_with_replacement(range(n), size)))
    counts = torch.zeros(len(chosen), n, dtype=torch.long).scatter_add_(
        1, chosen, torch.ones_like(chosen)
    )
    factorial = torch.tensor([math.factorial(k) for k in range(size + 1)], dtype=torch.float64)
    ways = factorial[size] / factorial[counts].prod(1)
    return chosen, ways * probability[chosen].prod(1)


def all_draws(world: World, setting: Setting) -> Draws:
    """Every batch of `setting.prompts` × `setting.responses` and its probability (which add up to
    1).

    Raises:
        ValueError: too many to list, or no group is ever kept.
    """
    rows, chances = [], []
    for start in range(len(world.start)):
        here = (world.paths.group == start).nonzero().flatten()
        chosen, chance = _multisets(world.conditional[here], setting.responses)
        rows.append(here[chosen])
        chances.append(world.start[start] * chance)
    group, chance = _kept(world, torch.cat(rows), torch.cat(chances), setting.keep)
    if setting.prompts == 1:
        return Draws(group, chance, 1)
    chosen, chance = _multisets(chance, setting.prompts)
    return Draws(group[chosen].flatten(1), chance, setting.prompts)


def _kept(world: World, rows: Tensor, chance: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """The groups that enter a batch; the others are drawn again, so what is left is rescaled."""
    if keep == KeepAll():
        return rows, chance
    paths = world.paths
    single = [
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
    good = torch.tensor([keep([single[k] for k in group]) for group in rows.tolist()])
    if not bool(good.any()):
        raise ValueError(f"{keep} keeps no group at all in this world")
    return rows[good], chance[good] / chance[good].sum()


@dataclass(frozen=True)
class _Copies(Index):
    """Each batch has its own copy of the table, so that one backward pass gives every batch's
    gradient.

    `prompts` groups, numbered in order, belong to a batch; copy k holds states k·S … (k+1)·S − 1.
    """

    index: Index
    states: int
    prompts: int

    def __call__(self, batch: Batch) -> Tensor:
        return self.index(batch) + self.states * (batch.group // self.prompts)[:, None]


def batch_gradient(
    policy: TabularPolicy, objective: Objective, batch: Batch, reference: PolicyOutput | None
) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the policy's logits, as one optimiser step would apply
    it, and the advantages.

    Args:
        policy: at the parameters that sampled the batch. batch: whole groups.
        reference: evaluation of the batch by the reference policy, or None.
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
    """A batch's gradient does not depend on what other groups are in the same call, but for the
    number of rows."""
    return (
        type(objective) is PolicyGradient
        and type(objective.advantage) in _LOCAL_ADVANTAGES
        and type(objective.weight) in _LOCAL_WEIGHTS
        and not objective.whiten
    )


def _pieces(
    world: World, objective: Objective, setting: Setting, draws: Draws
) -> Iterator[tuple[int, Batch, Tensor, Tensor]]:
    """Every batch through the objective: (copies in this pass, the rows, gradient [copies·S, A],
    advantages [B, T])."""
    reference = _reference(world, setting)
    value = setting.critic if setting.critic is not None else world.value
    many = _separable(objective)
    for rows, group in _chunks(draws, CHUNK if many else 1):
        n = len(rows)
        index = _Copies(world.index, len(world.logits), draws.prompts) if many else world.index
        policy = TabularPolicy(
            world.logits.repeat(n, 1),
            index,
            world.mdp.allowed.repeat(n, 1),
            value.repeat(*_tile(value, n)),
        )
        batch, ref = _collect(world, reference, rows.flatten(), group.flatten())
        yield n, batch, *batch_gradient(policy, objective, batch, ref)


def gradients(
    world: World, objective: Objective, setting: Setting, draws: Draws | None = None
) -> Tensor:
    """∇L̂ of every batch: [K, S·A] in the order of `draws` (all of them if None).

    Objectives known to treat groups apart share a backward pass; any other one gets each batch
    alone, padded to that batch's own longest row, as a trainer would see it.
    """
    with double():
        draws = draws or all_draws(world, setting)
        pieces = _pieces(world, objective, setting, draws)
        # weights were made over all n batches
        return torch.cat([n * grad.reshape(n, -1) for n, _, grad, _ in pieces])


def advantages(
    world: World, objective: Objective, setting: Setting, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Â of every own action of every batch, and the return of the row that it is in; both [n]."""
    with double():
        found = [
            (a[b.mask], total_reward(b)[:, None].expand(b.mask.shape)[b.mask])
            for _, b, _, a in _pieces(world, objective, setting, draws)
        ]
        return torch.cat([a for a, _ in found]), torch.cat([r for _, r in found])


def _tile(value: Tensor, copies: int) -> tuple[int, ...]:
    return (copies,) if value.ndim == 1 else (1, copies)


def _chunks(draws: Draws, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    slots = draws.groups()
    for i in range(0, len(draws), size):
        rows = draws.rows[i : i + size]
        first = torch.arange(len(rows))[:, None] * draws.prompts
        yield rows, slots[i : i + size] + first


def _reference(world: World, setting: Setting) -> PolicyOutput:
    """The reference policy's evaluation of every trajectory."""
    with torch.no_grad():
        return world.policy(setting.reference).evaluate(world.paths)


def _collect(
    world: World, reference: PolicyOutput, rows: Tensor, group: Tensor
) -> tuple[Batch, PolicyOutput]:
    batch = world.paths.rows(rows)
    width = batch.mask.shape[1]
    ref = PolicyOutput(reference.logp[rows, :width], reference.entropy[rows, :width])
    return replace(batch, group=group), ref


@dataclass(frozen=True)
class Moments:
    """Exact first and second moments of ∇L̂.

    Attributes:
        mean: E[∇L̂] [S·A]. target: the gradient it is held against, −∇J [S·A].
        variance: trace of the covariance of ∇L̂. along: variance of its component along the target.
    """

    mean: Tensor
    target: Tensor
    variance: float
    along: float

    @property
    def cosine(self) -> float:
        """Of E[∇L̂] and −∇J; NaN if either is 0."""
        size = float(self.mean.norm() * self.target.norm())
        return float(self.mean @ self.target) / size if size > 1e-12 else math.nan

    @property
    def scale(self) -> float:
        """Length of E[∇L̂] along −∇J, in lengths of ∇J."""
        return float(self.mean @ self.target / (self.target @ self.target))

    @property
    def off(self) -> float:
        """What is not along −∇J, as a share of E[∇L̂]; 0 for a (scaled) policy gradient, 1 for no
        relation."""
        rest = self.mean - self.scale * self.target
        return float(rest.norm() / self.mean.norm().clamp(min=1e-300))

    @property
    def signal_to_noise(self) -> float:
        """‖E[∇L̂]‖² / tr Var[∇L̂]: of one batch; does not depend on scale."""
        return float(self.mean @ self.mean) / self.variance if self.variance > 0 else math.inf

    @property
    def verdict(self) -> str:
        """What the expected step is."""
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
    """Mean and variance of ∇L̂ over every batch, against `target` (−∇J if None) [S·A]."""
    setting = setting or Setting()
    draws = all_draws(world, setting)
    found = gradients(world, objective, setting, draws)
    mean = draws.probability @ found
    target = -world.gradient if target is None else target
    off = found - mean
    along = off @ (target / target.norm().clamp(min=1e-300))
    return Moments(
        mean,
        target,
        float(draws.probability @ (off**2).sum(1)),
        float(draws.probability @ along**2),
    )

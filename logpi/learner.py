"""The learner: evaluate once, prepare once, update. It holds everything that changes while
learning, and can save it exactly.

It knows no algorithm by name: the objective scores, the update moves, the controller of the KL
coefficient and the refresh of the reference are parts like any other. How batches are made is not
here (`rollouts`), nor is the loop (`train.py`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.ops.groups import group_returns
from logpi.ops.time import own
from logpi.types import Batch, Policy, PolicyOutput, Targets, UpdateConstants
from logpi.updates.adamw import AdamW, OptimizerSpec, TorchOptimizer
from logpi.updates.micro_batches import evaluate

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.updates.adamw import MakeOptimizer

__all__ = ["Learner", "OffPolicyError", "Trust"]

notices = logging.getLogger("logpi")
# |log π − log π_old|, |log π − log π_sampler| before the first step, in nats
GAPS = ("gap_old", "gap_sampler")


class OffPolicyError(RuntimeError):
    """The sampler's log-probabilities are not the learner's, so every importance ratio would be
    wrong."""


@dataclass(frozen=True)
class Trust:
    """How far the sampler is believed.

    Attributes:
        sampler: its log-probabilities are the learner's own (same weights and numerics), so they
            need no second forward.
        tolerance: nats; a larger gap on any action before the first step of an update is an error,
            never ignored.
        mean: not the largest but the mean gap counts. For weights of 16 bits, where among thousands
            of actions one is always far off.
    """

    sampler: bool = True
    tolerance: float = 1e-2
    mean: bool = False


class Learner:
    """Moves a policy by an algorithm.

    Args:
        policy: an `nn.Module` that is a `logpi.types.Policy`.
        algorithm: from `logpi.algorithm(name)`.
        optimizer: `AdamW` or another value of `logpi.updates.adamw`, with its learning rate and
            schedule; a class or function of torch that takes the parameters, e.g.
            `lambda params: torch.optim.SGD(params, lr=1e-3)`; or an optimiser over the policy's
            parameters.
        total: number of updates of the run, for the schedule. A run that goes on to another total
            follows the schedule of that total from there.
        reference: frozen policy for the KL penalty; made as a copy of `policy` when the algorithm
            needs one and none is given.
        refresh: set the reference to the policy every so many updates (0: never).
        trust: see `Trust`.
        seed: of the shuffling of minibatches.
    Raises:
        ValueError: the optimiser or the update cannot move such a policy; at the first update, the
            algorithm needs a critic and the policy has none.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        optimizer: OptimizerSpec | MakeOptimizer | torch.optim.Optimizer | None = None,
        *,
        total: int = 1,
        reference: Policy | None = None,
        refresh: int = 0,
        trust: Trust | None = None,
        seed: int = 0,
    ) -> None:
        self.policy, self.algorithm, self.objective = policy, algorithm, algorithm.objective
        algorithm.update.check(policy)
        self.rates = _spec(optimizer)
        self.optimizer = self.rates.build(policy)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.total, self.refresh, self.trust = total, refresh, trust or Trust()
        self.updates = 0
        # [B, T] of the last batch, for people; not saved
        self.advantage: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.reference = reference
        if reference is None and algorithm.objective.needs_reference:
            self.reference = copy.deepcopy(policy)
        if self.reference is not None:
            self.reference.requires_grad_(False)

    @property
    def micro_tokens(self) -> int | None:
        return self.algorithm.update.micro_tokens

    @property
    def lr(self) -> float:
        """The peak learning rate, the first group's where there are several; it may be set between
        updates, and scales the others with it."""
        return self.peaks[0]

    @lr.setter
    def lr(self, rate: float) -> None:
        scale = rate / self.peaks[0] if self.peaks[0] else 1.0
        self.peaks = [rate, *(peak * scale for peak in self.peaks[1:])]

    def update(self, batch: Batch) -> dict[str, float]:
        """One batch: targets once, then the algorithm's update. Returns the numbers that tell
        whether it learns.

        Raises:
            OffPolicyError: the recorded log-probabilities are further than `trust.tolerance` from
                the policy's.
        """
        targets = self._prepare(batch)
        self.advantage = targets.credit(batch.mask)
        progress = min(1.0, self.updates / self.total)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = self.rates.rate(peak, self.updates, progress)
        moves = self.algorithm.update(
            self.policy,
            self.objective.at(progress),
            self.optimizer,
            batch,
            targets,
            self.generator,
            self._check_gaps,
        )
        steps = list(moves)
        self.updates += 1
        report = (
            _combine(steps)
            | {"lr": self.optimizer.param_groups[0]["lr"]}
            | _batch_metrics(batch, targets)
        )
        report |= self.objective.controls()
        self.objective = self.objective.control(report, int(batch.mask.any(1).sum()))
        self._refresh()
        return report

    def release(self) -> None:
        """Free the gradients: while sampling, their memory serves the decoder."""
        self.optimizer.zero_grad(set_to_none=True)

    def _prepare(self, batch: Batch) -> UpdateConstants:
        if self.trust.sampler and not (self.objective.needs_critic or self.objective.needs_policy):
            now = PolicyOutput(batch.logp, torch.zeros_like(batch.logp))
        else:
            now = evaluate(self.policy, batch, self.micro_tokens)
        ref = None
        if self.reference is not None and self.objective.needs_reference:
            ref = evaluate(self.reference, batch, self.micro_tokens)
        if self.objective.needs_critic and now.value is None:
            raise ValueError(
                f"{self.algorithm.name} needs a critic and this policy has none: load it with"
                " critic=True"
            )
        return self.objective.prepare(batch, now, ref)

    def _check_gaps(self, metrics: Mapping[str, float]) -> None:
        """Before the first step the policy is the sampler: every ratio must be 1."""
        if not self.objective.on_policy:
            return
        kind, of = ("mean", "actions on average") if self.trust.mean else ("max", "an action")
        gaps = [
            metrics.get(f"{gap}/{kind}", 0.0) for gap in (GAPS if self.trust.sampler else GAPS[:1])
        ]
        # NaN is wrong too
        wrong = [gap for gap in gaps if not gap <= self.trust.tolerance]
        if wrong:
            raise OffPolicyError(
                f"the policy gives {of} a log-probability {wrong[0]:.3g} nats away from the"
                f" recorded one (allowed: {self.trust.tolerance:g}), so importance ratios would be"
                " wrong. Sampler and learner must share weights, numerics and temperature; for"
                " another engine use Trust(sampler=False) and correction=TruncatedIS()"
            )

    def _refresh(self) -> None:
        if self.refresh and self.reference is not None and self.updates % self.refresh == 0:
            self.reference.load_state_dict(self.policy.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning; restoring it continues bit for bit."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reference": self.reference.state_dict() if self.reference is not None else None,
            "updates": self.updates,
            "total": self.total,
            "generator": self.generator.get_state(),
            "controls": self.objective.controls(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference is not None and state["reference"] is not None:
            self.reference.load_state_dict(state["reference"])
        self.updates = state["updates"]
        self._stretch(max(1, int(state.get("total", self.total))))
        self.generator.set_state(state["generator"])
        self.objective = self.objective.restore(state["controls"])

    def _stretch(self, before: int) -> None:
        """Schedules are those of `total` updates, as if asked for at the start: a jump is said."""
        then, now = (min(1.0, self.updates / total) for total in (before, self.total))
        rates = [self.rates.rate(self.peaks[0], self.updates, x) for x in (now, then)]
        if rates[0] != rates[1] or self.objective.at(now) != self.objective.at(then):
            notices.warning(
                "schedules are now those of %d updates, not of %d: the learning rate goes on at"
                " %.3g, where it was %.3g",
                self.total,
                before,
                *rates,
            )


def _spec(
    optimizer: OptimizerSpec | MakeOptimizer | torch.optim.Optimizer | None,
) -> OptimizerSpec:
    """The optimiser as a value; AdamW if none is given."""
    if optimizer is None or isinstance(optimizer, OptimizerSpec):
        return optimizer or AdamW()
    if isinstance(optimizer, torch.optim.Optimizer):
        return TorchOptimizer(lambda _: optimizer)
    if not callable(optimizer):
        raise ValueError(
            "an optimiser is AdamW(lr=…), or a function of the parameters like"
            f" `lambda params: torch.optim.SGD(params, lr=1e-3)`, not {optimizer!r}"
        )
    return TorchOptimizer(optimizer)


def _combine(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over the optimiser steps of an update; extremes stay extremes."""
    out: dict[str, float] = {}
    for name in sorted({k for s in steps for k in s}):
        values = [s[name] for s in steps if name in s]
        pick = max if name.endswith("/max") else min if name.endswith("/min") else None
        out[name] = pick(values) if pick else sum(values) / len(values)
    if out.get("ratio/square"):
        out["ratio/ess"] = out["ratio/mean"] ** 2 / out.pop("ratio/square")
    return out


@torch.no_grad()
def _batch_metrics(batch: Batch, targets: UpdateConstants) -> dict[str, float]:
    """What the batch itself tells: advantage, fit of the critic, KL of whole responses, groups
    without a difference."""
    mask = batch.mask
    if not bool(mask.any()):
        return {}
    advantage = targets.credit(mask)[mask]
    g = group_returns(batch, 1, "metrics")
    out = {
        "advantage/mean": float(advantage.mean()),
        "advantage/std": float(advantage.std(correction=0)),
        "frac_reward_zero_std": float(g.uniform.float().mean()),
    }
    if targets.logp_ref is not None:
        out["kl_sequence"] = float(
            own(targets.logp_old - targets.logp_ref, mask).sum(1)[g.alive].mean()
        )
    if (
        isinstance(targets, Targets)
        and targets.value_target is not None
        and targets.value_old is not None
    ):
        target, value = targets.value_target[mask], targets.value_old[mask]
        spread = target.var(correction=0)
        out["value/explained_variance"] = float(
            1 - (target - value).var(correction=0) / spread.clamp(min=1e-12)
        )
    return out

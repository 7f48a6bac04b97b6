"""The learner evaluates a batch once, prepares its targets once, and updates the policy. It holds
everything that changes while learning, and saves it exactly.

It knows no algorithm by name: the objective scores the batch and the update moves the policy. It
leaves out how batches are made (`rollouts`) and the training loop (`train.py`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.distributed.world import current, is_sharded
from logpi.errors import UserError
from logpi.ops.group_advantages import UnfitReturns
from logpi.ops.groups import group_returns
from logpi.ops.time import own
from logpi.types import Batch, Policy, PolicyOutput, Targets, UpdateConstants
from logpi.updates.adamw import AdamW, OptimizerSpec, TorchOptimizer
from logpi.updates.micro_batches import evaluate, likeliest
from logpi.updates.restoring import fit_module, fit_optimizer, fit_policy
from logpi.updates.sgd import UpdateInputs

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.updates.adamw import MakeOptimizer

__all__ = ["Learner", "OffPolicyError", "Trust"]

notices = logging.getLogger("logpi")


class OffPolicyError(RuntimeError):
    """The sampler's log-probabilities are not the learner's, so every importance ratio would be
    wrong."""


@dataclass(frozen=True)
class Trust:
    """How far the learner trusts the sampler's log-probabilities.

    Attributes:
        sampler: they are the learner's own (same weights and numerics), so the learner does not
            compute them again.
        tolerance: in nats. A larger gap on any action before the first step of an update is an
            error.
        mean: compare the mean gap with the tolerance, not the largest one. For weights of 16 bits,
            where one of thousands of actions is always far off.
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
        total: number of updates of the run, for the schedule. A run that is resumed with another
            total follows the schedule of that total from there on.
        reference: frozen policy for the KL penalty, or the teacher. If the algorithm needs one and
            none is given, it is a copy of `policy`.
        refresh: number of updates after which the reference becomes the policy again (0: never).
        trust: see `Trust`.
        seed: of the shuffling of minibatches.
    Raises:
        ValueError: the optimiser or the update cannot move such a policy. At the first update: the
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
        # [B, T] of the last batch, for people; not saved. evaluated: where it was needed anyway
        self.advantage: Tensor | None = None
        self.evaluated: PolicyOutput | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.reference = reference
        if reference is None and algorithm.objective.needs_reference:
            if algorithm.objective.needs_teacher:
                raise ValueError(f"{algorithm.name} learns from a teacher: give it as reference=…")
            self.reference = copy.deepcopy(policy)
        if self.reference is not None:
            self.reference.requires_grad_(False)

    @property
    def lr(self) -> float:
        """The peak learning rate, of the first parameter group if there are several. It may be set
        between updates; the other groups' rates are scaled with it."""
        return self.peaks[0]

    @lr.setter
    def lr(self, rate: float) -> None:
        scale = rate / self.peaks[0] if self.peaks[0] else 1.0
        self.peaks = [rate, *(peak * scale for peak in self.peaks[1:])]

    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch. Returns the metrics of the update.

        Raises:
            OffPolicyError: the recorded log-probabilities are further than `trust.tolerance` from
                the policy's.
        """
        batch, targets = self._prepare(batch)
        current().same(
            {
                "the batch": vars(batch).values(),
                "its targets": vars(targets).values(),
                "the order of rows": [self.generator.get_state()],
                "the weights": _specimens(self.policy),
            }
        )
        self.advantage = targets.credit(batch.mask)
        progress = min(1.0, self.updates / self.total)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = self.rates.rate(peak, self.updates, progress)
        inputs = UpdateInputs(
            self.policy,
            self.objective.at(progress),
            self.optimizer,
            batch,
            targets,
            self.generator,
            self._check_gaps,
        )
        report = _combine(list(self.algorithm.update(inputs)))
        self.updates += 1
        report |= {"lr": self.optimizer.param_groups[0]["lr"]}
        report |= _batch_metrics(batch, targets) | self.objective.controls()
        self.objective = self.objective.control(report, int(batch.mask.any(1).sum()))
        if self.refresh and self.reference is not None and self.updates % self.refresh == 0:
            self.reference.load_state_dict(self.policy.state_dict())
        return report

    def release(self) -> None:
        """Free the gradients, so that the decoder can use their memory."""
        self.optimizer.zero_grad(set_to_none=True)

    def _prepare(self, batch: Batch) -> tuple[Batch, UpdateConstants]:
        """The batch, with the actions that policies are asked about, and its constants."""
        tokens = self.algorithm.update.micro_tokens
        if self.trust.sampler and not (self.objective.needs_critic or self.objective.needs_policy):
            self.evaluated = None
            now = PolicyOutput(batch.logp, torch.zeros_like(batch.logp))
        else:
            self.evaluated = now = evaluate(self.policy, batch, tokens)
        ref = None
        if self.reference is not None and self.objective.needs_reference:
            if number := self.objective.compared:
                others, ref = likeliest(self.reference, batch, number, tokens)
                batch = replace(batch, others=others)
            else:
                ref = evaluate(self.reference, batch, tokens)
        if self.objective.needs_critic and now.value is None:
            raise ValueError(
                f"{self.algorithm.name} needs a critic and this policy has none: load it with"
                " critic=True"
            )
        try:
            return batch, self.objective.prepare(batch, now, ref)
        except UnfitReturns as error:
            raise UserError(str(error)) from None

    def _check_gaps(self, metrics: Mapping[str, float]) -> None:
        """Before the first step the policy is the sampler, so every ratio must be 1."""
        if not self.objective.on_policy:
            return
        kind, of = ("mean", "actions on average") if self.trust.mean else ("max", "an action")
        names = ("gap_old", "gap_sampler") if self.trust.sampler else ("gap_old",)
        gaps = [metrics.get(f"{name}/{kind}", 0.0) for name in names]
        # NaN is wrong too
        wrong = [gap for gap in gaps if not gap <= self.trust.tolerance]
        if wrong:
            raise OffPolicyError(
                f"the policy gives {of} a log-probability {wrong[0]:.3g} nats away from the"
                f" recorded one (allowed: {self.trust.tolerance:g}), so importance ratios would be"
                " wrong. Sampler and learner must share weights, numerics and temperature; for"
                " another engine use Trust(sampler=False) and correction=TruncatedIS()"
            )

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
        weights, moments, learns = (
            state["policy"],
            state["optimizer"],
            (self.policy, self.optimizer),
        )
        self.policy.load_state_dict(fit_policy(weights, moments, *learns))
        self.optimizer.load_state_dict(fit_optimizer(moments, weights, *learns))
        if self.reference is not None and state["reference"] is not None:
            self.reference.load_state_dict(fit_module(state["reference"], self.reference))
        self.updates = state["updates"]
        self._warn_of_other_schedule(max(1, int(state.get("total", self.total))))
        self.generator.set_state(state["generator"])
        self.objective = self.objective.restore(state["controls"])

    def _warn_of_other_schedule(self, before: int) -> None:
        """Schedules follow `total`, as if the run had begun with it. A jump is logged."""
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


def _specimens(policy: Policy) -> Iterator[Tensor]:
    """A few numbers of each weight that this process holds whole: enough to see ranks drift."""
    for p in policy.parameters():
        if p.requires_grad and not is_sharded(p):
            flat = p.detach().reshape(-1)
            yield flat[:: max(1, len(flat) // 64)]


def _combine(steps: list[dict[str, float]]) -> dict[str, float]:
    """Means over the optimiser steps of an update; extremes stay extremes."""
    report: dict[str, float] = {}
    for name in sorted({name for step in steps for name in step}):
        values = [step[name] for step in steps if name in step]
        extreme = max if name.endswith("/max") else min if name.endswith("/min") else None
        report[name] = extreme(values) if extreme else sum(values) / len(values)
    if report.get("ratio/square"):
        report["ratio/ess"] = report["ratio/mean"] ** 2 / report.pop("ratio/square")
    return report


@torch.no_grad()
def _batch_metrics(batch: Batch, targets: UpdateConstants) -> dict[str, float]:
    """Metrics of the batch itself: advantage, fit of the critic, KL of whole responses, share of
    groups whose returns are all equal."""
    mask = batch.mask
    if not bool(mask.any()):
        return {}
    advantage = targets.credit(mask)[mask]
    groups = group_returns(batch, 1, "metrics")
    report = {
        "advantage/mean": float(advantage.mean()),
        "advantage/std": float(advantage.std(correction=0)),
        "frac_reward_zero_std": float(groups.uniform.float().mean()),
    }
    if targets.logp_ref is not None:
        kl = own(targets.logp_old - targets.logp_ref, mask).sum(1)
        report["kl_sequence"] = float(kl[groups.alive].mean())
    if (
        isinstance(targets, Targets)
        and targets.value_target is not None
        and targets.value_old is not None
    ):
        target, error = targets.value_target[mask], (targets.value_target - targets.value_old)[mask]
        unexplained = error.var(correction=0) / target.var(correction=0).clamp(min=1e-12)
        report["value/explained_variance"] = float(1 - unexplained)
    return report

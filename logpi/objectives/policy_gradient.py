"""The policy-gradient objective: a composition of `ops` parts that scores a batch.

An objective is a value (frozen, printable, comparable) with three calls: `prepare` once for each
batch, `weight` once for each optimiser batch, `loss` for each micro-batch. Left out: how parameters
move (`updates/sgd.py`), and the names of the compositions (`algorithms`).
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from logpi.ops.advantages import Advantage, QValue
from logpi.ops.corrections import Correction, TruncatedIS
from logpi.ops.divergences import Divergence
from logpi.ops.kl import KL, k3
from logpi.ops.moments import whiten
from logpi.ops.ratios import Ratio, TokenRatio
from logpi.ops.surrogates import ScoreFunction, Surrogate
from logpi.ops.time import own
from logpi.ops.tokens import highest_entropy
from logpi.ops.weights import TokenMean, Weight
from logpi.types import Batch, Data, Explanation, Objective, PolicyOutput, Targets

__all__ = ["Diagnostics", "PolicyGradient"]


class Diagnostics(UserDict[str, Tensor]):
    """Diagnostics that are computed at the first reading: on a small network they take as long as
    the loss, and most are not read."""

    def __init__(self, compute: Callable[[], dict[str, Tensor]]) -> None:
        self.compute = compute

    @cached_property
    def data(self) -> dict[str, Tensor]:  # type: ignore[override]
        return self.compute()


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """advantage × ratio × surrogate × KL × weight: every policy gradient is one of these.

        maximise  Σₜ wₜ [ surrogate(ρₜ, Âₜ) − β KL + c_H H(π(·|sₜ)) − ½ c_V (V(sₜ) − V̂ₜ)² ]

    Attributes:
        advantage: estimator of Âₜ.
        ratio: level of the importance ratio (ignored by `ScoreFunction`).
        surrogate: what is maximised at each action.
        weight: aggregation; called as `objective.weight(mask, group)`.
        kl: penalty to the reference policy, or None.
        whiten: advantages to zero mean and unit spread over all own actions, after the critic's
            target was taken.
        value_coef: c_V ≥ 0; the critic's squared error (0 without a critic).
        value_clip: largest move of V from its old value that lowers the error (PPO's code; in units
            of return), or None.
        entropy_coef: c_H ≥ 0, reward a nat of entropy.
        correction: for a sampler that is not the learner's, or None.
        top_entropy: share of the batch's own actions, those at which the policy is least sure, that
            learn from the advantage; in (0, 1]. Needs the policy's entropies, one forward more.

    The value of the loss is not the expected return (with `ScoreFunction` only its gradient has a
    meaning): never log it as such.
    """

    advantage: Advantage
    ratio: Ratio = TokenRatio()
    surrogate: Surrogate = ScoreFunction()
    # A part that is called as the method would be.
    weight: Weight = TokenMean()  # pyright: ignore[reportIncompatibleMethodOverride]
    kl: KL | None = None
    whiten: bool = False
    value_coef: float = 0.0
    value_clip: float | None = None
    entropy_coef: float = 0.0
    correction: Correction | None = None
    top_entropy: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.top_entropy <= 1:
            raise ValueError(f"top_entropy is a share, above 0 up to 1, not {self.top_entropy:g}")
        if self.surrogate.of_actions and not self.ratio.by_action:
            raise ValueError(f"{self.surrogate} needs the ratio of tokens, not {self.ratio}")
        if self.top_entropy < 1 and self.surrogate.uses_ratio and not self.ratio.by_action:
            raise ValueError(
                f"top_entropy needs the ratio of tokens: {self.ratio} passes an action's advantage"
                " on to all actions of its row"
            )

    @property
    def needs_policy(self) -> bool:  # type: ignore[override]
        """Its entropies."""
        return self.top_entropy < 1

    @property
    def needs_critic(self) -> bool:
        return self.advantage.critic

    @property
    def needs_reference(self) -> bool:
        return self.kl is not None and (self.kl.coef > 0 or self.kl.adapt is not None)

    @property
    def needs_teacher(self) -> bool:
        return self.kl is not None and self.kl.teacher

    @property
    def compared(self) -> int:
        estimator = None if self.kl is None else self.kl.estimator
        return estimator.top if isinstance(estimator, Divergence) else 0

    @property
    def needs_greedy(self) -> bool:
        return self.advantage.greedy

    @property
    def min_group(self) -> int:
        return self.advantage.group

    @property
    def on_policy(self) -> bool:
        return self.advantage.on_policy

    @property
    def learns_from(self) -> Data:
        return Data.SAMPLES if self.advantage.on_policy else Data.DEMONSTRATIONS

    @property
    def ties(self) -> object | None:
        if self.surrogate.uses_ratio and not self.ratio.by_action:
            return self.ratio
        if self.correction is not None and not self.correction.by_action:
            return self.correction
        return None if self.weight.by_action else self.weight

    @property
    def fragments(self) -> bool:
        """A critic bootstraps where a row is cut, and no row's length matters."""
        return self.advantage.bootstraps and self.ties is None

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Targets:
        """Advantages, the critic's target and the log-probabilities that stay fixed during the
        update.

        Args:
            batch: the whole batch, groups intact. now: the policy before the update. ref: the
                reference policy, or None.
        Raises:
            ValueError: a KL penalty without a reference, an advantage without its critic, group or
                greedy baseline.
        """
        mask = batch.mask
        logp_old = own(now.logp.detach(), mask)
        logp_ref = None if ref is None else own(ref.logp.detach(), mask)
        value = None if now.value is None else now.value.detach()
        batch = replace(batch, reward=self._reward(batch, logp_old, logp_ref))
        advantage = self.advantage(batch, value)
        target = self.advantage.value_target(advantage, value, mask)
        value_old = None if target is None or value is None else own(value[:, :-1], mask)
        if self.whiten:
            advantage = whiten(advantage, mask)
        if self.top_entropy < 1:
            advantage = own(advantage, highest_entropy(now.entropy, mask, self.top_entropy))
        if (kl := self.penalty("action")) and logp_ref is not None:
            advantage = advantage - kl.coef * own(kl.estimator(logp_old, logp_ref), mask)
        others = (
            None if ref is None or ref.others is None else own(ref.others.detach(), mask[..., None])
        )
        return Targets(logp_old, logp_ref, advantage, target, value_old, others)

    def penalty(self, place: str) -> KL | None:
        """The KL penalty, if this is its place."""
        here = self.kl is not None and self.needs_reference and self.kl.place == place
        return self.kl if here else None

    def _reward(self, batch: Batch, logp_old: Tensor, logp_ref: Tensor | None) -> Tensor:
        """Rewards with the KL penalty in them, if that is its place; [B, T]."""
        reward, kl = own(batch.reward, batch.mask), self.penalty("reward")
        if logp_ref is not None:
            return reward if kl is None else reward - kl.coef * kl.estimator(logp_old, logp_ref)
        if self.needs_reference:
            raise ValueError(
                f"{self.kl} needs a reference policy: give one, or turn the penalty off (beta=0)"
            )
        return reward

    def idle(self, batch: Batch, targets: Targets) -> Tensor:
        """[B] bool, rows whose loss and gradient are exactly 0, so they need not be evaluated."""
        empty = ~batch.mask.any(1)
        if self.penalty("loss") or self.entropy_coef or (self.value_coef and self.needs_critic):
            return empty
        return empty | (targets.advantage == 0).all(1)

    def at(self, progress: float) -> PolicyGradient:
        """The objective when `progress` in [0, 1] of the run is done: clips may narrow."""
        return replace(self, surrogate=self.surrogate.at(progress))

    def controls(self) -> dict[str, float]:
        """The KL coefficient, which a controller may change."""
        return {"kl_coef": self.kl.coef} if self.kl is not None and self.needs_reference else {}

    def control(self, report: Mapping[str, float], responses: int) -> PolicyGradient:
        """The next objective. Only an adaptive KL coefficient changes, by `report["kl_sequence"]`
        in nats a response."""
        # A batch without a response has no such number.
        if self.kl is None or self.kl.adapt is None or "kl_sequence" not in report:
            return self
        coef = self.kl.adapt(self.kl.coef, report["kl_sequence"], responses)
        return self.restore({"kl_coef": coef})

    def restore(self, controls: Mapping[str, float]) -> PolicyGradient:
        """The objective with these coefficients."""
        if self.kl is None or "kl_coef" not in controls:
            return self
        return replace(self, kl=replace(self.kl, coef=controls["kl_coef"]))

    def taught(self) -> PolicyGradient:
        return self if self.kl is None else replace(self, kl=replace(self.kl, teacher=True))

    def corrected(self) -> PolicyGradient:
        return self if self.correction else replace(self, correction=TruncatedIS())

    def without_critic(self) -> PolicyGradient:
        return replace(self, value_coef=0.0)

    def critic_alone(self) -> PolicyGradient:
        """Every action counts the same in the critic's error."""
        return replace(self, weight=TokenMean(), ratio=TokenRatio(), entropy_coef=0.0, kl=None)

    def loss(
        self, batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """−Σ weight · objective over this micro-batch, and diagnostics as token means (`…/max`,
        `…/min`: extremes)."""
        mask = batch.mask
        # every term is 0 from here on where the policy did not act
        logp = own(now.logp, mask)
        log_ratio = self.ratio.toward(logp, targets.logp_old, mask, targets.advantage)
        objective = self.surrogate(log_ratio, logp, targets.advantage)
        factor = None
        if self.correction is not None:
            factor = self.correction(targets.logp_old, batch.logp, mask)
            objective = objective * factor
        if kl := self.penalty("loss"):
            objective = objective - kl.coef * self._distance(kl, logp, targets, now, mask)
        if self.entropy_coef:
            objective = objective + self.entropy_coef * own(now.entropy, mask)
        error = None
        if self.value_coef and targets.value_target is not None:
            error = self._squared_error(now, targets, mask)
            objective = torch.sub(objective, error, alpha=0.5 * self.value_coef)
        metrics = Diagnostics(
            partial(
                self._metrics, mask, log_ratio.detach(), logp.detach(), targets, now, error, factor
            )
        )
        return -(weight.to(objective.dtype) * objective).sum(), metrics

    def _distance(
        self, kl: KL, logp: Tensor, targets: Targets, now: PolicyOutput, mask: Tensor
    ) -> Tensor:
        """[B, T] nats to the reference: from the action that was taken, or of whole
        distributions."""
        if not isinstance(kl.estimator, Divergence):
            assert targets.logp_ref is not None
            return kl.estimator(logp, targets.logp_ref)
        if now.others is None or targets.others_ref is None:
            raise ValueError(
                f"{kl.estimator} compares whole distributions: ask both policies about"
                " `batch.others`, as the learner does"
            )
        return own(kl.estimator(own(now.others, mask[..., None]), targets.others_ref), mask)

    def _squared_error(self, now: PolicyOutput, targets: Targets, mask: Tensor) -> Tensor:
        if now.value is None or targets.value_target is None:
            raise ValueError("value_coef > 0 needs a critic: load the policy with critic=True")
        value = own(now.value[:, :-1], mask)
        error = value - targets.value_target
        if self.value_clip is None or targets.value_old is None:
            return error * error
        move = (value - targets.value_old).clamp(-self.value_clip, self.value_clip)
        near = targets.value_old + move
        return torch.maximum(error * error, (near - targets.value_target) ** 2)

    @torch.no_grad()
    def _metrics(
        self,
        mask: Tensor,
        log_ratio: Tensor,
        logp: Tensor,
        targets: Targets,
        now: PolicyOutput,
        error: Tensor | None,
        factor: Tensor | None,
    ) -> dict[str, Tensor]:
        """Token means, stacked so that one reduction serves all of them, and extremes."""
        by_token, extremes = {"entropy": now.entropy}, {}
        if self.surrogate.uses_ratio:
            ratio = log_ratio.exp()
            cut = self.surrogate.cut(log_ratio, logp, targets.advantage)
            cut |= self.ratio.cut(logp, targets.logp_old, targets.advantage)
            extremes = {
                "ratio/max": torch.where(mask, ratio, 0.0).amax(),
                "ratio/min": torch.where(mask, ratio, torch.inf).amin(),
            }
            by_token |= {
                "ratio/mean": ratio,
                "ratio/square": ratio * ratio,
                "clip_ratio": cut.to(logp.dtype),
                "kl_old": log_ratio.expm1() - log_ratio,
            }
        if targets.logp_ref is not None:
            by_token["kl"] = k3(logp, targets.logp_ref)
        if error is not None:
            by_token["value/loss"] = 0.5 * error
        if self.correction is not None and factor is not None:
            by_token["correction/mean"] = factor
            by_token["correction/capped"] = self.correction.cut(factor).to(logp.dtype)
        sums = own(torch.stack([x.detach() for x in by_token.values()]), mask).sum((1, 2))
        means = (sums / mask.sum().clamp(min=1)).unbind()
        return extremes | dict(zip(by_token, means, strict=True))

    def explain(self) -> Explanation:
        """The composition as mathematics."""
        terms = self.surrogate.equation
        if self.correction is not None:
            terms = f"{self.correction.equation} {terms}"
        if self.kl is not None and self.kl.place == "loss":
            terms += f" − {self.kl.coef:g} ({self.kl.estimator.equation})"
        if self.entropy_coef:
            terms += f" + {self.entropy_coef:g} H(π(·|sₜ))"
        if self.value_coef and self.needs_critic:
            terms += f" − {self.value_coef:g}·½(V(sₜ) − V̂ₜ)²"
        if terms != self.surrogate.equation:
            terms = f"[ {terms} ]"
        ratio = self.ratio if self.surrogate.uses_ratio else None
        parts = {
            "advantage": self.advantage,
            "ratio": ratio,
            "surrogate": self.surrogate,
            "KL": self.kl,
            "weight": self.weight,
        }
        used = (self.advantage, self.surrogate, self.weight)
        used += tuple(part for part in (ratio, self.correction) if part is not None)
        penalties = [self.kl] if self.kl is not None and self.needs_reference else []
        return Explanation(
            f"maximise  Σₜ wₜ {terms}",
            tuple(self._where()),
            parts,
            sources=tuple(part.source for part in used),
            differs=tuple(line for part in (*used, *penalties) for line in part.differs),
            warnings=tuple(line for kl in penalties for line in kl.warnings),
        )

    def _where(self) -> list[str]:
        out = [self.advantage.equation]
        if self.whiten:
            out.append("Âₜ ← (Âₜ − mean) / std over all own actions of the batch")
        if self.top_entropy < 1:
            out.append(
                f"Âₜ ← 0 but at the {self.top_entropy:.3g} of the batch's own actions with the"
                " largest H(π_old(·|sₜ))"
            )
        if self.surrogate.uses_ratio:
            out.append(self.ratio.equation)
        out.append(self.weight.equation)
        if self.kl is not None and self.kl.place == "reward":
            penalty = f"{self.kl.coef:g} {self.kl.estimator.equation}"
            out.append(f"rₜ ← rₜ − {penalty} at every own action (π = π_old there, no gradient)")
        if self.kl is not None and self.kl.place == "action":
            out.append(
                f"Âₜ ← Âₜ − {self.kl.coef:g} {self.kl.estimator.equation} of the action itself (no"
                " discount)"
            )
        if self.kl is not None and self.kl.teacher:
            out.append("π_ref = π_T, the teacher")
        if self.kl is not None and self.kl.adapt is not None:
            out.append(
                f"the KL coefficient moves to keep KL near {self.kl.adapt.target:g} nats a response"
            )
        if self.value_coef and self.needs_critic:
            plus = "" if isinstance(self.advantage, QValue) else "+ V(sₜ) "
            target = f"V̂ₜ = the critic's target, Âₜ {plus}before whitening"
            if self.value_clip:
                target += f", V clipped to ±{self.value_clip:g} around its old value"
            out.append(target)
        return out

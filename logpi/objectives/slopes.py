"""The derivatives of a loss by what the policy said: log-probabilities, entropies, values.

    by = slopes(objective, batch, targets, weight, now)      # ∂loss/∂log π, ∂loss/∂H, ∂loss/∂V

A small network's update spends more time on autograd's calls than on numbers, so a policy that
differentiates its own networks asks for these alone (`updates/sgd.py`). They are written out for
`PolicyGradient` where its parts have derivatives of their own (`Surrogate.slope`,
`Estimator.derivative`); for everything else autograd computes them, on a few small tensors. Left
out: derivatives by the policy's parameters, and rows with anything but own actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.objectives.policy_gradient import Diagnostics, PolicyGradient
from logpi.ops.divergences import Divergence
from logpi.ops.ratios import TokenRatio
from logpi.types import Batch, Objective, PolicyOutput, Targets

if TYPE_CHECKING:
    from logpi.ops.surrogates import Slope

__all__ = ["Slopes", "slopes"]


@dataclass(frozen=True)
class Slopes:
    """The derivatives of a loss, constant.

    Attributes:
        logp, entropy, value: [B, T] by the log-probability, the entropy and the value at each
            action; None: 0 everywhere.
    """

    logp: Tensor | None
    entropy: Tensor | None
    value: Tensor | None


Scored = tuple[Tensor, Mapping[str, Tensor], Slopes]


def slopes(
    objective: Objective, batch: Batch, targets: Any, weight: Tensor, now: PolicyOutput
) -> Scored:
    """`objective.loss`, constant, and its derivatives.

    Args:
        batch: every column of every row is an own action, and every row has terminated. targets,
            weight: as of `Objective.loss`. now: carries no gradient.
    """
    # a subclass may have another loss
    if type(objective) is PolicyGradient:
        written = _written_out(objective, batch, targets, weight, now)
        if written is not None:
            loss, by = written
            return loss, _read_later(objective, batch, targets, weight, now), by
    return _by_autograd(objective, batch, targets, weight, now)


def _by_autograd(
    objective: Objective, batch: Batch, targets: Any, weight: Tensor, now: PolicyOutput
) -> Scored:
    """For every objective."""
    said = [x for x in (now.logp, now.entropy, now.value) if x is not None]
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in said]
        loss, metrics = objective.loss(batch, targets, weight, PolicyOutput(*leaves))
    by = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else ()
    logp, entropy, value = (*by, None, None, None)[:3]
    # nobody reads a value after the end of a row that has terminated
    return loss.detach(), metrics, Slopes(logp, entropy, None if value is None else value[:, :-1])


def _read_later(*scored: Any) -> Diagnostics:
    objective, *others = scored

    @torch.no_grad()
    def metrics() -> dict[str, Tensor]:
        return dict(objective.loss(*others)[1])

    return Diagnostics(metrics)


# The loss is −Σ w · objective, so each derivative is −w times that of the objective:
#
#     ∂/∂log π = −w (factor · surrogate′ − β k′)      ∂/∂H = −w c_H      ∂/∂V = w c_V (V − V̂)
#
# One action with w = 1 and Â = 2, a clip at 0.2, c_V = 1, V = 3, V̂ = 5:
#
#     ρ = 1.5   surrogate min(3, 2.4), its derivative 0: ∂/∂log π = 0      ∂/∂V = −2
#     ρ = 1.1   surrogate 2.2, its derivative 2.2, for ρ′ = ρ: ∂/∂log π = −2.2


def _written_out(
    objective: PolicyGradient, batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
) -> tuple[Tensor, Slopes] | None:
    """None: a part has no derivative of its own."""
    if type(objective.ratio) is not TokenRatio:
        return None
    logp = now.logp
    surrogate = objective.surrogate.slope(logp - targets.logp_old, logp, targets.advantage)
    if surrogate is None:
        return None
    total, by_logp = surrogate
    if objective.correction is not None:
        factor = objective.correction(targets.logp_old, batch.logp, batch.mask)
        total, by_logp = total * factor, by_logp * factor
    if kl := objective.penalty("loss"):
        k = None if isinstance(kl.estimator, Divergence) else kl.estimator.derivative
        if k is None or targets.logp_ref is None:
            return None
        total = total - kl.coef * kl.estimator(logp, targets.logp_ref)
        by_logp = by_logp - kl.coef * k(logp, targets.logp_ref)
    entropy, value = None, None
    if objective.entropy_coef:
        total = torch.add(total, now.entropy, alpha=objective.entropy_coef)
        entropy = weight * -objective.entropy_coef
    if objective.value_coef and targets.value_target is not None and now.value is not None:
        error, value = _critic(objective.value_clip, targets, now.value[:, :-1])
        total = torch.sub(total, error, alpha=0.5 * objective.value_coef)
        value = (value * weight).mul_(objective.value_coef)
    return -(total * weight).sum(), Slopes(-(by_logp * weight), entropy, value)


def _critic(clip: float | None, targets: Targets, value: Tensor) -> Slope:
    """The critic's squared error, and the derivative of its half by V."""
    assert targets.value_target is not None
    error = value - targets.value_target
    squared = error * error
    if clip is None or targets.value_old is None:
        return squared, error
    # The clipped value stays where it is: where its error is the larger one, nothing moves V,
    # unless it is V itself.
    move = value - targets.value_old
    near = (targets.value_old + move.clamp(-clip, clip) - targets.value_target).square()
    moves = (squared >= near) | (move.abs() <= clip)
    return torch.maximum(squared, near), error * moves

"""Your own objective, held against the exact gradient before a GPU is spent on it.

    print(check(MyObjective()))

Left out: whether it obeys the laws of masks and micro-batches (`logpi.testing.check_all` tells),
and learning itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.lab.bias import angle, far_reference
from logpi.lab.claims import regularised
from logpi.lab.expectation import Moments, Setting, all_draws, gradients, moments
from logpi.lab.report import ReportTable
from logpi.lab.worlds import World, standard
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import LeaveOneOut
from logpi.ops.selection import Keep, KeepAll
from logpi.ops.weights import SequenceSum

if TYPE_CHECKING:
    from logpi.types import Objective


@dataclass(frozen=True)
class BiasVariance:
    """What one size of group shows.

    Attributes:
        responses: M. moments: exact mean and variance of ∇L̂, see `Moments`.
        noise: tr Var[∇L̂] / ‖E[∇L̂]‖² of a batch. noise_rloo: the same for leave-one-out, an
            unbiased method to compare with.
    """

    responses: int
    moments: Moments
    noise: float
    noise_rloo: float


@dataclass(frozen=True)
class Check:
    """The answer of `check`; printing it gives a table. `findings` has one entry for each M."""

    findings: tuple[BiasVariance, ...]
    target: str

    @property
    def verdict(self) -> str:
        """The worst verdict over all M."""
        order = (
            "the policy gradient",
            "a scaled policy gradient",
            "a different direction",
            "the opposite direction",
        )
        verdicts = [f.moments.verdict for f in self.findings]
        return max(verdicts, key=lambda v: order.index(v) if v in order else len(order))

    @property
    def unbiased(self) -> bool:
        """The expected step is the policy gradient, or a multiple of it, for every M."""
        return self.verdict in ("the policy gradient", "a scaled policy gradient")

    @property
    def cosine(self) -> float:
        """The least cosine of E[∇L̂] and −∇J over all M."""
        return min(f.moments.cosine for f in self.findings)

    def __str__(self) -> str:
        return f"{self._table().text()}\n\nVerdict: {self.verdict}."

    def _repr_html_(self) -> str:
        return f"{self._table().html()}<p>Verdict: {escape(self.verdict)}.</p>"

    def _table(self) -> ReportTable:
        rows = tuple(
            (f.responses, *_numbers(f.moments), f.noise, f.noise_rloo, f.moments.verdict)
            for f in self.findings
        )
        return ReportTable(
            f"E[∇L̂] over every batch there can be, against {self.target}",
            ("M", "cosine", "angle", "scale", "noise", "noise of rloo", "verdict"),
            rows,
            ("d", ".6f", ".2f", ".4f", ".3f", ".3f", ""),
        )


def _numbers(m: Moments) -> tuple[float, float, float]:
    return m.cosine, angle(m.mean, m.target), m.scale


def check(
    objective: Objective,
    world: World | None = None,
    responses: Sequence[int] = (2, 3, 4),
    *,
    prompts: int = 1,
    keep: Keep | None = None,
    reference: Tensor | None = None,
    critic: Tensor | None = None,
    beta: float | None = None,
) -> Check:
    """Bias and variance of any objective, exactly, through its own `prepare`, `weight` and `loss`.

    Each batch is handed over alone, so statistics over a batch are those of a real one. About 2 ms
    a batch and 200–500 batches for each M in the default world.

    Args:
        objective: anything with the calls of `logpi.types.Objective`.
        world: where to look; `standard()` if None: two prompts of different difficulty and length,
            binary rewards.
        responses: sizes of group to try, each at least 2.
        prompts: N in a batch. keep: which groups enter it, all if None.
        reference: [S, A] logits of the reference policy for objectives that need one; some way off
            if None.
        critic: values (`TabularPolicy.value`), V^π if None.
        beta: hold it against −∇(J − β KL(π‖π_ref)); the objective's own KL coefficient if None,
            else 0.
    Raises:
        ValueError: too many batches to list them all.
        AssertionError: the order of a group's rows changes the gradient, so an expectation over
            groups means nothing.

    >>> from logpi import algorithm
    >>> check(algorithm("rloo", beta=0).objective, responses=(2,)).verdict
    'the policy gradient'
    """
    world = world or standard()
    reference = far_reference(world) if reference is None else reference
    beta = _coefficient(objective) if beta is None else beta
    target = -regularised(world, beta, reference)
    settings = (Setting(prompts, m, keep or KeepAll(), critic, reference) for m in responses)
    findings = tuple(_bias_variance(world, objective, s, target) for s in settings)
    return Check(findings, f"−∇(J − {beta:g} KL(π‖π_ref))" if beta else "−∇J")


def _bias_variance(
    world: World, objective: Objective, setting: Setting, target: Tensor
) -> BiasVariance:
    """The objective and leave-one-out with groups of one size."""
    _check_order(world, objective, setting)
    own = moments(world, objective, setting, target)
    plain = PolicyGradient(LeaveOneOut(), weight=SequenceSum())
    rloo = moments(world, plain, Setting(setting.prompts, setting.responses))
    noise = 1 / max(own.signal_to_noise, 1e-300)
    return BiasVariance(setting.responses, own, noise, 1 / rloo.signal_to_noise)


def _coefficient(objective: Objective) -> float:
    return (
        objective.kl.coef
        if isinstance(objective, PolicyGradient) and objective.kl is not None
        else 0.0
    )


def _check_order(world: World, objective: Objective, setting: Setting) -> None:
    """Rows of a group in another order must give the same gradient: that is what lets groups be
    multisets."""
    draws = all_draws(world, setting)
    few = torch.linspace(0, len(draws) - 1, min(len(draws), 5)).long()
    part = draws.pick(few)
    straight, turned = (gradients(world, objective, setting, d) for d in (part, part.reversed()))
    if not torch.allclose(straight, turned, atol=1e-10):
        raise AssertionError(
            "the order of a batch's rows changes the gradient: use `group` to tell whose sample a"
            " row is, not its position"
        )

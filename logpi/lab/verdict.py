"""Your own objective, compared with the exact gradient before you spend a GPU on it.

    print(check(MyObjective()))

Left out: the laws of masks and micro-batches (`logpi.testing.check_all`), and learning.
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
    """Bias and variance at one size of group.

    Attributes:
        responses: M. moments: exact mean and variance of ∇L̂, see `Moments`.
        noise: tr Var[∇L̂] / ‖E[∇L̂]‖² of a batch. noise_rloo: the same of leave-one-out, an
            unbiased method, for comparison.
    """

    responses: int
    moments: Moments
    noise: float
    noise_rloo: float


@dataclass(frozen=True)
class Check:
    """The result of `check`; printing it gives a table. `findings` has one entry for each M."""

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
            (
                f.responses,
                f.moments.cosine,
                angle(f.moments.mean, f.moments.target),
                f.moments.scale,
                f.noise,
                f.noise_rloo,
                f.moments.verdict,
            )
            for f in self.findings
        )
        return ReportTable(
            f"E[∇L̂] over every possible batch, compared with {self.target}",
            ("M", "cosine", "angle", "scale", "noise", "noise of rloo", "verdict"),
            rows,
            ("d", ".6f", ".2f", ".4f", ".3f", ".3f", ""),
        )


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

    The objective sees each batch alone, so its statistics over a batch are right. A batch takes
    about 2 ms, and the default world has 200–500 batches for each M.

    Args:
        objective: anything with the calls of `logpi.types.Objective`.
        world: the world; if None `standard()`: two prompts of different difficulty and length,
            binary rewards.
        responses: sizes M of a group, each at least 2.
        prompts: N in a batch. keep: which groups enter it, all if None.
        reference: [S, A] logits of the reference policy, for objectives that need one. If None, a
            policy at some distance.
        critic: values (`TabularPolicy.value`), V^π if None.
        beta: compare with −∇(J − β KL(π‖π_ref)). If None, the objective's own KL coefficient, or 0.
    Raises:
        ValueError: too many batches to list.
        AssertionError: the order of a group's rows changes the gradient, so an expectation over
            groups has no meaning.

    >>> from logpi import algorithm
    >>> check(algorithm("rloo", beta=0).objective, responses=(2,)).verdict
    'the policy gradient'
    """
    world = world or standard()
    reference = far_reference(world) if reference is None else reference
    if beta is None:
        kl = objective.kl if isinstance(objective, PolicyGradient) else None
        beta = 0.0 if kl is None else kl.coef
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


def _check_order(world: World, objective: Objective, setting: Setting) -> None:
    """Rows of a group in another order must give the same gradient, or a group would not be a
    multiset."""
    draws = all_draws(world, setting)
    few = draws.pick(torch.linspace(0, len(draws) - 1, min(len(draws), 5)).long())
    forward, backward = (gradients(world, objective, setting, d) for d in (few, few.reversed()))
    if not torch.allclose(forward, backward, atol=1e-10):
        raise AssertionError(
            "the order of a batch's rows changes the gradient: use `group` to tell whose sample a"
            " row is, not its position"
        )

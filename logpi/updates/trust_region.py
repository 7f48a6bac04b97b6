"""Trust-region steps of the policy, whose KL they bound, and the critic's regression.

The mathematics is in `ops/trust_region.py`; gradient steps are in `updates/sgd.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import nn

from logpi.distributed.world import current
from logpi.ops.trust_region import (
    LineSearch,
    add_,
    conjugate_gradient,
    fisher_vector_product,
    flat,
    largest_step,
    line_search,
)
from logpi.types import Batch, Policy
from logpi.updates.masters import narrow
from logpi.updates.sgd import SGD, UpdateInputs, gaps

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DistributionalPolicy", "TrustRegion"]


class _WholeDistributions(Protocol):
    """The policy's distributions in M states; their divergence from others is exact."""

    def detach(self) -> Self: ...
    def kl(self, old: Any) -> Tensor:
        """[M] nats, KL(old ‖ this)."""
        ...


@runtime_checkable
class DistributionalPolicy(Policy, Protocol):
    """A policy that can state its whole distribution in each state where it acted, not only the
    probability of the action."""

    def distributions(self, batch: Batch) -> _WholeDistributions: ...


@dataclass(frozen=True)
class _Region:
    """Where a step is looked for.

    Attributes:
        policy: the policy that moves. batch: all rows. sample: those that F is estimated on.
        old: the distributions of π_old in the states of `batch`. score: the loss of `batch` now.
        params: what moves.
    """

    policy: DistributionalPolicy
    batch: Batch
    sample: Batch
    old: Any
    score: Callable[[], Tensor]
    params: list[nn.Parameter]


@dataclass(frozen=True)
class TrustRegion:
    """Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): a natural-gradient
    step with a bound on its KL, or several.

        maximise the objective  subject to  mean KL(π_old(·|s) ‖ π(·|s)) ≤ δ

    Direction F⁻¹g by conjugate gradient, the longest step of second order, then back along it until
    the objective is better and the exact KL (over whole distributions, in the states where the
    policy acted) is at most δ. If no trial is, the policy stays. Then the critic is fitted by SGD
    on its own parameters; those of a shared trunk belong to the policy and stay.

    The policy must be a `DistributionalPolicy`. A language model needs the V probabilities of every
    own action at once, so its vocabulary must be small.

    Attributes:
        max_kl: δ > 0, nats an action. damping: ≥ 0, added to F's diagonal.
        cg_steps: of conjugate gradient. shrink, trials: of the line search.
        critic: gradient steps of the critic's regression. micro_tokens: of the evaluation before
            the update; the step itself takes all rows at once.
        fisher_fraction: in (0, 1], the share of the rows, drawn anew for each step, that the
            Fisher-vector products are computed on. They take most of a step's time, and an
            estimate of F is enough (the paper takes a tenth). Gradient and line search see every
            row, so the bound on KL holds.
        trust_steps: n ≥ 1 steps on one batch, each with the gradient where the last one ended (Ju,
            *Maths for Policy Gradient Methods*, section 2.4.2: "repeat a few times"). The bound
            holds from π_old to the end of all; each begins with 1/n of the single step's length.
    """

    max_kl: float = 0.01
    damping: float = 0.1
    cg_steps: int = 10
    shrink: float = 0.8
    trials: int = 10
    critic: SGD = SGD(epochs=10, max_grad_norm=None)
    micro_tokens: int | None = 16_384
    fisher_fraction: float = 1.0
    trust_steps: int = 1

    def __post_init__(self) -> None:
        if not self.max_kl > 0:
            raise ValueError(
                f"max_kl is the size of the trust region, above 0 nats, not {self.max_kl:g}"
            )
        if not 0 < self.fisher_fraction <= 1:
            raise ValueError(
                f"fisher_fraction is a share of the rows, in (0, 1], not {self.fisher_fraction:g}"
            )
        if not (
            self.damping >= 0
            and min(self.cg_steps, self.trials, self.trust_steps) >= 1
            and 0 < self.shrink < 1
        ):
            raise ValueError(
                "damping is at least 0, cg_steps, trials and trust_steps at least 1, shrink within"
                f" (0, 1): {self}"
            )

    @property
    def gradient_steps(self) -> SGD:
        """Those of the critic."""
        return self.critic

    def with_gradient_steps(self, steps: SGD) -> TrustRegion:
        """The update with other steps of the critic, evaluated in the same pieces as they."""
        return replace(self, critic=steps, micro_tokens=steps.micro_tokens)

    def check(self, policy: Policy) -> None:
        """Raises ValueError: the policy cannot state its whole distribution, its weights cannot
        take a step of a given KL, or there are several ranks."""
        if current().size > 1:
            raise ValueError(
                "a trust region takes its step from the whole batch at once, so it works in one"
                " process: start it without torchrun"
            )
        if not isinstance(policy, DistributionalPolicy):
            raise ValueError(
                f"a trust region needs the policy's whole distribution; {type(policy).__name__} has"
                " none"
            )
        if any(narrow(p) for p in policy.parameters() if p.requires_grad):
            raise ValueError(
                "a trust region's step would be lost in the rounding of 16-bit weights: train in"
                " float32"
            )

    def __call__(self, inputs: UpdateInputs) -> Iterator[dict[str, float]]:
        """Yields the metrics, after the steps were made and the critic fitted."""
        # The other attention kernels have no second derivative.
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            metrics, moved = self._step(inputs)
        if inputs.objective.needs_critic:
            metrics |= self._fit_critic(inputs, moved)
        yield metrics

    def _step(self, inputs: UpdateInputs) -> tuple[dict[str, float], list[nn.Parameter]]:
        """Moves the parameters that π depends on; returns them."""
        policy, objective = inputs.policy, inputs.objective.without_critic()
        assert isinstance(policy, DistributionalPolicy)
        device = next(policy.parameters()).device
        batch, targets = inputs.batch.to(device), inputs.targets.to(device)
        weight = objective.weight(batch.mask, batch.group)
        now = policy.evaluate(batch)
        loss, metrics = objective.loss(batch, targets, weight, now)
        report = {k: float(v) for k, v in {**metrics, **gaps(now, batch, targets)}.items()}
        if inputs.check is not None:
            inputs.check(report)
        trained = [p for p in policy.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, trained, allow_unused=True)
        params = [p for p, x in zip(trained, slopes, strict=True) if x is not None]
        gradient = -flat([x for x in slopes if x is not None], params)
        with torch.no_grad():
            old = policy.distributions(batch)

        def score() -> Tensor:
            return objective.loss(batch, targets, weight, policy.evaluate(batch))[0]

        report |= {"loss": float(loss.detach()), "grad_norm": float(gradient.norm())}
        steps: list[LineSearch] = []
        for number in range(self.trust_steps):
            if number:
                loss = score()
                gradient = -flat(torch.autograd.grad(loss, params, allow_unused=True), params)
            here = self._sample(batch, inputs.generator)
            within = _Region(policy, batch, here, old, score, params)
            steps.append(self._natural_step(within, loss, gradient))
            if not steps[-1].fraction:
                break
        return report | self._report(steps), params

    def _natural_step(self, region: _Region, loss: Tensor, gradient: Tensor) -> LineSearch:
        """Along F⁻¹g, as far as the objective is better and KL(π_old ‖ π) stays below the bound."""
        params, policy = region.params, region.policy
        here = policy.distributions(region.sample)
        product = fisher_vector_product(here.kl(here.detach()).mean(), params, self.damping)
        # KL grows as the square of the way, so n steps in a line of δ/n² each reach δ.
        step = largest_step(
            conjugate_gradient(product, gradient, self.cg_steps),
            product,
            self.max_kl / self.trust_steps**2,
        )
        start = [p.detach().clone() for p in params]

        @torch.no_grad()
        def attempt(fraction: float) -> tuple[float, float]:
            add_(params, start, step * fraction if fraction else torch.zeros_like(step))
            gain = float(loss.detach() - region.score())
            return gain, float(policy.distributions(region.batch).kl(region.old).mean())

        return line_search(attempt, self.max_kl, self.shrink, self.trials)

    def _report(self, steps: list[LineSearch]) -> dict[str, float]:
        """The KL from π_old to where the last step that was taken ended, and all gains."""
        taken = [s for s in steps if s.fraction]
        report = {
            "trust/kl": taken[-1].kl if taken else 0.0,
            "trust/gain": sum(s.gain for s in steps),
            "trust/fraction": steps[0].fraction,
            "trust/trials": float(sum(s.trials for s in steps)),
        }
        return report | ({"trust/steps": float(len(taken))} if self.trust_steps > 1 else {})

    def _sample(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The rows with an own action that F is estimated on."""
        acted = batch.mask.any(1).nonzero().flatten()
        if self.fisher_fraction == 1 or not len(acted):
            return batch
        count = math.ceil(self.fisher_fraction * len(acted))
        return batch.rows(
            acted[torch.randperm(len(acted), generator=generator)[:count].to(acted.device)]
        )

    def _fit_critic(self, inputs: UpdateInputs, fixed: list[nn.Parameter]) -> dict[str, float]:
        """The critic's regression, with the parameters `fixed` kept as they are."""
        regression = replace(inputs, objective=inputs.objective.critic_alone(), check=None)
        for p in fixed:
            p.requires_grad_(False)
        try:
            steps = list(self.critic(regression))
        finally:
            for p in fixed:
                p.requires_grad_(True)
        losses = [s["value/loss"] for s in steps if "value/loss" in s]
        return {"value/loss": sum(losses) / len(losses)} if losses else {}

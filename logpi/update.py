"""How parameters move: passes, optimiser batches and micro-batches; or one trust-region step.

`SGD` walks over a prepared batch. The split into micro-batches is a matter of memory alone: weights are made once for each
optimiser batch, so any split gives the same gradient. `TrustRegion` makes one step whose KL it bounds, and fits the critic apart.
What is optimised is not decided here (`objectives.py`), the trust region's mathematics is in `ops/trust_region.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from logpi.batching import micro_batches
from logpi.objectives import PolicyGradient
from logpi.ops.distributions import DistributionalPolicy
from logpi.ops.ratios import TokenRatio
from logpi.ops.time import own
from logpi.ops.trust_region import add_, conjugate_gradient, fisher_vector_product, flat, largest_step, line_search
from logpi.ops.weights import TokenMean
from logpi.optimizers import narrow
from logpi.tally import Tally, read
from logpi.types import Batch, Evaluation, Objective, Policy, Targets

__all__ = ["SGD", "Actions", "Groups", "Look", "Shuffle", "TrustRegion"]


Look = Callable[[Mapping[str, float]], None]
"""Given the metrics of an update's first step before it is made; an exception refuses it, and the weights stay as they are."""


def _look_away(metrics: Mapping[str, float]) -> None:
    pass


class Shuffle(ABC):
    """What is dealt out to the minibatches."""

    def rows(self, objective: Objective, batch: Batch, targets: Targets) -> tuple[Batch, Targets]:
        """The batch as it is dealt out; once for each update."""
        return batch, targets

    @abstractmethod
    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        """Row numbers [n] of each minibatch; once for each pass."""

    def parts(
        self, batch: Batch, targets: Targets, minibatches: int, generator: torch.Generator
    ) -> Iterator[tuple[Batch, Targets]]:
        """The minibatches of one pass."""
        for rows in self.deal(batch.group, minibatches, generator):
            part = batch.rows(rows)
            yield part, targets.rows(rows, part.mask.shape[1])


@dataclass(frozen=True)
class Groups(Shuffle):
    """Whole groups: the samples of one prompt share its computation. Right for every objective.

    With fewer groups than minibatches (a single prompt, say) groups are cut, which only `GroupTokenMean` notices.
    """

    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        ids, index = torch.unique(group.cpu(), return_inverse=True)
        place = torch.randperm(len(ids), generator=generator)[index]
        if len(ids) < minibatches:
            return [x for x in torch.argsort(place, stable=True).tensor_split(minibatches) if len(x)]
        bounds = [len(x) for x in torch.arange(len(ids)).tensor_split(minibatches)]
        part = torch.arange(minibatches).repeat_interleave(torch.tensor(bounds))[place]
        return [(part == i).nonzero().flatten() for i in range(minibatches)]


Rows = TypeVar("Rows", Batch, Targets)


def _split(table: Rows, order: Tensor, sizes: list[int]) -> list[Rows]:
    """Every tensor's rows in this order, in pieces of these sizes."""
    known = {x.name: getattr(table, x.name) for x in fields(table)}
    pieces = {k: v[order.to(v.device)].split(sizes) for k, v in known.items() if v is not None}
    return [replace(table, **dict(zip(pieces, piece, strict=True))) for piece in zip(*pieces.values(), strict=True)]


@dataclass(frozen=True)
class Actions(Shuffle):
    """Single actions, as control does it: every own action becomes a row of its own, after advantages were taken.

    The gradient of one minibatch that holds everything is exactly that of the rows, so this is refused where an action's loss
    depends on its row (sequence ratios, weights other than the token mean) or its state on what came before (tokens).

    Raises:
        ValueError: at the first update, one of the above.
    """

    def rows(self, objective: Objective, batch: Batch, targets: Targets) -> tuple[Batch, Targets]:
        self._check(objective, batch)
        mask = batch.mask
        seen = batch.obs[:, :-1][mask][:, None]
        one = {k: getattr(batch, k)[mask][:, None] for k in ("action", "mask", "reward", "logp")}
        rows = torch.arange(len(seen), device=mask.device)
        flat_batch = Batch(  # what follows is not read after a terminated row, so any observation will do
            obs=seen.expand(-1, 2, *seen.shape[2:]),
            terminated=torch.ones_like(rows, dtype=torch.bool),
            group=rows,
            **one,
        )
        return flat_batch, targets.map(lambda x: x[mask][:, None])

    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        return [x for x in torch.randperm(len(group), generator=generator).tensor_split(minibatches) if len(x)]

    def parts(
        self, batch: Batch, targets: Targets, minibatches: int, generator: torch.Generator
    ) -> Iterator[tuple[Batch, Targets]]:
        """One gather a pass, of which minibatches are slices: a gather for each costs as much as a small network's forward."""
        dealt = self.deal(batch.group, minibatches, generator)
        order, sizes = torch.cat(dealt), [len(x) for x in dealt]
        yield from zip(_split(batch, order, sizes), _split(targets, order, sizes), strict=True)

    def _check(self, objective: Objective, batch: Batch) -> None:
        if batch.obs.ndim < 3:
            raise ValueError("minibatches of single actions need states, not tokens: use SGD(shuffle=Groups())")
        assert isinstance(objective, PolicyGradient)
        by_row = objective.surrogate.uses_ratio and not isinstance(objective.ratio, TokenRatio)
        if by_row or not isinstance(objective.weight, TokenMean):
            part = objective.ratio if by_row else objective.weight
            raise ValueError(
                f"{part} ties the actions of a row together: use SGD(shuffle=Groups()), or weight=TokenMean()"
            )


@dataclass(frozen=True)
class _OptimiserBatch:
    """What one step sees: micro-batches with their targets and weights; how many of its rows have a gradient, of how many."""

    pieces: list[tuple[Batch, Targets, Tensor]]
    busy: int
    rows: int


@dataclass(frozen=True)
class SGD:
    """Gradient steps on the objective.

    Attributes:
        epochs: passes over a batch (TRL's num_iterations); 1 is on-policy.
        minibatches: optimiser steps in a pass.
        micro_tokens: most columns (prompt and completion) of a forward and backward; memory only, never the result.
        max_grad_norm: gradients are scaled down to this norm, None for never.
        shuffle: what is dealt out to the minibatches, if there are several.
    Raises:
        ValueError: a number that would leave nothing to be done, or turn the gradient round.
    """

    epochs: int = 1
    minibatches: int = 1
    micro_tokens: int | None = 8_192
    max_grad_norm: float | None = 1.0
    shuffle: Shuffle = Groups()

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches", "micro_tokens"):
            if (n := getattr(self, name)) is not None and not n >= 1:
                raise ValueError(f"{name} must be at least 1, not {n:g}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, or null for none, not {self.max_grad_norm:g}")

    def check(self, policy: Policy) -> None:
        """Any policy will do."""

    def __call__(
        self, policy: Policy, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, targets: Targets,
        generator: torch.Generator, look: Look = _look_away,
    ) -> Iterator[dict[str, float]]:  # fmt: skip
        """Yields the metrics of each optimiser step, after it was made: the objective's diagnostics in the last pass only, where the
        policy has moved furthest."""
        batch, targets = self.shuffle.rows(objective, batch, targets)
        minibatches = min(self.minibatches, len(batch.group.unique())) if objective.whole_groups else self.minibatches
        whole = self._weighed(objective, batch, targets) if minibatches <= 1 else None
        first: Look | None = look
        for epoch in range(self.epochs):
            last = epoch == self.epochs - 1
            dealt = self.shuffle.parts(batch, targets, minibatches, generator) if whole is None else ()
            for part in (self._weighed(objective, *x) for x in dealt) if whole is None else [whole]:
                yield self._step(policy, objective, optimizer, part, first, last)
                first = None

    def _weighed(self, objective: Objective, batch: Batch, targets: Targets) -> _OptimiserBatch:
        """The micro-batches of the rows that have a gradient, with the weights of the whole optimiser batch."""
        weight, idle = objective.weight(batch.mask, batch.group), objective.idle(batch, targets)
        busy = len(batch) - int(idle.sum())
        if self.micro_tokens is None and busy == len(batch):
            return _OptimiserBatch([(batch, targets, weight)], busy, len(batch))
        index = (~idle).nonzero().flatten()
        cut = micro_batches(batch.mask[index], self.micro_tokens, batch.group[index], objective.whole_groups)
        pieces = []
        for piece in cut if busy else ():
            part = batch.rows(index[piece])
            width = part.mask.shape[1]
            pieces.append((part, targets.rows(index[piece], width), weight[index[piece], :width]))
        return _OptimiserBatch(pieces, busy, len(batch))

    def _step(
        self, policy: Policy, objective: Objective, optimizer: torch.optim.Optimizer, made: _OptimiserBatch, look: Look | None,
        diagnose: bool,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step. A gradient that is not finite moves nothing, and is counted."""
        tally, losses = Tally(), []
        optimizer.zero_grad(set_to_none=True)
        for rows, targets, weights in made.pieces:  # on the CPU, so that nothing before the loss waits for a GPU
            now = policy.evaluate(rows)
            here = now.logp.device
            part, known, weight = rows.to(here), targets.to(here), weights.to(here)
            loss, metrics = objective.loss(part, known, weight, now)
            loss.backward()
            losses.append(loss.detach())
            seen = {**(metrics if diagnose else {}), **(_gaps(now, part, known) if look else {})}
            if seen:
                tally.add(seen, part.mask.sum())
        norm, means = self._clip(optimizer), tally.means()
        if look:
            look(means)
        fine = math.isfinite(norm)
        if made.busy and fine:
            optimizer.step()
        return {
            **means,
            "loss": sum(read(losses)),
            "grad_norm": norm,
            "idle_rows": 1.0 - made.busy / max(1, made.rows),
            "skipped": float(not fine),
        }

    def _clip(self, optimizer: torch.optim.Optimizer) -> float:
        """The gradient's norm, before it is scaled down."""
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            return 0.0
        norm = float(torch.linalg.vector_norm(grads[0] if len(grads) == 1 else torch.stack(torch._foreach_norm(grads))))
        if self.max_grad_norm is not None and norm > self.max_grad_norm:
            torch._foreach_mul_(grads, self.max_grad_norm / (norm + 1e-6))
        return norm


def _gaps(now: Evaluation, batch: Batch, targets: Targets) -> dict[str, Tensor]:
    """Distances of the policy's log-probabilities from the recorded ones, in nats: the largest and the mean."""
    logp, out = now.logp.detach(), {}
    for name, recorded in (("gap_old", targets.logp_old), ("gap_sampler", batch.logp)):
        gap = own((logp - recorded).abs(), batch.mask)
        out |= {f"{name}/max": gap.amax(), f"{name}/mean": gap.sum() / batch.mask.sum().clamp(min=1)}
    return out


@dataclass(frozen=True)
class TrustRegion:
    """Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): one natural-gradient step with a bound on its KL.

        maximise the objective  subject to  mean KL(π_old(·|s) ‖ π(·|s)) ≤ δ

    Direction F⁻¹g by conjugate gradient, the longest step of second order, then back along it until the objective is better and
    the exact KL (over whole distributions, in the states where the policy acted) is at most δ; if no trial is, the policy stays.
    Then the critic is fitted by SGD on its own parameters: those that a shared trunk holds belong to the policy and stay.
    A policy must be a `DistributionalPolicy`; for tokens every own action needs its V probabilities at once: small vocabularies.

    Attributes:
        max_kl: δ > 0, nats an action. damping: ≥ 0, added to F's diagonal.
        cg_steps: of conjugate gradient. shrink, trials: of the line search.
        critic: steps of the critic's regression. micro_tokens: of the evaluation before the update; the step itself takes all rows at once.
        fisher_fraction: in (0, 1], the share of the rows, drawn anew for each step, that the Fisher-vector products are taken on: they
            are most of a step's time, and a rough F serves as well (the source takes a tenth). Gradient and line search see every row,
            so the bound on KL holds as before.
    """

    max_kl: float = 0.01
    damping: float = 0.1
    cg_steps: int = 10
    shrink: float = 0.8
    trials: int = 10
    critic: SGD = SGD(epochs=10, max_grad_norm=None)
    micro_tokens: int | None = 16_384
    fisher_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not self.max_kl > 0:
            raise ValueError(f"max_kl is the size of the trust region, above 0 nats, not {self.max_kl:g}")
        if not 0 < self.fisher_fraction <= 1:
            raise ValueError(f"fisher_fraction is a share of the rows, in (0, 1], not {self.fisher_fraction:g}")
        if not (self.damping >= 0 and self.cg_steps >= 1 and self.trials >= 1 and 0 < self.shrink < 1):
            raise ValueError(f"damping is at least 0, cg_steps and trials at least 1, shrink within (0, 1): {self}")

    def check(self, policy: Policy) -> None:
        """Raises ValueError: the policy cannot state its whole distribution, or its weights cannot take a step of a given KL."""
        if not isinstance(policy, DistributionalPolicy):
            raise ValueError(f"a trust region needs the policy's whole distribution; {type(policy).__name__} has none")
        if any(narrow(p) for p in policy.parameters() if p.requires_grad):
            raise ValueError("a trust region's step would be lost in the rounding of 16-bit weights: train in float32")

    def __call__(
        self, policy: Policy, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, targets: Targets,
        generator: torch.Generator, look: Look = _look_away,
    ) -> Iterator[dict[str, float]]:  # fmt: skip
        """Yields the metrics of the one step, after it was made and the critic fitted."""
        assert isinstance(policy, DistributionalPolicy) and isinstance(objective, PolicyGradient)
        alone, here = replace(objective, value_coef=0.0), next(policy.parameters()).device
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):  # the others have no second derivative
            metrics, moved = self._step(policy, alone, batch.to(here), targets.to(here), generator, look)
        if targets.value_target is not None:
            metrics |= self._fit(policy, objective, optimizer, batch, targets, generator, moved)
        yield metrics

    def _step(
        self, policy: DistributionalPolicy, objective: PolicyGradient, batch: Batch, targets: Targets,
        generator: torch.Generator, look: Look,
    ) -> tuple[dict[str, float], list[nn.Parameter]]:  # fmt: skip
        """Moves the parameters that π depends on; returns them."""
        weight = objective.weight(batch.mask, batch.group)
        now = policy.evaluate(batch)
        loss, metrics = objective.loss(batch, targets, weight, now)
        report = {k: float(v) for k, v in {**metrics, **_gaps(now, batch, targets)}.items()}
        look(report)
        trained = [p for p in policy.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(loss, trained, allow_unused=True)
        params = [p for p, x in zip(trained, slopes, strict=True) if x is not None]
        gradient = -flat([x for x in slopes if x is not None], params)
        with torch.no_grad():
            old = policy.distributions(batch)
        here = policy.distributions(self._sample(batch, generator))
        product = fisher_vector_product(here.kl(here.detach()).mean(), params, self.damping)
        step = largest_step(conjugate_gradient(product, gradient, self.cg_steps), product, self.max_kl)
        start = [p.detach().clone() for p in params]

        @torch.no_grad()
        def attempt(fraction: float) -> tuple[float, float]:
            add_(params, start, step * fraction if fraction else torch.zeros_like(step))
            after, _ = objective.loss(batch, targets, weight, policy.evaluate(batch))
            return float(loss.detach() - after), float(policy.distributions(batch).kl(old).mean())

        found = line_search(attempt, self.max_kl, self.shrink, self.trials)
        return report | {
            "loss": float(loss.detach()), "grad_norm": float(gradient.norm()), "trust/kl": found.kl, "trust/gain": found.gain,
            "trust/fraction": found.fraction, "trust/trials": float(found.trials),
        }, params  # fmt: skip

    def _sample(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The rows with an own action that F is estimated on."""
        acted = batch.mask.any(1).nonzero().flatten()
        if self.fisher_fraction == 1 or not len(acted):
            return batch
        count = math.ceil(self.fisher_fraction * len(acted))
        return batch.rows(acted[torch.randperm(len(acted), generator=generator)[:count].to(acted.device)])

    def _fit(
        self, policy: Policy, objective: PolicyGradient, optimizer: torch.optim.Optimizer, batch: Batch, targets: Targets,
        generator: torch.Generator, held: list[nn.Parameter],
    ) -> dict[str, float]:  # fmt: skip
        """The critic's regression, with the parameters `held` kept as they are."""
        regression = replace(objective, weight=TokenMean(), ratio=TokenRatio(), entropy_coef=0.0, kl=None)
        for p in held:
            p.requires_grad_(False)
        try:
            steps = list(self.critic(policy, regression, optimizer, batch, targets, generator))
        finally:
            for p in held:
                p.requires_grad_(True)
        told = [s["value/loss"] for s in steps if "value/loss" in s]
        return {"value/loss": sum(told) / len(told)} if told else {}

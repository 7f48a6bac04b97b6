"""How parameters move by gradient steps: passes, optimiser batches and micro-batches.

`SGD` takes steps on a prepared batch. The split into micro-batches changes only the memory that is
needed: weights are made once for each optimiser batch, so every split gives the same gradient. Left
out: what is optimised (`objectives/policy_gradient.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from logpi.distributed.parts import local, norm
from logpi.distributed.world import current, is_sharded
from logpi.objectives.slopes import slopes
from logpi.ops.time import own
from logpi.types import Batch, Objective, Policy, PolicyOutput, UpdateConstants
from logpi.updates.diagnostics import diagnostic_means
from logpi.updates.micro_batches import micro_batches, own_share

__all__ = ["SGD", "Actions", "Groups", "Recorded", "Shuffle", "UpdateInputs", "WrittenOut", "gaps"]


@dataclass(frozen=True)
class UpdateInputs:
    """What an update works on.

    Attributes:
        policy: the policy to move. objective: what it is scored by. optimizer: over its parameters.
        batch, targets: the rollout, and what `objective.prepare` made of it.
        generator: draws the order of the rows.
        check: is given the metrics of the first step before that step is made. An exception refuses
            the step, and the weights stay as they are. None: no check.
    """

    policy: Policy
    objective: Objective
    optimizer: torch.optim.Optimizer
    batch: Batch
    targets: UpdateConstants
    generator: torch.Generator
    check: Callable[[Mapping[str, float]], None] | None = None


class Recorded(Protocol):
    """What a policy says of a batch, with a way back of its own instead of autograd's.

    Attributes:
        output: constant.
    """

    @property
    def output(self) -> PolicyOutput: ...

    def backward(self, logp: Tensor | None, entropy: Tensor | None, value: Tensor | None) -> None:
        """Adds to the parameters' gradients, from slopes [B, T] by the output (None: 0)."""
        ...


@runtime_checkable
class WrittenOut(Policy, Protocol):
    """A policy that differentiates its networks itself, where it can."""

    def recorded(self, batch: Batch) -> Recorded | None:
        """None: `evaluate` and autograd do it for this batch."""
        ...


class Shuffle(ABC):
    """How the rows of a batch are shuffled and dealt out to the minibatches."""

    def rows(
        self, objective: Objective, batch: Batch, targets: UpdateConstants
    ) -> tuple[Batch, UpdateConstants]:
        """The rows to deal out; called once for each update."""
        return batch, targets

    @abstractmethod
    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        """Row numbers [n] of each minibatch; called once for each pass."""

    def parts(
        self, batch: Batch, targets: UpdateConstants, minibatches: int, generator: torch.Generator
    ) -> Iterator[tuple[Batch, UpdateConstants]]:
        """The minibatches of one pass."""
        for rows in self.deal(batch.group, minibatches, generator):
            part = batch.rows(rows)
            yield part, targets.rows(rows, part.mask.shape[1])


@dataclass(frozen=True)
class Groups(Shuffle):
    """Whole groups: the samples of one prompt share its computation. Right for every objective.

    With fewer groups than minibatches (a single prompt, say) groups are cut, which only
    `GroupTokenMean` notices.
    """

    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        ids, index = torch.unique(group.cpu(), return_inverse=True)
        place = torch.randperm(len(ids), generator=generator)[index]
        if len(ids) < minibatches:
            order = torch.argsort(place, stable=True)
            return [rows for rows in order.tensor_split(minibatches) if len(rows)]
        bounds = [len(x) for x in torch.arange(len(ids)).tensor_split(minibatches)]
        part = torch.arange(minibatches).repeat_interleave(torch.tensor(bounds))[place]
        return [(part == i).nonzero().flatten() for i in range(minibatches)]


Rows = TypeVar("Rows", Batch, UpdateConstants)


def _split(rows: Rows, order: Tensor, sizes: list[int]) -> list[Rows]:
    """The rows in this order, in pieces of these sizes."""
    tensors = {x.name: getattr(rows, x.name) for x in fields(rows)}
    pieces = {k: v[order.to(v.device)].split(sizes) for k, v in tensors.items() if v is not None}
    return [
        replace(rows, **dict(zip(pieces, piece, strict=True)))
        for piece in zip(*pieces.values(), strict=True)
    ]


@dataclass(frozen=True)
class Actions(Shuffle):
    """Single actions, as is usual in control: every own action becomes a row of its own, after
    advantages were computed.

    One minibatch of all actions has exactly the gradient of the rows. Therefore an objective in
    which an action's loss depends on its row (sequence ratios, weights other than the token mean)
    is refused, and so are tokens, whose state depends on what came before.

    Raises:
        ValueError: at the first update, if the objective or the batch is refused.
    """

    def rows(
        self, objective: Objective, batch: Batch, targets: UpdateConstants
    ) -> tuple[Batch, UpdateConstants]:
        self._check(objective, batch)
        # A batch of two rows, whose actions become rows and are dealt out to two minibatches:
        #
        #     a₀ a₁        a₀  a₁  b₀        a random order 2 0 1:   b₀ a₀ | a₁
        #     b₀ ·
        mask = batch.mask
        obs = batch.obs[:, :-1][mask][:, None]
        one = {k: getattr(batch, k)[mask][:, None] for k in ("action", "mask", "reward", "logp")}
        rows = torch.arange(len(obs), device=mask.device)
        # What follows a terminated row is not read, so any observation will do.
        flat_batch = Batch(
            obs=obs.expand(-1, 2, *obs.shape[2:]),
            terminated=torch.ones_like(rows, dtype=torch.bool),
            group=rows,
            **one,
        )
        return flat_batch, targets.map(lambda x: x[mask][:, None])

    def deal(self, group: Tensor, minibatches: int, generator: torch.Generator) -> list[Tensor]:
        order = torch.randperm(len(group), generator=generator)
        return [rows for rows in order.tensor_split(minibatches) if len(rows)]

    def parts(
        self, batch: Batch, targets: UpdateConstants, minibatches: int, generator: torch.Generator
    ) -> Iterator[tuple[Batch, UpdateConstants]]:
        """The minibatches of one pass are slices of one gather: a gather for each takes as long as
        a small network's forward."""
        dealt = self.deal(batch.group, minibatches, generator)
        order, sizes = torch.cat(dealt), [len(x) for x in dealt]
        yield from zip(_split(batch, order, sizes), _split(targets, order, sizes), strict=True)

    def _check(self, objective: Objective, batch: Batch) -> None:
        if batch.obs.ndim < 3:
            raise ValueError(
                "minibatches of single actions need states, not tokens: use SGD(shuffle=Groups())"
            )
        if objective.ties is not None:
            raise ValueError(
                f"{objective.ties} ties the actions of a row together: use"
                " SGD(shuffle=Groups()), or weight=TokenMean()"
            )


@dataclass(frozen=True)
class _OptimiserBatch:
    """The rows of one optimiser step.

    Attributes:
        pieces: this rank's micro-batches with their targets and weights, and whether they count
            (`own_share`).
        busy: number of rows that have a gradient. rows: number of all rows.
    """

    pieces: list[tuple[Batch, UpdateConstants, Tensor, bool]]
    busy: int
    rows: int


@dataclass(frozen=True)
class SGD:
    """Gradient steps on the objective.

    Attributes:
        epochs: passes over a batch (TRL's num_iterations); 1 is on-policy.
        minibatches: optimiser steps in a pass.
        micro_tokens: most columns (prompt and completion) of a forward and backward; memory only,
            never the result.
        max_grad_norm: gradients are scaled down to this norm, None for never.
        shuffle: how rows are dealt out to the minibatches, if there are several.
    Raises:
        ValueError: a number below 1, or a norm that is not positive.
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
            raise ValueError(
                f"max_grad_norm must be above 0, or null for none, not {self.max_grad_norm:g}"
            )

    @property
    def gradient_steps(self) -> SGD:
        """The gradient steps of the update."""
        return self

    def with_gradient_steps(self, steps: SGD) -> SGD:
        """The update with other gradient steps."""
        return steps

    def check(self, policy: Policy) -> None:
        """Every policy can take gradient steps."""

    def __call__(self, inputs: UpdateInputs) -> Iterator[dict[str, float]]:
        """Yields the metrics of each optimiser step, after it was made: the objective's diagnostics
        in the last pass only, where the policy has moved furthest."""
        objective, minibatches = inputs.objective, self.minibatches
        batch, targets = self.shuffle.rows(objective, inputs.batch, inputs.targets)
        if objective.whole_groups:
            minibatches = min(minibatches, len(batch.group.unique()))
        whole = self._optimiser_batch(objective, batch, targets) if minibatches <= 1 else None
        first = True
        for epoch in range(self.epochs):
            parts: Iterable[_OptimiserBatch] = (
                [whole]
                if whole
                else (
                    self._optimiser_batch(objective, *part)
                    for part in self.shuffle.parts(batch, targets, minibatches, inputs.generator)
                )
            )
            for part in parts:
                yield self._step(inputs, part, first, epoch == self.epochs - 1)
                first = False

    def _optimiser_batch(
        self, objective: Objective, batch: Batch, targets: UpdateConstants
    ) -> _OptimiserBatch:
        """The micro-batches of the rows that have a gradient, with the weights of the whole
        optimiser batch: so the gradients of all ranks' pieces add up to its gradient."""
        world = current()
        weight, idle = objective.weight(batch.mask, batch.group), objective.idle(batch, targets)
        busy = len(batch) - int(idle.sum())
        if self.micro_tokens is None and busy == len(batch) and world.size == 1:
            return _OptimiserBatch([(batch, targets, weight, True)], busy, len(batch))
        index = (~idle).nonzero().flatten()
        mask, group, whole = batch.mask[index], batch.group[index], objective.whole_groups
        cut = list(micro_batches(mask, self.micro_tokens, group, whole, world.size)) if busy else []
        pieces = []
        for piece, counts in own_share(cut, mask, world.rank, world.size):
            rows = index[piece]
            part = batch.rows(rows)
            width = part.mask.shape[1]
            pieces.append((part, targets.rows(rows, width), weight[rows, :width], counts))
        return _OptimiserBatch(pieces, busy, len(batch))

    def _step(
        self, inputs: UpdateInputs, part: _OptimiserBatch, first: bool, diagnose: bool
    ) -> dict[str, float]:
        """One optimiser step. A gradient that is not finite moves nothing, and is counted."""
        diagnostics = []
        inputs.optimizer.zero_grad(set_to_none=True)
        # Pieces are on the CPU, so that nothing before the loss waits for a GPU.
        for piece in part.pieces:
            *_, counts = piece
            loss, metrics, now, batch, targets = _differentiated(inputs, *piece)
            if not counts:
                continue
            known = {
                "+loss": loss,
                **(metrics if diagnose else {}),
                **(gaps(now, batch, targets) if first else {}),
            }
            diagnostics.append((known, batch.mask.sum()))
        _add_up_gradients(inputs.optimizer)
        size, means = self._clip(inputs.optimizer), diagnostic_means(diagnostics)
        if first and inputs.check is not None:
            inputs.check(means)
        finite = math.isfinite(size)
        if part.busy and finite:
            inputs.optimizer.step()
        return {
            "loss": 0.0,
            **means,
            "grad_norm": size,
            "idle_rows": 1.0 - part.busy / max(1, part.rows),
            "skipped": float(not finite),
        }

    def _clip(self, optimizer: torch.optim.Optimizer) -> float:
        """Scales the gradient down to `max_grad_norm`; its norm before that."""
        grads = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if not grads:
            return 0.0
        size = norm(grads)
        if self.max_grad_norm is not None and size > self.max_grad_norm:
            torch._foreach_mul_([local(g) for g in grads], self.max_grad_norm / (size + 1e-6))
        return size


@cache
def _writes_out(kind: type) -> bool:
    """Whether policies of this class are `WrittenOut`; the question takes as long as a layer."""
    return issubclass(kind, WrittenOut)


def _differentiated(
    inputs: UpdateInputs, rows: Batch, constants: UpdateConstants, weights: Tensor, counts: bool
) -> tuple[Tensor, Mapping[str, Tensor], PolicyOutput, Batch, UpdateConstants]:
    """Adds a micro-batch's gradient to the parameters'; its loss, diagnostics and output, and its
    rows and constants on the output's device. One that does not count (`own_share`) adds 0."""
    policy = inputs.policy
    recorded = policy.recorded(rows) if counts and _writes_out(type(policy)) else None  # type: ignore[attr-defined]
    if recorded is not None:
        loss, metrics, by = slopes(inputs.objective, rows, constants, weights, recorded.output)
        recorded.backward(by.logp, by.entropy, by.value)
        return loss, metrics, recorded.output, rows, constants
    now = policy.evaluate(rows)
    here = now.logp.device
    batch, targets, weight = rows.to(here), constants.to(here), weights.to(here)
    loss, metrics = inputs.objective.loss(batch, targets, weight, now)
    (loss if counts else 0.0 * loss).backward()
    return loss.detach(), metrics, now, batch, targets


def _add_up_gradients(optimizer: torch.optim.Optimizer) -> None:
    """The gradients of all ranks' pieces added up, where the backward pass has not done so."""
    world = current()
    if world.size == 1:
        return
    params = [p for group in optimizer.param_groups for p in group["params"]]
    # A weight may have a gradient on some ranks only: an expert that no token of a piece chose.
    flags = world.gather([p.grad is not None for p in params])
    for p, known in zip(params, zip(*flags, strict=True), strict=True):
        if p.grad is None and any(known):
            p.grad = torch.zeros_like(p)
    world.sum([p.grad for p in params if p.grad is not None and not is_sharded(p.grad)])


def gaps(now: PolicyOutput, batch: Batch, targets: UpdateConstants) -> dict[str, Tensor]:
    """Distances of the policy's log-probabilities from the recorded ones, in nats: the largest and
    the mean."""
    logp, out = now.logp.detach(), {}
    for name, recorded in (("gap_old", targets.logp_old), ("gap_sampler", batch.logp)):
        gap = own((logp - recorded).abs(), batch.mask)
        out[f"{name}/max"] = gap.amax()
        out[f"{name}/mean"] = gap.sum() / batch.mask.sum().clamp(min=1)
    return out

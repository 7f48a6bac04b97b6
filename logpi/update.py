"""How parameters move: passes, optimiser batches and micro-batches, and the optimiser with its schedule.

`SGD` walks over a prepared batch. The split into micro-batches is a matter of memory alone: weights are made once for each
optimiser batch, so any split gives the same gradient. What is optimised is not decided here (`objectives.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from logpi.ops.time import own
from logpi.types import Batch, Evaluation, Objective, Policy, Targets

__all__ = ["SGD", "AdamW", "Constant", "Cosine", "Linear", "Schedule", "Tally", "evaluate", "micro_batches"]


class Schedule(ABC):
    """Factor on the learning rate after a fraction of training; called with progress in [0, 1]."""

    @abstractmethod
    def __call__(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Constant(Schedule):
    """No decay."""

    def __call__(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Linear(Schedule):
    """Straight down to `end` times the learning rate."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return 1.0 + (self.end - 1.0) * progress


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine down to `end` times the learning rate (Loshchilov and Hutter 2017)."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class AdamW:
    """Decoupled weight decay Adam (arXiv:1711.05101) with linear warm-up and a schedule.

    Attributes:
        lr: peak learning rate. betas, eps, weight_decay: as in torch; matrices decay, vectors (norms, biases) do not.
        warmup: updates over which the rate climbs linearly from lr/warmup.
        schedule: decay after that, over the updates of the whole run.
    """

    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Schedule = Constant()

    def build(self, policy: Policy) -> torch.optim.Optimizer:
        """The optimiser over the policy's trainable parameters."""
        trained = [p for p in policy.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)
        kept = [g for g in groups if g["params"]]
        return torch.optim.AdamW(kept, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)

    def rate(self, update: int, progress: float) -> float:
        """Learning rate of the `update`-th update (from 0), at `progress` in [0, 1] of the run."""
        warm = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * warm * self.schedule(progress)


class Tally:
    """Adds up diagnostics of micro-batches: token means by their number of tokens, `…/max` and `…/min` as extremes."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor], tokens: int) -> None:
        for name, x in metrics.items():
            if name not in self._sums:
                self._sums[name] = x if name.endswith(("/max", "/min")) else x * tokens
            elif name.endswith("/max"):
                self._sums[name] = torch.maximum(self._sums[name], x)
            elif name.endswith("/min"):
                self._sums[name] = torch.minimum(self._sums[name], x)
            else:
                self._sums[name] = self._sums[name] + x * tokens
            self._tokens[name] = self._tokens.get(name, 0) + tokens

    def means(self) -> dict[str, float]:
        return {
            name: float(x if name.endswith(("/max", "/min")) else x / max(1, self._tokens[name]))
            for name, x in self._sums.items()
        }


def micro_batches(mask: Tensor, tokens: int | None) -> Iterator[Tensor]:
    """Index tensors over consecutive rows of at most `tokens` columns in all (one row at least); None for all at once.

    Rows stay in order, so the samples of one prompt stay together and share its computation.
    """
    if tokens is None:
        yield torch.arange(mask.shape[0])
        return
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    length = (mask * columns).amax(1).tolist()
    start, used = 0, 0
    for i, n in enumerate(length):
        if i > start and used + n > tokens:
            yield torch.arange(start, i)
            start, used = i, 0
        used += n
    yield torch.arange(start, len(length))


@torch.no_grad()
def evaluate(policy: Policy, batch: Batch, tokens: int | None) -> Evaluation:
    """The policy's evaluation of the whole batch without gradient, in micro-batches."""
    b, t = batch.mask.shape
    found = [(index, policy.evaluate(batch.rows(index))) for index in micro_batches(batch.mask, tokens)]

    def join(name: str, width: int) -> Tensor | None:
        parts = [(index, getattr(e, name)) for index, e in found]
        if parts[0][1] is None:
            return None
        out = parts[0][1].new_zeros(b, width)
        for index, x in parts:
            out[index, : x.shape[1]] = x
        return out

    logp, entropy = join("logp", t), join("entropy", t)
    assert logp is not None and entropy is not None
    return Evaluation(logp, entropy, join("value", t + 1))


@dataclass(frozen=True)
class SGD:
    """Gradient steps on the objective.

    Attributes:
        epochs: passes over a batch (TRL's num_iterations); 1 is on-policy.
        minibatches: optimiser steps in a pass. Rows are shuffled by whole groups when there are several.
        micro_tokens: most columns (prompt and completion) of a forward and backward; memory only, never the result.
        max_grad_norm: gradients are scaled down to this norm, None for never.
    """

    epochs: int = 1
    minibatches: int = 1
    micro_tokens: int | None = 16_384
    max_grad_norm: float | None = 1.0

    def __call__(
        self, policy: Policy, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, targets: Targets,
        generator: torch.Generator,
    ) -> Iterator[dict[str, float]]:  # fmt: skip
        """Yields the metrics of each optimiser step, after it was made."""
        for _ in range(self.epochs):
            for rows in self._split(batch.group, generator):
                part = batch.rows(rows)
                yield self._step(policy, objective, optimizer, part, targets.rows(rows, part.mask.shape[1]))

    def _split(self, group: Tensor, generator: torch.Generator) -> list[Tensor]:
        if self.minibatches == 1:
            return [torch.arange(len(group))]
        ids, index = torch.unique(group.cpu(), return_inverse=True)
        place = torch.randperm(len(ids), generator=generator)
        order = torch.argsort(place[index], stable=True)
        return [x for x in order.tensor_split(self.minibatches) if len(x)]

    def _step(
        self, policy: Policy, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, targets: Targets
    ) -> dict[str, float]:
        weight = objective.weight(batch.mask, batch.group)
        busy = (~objective.idle(batch, targets)).nonzero().flatten()
        tally, total = Tally(), 0.0
        optimizer.zero_grad(set_to_none=True)
        for piece in micro_batches(batch.mask[busy], self.micro_tokens) if len(busy) else ():
            part = batch.rows(busy[piece])
            width = part.mask.shape[1]
            now = policy.evaluate(part)
            loss, metrics = objective.loss(part, targets.rows(busy[piece], width), weight[busy[piece], :width], now)
            loss.backward()
            total += float(loss.detach())
            logp = now.logp.detach()
            gaps = {
                "gap_old/max": own((logp - targets.logp_old[busy[piece], :width]).abs(), part.mask).amax(),
                "gap_sampler/max": own((logp - part.logp).abs(), part.mask).amax(),
            }
            tally.add(metrics | gaps, int(part.mask.sum()))
        norm = self._clip(policy)
        if len(busy):
            optimizer.step()
        return {**tally.means(), "loss": total, "grad_norm": norm, "idle_rows": 1.0 - len(busy) / max(1, len(batch))}

    def _clip(self, policy: Policy) -> float:
        limit = math.inf if self.max_grad_norm is None else self.max_grad_norm
        return float(nn.utils.clip_grad_norm_(policy.parameters(), limit))

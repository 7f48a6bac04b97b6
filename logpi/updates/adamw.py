"""AdamW, any optimiser of torch, and their schedules, as values.

Left out: how gradients are computed (`updates/sgd.py`), and what 16-bit weights need
(`updates/masters.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from logpi.distributed.world import is_sharded
from logpi.updates.masters import Masters, narrow

if TYPE_CHECKING:
    from logpi.types import Policy

__all__ = [
    "AdamW",
    "Constant",
    "Cosine",
    "Linear",
    "OptimizerSpec",
    "Schedule",
    "TorchOptimizer",
    "side_by_side",
]


MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
"""A class or function of torch that takes the trainable parameters."""


class Schedule(ABC):
    """A factor on the learning rate, called with the progress of training in [0, 1]."""

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


class OptimizerSpec(ABC):
    """Which optimiser moves a policy, and how its learning rates change over a run.

    Attributes:
        warmup: number of updates over which a rate climbs linearly from 1/warmup of its peak.
        schedule: the decay after that, over the updates of the whole run.
    """

    warmup: int
    schedule: Schedule

    @abstractmethod
    def build(self, policy: Policy) -> torch.optim.Optimizer:
        """The optimiser over the policy's trainable parameters, at the peak learning rates.

        Raises:
            ValueError: it cannot move weights of this precision.
        """

    def rate(self, peak: float, update: int, progress: float) -> float:
        """Learning rate of the `update`-th update (from 0), at `progress` in [0, 1] of the run."""
        warm = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        return peak * warm * self.schedule(progress)


def _trainable(policy: Policy) -> list[nn.Parameter]:
    """The policy's trainable parameters. Raises ValueError if some are float16."""
    params = [p for p in policy.parameters() if p.requires_grad]
    if any(p.dtype == torch.float16 for p in params):
        raise ValueError(
            "small gradients are 0 in float16: train in bfloat16 (or float32); float16 is for"
            " inference"
        )
    return params


@dataclass(frozen=True)
class TorchOptimizer(OptimizerSpec):
    """Any optimiser of torch: `TorchOptimizer(partial(torch.optim.SGD, lr=1e-3, momentum=0.9))`.

    The learning rates of its parameter groups are the peaks that warm-up and schedule scale.

    Attributes:
        make: called with the trainable parameters.
        warmup, schedule: see `OptimizerSpec`.
    """

    make: MakeOptimizer
    warmup: int = 0
    schedule: Schedule = Constant()

    def build(self, policy: Policy) -> torch.optim.Optimizer:
        params = _trainable(policy)
        if any(map(narrow, params)):
            raise ValueError(
                "weights of 16 bits need masters of 32, which only logpi.AdamW keeps: use it, or"
                " train in float32"
            )
        return self.make(params)


@dataclass(frozen=True)
class AdamW(OptimizerSpec):
    """Decoupled weight decay Adam (arXiv:1711.05101) with linear warm-up and a schedule.

    Attributes:
        lr: peak learning rate. betas, eps, weight_decay: as in torch; matrices decay, vectors
            (norms, biases) do not.
        warmup, schedule: see `OptimizerSpec`.
    Raises:
        ValueError: a learning rate below 0.
    """

    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Schedule = Constant()

    def __post_init__(self) -> None:
        if not 0 <= self.lr < math.inf:
            raise ValueError(f"a learning rate is a number of at least 0, not {self.lr:g}")

    def build(self, policy: Policy) -> torch.optim.Optimizer:
        """For weights of 16 bits, on masters of 32; those in shards are of 32 themselves."""
        params = _trainable(policy)
        narrowed, parts = any(map(narrow, params)), sum(map(is_sharded, params))
        if narrowed and parts:
            raise ValueError(
                "weights in shards learn in float32: load them with dtype bfloat16 and --shard,"
                " which computes in bfloat16 and keeps shards of 32 bits"
            )
        whole = None if self.weight_decay or narrowed else side_by_side(params)
        if whole is not None:
            return _OneVector(whole, params, lr=self.lr, betas=self.betas, eps=self.eps)
        groups = [
            {"params": [p for p in params if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
        used = [group for group in groups if group["params"]]
        apart = 0 < parts < len(params)
        kind = Masters if narrowed else _Apart if apart else torch.optim.AdamW
        return kind(used, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)


def side_by_side(params: Sequence[nn.Parameter]) -> Tensor | None:
    """The one vector that these parameters are consecutive views of; None if they are not."""
    if any(map(is_sharded, params)):
        return None
    if len({(p.dtype, p.untyped_storage().data_ptr()) for p in params}) != 1:
        return None
    ends = [p.storage_offset() + p.numel() for p in params]
    if not all(p.is_contiguous() for p in params) or ends[:-1] != [
        p.storage_offset() for p in params[1:]
    ]:
        return None
    start = params[0].storage_offset()
    return params[0].detach().as_strided((ends[-1] - start,), (1,), start)


class _Apart(torch.optim.AdamW):
    """AdamW on weights of which some are in shards: torch's kernels take one kind at a time."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        params = [p for group in self.param_groups for p in group["params"]]
        for kind in (True, False):
            others = [(p, p.grad) for p in params if is_sharded(p) is not kind]
            for p, _ in others:
                p.grad = None
            super().step()
            for p, grad in others:
                p.grad = grad


class _OneVector(torch.optim.Optimizer):
    """Adam on many small parameters as one vector, by torch's own fused kernel.

    A step, a norm and a reset are one call each: a small network's step spends more time on calls
    than on numbers. A parameter that gets no gradient has gradient 0, and moves by what is left of
    its moments.
    """

    def __init__(
        self,
        whole: Tensor,
        params: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        vector = nn.Parameter(whole)
        vector.grad = torch.zeros_like(whole)
        for p, piece in zip(params, vector.grad.split([p.numel() for p in params]), strict=True):
            p.grad = piece.view_as(p)
        super().__init__([vector], {"lr": lr, "betas": betas, "eps": eps})
        self.state[vector] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(whole),
            "exp_avg_sq": torch.zeros_like(whole),
        }
        self._gradient = vector.grad

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to zero; they stay where they are, so never to None."""
        self._gradient.zero_()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        (vector,) = group["params"]
        moments = self.state[vector]
        moments["step"] += 1
        torch._fused_adamw_(
            [vector],
            [self._gradient],
            [moments["exp_avg"]],
            [moments["exp_avg_sq"]],
            [],
            [moments["step"]],
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    # Without this mark torch wraps the step for its profiler, which takes twice the step's time.
    step.hooked = True  # type: ignore[attr-defined]

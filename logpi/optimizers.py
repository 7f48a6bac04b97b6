"""The optimiser and its schedule, as values; and what is kept beside weights of 16 bits, which cannot take small steps (`Masters`).

What it is fed is not here (`update.py`). Left out: scaling of the loss, without which float16 cannot learn (bfloat16 has the range of
float32 and needs none), moments of fewer than 32 bits, and optimisers other than AdamW.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from logpi.types import Policy

__all__ = ["AdamW", "Constant", "Cosine", "Linear", "Masters", "Schedule", "learning_bytes", "narrow", "side_by_side"]


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
        """The optimiser over the policy's trainable parameters; for weights of 16 bits, on masters of 32.

        Raises:
            ValueError: some are float16.
        """
        trained = [p for p in policy.parameters() if p.requires_grad]
        if any(p.dtype == torch.float16 for p in trained):
            raise ValueError(
                "small gradients are 0 in float16: train in bfloat16 (or float32); float16 is for inference"
            )
        narrowed = any(map(narrow, trained))
        whole = None if self.weight_decay or narrowed else side_by_side(trained)
        if whole is not None:
            return _OneVector(whole, trained, lr=self.lr, betas=self.betas, eps=self.eps)
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)
        kept = [g for g in groups if g["params"]]
        kind = Masters if narrowed else torch.optim.AdamW
        return kind(kept, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)

    def rate(self, update: int, progress: float) -> float:
        """Learning rate of the `update`-th update (from 0), at `progress` in [0, 1] of the run."""
        warm = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * warm * self.schedule(progress)


def narrow(weight: Tensor) -> bool:
    """Whether a step of 1e-6 is lost in it: a number of fewer than 32 bits."""
    return weight.is_floating_point() and weight.itemsize < 4


def learning_bytes(weight: Tensor) -> int:
    """What learning adds to a weight: its gradient and Adam's two moments, and for a narrow one its master."""
    return 16 if narrow(weight) else 3 * weight.itemsize


class Masters(torch.optim.AdamW):
    """AdamW for weights of 16 bits, on copies of 32 bits, the masters (Micikevicius et al. 2018, arXiv:1710.03740, section 3.1).

        gₘ ← Σ float32(g) over micro-batches      m ← AdamW(m, gₘ)      p ← round(m)

    bfloat16 keeps 8 bits, so a step of 1e-6 is less than half of the last place of nearly every weight: p itself would stay where it
    is. m moves, and p follows it on average from the first step on, since masters begin spread evenly over the intervals that round to
    their weights (at the weights, as is usual, none would move before half of its interval has been covered). The groups hold the
    masters, whose gradients are therefore what `zero_grad`, clipping and the norm see; a weight's own gradient goes to its master as
    soon as it is there, and is freed. Weights of 32 bits (a value head) are their own masters.

    Whoever writes into the weights has the last word: before a step, each master that does not round to its weight becomes the
    weight. Its moments stay, as they do in float32.

    Memory, bytes a weight: 2 + 4 (master) + 8 (moments), and 4 (gradient) during an update: 14 and 18, where float32 takes 12 and 16.
    What bfloat16 halves is all else: activations, the decoder's caches, a reference, and the bytes read for a token.

    Args:
        groups, options: as of `torch.optim.AdamW`.
    Raises:
        RuntimeError: in backward, another such optimiser over the same weights is still alive.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], **options: Any) -> None:
        weights = [p for group in groups for p in group["params"] if narrow(p)]
        self._pairs = [(p, _spread(p.detach(), i)) for i, p in enumerate(weights)]
        master = dict(self._pairs)
        super().__init__([{**g, "params": [master.get(p, p) for p in g["params"]]} for g in groups], **options)
        hooks = [p.register_post_accumulate_grad_hook(partial(_hand_over, m)) for p, m in self._pairs]
        weakref.finalize(self, lambda: [hook.remove() for hook in hooks])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for p, m in self._pairs:
            _heed(m, p)
        loss = super().step(closure)
        for p, m in self._pairs:
            p.copy_(m)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """torch's, and the masters in 32 bits, in the order of the groups."""
        return {**super().state_dict(), "masters": [m for _, m in self._pairs]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Weights have to be loaded too, before or after: a master that does not round to its weight is not kept."""
        super().load_state_dict(state_dict)
        for (_, m), saved in zip(self._pairs, state_dict["masters"], strict=True):
            m.copy_(saved)


def _heed(master: Tensor, weight: Tensor) -> None:
    """A master that does not round to its weight becomes the weight."""
    torch.where(master.to(weight.dtype) == weight, master, weight, out=master)


def _spread(weight: Tensor, first: int) -> Tensor:
    """Masters spread evenly over the numbers that round to their weights, which are the upper half of their bits.

    The lower half are the multiples of the golden ratio from the `first` on, modulo 1: even among neighbours, and no chance.
    """
    place = torch.arange(first, first + weight.numel(), dtype=torch.int32, device=weight.device)
    lower = (place.mul_(-1640531535) >> 16).view(weight.shape)  # the ratio's 32 bits, as a signed number
    master = (weight.float().view(torch.int32) + lower).view(torch.float32)
    _heed(master, weight)  # 0, and what is not finite, has no neighbours on both sides
    return master


@torch.no_grad()
def _hand_over(master: Tensor, weight: Tensor) -> None:
    """Adds a weight's gradient to its master's and frees it."""
    if weight.grad is None:
        raise RuntimeError(
            "the gradient went to another optimiser that was made for these weights before: delete that one (or its Learner) first"
        )
    if master.grad is None:
        master.grad = weight.grad.float()
    else:
        master.grad.add_(weight.grad)
    weight.grad = None


def side_by_side(params: Sequence[nn.Parameter]) -> Tensor | None:
    """The one vector that these parameters are consecutive views of; None if they are not."""
    if len({(p.dtype, p.untyped_storage().data_ptr()) for p in params}) != 1:
        return None
    ends = [p.storage_offset() + p.numel() for p in params]
    if not all(p.is_contiguous() for p in params) or ends[:-1] != [p.storage_offset() for p in params[1:]]:
        return None
    start = params[0].storage_offset()
    return params[0].detach().as_strided((ends[-1] - start,), (1,), start)


class _OneVector(torch.optim.Optimizer):
    """Adam on many small parameters as one vector, by torch's own fused kernel: a step, a norm and a reset are one call each (a small
    network's step spends more on calls than on numbers). A parameter that gets no gradient has gradient 0, and moves by what is
    left of its moments."""

    def __init__(
        self, whole: Tensor, params: Sequence[nn.Parameter], lr: float, betas: tuple[float, float], eps: float
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
        """To zero, whatever is asked: gradients stay where they are."""
        self._gradient.zero_()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        (vector,) = group["params"]
        moments = self.state[vector]
        moments["step"] += 1
        torch._fused_adamw_(
            [vector], [self._gradient], [moments["exp_avg"]], [moments["exp_avg_sq"]], [], [moments["step"]], amsgrad=False, lr=group["lr"],
            beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=0.0, eps=group["eps"], maximize=False,
        )  # fmt: skip

    step.hooked = True  # type: ignore[attr-defined]  # spares the step torch's profiling wrapper, which costs twice as much as the step

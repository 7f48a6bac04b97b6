"""Master weights: copies of 32 bits beside weights of 16 bits, which cannot take small steps.

Left out: loss scaling, without which float16 cannot learn (bfloat16 has the range of float32 and
needs none), and moments of fewer than 32 bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["Masters", "learning_bytes", "narrow"]


def narrow(weight: Tensor) -> bool:
    """Whether a weight has fewer than 32 bits, so that a step of 1e-6 is lost in rounding."""
    return weight.is_floating_point() and weight.itemsize < 4


def learning_bytes(weight: Tensor) -> int:
    """Bytes that learning adds to a weight: its gradient and Adam's two moments, and the master of
    a narrow one."""
    return 16 if narrow(weight) else 3 * weight.itemsize


class Masters(torch.optim.AdamW):
    """AdamW for weights of 16 bits, on copies of 32 bits, the masters (Micikevicius et al. 2018,
    arXiv:1710.03740, section 3.1).

        gₘ ← Σ float32(g) over micro-batches      m ← AdamW(m, gₘ)      p ← round(m)

    bfloat16 keeps 8 bits, so a step of 1e-6 is less than half of the last place of nearly every
    weight: p itself would stay where it is. m moves, and p follows it on average from the first
    step on, since masters begin spread evenly over the intervals that round to their weights (at
    the weights, as is usual, none would move before half of its interval has been covered).

    The groups hold the masters, so `zero_grad`, clipping and the norm see the masters' gradients; a
    weight's own gradient is added to its master's as soon as it is computed, and freed. Weights of
    32 bits (a value head) are their own masters.

    Code that writes into the weights wins: before a step, each master that does not round to its
    weight becomes the weight. Its moments stay, as they do in float32.

    Memory, bytes a weight: 2 + 4 (master) + 8 (moments), and 4 (gradient) during an update: 14 and
    18, where float32 takes 12 and 16. bfloat16 halves all else: activations, the decoder's caches,
    a reference model, and the bytes read for each token.

    Args:
        groups, options: as of `torch.optim.AdamW`.
    Attributes:
        pairs: each weight of 16 bits and its master, in the order of the groups.
    Raises:
        RuntimeError: in backward, another such optimiser over the same weights is still alive.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], **options: Any) -> None:
        weights = [p for group in groups for p in group["params"] if narrow(p)]
        self.pairs = [(p, _spread(p.detach(), i)) for i, p in enumerate(weights)]
        master = dict(self.pairs)
        super().__init__(
            [{**g, "params": [master.get(p, p) for p in g["params"]]} for g in groups], **options
        )
        hooks = [
            p.register_post_accumulate_grad_hook(partial(_hand_over, m)) for p, m in self.pairs
        ]
        weakref.finalize(self, lambda: [hook.remove() for hook in hooks])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for p, m in self.pairs:
            _follow(m, p)
        loss = super().step(closure)
        for p, m in self.pairs:
            p.copy_(m)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """torch's, and the masters in 32 bits, in the order of the groups."""
        return {**super().state_dict(), "masters": [m for _, m in self.pairs]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Weights have to be loaded too, before or after: a master that does not round to its
        weight is not kept."""
        super().load_state_dict(state_dict)
        for (_, m), saved in zip(self.pairs, state_dict["masters"], strict=True):
            m.copy_(saved)


def _follow(master: Tensor, weight: Tensor) -> None:
    """A master that does not round to its weight becomes the weight."""
    torch.where(master.to(weight.dtype) == weight, master, weight, out=master)


def _spread(weight: Tensor, first: int) -> Tensor:
    """Masters spread evenly over the numbers that round to their weights, which are the upper half
    of their bits.

    The lower half are the multiples of the golden ratio from the `first` on, modulo 1: they are
    even among neighbours, and not random.
    """
    # Four weights of 1, whose bits are 3F80 0000. φ = 0.618… as a fraction of 2³² is 2654435761,
    # which is −1640531535 as a signed number; a master's lower half are the top bits of i·φ:
    #
    #     i          0         1         2         3
    #     i·φ        0        −.382     .236     −.146      less the nearest whole number
    #     lower      0       −25033    15470     −9562      in 2⁻¹⁶ of a last place of bfloat16
    #     master     1      .998508  1.001844   .999430     all round to 1, none to another's place
    place = torch.arange(first, first + weight.numel(), dtype=torch.int32, device=weight.device)
    lower = (place.mul_(-1640531535) >> 16).view(weight.shape)
    master = (weight.float().view(torch.int32) + lower).view(torch.float32)
    # 0, and what is not finite, has no neighbours on both sides
    _follow(master, weight)
    return master


@torch.no_grad()
def _hand_over(master: Tensor, weight: Tensor) -> None:
    """Adds a weight's gradient to its master's and frees it."""
    if weight.grad is None:
        raise RuntimeError(
            "the gradient went to another optimiser that was made for these weights before: delete"
            " that one (or its Learner) first"
        )
    if master.grad is None:
        master.grad = weight.grad.float()
    else:
        master.grad.add_(weight.grad)
    weight.grad = None

"""Trust-region mathematics: natural direction, largest step, backtracking (Schulman et al. 2015,
arXiv:1502.05477, appendix C).

    maximise gᵀs  subject to  ½ sᵀF s ≤ δ        s = √(2δ / xᵀF x) · x,   x = F⁻¹ g

F is the Fisher matrix. It is the Hessian of KL(π_old‖π_θ) at θ = θ_old, so F·v is the gradient of
(∇KL·v), by two backward passes, and F itself is never computed. Vectors are flat. Left out:
policies, batches and objectives (`updates/trust_region.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "LineSearch",
    "add_",
    "conjugate_gradient",
    "fisher_vector_product",
    "flat",
    "largest_step",
    "line_search",
]

Product = Callable[[Tensor], Tensor]


def flat(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """One vector of all tensors; zeros where there is None. `like` gives the shapes."""
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if x is None else x.reshape(-1)
            for x, p in zip(tensors, like, strict=True)
        ]
    )


@torch.no_grad()
def add_(params: Sequence[Tensor], start: Sequence[Tensor], step: Tensor) -> None:
    """params ← start + step, in place, so that views of the parameters see it too."""
    pieces = step.split([p.numel() for p in params])
    for p, p0, piece in zip(params, start, pieces, strict=True):
        p.copy_(p0 + piece.view_as(p))


def fisher_vector_product(kl: Tensor, params: Sequence[Tensor], damping: float = 0.0) -> Product:
    """v ↦ (F + damping·I) v, by double backward.

    Args:
        kl: scalar mean KL(π_old‖π_θ) at θ = θ_old, with its graph. params: θ. damping: ≥ 0, on the
            diagonal.
    """
    slope = flat(torch.autograd.grad(kl, params, create_graph=True, allow_unused=True), params)

    def product(v: Tensor) -> Tensor:
        second = torch.autograd.grad(
            (slope * v).sum(), params, retain_graph=True, allow_unused=True
        )
        return flat(second, params) + damping * v

    return product


def conjugate_gradient(
    product: Product, b: Tensor, steps: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """x with A x ≈ b for a symmetric positive definite A, from x = 0 (Hestenes and Stiefel 1952).

    Args:
        product: v ↦ A v. b: [n]. steps: at most; n steps are exact but for rounding. tolerance: of
            ‖b − A x‖² / ‖b‖².

    >>> conjugate_gradient(lambda v: torch.tensor([2.0, 4.0]) * v, torch.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = r @ r
    goal = tolerance * float(rr)
    for _ in range(steps):
        if float(rr) <= goal:
            break
        ap = product(p)
        alpha = rr / (p @ ap)
        x, r = x + alpha * p, r - alpha * ap
        rr, before = r @ r, rr
        p = r + (rr / before) * p
    return x


def largest_step(x: Tensor, product: Product, max_kl: float) -> Tensor:
    """√(2δ / xᵀF x) · x: the longest step along x whose second-order KL is at most δ nats; 0 if x
    is no ascent direction."""
    # Without a gradient (a batch without an own action) F may not exist.
    if not bool(x.any()):
        return torch.zeros_like(x)
    curvature = x @ product(x)
    if not float(curvature) > 0:
        return torch.zeros_like(x)
    return (2 * max_kl / curvature).sqrt() * x


@dataclass(frozen=True)
class LineSearch:
    """The result of a line search.

    Attributes:
        fraction: of the full step; 0 if no trial was accepted. kl: in nats. gain: of the surrogate.
        trials: their number.
    """

    fraction: float
    kl: float
    gain: float
    trials: int


def line_search(
    attempt: Callable[[float], tuple[float, float]], max_kl: float, shrink: float, trials: int
) -> LineSearch:
    """The largest of the fractions 1, c, c², … that improves the surrogate and keeps KL ≤ δ.

    Args:
        attempt: fraction ↦ (gain of the surrogate over no step, KL in nats); the policy stays at
            that fraction.
        max_kl: δ > 0, nats. shrink: c in (0, 1). trials: at most; after the last one
            `attempt(0.0)` puts the policy back.
    """
    # δ = 0.01 and c = 0.8. KL grows about as the square of the step:
    #
    #     trial      1        2
    #     fraction   1        0.8
    #     KL         0.013    0.0083
    #     gain       0.21     0.20      the first is too far, the second is taken
    for i in range(trials):
        fraction = shrink**i
        gain, kl = attempt(fraction)
        # NaN fails both
        if gain > 0 and kl <= max_kl:
            return LineSearch(fraction, kl, gain, i + 1)
    attempt(0.0)
    return LineSearch(0.0, 0.0, 0.0, trials)

"""Small dense networks: layers, their initial weights, and a stack of them whose derivatives are
written out.

A network of 64 units spends more time on calls than on numbers, so `Stack` is one function to
autograd. Two measurements are used: NumPy's tanh takes a seventh of the time of torch's on a CPU,
and the gradient of a weight with few inputs is four times quicker as the transpose of inputs ×
slopes. Left out: policies and values, which these networks compute (`mlp.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> Any:
    """Orthogonal weights, zero bias: gains √2 inside, 0.01 for the policy's output, 1 for the
    value's (37 details of PPO)."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(
    inputs: int, hidden: Sequence[int], activation: type[nn.Module] = nn.Tanh
) -> list[nn.Module]:
    """Hidden layers, orthogonal with gain √2."""
    return [
        m
        for a, b in pairwise([inputs, *hidden])
        for m in (orthogonal(nn.Linear(a, b), math.sqrt(2)), activation())
    ]


class Stack(nn.Sequential):
    """Dense layers with tanh or ReLU between them. Hooks on the layers are not called; see
    `outputs`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        inner, between = layers[::2], layers[1::2]
        self.plain = len(layers) % 2 == 1
        self.plain &= all(type(m) is nn.Linear and m.bias is not None for m in inner)
        self.plain &= all(type(m) in (nn.Tanh, nn.ReLU) for m in between)
        self.activations = tuple(type(m) for m in between)
        # in their order: weight, bias, weight, …
        self.weights = [p for layer in inner for p in layer.parameters()]

    def forward(self, input: Tensor) -> Tensor:
        return outputs([self], input)[0]


def outputs(networks: Sequence[nn.Module], x: Tensor) -> Sequence[Tensor]:
    """Each network's output for x [N, D]. Plain stacks on a CPU are together one function of
    autograd, with first and second derivatives."""
    stacks = plain_stacks(networks, x)
    if stacks is None:
        return [nn.Sequential.forward(n, x) if isinstance(n, Stack) else n(x) for n in networks]
    return _Dense.apply(x, [n.activations for n in stacks], *[p for n in stacks for p in n.weights])


def plain_stacks(networks: Sequence[nn.Module], x: Tensor) -> list[Stack] | None:
    """The networks, if all are plain stacks that can read x [N, D] on a CPU."""
    is_dense = x.ndim == 2 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    stacks = [n for n in networks if isinstance(n, Stack) and n.plain]
    return stacks if is_dense and len(stacks) == len(networks) else None


Activations = Sequence[tuple[type[nn.Module], ...]]


# One row x = 2 through W₁ = 1, b₁ = −1, ReLU, W₂ = 3, b₂ = 0.5, and a slope ∂/∂out = 1:
#
#     forward    h₁ = relu(1 · 2 − 1) = 1        out = 3 · 1 + 0.5 = 3.5        kept: x = 2, h₁ = 1
#     backward   ∂/∂W₂ = 1 · h₁ = 1   ∂/∂b₂ = 1   slope = 1 · W₂ = 3, through ReLU (h₁ > 0) 3
#                ∂/∂W₁ = 3 · x = 6    ∂/∂b₁ = 3   ∂/∂x = 3 · W₁ = 3
#
# With tanh the slope is multiplied by 1 − h₁² instead: the value behind an activation is enough.


class _Dense(torch.autograd.Function):
    """x [N, D] ↦ Wₙ a(… a(W₁ x + b₁) …) + bₙ of each stack. It keeps every layer's input, from
    which the slopes of tanh and ReLU follow."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activations: Activations, *params: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        each, inputs, outs = iter(params), [], []
        for between in activations:
            h = x
            for kind in (*between, None):
                inputs.append(h)
                h = linear(h, next(each), next(each))
                if kind is nn.Tanh:
                    np.tanh(h.numpy(), out=h.numpy())
                elif kind is nn.ReLU:
                    h.relu_()
            outs.append(h)
        ctx.activations = activations
        ctx.save_for_backward(*inputs, *params)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(ctx.saved_tensors) // 3
        inputs, params, needed = saved[:count], saved[count:], ctx.needs_input_grad
        # Fisher-vector products take a second derivative
        if torch.is_grad_enabled():
            return _differentiable(inputs[0], ctx.activations, params, slopes, needed)
        total, gradients, at = None, [], 0
        for between, slope in zip(ctx.activations, slopes, strict=True):
            end = at + len(between) + 1
            if slope is None:
                gradients += [None] * (2 * (end - at))
            else:
                part = slice(2 * at, 2 * end)
                own, by_x = _back(
                    slope, inputs[at:end], params[part], between, needed[2:][part], needed[0]
                )
                gradients += own
                total = by_x if total is None or by_x is None else total + by_x
            at = end
        return total, None, *gradients


def _back(
    slope: Tensor,
    inputs: Sequence[Tensor],
    params: Sequence[Tensor],
    between: Sequence[type[nn.Module]],
    wanted: Sequence[bool],
    x_wanted: bool,
) -> tuple[list[Tensor | None], Tensor | None]:
    """One stack's gradients by its parameters and by x."""
    gradients: list[Tensor | None] = [None] * len(params)
    for i in reversed(range(len(inputs))):
        x = inputs[i]
        if wanted[2 * i]:
            gradients[2 * i] = _outer(slope, x)
        if wanted[2 * i + 1]:
            gradients[2 * i + 1] = slope.sum(0)
        if i == 0 and not x_wanted:
            return gradients, None
        slope = slope @ params[2 * i]
        if i:
            slope = _through(between[i - 1], slope, x)
    return gradients, slope


def _outer(slope: Tensor, x: Tensor) -> Tensor:
    """slopeᵀ x; a product is slow with the smaller width last."""
    return (x.t() @ slope).t() if x.shape[1] < slope.shape[1] else slope.t() @ x


def _through(kind: type[nn.Module], slope: Tensor, out: Tensor) -> Tensor:
    """The slope before an activation, from the slope behind it and the activation's value."""
    if kind is nn.Tanh:
        return torch.ops.aten.tanh_backward.default(slope, out)
    return torch.ops.aten.threshold_backward.default(slope, out, 0)


def _differentiable(
    x: Tensor,
    activations: Activations,
    params: Sequence[Tensor],
    slopes: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The same gradients by autograd, which can be differentiated again."""
    each, outs = iter(params), []
    for between in activations:
        h = x
        for kind in (*between, None):
            h = linear(h, next(each), next(each))
            h = h if kind is None else kind()(h)
        outs.append(h)
    inputs = dict(zip((0, *range(2, len(wanted))), (x, *params), strict=True))
    numbers = [i for i, w in enumerate(wanted) if w]
    ends = [(h, slope) for h, slope in zip(outs, slopes, strict=True) if slope is not None]
    gradients = torch.autograd.grad(
        [h for h, _ in ends],
        [inputs[i] for i in numbers],
        [slope for _, slope in ends],
        create_graph=True,
        allow_unused=True,
    )
    by_number = dict(zip(numbers, gradients, strict=True))
    return tuple(by_number.get(i) for i in range(len(wanted)))

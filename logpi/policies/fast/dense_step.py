"""Forward and backward of a small actor–critic without autograd: the gradient of its loss in few
calls.

    forward = ForwardPass.of([actor, critic], x)     # plain stacks; outputs [N, *] of each
    forward.backward([by_actor, by_critic])      # adds to the parameters' `.grad`

Slopes by log-probability, entropy and value come from the loss (`objectives/slopes.py`). `scored`
takes them back to the distribution's parameters (written out for `Categorical` and `Gaussian`, by
autograd for the others), `ForwardPass` through the layers. Left out: hooks on modules, second
derivatives, which `dense.py` has, and devices other than the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from logpi.policies.distributions import Categorical, Distribution, Gaussian

if TYPE_CHECKING:
    from logpi.policies.fast.dense import Stack
    from logpi.types import PolicyOutput

Pull = Callable[[Tensor | None, Tensor | None], Tensor]
"""Slopes by log π and by the entropy [N] → the slope by the distribution's parameters [N, K]."""


@dataclass(frozen=True)
class ScoredActions:
    """What an actor–critic says of single actions, and its way back.

    Attributes:
        output: constant, logp and entropy [N, 1], value [N, 2] or None.
        forward: of the actor, and of the critic if there is one. pull: of the distribution.
        free: the log standard deviations that no network computes, or None.
        allowed: [N, K] bool, or None for every action.
    """

    output: PolicyOutput
    forward: ForwardPass
    pull: Pull
    free: nn.Parameter | None
    allowed: Tensor | None

    @torch.no_grad()
    def backward(self, logp: Tensor | None, entropy: Tensor | None, value: Tensor | None) -> None:
        """Adds to the parameters' gradients, from slopes [N, 1] by the output."""
        slope = None
        if logp is not None or entropy is not None:
            slope = self.pull(*(None if x is None else x.squeeze(1) for x in (logp, entropy)))
            if self.free is not None:
                slope, by_free = slope.chunk(2, -1)
                if self.free.requires_grad:
                    gradient(self.free).add_(by_free.sum(0))
            if self.allowed is not None:
                slope = slope.masked_fill(~self.allowed, 0)
        self.forward.backward([slope, value][: len(self.forward.stacks)])


class Scratch:
    """Memory that every pass uses again: pages that are fresh each time take longer to get than a
    layer takes to compute. What a pass keeps here is overwritten by the next one."""

    def __init__(self) -> None:
        self._kept: dict[object, Tensor] = {}

    def __call__(self, place: object, like: Tensor, width: int) -> Tensor:
        """[N, width] for N rows as in `like` [N, *]."""
        kept, rows = self._kept.get(place), like.shape[0]
        if kept is None or kept.shape[0] < rows or kept.dtype != like.dtype:
            kept = self._kept[place] = like.new_empty(rows, width)
        return kept if kept.shape[0] == rows else kept[:rows]

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        """A copy has memory of its own."""
        return Scratch, ()


@dataclass(frozen=True)
class ForwardPass:
    """The stacks' outputs for x [N, D], and what their backward needs; both without autograd.

    Attributes:
        outputs: [N, *] of each stack. inputs: of each stack's layers, in `scratch`.
    """

    stacks: Sequence[Stack]
    outputs: list[Tensor]
    inputs: list[list[Tensor]]
    scratch: Scratch

    @classmethod
    def of(cls, stacks: Sequence[Stack], x: Tensor, scratch: Scratch) -> ForwardPass:
        passes = [_forward(n, stack, x, scratch) for n, stack in enumerate(stacks)]
        return cls(stacks, [h for h, _ in passes], [seen for _, seen in passes], scratch)

    def backward(self, slopes: Sequence[Tensor | None]) -> None:
        """Adds the gradients that slopes by the outputs [N, *] give to the parameters that
        learn."""
        for stack, slope, inputs in zip(self.stacks, slopes, self.inputs, strict=True):
            if slope is not None and any(p.requires_grad for p in stack.weights):
                _backward(stack, slope, inputs, self.scratch)


def _forward(n: int, stack: Stack, x: Tensor, scratch: Scratch) -> tuple[Tensor, list[Tensor]]:
    """The n-th stack's output, in memory of its own, and its layers' inputs."""
    inputs = [x]
    for i, kind in enumerate(stack.activations):
        weight, bias = stack.weights[2 * i : 2 * i + 2]
        h = torch.addmm(bias, inputs[-1], weight.t(), out=scratch((n, i), x, len(weight)))
        if kind is nn.Tanh:
            np.tanh(h.numpy(), out=h.numpy())
        else:
            h.relu_()
        inputs.append(h)
    return linear(inputs[-1], *stack.weights[-2:]), inputs


def _backward(stack: Stack, slope: Tensor, inputs: list[Tensor], scratch: Scratch) -> None:
    """See `dense.py` for a worked example."""
    for i in reversed(range(len(inputs))):
        weight, bias = stack.weights[2 * i : 2 * i + 2]
        if weight.requires_grad:
            gradient(weight).addmm_(slope.t(), inputs[i])
        if bias.requires_grad:
            gradient(bias).add_(slope.sum(0))
        if i:
            place = scratch(("slope", i, weight.shape[1]), slope, weight.shape[1])
            slope = torch.mm(slope, weight, out=place)
            _through_(stack.activations[i - 1], slope, inputs[i])


def _through_(kind: type[nn.Module], slope: Tensor, out: Tensor) -> None:
    """`dense.py`'s, in place."""
    if kind is nn.Tanh:
        torch.ops.aten.tanh_backward.grad_input(slope, out, grad_input=slope)
    else:
        torch.ops.aten.threshold_backward.grad_input(slope, out, 0, grad_input=slope)


def gradient(p: nn.Parameter) -> Tensor:
    """The parameter's `.grad`, made if there is none."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


def scored(kind: Distribution, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Pull]:
    """`kind.score`, constant, and the way back from slopes by it."""
    written = {Categorical: _categorical, Gaussian: _gaussian}.get(type(kind))
    return written(params, action) if written else _by_autograd(kind, params, action)


# p = softmax(l), log π = log p_a, H = −Σ p log p:
#
#     ∂log π/∂lⱼ = 1[j = a] − pⱼ          ∂H/∂lⱼ = −pⱼ (log pⱼ + H)
#
#     l = (0, 0), a = 0: p = (½, ½), ∂log π/∂l = (½, −½), ∂H/∂l = 0, for H is at its largest


def _categorical(params: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Pull]:
    logp = params.log_softmax(-1)
    p, chosen = logp.exp(), action[:, None]
    entropy = -(p * logp).sum(-1)

    def pull(by_logp: Tensor | None, by_entropy: Tensor | None) -> Tensor:
        slope = torch.zeros_like(p)
        if by_logp is not None:
            slope.addcmul_(p, by_logp[:, None], value=-1).scatter_add_(-1, chosen, by_logp[:, None])
        if by_entropy is not None:
            slope.addcmul_((logp + entropy[:, None]).mul_(p), by_entropy[:, None], value=-1)
        return slope

    return logp.gather(-1, chosen).squeeze(-1), entropy, pull


# z = (a − m) e^{−s}, log π = Σ −½ z² − s − …, H = Σ s + …:
#
#     ∂log π/∂m = z e^{−s}        ∂log π/∂s = z² − 1        ∂H/∂s = 1


def _gaussian(params: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Pull]:
    kind = Gaussian((), ())
    mean, log_std = params.chunk(2, -1)
    scale = (-log_std).exp()
    z = (action - mean) * scale

    def pull(by_logp: Tensor | None, by_entropy: Tensor | None) -> Tensor:
        slope = torch.zeros_like(params)
        by_mean, by_log_std = slope.chunk(2, -1)
        if by_logp is not None:
            torch.mul(z * scale, by_logp[:, None], out=by_mean)
            torch.mul(z * z - 1, by_logp[:, None], out=by_log_std)
        if by_entropy is not None:
            by_log_std.add_(by_entropy[:, None])
        return slope

    return *kind.score(params, action), pull


def _by_autograd(kind: Distribution, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Pull]:
    with torch.enable_grad():
        leaf = params.detach().requires_grad_()
        scores = kind.score(leaf, action)

    def pull(by_logp: Tensor | None, by_entropy: Tensor | None) -> Tensor:
        pairs = [
            (s, by)
            for s, by in zip(scores, (by_logp, by_entropy), strict=True)
            if by is not None and s.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(params)
        (slope,) = torch.autograd.grad([s for s, _ in pairs], leaf, [by for _, by in pairs])
        return slope

    return scores[0].detach(), scores[1].detach(), pull

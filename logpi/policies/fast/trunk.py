"""The trunk of a policy's model with its derivatives written out: the numbers of the model's own
modules, in fewer passes.

For backward a layer keeps its two inputs, what attention needs (`attention.py`), and gate and up.
Backward computes norms, activations and their product again, which costs less than writing and
reading them. Products by weights are oneDNN's, a sixth quicker than `nn.Linear` for the shapes of
training. For gradients of weights oneDNN is no quicker, so they are `torch.mm`.

It serves the families of `layers.py` in float32 on a CPU with plain linear layers, where a probe
computes the hidden states and the gradients of the model's own modules. All others run by those.
Left out: adapters, gradient checkpointing, second derivatives, other precisions, GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logpi.distributed.sharding import sharded
from logpi.policies.fast.attention import Layout, attended, turn_
from logpi.policies.fast.layers import Layer, Rotary, bias_of, is_known, layers_of
from logpi.policies.fast.probe import finds, notice
from logpi.policies.own_modules import recorded
from logpi.policies.packing import Packed, Packing, Rule

if TYPE_CHECKING:
    from logpi.policies.packed_model import PackedModel

PROJECTIONS, GATES = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def trunk(policy: PackedModel) -> Trunk | None:
    """A `Trunk` of this policy's model, or None where there is none."""
    model = policy.model
    if sharded(model) or model.is_activation_checkpointing:
        return None
    if not is_known(policy) or not _is_plain(policy):
        return None
    if policy not in _PROBED:
        _PROBED[policy] = _probe(policy)
    return _PROBED[policy]


class Trunk:
    """Last hidden states of a model of one of `FAMILIES`, from its own parameters; carries
    gradients, once.

    Args:
        model: the base model, without its output layer. rules: of each layer's attention.
    """

    def __init__(self, model: Any, rules: dict[int, Rule]) -> None:
        self.model, self.rotary = model, Rotary.of(model)
        self.layers = layers_of(model, rules)
        first = self.layers[0]
        self.eps = first.first.weight.new_tensor(first.eps)

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d], as `CausalLM.hidden`."""
        x, turn = self.model.embed_tokens(ids), self.rotary(position)
        places = packing
        if isinstance(packing, Packed):
            places = Layout.of(packing, self.layers[0].heads, self.layers[0].kv)
        for number, layer in enumerate(self.layers):
            x = self._attend(number, layer, x, turn, places)
            weights = (m.weight for m in (layer.gate, layer.up, layer.down))
            x = _Gated.apply(x, layer.second.weight, self.eps, *weights)
        return self.model.norm(x)

    def _attend(
        self,
        number: int,
        layer: Layer,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        places: Layout | Packing,
    ) -> Tensor:
        """x + W_o attention(…), rows x [N, d]."""
        linears = (layer.q, layer.k, layer.v)
        sizes = [layer.heads, layer.kv, layer.kv]
        qkv = _Normed.apply(x, layer.first.weight, self.eps, *(m.weight for m in linears))
        bias = bias_of(linears)
        if bias is not None:
            qkv = qkv + bias
        qkv = qkv.view(len(x), -1, layer.size)
        if layer.qk_norms:
            q, k, v = qkv.split(sizes, 1)
            qkv = torch.cat([layer.qk_norms[0](q), layer.qk_norms[1](k), v], 1)
        if isinstance(places, Layout):
            outputs = attended(qkv, turn, places, layer.rule)
        else:
            q, k, v = turn_(qkv, *turn, sum(sizes[:2])).split(sizes, 1)
            outputs = places.attend(number, q, k, v, layer.rule).reshape(len(x), -1)
        x = _Added.apply(x, outputs, layer.out.weight)
        return x if layer.out.bias is None else x + layer.out.bias


# --- functions and their derivatives ---
#
# Rows x [N, d]; s = 1 / √(mean x² + ε) of each row; u = x · s; n = u · w, the norm. For g = ∂/∂n:
#
#     ∂/∂w = Σ rows of g · u            ∂/∂x = s · (g · w − u · mean(g · w · u))
#
#     x = (3, 4), ε = 0, w = (1, 1), g = (1, 0): s = 1 / √12.5, u = (0.849, 1.131)
#     g · w · u = (0.849, 0), its mean 0.424, ∂/∂x = s · (1 − 0.36, −0.48) = (0.181, −0.136)
#
# Gated: a = W_gate n, b = W_up n, h = silu(a) · b, out = x + W_down h. For g = ∂/∂out:
#
#     ∂/∂h = g W_down       ∂/∂b = ∂/∂h · silu(a)       ∂/∂a = ∂/∂h · b · silu′(a)
#     ∂/∂n = ∂/∂a W_gate + ∂/∂b W_up                    ∂/∂x = g + through the norm, as above


class _Normed(torch.autograd.Function):
    """[W₁ n, W₂ n, …] side by side for n = norm(x), rows x [N, d]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, eps: Tensor, *weights: Tensor) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, scale, norm, *weights)
        return _times((x * scale).mul_(norm), torch.cat(weights))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (g,) = grads
        x, scale, norm, *weights = ctx.saved_tensors
        each = [None] * len(weights)
        if any(ctx.needs_input_grad[3:]):
            by_weights = g.t() @ (x * scale).mul_(norm)
            each = by_weights.split([len(w) for w in weights])
        return *_by_normed(ctx, _times(g, torch.cat(weights).t()), x, scale, norm), None, *each


class _Gated(torch.autograd.Function):
    """x + W_down (silu(W_gate n) · W_up n) for n = norm(x), rows x [N, d]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, eps: Tensor, gate: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        scale = _scale(x, eps)
        n = (x * scale).mul_(norm)
        a, b = _times(n, gate), _times(n, up)
        ctx.save_for_backward(x, scale, norm, a, b, gate, up, down)
        return _times(F.silu(a).mul_(b), down).add_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (g,) = grads
        x, scale, norm, a, b, gate, up, down = ctx.saved_tensors
        s, by_h = F.silu(a), _times(g, down.t())
        by_down = _by_weight(ctx, 5, g, s * b)
        by_b = s.mul_(by_h)
        by_a = torch.ops.aten.silu_backward(by_h.mul_(b), a)
        n = (x * scale).mul_(norm)
        by_gate, by_up = _by_weight(ctx, 3, by_a, n), _by_weight(ctx, 4, by_b, n)
        by_n = _times(by_a, gate.t()).add_(_times(by_b, up.t()))
        by_x, by_norm = _by_normed(ctx, by_n, x, scale, norm)
        return by_x.add_(g), by_norm, None, by_gate, by_up, by_down


class _Added(torch.autograd.Function):
    """x + W y, rows x [N, d] and y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(y, weight)
        return _times(y, weight).add_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (g,) = grads
        y, weight = ctx.saved_tensors
        return g, _times(g, weight.t()), _by_weight(ctx, 2, g, y)


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ for rows x [N, d] and W [*, d], which may be a transposed view."""
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.t()


def _by_weight(ctx: Any, number: int, g: Tensor, x: Tensor) -> Tensor | None:
    """The gradient by W of x Wᵀ, if the function's argument `number` wants it."""
    return g.t() @ x if ctx.needs_input_grad[number] else None


def _scale(x: Tensor, eps: Tensor) -> Tensor:
    """1 / √(mean x² + eps), [N, 1]."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, size, size, value=1 / x.shape[-1]).rsqrt_()


def _by_normed(
    ctx: Any, g: Tensor, x: Tensor, scale: Tensor, norm: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The gradients by x and by the norm's weight, given that by x · scale · norm, which is used
    up."""
    unit = x * scale
    by_norm = (g * unit).sum(0) if ctx.needs_input_grad[1] else None
    g *= norm
    along = torch.linalg.vecdot(g, unit).div_(x.shape[-1])[:, None]
    return g.sub_(unit.mul_(along)).mul_(scale), by_norm


# --- is it right? ---

_PROBED: WeakKeyDictionary[PackedModel, Trunk | None] = WeakKeyDictionary()


def _is_plain(policy: PackedModel) -> bool:
    """Whether there are no adapters, and the gates are as `_Gated` computes them, without bias."""
    layers = getattr(policy.model.base_model, "layers", ())
    gates = [getattr(layer.mlp, name, None) for layer in layers for name in GATES]
    projections = [getattr(layer.self_attn, name, None) for layer in layers for name in PROJECTIONS]
    plain = all(type(m) is nn.Linear for m in (*gates, *projections))
    biased = any(getattr(m, "bias", None) is not None for m in gates)
    return plain and not biased and policy.model.config.hidden_act == "silu"


def _probe(policy: PackedModel) -> Trunk | None:
    """A `Trunk` that computes the modules' hidden states, and their gradients of the first layer;
    else None, with a notice."""
    model = policy.model.base_model
    learning = {p: p.requires_grad for p in model.layers[0].parameters()}

    def with_gradients(hidden: Tensor) -> list[Tensor]:
        # Not the sum of squares: behind a norm it is nearly constant, and its gradient is mostly
        # rounding.
        direction = torch.linspace(-1, 1, hidden.numel(), device=hidden.device).view_as(hidden)
        return [hidden, *torch.autograd.grad((hidden * direction).sum(), list(learning))]

    with torch.inference_mode(False), torch.enable_grad():
        model.layers[0].requires_grad_(True)
        try:
            packed, rules, hidden = recorded(policy)
            place = packed.ids, packed.position
            equal = finds(
                lambda: with_gradients(Trunk(model, rules).hidden(packed, *place)),
                with_gradients(hidden),
            )
        finally:
            for p, learns in learning.items():
                p.requires_grad_(learns)
    if equal:
        return Trunk(model, rules)
    name, problem = type(policy.model).__name__, "computes something of its own"
    notice(name, problem, "it learns by its own modules, slower")
    return None

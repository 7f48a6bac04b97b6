"""The trunk of a policy's model with its derivatives written out: the numbers of the model's own
modules, in fewer passes.

For backward a layer keeps its two inputs, what attention needs (`attention.py`), and gate and up;
norms, activations and their product are made again, which costs less than to write and to read
them. Products by weights are oneDNN's, a sixth quicker than those behind `nn.Linear` for the shapes
of training; gradients of weights are not, and stay `torch.mm`.

For the families in `FAMILIES` in float32 on a CPU with plain linear layers, where a probe finds the
hidden states and the gradients of the model's own modules; all else runs by those. Left out:
adapters, gradient checkpointing, second derivatives, other precisions, GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logpi.policies.fast.attention import Layout, attended, turn_
from logpi.policies.packing import Packed, Packing, Rule, pack

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
STATIC = (
    "default",
    "linear",
    "llama3",
    "yarn",
)  # rotary embeddings that do not depend on how long the text is
PROJECTIONS, GATES = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
TOLERANCE = 1e-4  # of a probe, relative to the largest number


def trunk(policy: CausalLM) -> Trunk | None:
    """What runs this policy's model quicker, if anything does."""
    if not is_known(policy) or policy.model.is_activation_checkpointing or not _is_plain(policy):
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
        self.layers = [
            _Layer.of(layer, rule) for layer, rule in zip(model.layers, rules.values(), strict=True)
        ]

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d], as `CausalLM.hidden`."""
        x, turn = self.model.embed_tokens(ids), self.rotary(position)
        places = (
            Layout.of(packing, *self.layers[0].sizes[:2])
            if isinstance(packing, Packed)
            else packing
        )
        for number, layer in enumerate(self.layers):
            x = layer(number, x, turn, places)
        return self.model.norm(x)


@dataclass(frozen=True)
class Rotary:
    """cos and sin [N, 1, D] of positions [N]; sin of the first half, which meets the second, with a
    minus.

    pace: [D] angle of a step, the first half negative. swing: what both are multiplied by (YaRN).
    """

    pace: Tensor
    swing: float

    @classmethod
    def of(cls, model: Any) -> Rotary:
        pace: Tensor = model.rotary_emb.inv_freq
        return cls(torch.cat([-pace, pace]), model.rotary_emb.attention_scaling)

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        angle = position[:, None, None] * self.pace
        cos, sin = angle.cos(), angle.sin()
        return (cos, sin) if self.swing == 1.0 else (cos * self.swing, sin * self.swing)


@dataclass(frozen=True)
class _Layer:
    """x ← x + W_o attention(RoPE(W_qkv norm(x))), then x ← x + W_down (act(W_gate norm(x)) · W_up
    norm(x))."""

    layer: Any
    sizes: list[int]  # H, Hkv, Hkv
    eps: Tensor
    rule: Rule

    @classmethod
    def of(cls, layer: Any, rule: Rule) -> _Layer:
        a, norm = layer.self_attn, layer.input_layernorm
        sizes = [m.out_features // a.head_dim for m in (a.q_proj, a.k_proj, a.v_proj)]
        return cls(layer, sizes, norm.weight.new_tensor(norm.variance_epsilon), rule)

    def __call__(
        self, number: int, x: Tensor, turn: tuple[Tensor, Tensor], places: Layout | Packing
    ) -> Tensor:
        layer, a, mlp = self.layer, self.layer.self_attn, self.layer.mlp
        linears = [a.q_proj, a.k_proj, a.v_proj]
        qkv = _Normed.apply(x, layer.input_layernorm.weight, self.eps, *(m.weight for m in linears))
        if any(m.bias is not None for m in linears):
            qkv = qkv + torch.cat(
                [x.new_zeros(m.out_features) if m.bias is None else m.bias for m in linears]
            )
        qkv = qkv.view(len(x), -1, a.head_dim)
        if norms := qk_norms(a):
            q, k, v = qkv.split(self.sizes, 1)
            qkv = torch.cat([norms[0](q), norms[1](k), v], 1)
        if isinstance(places, Layout):
            seen = attended(qkv, turn, places, self.rule)
        else:
            q, k, v = turn_(qkv, *turn, sum(self.sizes[:2])).split(self.sizes, 1)
            seen = places.attend(number, q, k, v, self.rule).reshape(len(x), -1)
        x = _Added.apply(x, seen, a.o_proj.weight)
        x = x if a.o_proj.bias is None else x + a.o_proj.bias
        weights = (m.weight for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        return _Gated.apply(x, layer.post_attention_layernorm.weight, self.eps, *weights)


# --- functions and their derivatives ---


class _Normed(torch.autograd.Function):
    """[W₁ n, W₂ n, …] side by side for n = norm(x), rows x [N, d]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, eps: Tensor, *weights: Tensor) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, scale, norm, *weights)
        return _times((x * scale).mul_(norm), torch.cat(weights))

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        x, scale, norm, *weights = ctx.saved_tensors
        by_weights = None
        if any(ctx.needs_input_grad[3:]):
            by_weights = g.t() @ (x * scale).mul_(norm)
        each = (
            [None] * len(weights)
            if by_weights is None
            else by_weights.split([len(w) for w in weights])
        )
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
    def backward(ctx: Any, g: Tensor):
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
    def backward(ctx: Any, g: Tensor):
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


# --- is it right? ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recorder:
    """Attends like `packed` and writes down what rule each layer asks for."""

    packed: Packed
    rules: dict[int, Rule] = field(default_factory=dict)
    extent: None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        self.rules[layer] = rule
        return self.packed.attend(layer, q, k, v, rule)


_PROBED: WeakKeyDictionary[CausalLM, Trunk | None] = WeakKeyDictionary()


def qk_norms(attention: nn.Module) -> list[Any]:
    """The norms of queries and of keys, where there are any."""
    return [m for name, m in attention.named_children() if name in ("q_norm", "k_norm")]


def is_known(policy: CausalLM) -> bool:
    """A family whose layers are as the classes here have them, in float32 on a CPU."""
    config = policy.model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if not policy.packed or config.model_type not in FAMILIES or rope not in STATIC:
        return False
    return all(
        p.dtype == torch.float32 and p.device.type == "cpu"
        for p in policy.model.base_model.parameters()
    )


def _is_plain(policy: CausalLM) -> bool:
    """No adapters, and gates without bias, as `_Gated` has them."""
    layers = getattr(policy.model.base_model, "layers", ())
    gates = [getattr(layer.mlp, name, None) for layer in layers for name in GATES]
    others = [getattr(layer.self_attn, name, None) for layer in layers for name in PROJECTIONS]
    plain = all(type(m) is nn.Linear for m in (*gates, *others))
    return plain and all(m.bias is None for m in gates) and policy.model.config.hidden_act == "silu"  # pyright: ignore


def recorded(policy: CausalLM) -> tuple[Packed, dict[int, Rule], Tensor]:
    """A few tokens, and what the model's own modules make of them: each layer's rule, the hidden
    states [N, d]."""
    ids = (torch.arange(24, device=policy.device) * 7919 + 13).view(2, 12) % policy.vocabulary
    length = torch.full((2,), 12, device=policy.device)
    recorder = _Recorder(pack(ids, length, torch.zeros_like(length)))
    hidden = policy.by_modules(recorder, recorder.packed.ids, recorder.packed.position)
    return recorder.packed, recorder.rules, hidden


def agree(ours: Tensor, theirs: Tensor) -> bool:
    """Up to rounding."""
    ours, theirs = ours.detach(), theirs.detach()
    near = TOLERANCE * (1 + float(theirs.abs().max()))
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= near


def _probe(policy: CausalLM) -> Trunk | None:
    """A `Trunk` that finds the hidden states, and the gradients of the first layer, that the
    modules find; else None."""
    first = policy.model.base_model.layers[0]
    learning = {p: p.requires_grad for p in first.parameters()}
    with torch.inference_mode(False), torch.enable_grad():
        first.requires_grad_(True)
        try:
            packed, rules, theirs = recorded(policy)
            quick = Trunk(policy.model.base_model, rules)
            ours = quick.hidden(packed, packed.ids, packed.position)
            slopes = [torch.autograd.grad(x.square().sum(), list(learning)) for x in (ours, theirs)]
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return None  # layers of another make under a known name
        finally:
            for p, learns in learning.items():
                p.requires_grad_(learns)
    return quick if all(map(agree, (ours, *slopes[0]), (theirs, *slopes[1]))) else None

"""The layers of the model families that have quick paths, and which models belong to them.

    x ← x + W_o attention(RoPE(W_q n, W_k n), W_v n)              n = norm₁(x)
    x ← x + W_down (silu(W_gate n) · W_up n)                      n = norm₂(x)

`Layer` names the modules of one layer of a model; learning (`trunk.py`) computes with their
parameters, decoding (`decoder.py`) with a copy of them in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from logpi.policies.packed_model import PackedModel
    from logpi.policies.packing import Rule

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# rotary embeddings that do not depend on a text's length
STATIC = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Layer:
    """The parts of a decoder layer of one of `FAMILIES`.

    Attributes:
        first, second: the norms before attention and before the gated product.
        q, k, v, out: projections of attention. gate, up, down: those of the gated product.
        qk_norms: norms of a head's queries and key (Qwen 3), or none.
        size: D, numbers of a head. eps: of the norms. act: the activation. rule: of attention.
    """

    first: Any
    q: Any
    k: Any
    v: Any
    out: Any
    second: Any
    gate: Any
    up: Any
    down: Any
    qk_norms: tuple[Any, ...]
    size: int
    eps: float
    act: nn.Module
    rule: Rule

    @classmethod
    def of(cls, layer: Any, rule: Rule) -> Layer:
        """Of a `transformers` layer. Raises AttributeError: it has other parts."""
        a, mlp, norm = layer.self_attn, layer.mlp, layer.input_layernorm
        qk_norms = tuple(m for n, m in a.named_children() if n in ("q_norm", "k_norm"))
        return cls(
            *(norm, a.q_proj, a.k_proj, a.v_proj, a.o_proj),
            *(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj),
            *(qk_norms, a.head_dim, norm.variance_epsilon, mlp.act_fn, rule),
        )

    @property
    def heads(self) -> int:
        """H, heads of queries."""
        return self.q.out_features // self.size

    @property
    def kv(self) -> int:
        """Hkv, heads of keys and of values."""
        return self.k.out_features // self.size


def bias_of(linears: Sequence[Any]) -> Tensor | None:
    """The biases of linear layers side by side, 0 where a layer has none; None if none has."""
    if all(m.bias is None for m in linears):
        return None
    return torch.cat(
        [m.weight.new_zeros(len(m.weight)) if m.bias is None else m.bias for m in linears]
    )


def layers_of(model: Any, rules: dict[int, Rule]) -> list[Layer]:
    """The layers of a base model, with each layer's rule of attention."""
    return [Layer.of(m, rule) for m, rule in zip(model.layers, rules.values(), strict=True)]


def is_known(policy: PackedModel) -> bool:
    """Whether the model is of one of `FAMILIES`, in float32 on a CPU."""
    config = policy.model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if not policy.packed or config.model_type not in FAMILIES or rope not in STATIC:
        return False
    parameters = policy.model.base_model.parameters()
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)


@dataclass(frozen=True)
class Rotary:
    """cos and sin [N, 1, D] of positions [N]. Number i of a head rotates with number i + D/2:

        out[i]       = x[i]       · cos − x[i + D/2] · sin            i < D/2
        out[i + D/2] = x[i + D/2] · cos + x[i]       · sin

    sin is given the minus of the first half, so that out = x · cos + roll(x, D/2) · sin.

    Attributes:
        pace: [D] angle of one position, its first half negative. swing: a factor of cos and sin
            (YaRN).
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

"""A quicker forward for decoding: the numbers of `CausalLM.hidden` by fewer and larger operations, from a copy of the weights.

The projections of q, k and v are one product, so are gate and up; each norm's weight is multiplied into the product that follows;
on a CPU matrices are laid out once for oneDNN, which reads them two to three times as fast for few rows. The copy is made at a
call's beginning from the weights as they are then (adapters merged) and dropped at its end: it is never stale.

For the families of `trunk.py` in float32 on a CPU, where a probe finds the same hidden states as the model's own modules and
there is memory for the copy; all else decodes by those. Left out: gradients, other precisions (rounding would no longer be the
learner's), GPUs (untried; there the modules' own calls would want a CUDA graph, not a copy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logpi.policies.causal_lm import CausalLM
from logpi.policies.heads import Head
from logpi.policies.packing import Packing, Rule
from logpi.policies.trunk import Rotary, agree, is_known, qk_norms, recorded

__all__ = ["Decoder", "decoder"]

WORTH = 16  # steps: copying takes as long as some ten of them save
FEW = 8  # rows that oneDNN's layout is made for; it serves any number
SMALL = 2**18  # numbers in a matrix that stays in the cache, where oneDNN's calls cost more than its layout saves
ROOM = 0.5  # of the memory that can be had: what the copy may take


def decoder(policy: CausalLM, steps: int, rows: int = FEW) -> Decoder | CausalLM:
    """What decodes up to `steps` tokens of `rows` rows at a time: the policy itself unless a `Decoder` pays and is exact."""
    if steps < WORTH or not is_known(policy) or not _fits(policy):
        return policy
    if policy not in _PROBED:
        _PROBED[policy] = _probe(policy)
    rules = _PROBED[policy]
    return policy if rules is None else Decoder(policy, rules, rows)


class Decoder:
    """Hidden states and logits of a policy's weights as they are now. Used as a `CausalLM` is: `hidden` and `head`.

    Args:
        policy: of a known family. rules: of each layer's attention. rows: that the layout is for; it serves any number.
    """

    @torch.no_grad()
    def __init__(self, policy: CausalLM, rules: dict[int, Rule], rows: int = FEW) -> None:
        trunk = policy.model.base_model
        self.embedding, self.norm = trunk.embed_tokens.weight, trunk.norm.weight
        self.layers = [_Layer.of(layer, rule, rows) for layer, rule in zip(trunk.layers, rules.values(), strict=True)]
        self.eps = self.norm.new_tensor(trunk.norm.variance_epsilon)
        self.head: Head = policy.head.over(_product(policy.head.linear.weight, policy.head.linear.bias, rows))
        self.rotary = Rotary.of(trunk)

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d], as `CausalLM.hidden`."""
        x, turn = F.embedding(ids, self.embedding), self.rotary(position)
        for i, layer in enumerate(self.layers if ids.shape[0] else ()):
            layer.add(i, x, turn, packing)
        return _normed(x, self.eps) * self.norm


@dataclass(frozen=True)
class _Layer:
    """x += W_o attention(RoPE(W_qkv norm(x))), then x += W_down (act(W_gate norm(x)) · W_up norm(x)).

    heads: H, Hkv. qk_norm: [H + Hkv, D] weights of the norms of queries and keys, or None.
    """

    qkv: _Product
    out: _Product
    gate_up: _Product
    down: _Product
    heads: tuple[int, int]
    size: int
    eps: Tensor
    qk_norm: Tensor | None
    act: nn.Module
    rule: Rule

    @classmethod
    def of(cls, layer: Any, rule: Rule, rows: int) -> _Layer:
        a, mlp, first, second = layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm
        sizes = a.q_proj.out_features, a.k_proj.out_features
        heads = sizes[0] // a.head_dim, sizes[1] // a.head_dim
        norms = [m.weight.expand(n, -1) for m, n in zip(qk_norms(a), heads, strict=False)]
        return cls(
            _fused([a.q_proj, a.k_proj, a.v_proj], rows, first.weight), _fused([a.o_proj], rows),
            _fused([mlp.gate_proj, mlp.up_proj], rows, second.weight), _fused([mlp.down_proj], rows),
            heads, a.head_dim, first.weight.new_tensor(first.variance_epsilon), torch.cat(norms) if norms else None,
            mlp.act_fn, rule,
        )  # fmt: skip

    def add(self, number: int, x: Tensor, turn: tuple[Tensor, Tensor], packing: Packing) -> None:
        """To x [N, d] in place; turn: cos and sin [N, 1, D] of the tokens' positions."""
        (cos, sin), roped = turn, sum(self.heads)
        qkv = self.qkv(_normed(x, self.eps)).view(x.shape[0], -1, self.size)
        qk, v = qkv[:, :roped], qkv[:, roped:]
        if self.qk_norm is not None:
            qk = _normed(qk, self.eps) * self.qk_norm
        qk = torch.addcmul(qk * cos, qk.roll(self.size // 2, -1), sin)
        seen = packing.attend(number, qk[:, : self.heads[0]], qk[:, self.heads[0] :], v, self.rule)
        x += self.out(seen.reshape(x.shape[0], -1))
        gate, up = self.gate_up(_normed(x, self.eps)).chunk(2, -1)
        x += self.down(self.act(gate).mul_(up))


class _Plain:
    """x ↦ x Wᵀ + b for rows x [N, d], with W transposed: for matrices that stay in the cache."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.t().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


class _Packed:
    """`_Plain` with W laid out by oneDNN: for large matrices and any number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, FEW), bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class _Shared:
    """`_Plain` with W cut into one piece for each thread: for a single row, of which neither library gives each thread its half."""

    def __init__(self, weight: Tensor, bias: Tensor | None, pieces: int) -> None:
        self.weight = weight.view(pieces, -1, weight.shape[1]).transpose(1, 2).contiguous()
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        out = torch.bmm(x.expand(self.weight.shape[0], -1, -1), self.weight).transpose(0, 1).reshape(x.shape[0], -1)
        return out if self.bias is None else out + self.bias


_Product = _Plain | _Packed | _Shared


def _product(weight: Tensor, bias: Tensor | None, rows: int) -> _Product:
    """x ↦ x Wᵀ + b by the quickest layout of W for so many rows."""
    if weight.numel() <= SMALL:
        return _Plain(weight, bias)
    threads = torch.get_num_threads()
    if rows == 1 and weight.shape[0] % threads == 0:
        return _Shared(weight, bias, threads)
    return _Packed(weight, bias) if torch.backends.mkldnn.is_available() else _Plain(weight, bias)


def _normed(x: Tensor, eps: Tensor) -> Tensor:
    """x / √(mean x² + eps) over the last dimension."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * torch.addcmul(eps, size, size, value=1 / x.shape[-1]).rsqrt_()


def _fused(linears: list[nn.Module], rows: int, norm: Tensor | None = None) -> _Product:
    """Linear layers on the same input as one, the weight of the norm before them multiplied in."""
    weight = torch.cat([_weight(m) for m in linears])
    if norm is not None:
        weight *= norm
    biases = [m.bias for m in linears]
    known = [b if b is not None else weight.new_zeros(m.out_features) for b, m in zip(biases, linears, strict=True)]  # pyright: ignore
    return _product(weight, None if all(b is None for b in biases) else torch.cat(known), rows)  # pyright: ignore


def _weight(linear: Any) -> Tensor:
    """W, or W + (α/r) B A of a layer adapted by LoRA. Raises TypeError for other adapters."""
    if isinstance(linear, nn.Linear):
        return linear.weight
    if linear.lora_variant:
        raise TypeError("not plain LoRA")
    base = linear.base_layer.weight
    names = [] if linear.disable_adapters or linear.merged else linear.active_adapters
    return base + sum(linear.get_delta_weight(name).to(base.dtype) for name in names)


# --- is it right? ---------------------------------------------------------------------------------------------------------


_PROBED: WeakKeyDictionary[CausalLM, dict[int, Rule] | None] = WeakKeyDictionary()


def _fits(policy: CausalLM) -> bool:
    """There is room for a copy."""
    return 4 * sum(p.numel() for p in policy.model.base_model.parameters()) < ROOM * _memory()


def _memory() -> float:
    """Bytes that can be had; unlimited where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), math.inf)


@torch.no_grad()
def _probe(policy: CausalLM) -> dict[int, Rule] | None:
    """Each layer's rule if a `Decoder` finds the hidden states that the modules find, else None."""
    packed, rules, theirs = recorded(policy)
    try:
        ours = Decoder(policy, rules).hidden(packed, packed.ids, packed.position)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # layers of another make under a known name
    return rules if agree(ours, theirs) else None

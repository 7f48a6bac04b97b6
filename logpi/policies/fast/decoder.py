"""A quicker forward for decoding: the numbers of `CausalLM.hidden` by fewer and larger operations,
from a copy of the weights.

The projections of q, k and v are one product, and so are gate and up. Each norm's weight is
multiplied into the product behind it. On a CPU matrices are laid out once for oneDNN, which reads
them two to three times as fast for few rows. A call copies the weights at its beginning (adapters
merged) and drops the copy at its end: it is never stale.

It serves the families of `layers.py` in float32 on a CPU, where a probe computes the same hidden
states as the model's own modules and there is memory for the copy. All others decode by the
modules. Where the CPU has instructions for bfloat16 the copy may be of it, on request: products are
two to three times as quick, and the learner rounds otherwise (`HalfProduct`). Left out: gradients,
other precisions, weights of 8 bits, GPUs (which need a CUDA graph, not a copy).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from logpi.policies.fast.layers import Layer, Rotary, bias_of, is_known, layers_of
from logpi.policies.fast.probe import finds, notice
from logpi.policies.own_modules import recorded

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.heads import Head
    from logpi.policies.packing import Packing, Rule

# steps: copying takes as long as some ten of them save
WORTH = 16
# rows that oneDNN's layout is made for; it serves any number
FEW = 8
# numbers in a matrix that stays in the cache, where oneDNN's calls cost more than its layout saves
SMALL = 2**18
# most of the available memory that the copy may take
ROOM = 0.5


def decoder(
    policy: CausalLM, steps: int, rows: int = FEW, half: bool = False
) -> Decoder | CausalLM:
    """A `Decoder` for up to `steps` tokens of `rows` rows at a time, where it pays and is exact (by
    float32; `half`: its products are then of bfloat16); else the policy itself."""
    if steps < WORTH or not is_known(policy) or not _fits(policy):
        return policy
    if policy not in _PROBED:
        _PROBED[policy] = _probe(policy)
    rules = _PROBED[policy]
    return policy if rules is None else Decoder(policy, rules, rows, half)


class Decoder:
    """Hidden states and logits of a policy's weights as they are now. Used as a `CausalLM` is:
    `hidden` and `head`.

    Args:
        policy: of a known family. rules: of each layer's attention.
        rows: the layout is best for so many; it serves any number. half: products of bfloat16.
    """

    @torch.no_grad()
    def __init__(
        self, policy: CausalLM, rules: dict[int, Rule], rows: int = FEW, half: bool = False
    ) -> None:
        make: MakeProduct = HalfProduct if half else partial(_product, rows=rows)
        trunk = policy.model.base_model
        self.embedding = trunk.embed_tokens.weight
        self.norm, self.floor = _weighted(trunk.norm), _floor(trunk.norm)
        self.layers = [FusedLayer.of(layer, make) for layer in layers_of(trunk, rules)]
        output = policy.head.linear
        self.head: Head = replace(policy.head, linear=make(_weight(output), output.bias))
        self.rotary = Rotary.of(trunk)

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d], as `CausalLM.hidden`."""
        x = F.embedding(ids, self.embedding)
        if ids.shape[0]:
            turn = self._turn(position)
            for i, layer in enumerate(self.layers):
                x = layer(i, x, turn, packing)
        return _unit(x, self.floor).mul_(self.norm)

    def _turn(self, position: Tensor) -> Tensor:
        """[N, 1, G + 2, D / 2] complex factors of a token's queries, key and value, which rotate
        them; 1 for values."""
        cos, sin = (x.chunk(2, -1)[1] for x in self.rotary(position))
        _, heads, size = self.layers[0].shape
        turn = cos.new_ones((len(position), 1, heads, size // 2), dtype=torch.complex64)
        turn[:, :, :-1] = torch.complex(cos, sin)[:, None]
        return turn


@dataclass(frozen=True)
class FusedLayer:
    """A `Layer` by four products, its weights copied into another order (`_order`).

    A key head stands between its queries and its values. Two numbers of a head that rotate together
    are neighbours: one complex number. So rotation is one product, and no head is copied on its way
    to the cache.

    Attributes:
        shape: Hkv, G + 2, D, for G queries of a key head.
        floor: of the norms (`_floor`).
        qk_norm: [G + 1, D] weights of the norms of queries and key, and their floor.
    """

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    shape: tuple[int, int, int]
    floor: Tensor
    qk_norm: tuple[Tensor, Tensor] | None
    act: nn.Module
    rule: Rule

    @classmethod
    def of(cls, layer: Layer, make: MakeProduct) -> FusedLayer:
        queries = layer.heads // layer.kv
        order = _order(layer.kv, queries, layer.size)
        return cls(
            _fused([layer.q, layer.k, layer.v], make, layer.first, order),
            make(_weight(layer.out), layer.out.bias),
            _fused([layer.gate, layer.up], make, layer.second),
            make(_weight(layer.down), layer.down.bias),
            (layer.kv, queries + 2, layer.size),
            _floor(layer.first),
            _qk_norm(layer, queries),
            layer.act,
            layer.rule,
        )

    def __call__(self, number: int, x: Tensor, turn: Tensor, packing: Packing) -> Tensor:
        """x [N, d] is used up; turn [N, 1, G + 2, D / 2] complex."""
        heads = self.qkv(_unit(x, self.floor)).view(x.shape[0], *self.shape)
        if self.qk_norm is not None:
            weight, floor = self.qk_norm
            heads[:, :, :-1] = _unit(heads[:, :, :-1], floor) * weight
        torch.view_as_complex(heads.unflatten(-1, (-1, 2))).mul_(turn)
        q, k, v = heads[:, :, :-2].flatten(1, 2), heads[:, :, -2], heads[:, :, -1]
        x = self.out.onto(x, packing.attend(number, q, k, v, self.rule).flatten(1))
        gate, up = self.gate_up(_unit(x, self.floor)).chunk(2, -1)
        return self.down.onto(x, self.act(gate).mul_(up))


class PlainProduct:
    """x ↦ x Wᵀ + b for rows x [N, d], with W transposed: for matrices that stay in the cache."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.t().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        """x + W y + b; x is used up."""
        return (x if self.bias is None else x.add_(self.bias)).addmm_(y, self.weight)


class OneDnnProduct:
    """`PlainProduct` with W laid out by oneDNN: for large matrices and any number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, FEW), bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(self(y))


class ThreadedProduct:
    """`PlainProduct` with W cut into one piece for each thread: for a single row, of which neither
    library gives each thread its half."""

    def __init__(self, weight: Tensor, bias: Tensor | None, pieces: int) -> None:
        self.weight = weight.view(pieces, -1, weight.shape[1]).transpose(1, 2).contiguous()
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        pieces = torch.bmm(x.expand(self.weight.shape[0], -1, -1), self.weight)
        out = pieces.transpose(0, 1).reshape(x.shape[0], -1)
        return out if self.bias is None else out + self.bias

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(self(y))


class HalfProduct:
    """`OneDnnProduct` with W and x rounded to bfloat16; sums are float32's, rounded once.

    For CPUs with instructions for it (`processors.has_bfloat16`). All else of a step stays float32:
    norms, attention, the sum of the layers, and log-probabilities after the output layer.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        half = weight.to(torch.bfloat16)
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(half, FEW), bias

    def __call__(self, x: Tensor) -> Tensor:
        half = x.to(torch.bfloat16)
        out = torch.ops.mkldnn._linear_pointwise(half, self.weight, None, "none", [], "").float()
        return out if self.bias is None else out.add_(self.bias)

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(self(y))


Product = PlainProduct | OneDnnProduct | ThreadedProduct | HalfProduct
MakeProduct = Callable[[Tensor, Tensor | None], Product]


def _product(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """x ↦ x Wᵀ + b by the quickest layout of W for so many rows."""
    if weight.numel() <= SMALL:
        return PlainProduct(weight, bias)
    threads = torch.get_num_threads()
    if rows == 1 and weight.shape[0] % threads == 0:
        return ThreadedProduct(weight, bias, threads)
    kind = OneDnnProduct if torch.backends.mkldnn.is_available() else PlainProduct
    return kind(weight, bias)


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """x / √(Σ x² + floor²) over the last dimension."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(floor)


def _floor(norm: Any) -> Tensor:
    """With it and `_weighted`, `_unit` is the norm: √(mean x² + ε) = √(Σ x² + d ε) / √d."""
    return (norm.weight.shape[0] * norm.weight.new_tensor(norm.variance_epsilon)).sqrt()


def _weighted(norm: Any) -> Tensor:
    """[d] the norm's weight times √d."""
    return norm.weight * math.sqrt(norm.weight.shape[0])


def _qk_norm(layer: Layer, queries: int) -> tuple[Tensor, Tensor] | None:
    """[G + 1, D] weights of the norms of a key head's queries and of the key, in pairs, and their
    floor."""
    if not layer.qk_norms:
        return None
    pairs = _pairs(layer.size)
    weights = [
        _weighted(m).index_select(0, pairs).expand(n, -1)
        for m, n in zip(layer.qk_norms, (queries, 1), strict=True)
    ]
    return torch.cat(weights), _floor(layer.qk_norms[0])


# Numbers i and i + D/2 of a head rotate together (`Rotary`). `_pairs` makes them neighbours, so
# that two floats are one complex number; `_order` does so in every head, and puts heads that attend
# together side by side. For H = 4 queries on Hkv = 2 keys (G = 2) of D = 4:
#
#     a head's numbers, `_pairs(4)`        0 2 1 3
#     heads as the modules have them       q₀ q₁ q₂ q₃ | k₀ k₁ | v₀ v₁
#     heads in `_order(2, 2, 4)`           q₀ q₁ k₀ v₀ | q₂ q₃ k₁ v₁
#     its first rows of W                  q₀: 0 2 1 3   q₁: 4 6 5 7
#                                          k₀: 16 18 17 19   v₀: 24 25 26 27
#
# Scores q·k do not change if both are reordered alike; values are not rotated, and stay in order.


def _pairs(size: int) -> Tensor:
    """[D] 0, D/2, 1, D/2 + 1, …: numbers that rotate together become neighbours."""
    return torch.arange(size).view(2, -1).t().flatten()


@cache
def _order(kv: int, queries: int, size: int) -> Tensor:
    """The order of the rows of W_q, W_k and W_v: for each key head its queries, key and value, the
    first two in pairs."""
    sizes = [kv * queries * size, kv * size, kv * size]
    q, k, v = torch.arange(sum(sizes)).split(sizes)
    qk = [x.view(kv, -1, size)[..., _pairs(size)] for x in (q, k)]
    return torch.cat([*qk, v.view(kv, 1, size)], 1).flatten()


def _fused(
    linears: list[Any], make: MakeProduct, norm: Any, order: Tensor | None = None
) -> Product:
    """Linear layers on the same input as one, the weight of the norm before them multiplied in, the
    outputs in `order`."""
    weights, scale = [_weight(m) for m in linears], _weighted(norm)
    sizes = [len(w) for w in weights]
    weight = scale.new_empty((sum(sizes), len(scale)))
    for part, w in zip(weight.split(sizes), weights, strict=True):
        # one pass: every call of `generate` begins with it
        torch.mul(w, scale, out=part)
    bias = bias_of(linears)
    if order is not None:
        weight = weight.index_select(0, order)
        bias = None if bias is None else bias.index_select(0, order)
    return make(weight, bias)


def _weight(linear: Any) -> Tensor:
    """W, or W + (α/r) B A of a layer with LoRA. Raises TypeError for other adapters."""
    if isinstance(linear, nn.Linear):
        return linear.weight
    if linear.lora_variant:
        raise TypeError("not plain LoRA")
    base = linear.base_layer.weight
    names = [] if linear.disable_adapters or linear.merged else linear.active_adapters
    return base + sum(linear.get_delta_weight(name).to(base.dtype) for name in names)


# --- is it right? ---

_PROBED: WeakKeyDictionary[CausalLM, dict[int, Rule] | None] = WeakKeyDictionary()


def _fits(policy: CausalLM) -> bool:
    """Whether there is memory for a copy."""
    return 4 * sum(p.numel() for p in policy.model.base_model.parameters()) < ROOM * _memory()


def _memory() -> float:
    """Available bytes; infinite where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        text = ""
    kilobytes = re.search(r"MemAvailable:\s*(\d+)", text)
    return 1024.0 * int(kilobytes[1]) if kilobytes else math.inf


@torch.no_grad()
def _probe(policy: CausalLM) -> dict[int, Rule] | None:
    """Each layer's rule if a `Decoder` computes the modules' hidden states; else None, with a
    notice."""
    packed, rules, theirs = recorded(policy)
    quick = lambda: Decoder(policy, rules).hidden(packed, packed.ids, packed.position)  # noqa: E731
    if finds(lambda: [quick()], [theirs]):
        return rules
    name, problem = type(policy.model).__name__, "computes something of its own"
    notice(name, problem, "it decodes by its own modules, slower")
    return None

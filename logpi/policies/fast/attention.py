"""Attention of packed rows with its derivative written out, for `trunk.py`: one gather forward, and
one backward.

A `Layout` serves all layers of a micro-batch: it has the place of each head of each token. Rows of
few keys attend by plain products, and keep their weights for backward: two thirds of the fused
kernel's time, forward and backward. Longer rows use the fused kernel, which keeps no weights.

Left out: soft caps (no family of the trunk has one), packings other than `Packed`, second
derivatives.

Legend as in `packing.py`; a *line* is one head of one token, D numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from logpi.policies.packing import Block, Packed, Rule

# keys: measured, the two ways break even at about 100
SHORT = 64

# The packed tokens of `packing.py`'s example without its third row: a b c d e | f, where f's row
# shares a b c. One head of queries and one of keys (H = Hkv = 1), so a token has 3 lines; line 3 t
# is token t's query, 3 t + 1 its key, 3 t + 2 its value (N = 6, 18 lines).
#
#     part 0   query a b c d e   key a b c d e        part 1   query f   key a b c f
#
#     take     0 3 6 9 12 | 15 | 1 4 7 10 13, 2 5 8 11 14 | 1 4 7 16, 2 5 8 17      places 0 … 23
#              queries     f      keys, values of part 0    keys, values of part 1
#     asked    0 1 2 3 4 | 5            each query's line among the queries alone [N · H]
#     give     0 1 2 3 4 5              each token's output among the queries taken
#     own      line 1 (a's key) stands first at place 6; it also stands at place 16
#     others   16 17 18, 20 21 22       further places of the shared keys and values
#     shared   1 4 7, 2 5 8             the lines that stand there
#
# Backward adds up: the gradient by line 1 is what place 6 has (`own`) and what place 16 has
# (`index_add_` of `others` onto `shared`).


@dataclass(frozen=True)
class _Part:
    """A block, and the beginning of its lines among those taken: of queries [R, H, Lq], and of keys
    and values [2, R, Hkv, Lk]."""

    block: Block
    heads: int
    kv: int
    query: int
    key: int

    @property
    def queries(self) -> int:
        return self.block.query.numel() * self.heads

    @property
    def keys(self) -> int:
        return self.block.key.numel() * self.kv

    def asked(self) -> Tensor:
        """[R · H · Lq] the queries' lines among [N · H]."""
        head = torch.arange(self.heads)[:, None]
        return (self.block.query[:, None] * self.heads + head).flatten()

    def stored(self) -> Tensor:
        """[2 · R · Hkv · Lk] the keys' and the values' lines among all [N · (H + 2 Hkv)]."""
        head = torch.arange(self.heads, self.heads + self.kv)[:, None]
        key = (self.block.key[:, None] * (self.heads + 2 * self.kv) + head).flatten()
        return torch.cat([key, key + self.kv])

    def real(self) -> Tensor:
        """[2 · R · Hkv · Lk] which of `stored` are not padding. Padding points to token 0, which is
        otherwise in a row's first column only."""
        real = self.block.key > 0
        real[:, 0] = True
        return real[:, None].expand(-1, self.kv, -1).flatten().repeat(2)

    def places(self) -> Tensor:
        """[R · Lq, H] each query's line among those taken."""
        rows, length = self.block.query.shape
        place = torch.arange(self.query, self.query + self.queries).view(rows, self.heads, length)
        return place.transpose(1, 2).reshape(-1, self.heads)

    def of(self, lines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [R, H, Lq, D], keys and values [R, Hkv, Lk, D] among the lines taken."""
        keys = lines[self.key : self.key + 2 * self.keys]
        k, v = keys.view(2, len(self.block.key), self.kv, -1, lines.shape[1])
        return self.rows(lines), k, v

    def rows(self, x: Tensor) -> Tensor:
        """The part's rows [R, H, Lq, D] of a tensor that has a line for each query."""
        return x[self.query : self.query + self.queries].view(
            len(self.block.query), self.heads, -1, x.shape[1]
        )


@dataclass(frozen=True)
class Layout:
    """The places of a packed sequence's lines (queries, keys, values of each token, [N · (H + 2
    Hkv)]) in its blocks.

    Attributes:
        take: the lines that the parts read, queries of all parts first.
        asked: the lines of these queries among [N · H]. blank: the queries that are padding.
        give: [N · H] each token's output among the queries.
        own: [N · (H + 2 Hkv)] one place of each line.
        others, shared: all further places, and the lines that stand there.
    """

    parts: tuple[_Part, ...]
    take: Tensor
    asked: Tensor
    blank: Tensor
    give: Tensor
    own: Tensor
    others: Tensor
    shared: Tensor

    @property
    def turned(self) -> int:
        """Heads with a position: queries' and keys'."""
        return self.parts[0].heads + self.parts[0].kv

    @classmethod
    def of(cls, packed: Packed, heads: int, kv: int) -> Layout:
        """Of a sequence with at least one token, for H = `heads` and Hkv = `kv`."""
        blocks, home = packed.rows.blocks
        parts, query, key = [], 0, sum(b.query.numel() for b in blocks) * heads
        for block in blocks:
            parts.append(_Part(block, heads, kv, query, key))
            query, key = query + parts[-1].queries, key + 2 * parts[-1].keys
        every, asked = heads + 2 * kv, torch.cat([p.asked() for p in parts])
        give = torch.cat([p.places() for p in parts])[home].flatten()
        answered = torch.zeros(len(asked), dtype=torch.bool).index_fill_(0, give, True)
        take = torch.cat([asked // heads * every + asked % heads, *(p.stored() for p in parts)])
        place = torch.cat([answered, *(p.real() for p in parts)]).nonzero().flatten()
        line = take[place]
        own = place.new_full((len(packed.ids) * every,), len(take))
        own.scatter_reduce_(0, line, place, "amin")
        others = place[own[line] != place]
        blank = (~answered).nonzero().flatten()
        return cls(tuple(parts), take, asked, blank, give, own, others, take[others])


def attended(heads: Tensor, turn: tuple[Tensor, Tensor], layout: Layout, rule: Rule) -> Tensor:
    """Attention's output [N, H · D] for heads [N, H + 2 Hkv, D], which are overwritten: cos and sin
    turn them in place.

    Carries gradients, once.
    """
    return _Attended.apply(heads, *turn, layout, rule)


# A head x = (1, 2, 3, 4) at an angle of 90° for all pairs: number i turns with number i + 2.
#
#     cos 0 0 0 0     sin −1 −1 1 1     other = roll(x, 2) = 3 4 1 2
#     x · cos + other · sin = −3 −4 1 2            and with way = −1, back: 1 2 3 4


def turn_(heads: Tensor, cos: Tensor, sin: Tensor, roped: int, way: int = 1) -> Tensor:
    """The first `roped` heads of [N, *, D] turned by their positions' angles, in place; back if
    `way` is −1."""
    qk = heads[:, :roped]
    other = qk.roll(qk.shape[-1] // 2, -1)
    qk.mul_(cos).addcmul_(other, sin, value=way)
    return heads


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, layout: Layout, rule: Rule
    ) -> Tensor:
        lines = turn_(heads, cos, sin, layout.turned).flatten(0, 1).index_select(0, layout.take)
        out = heads.new_empty(len(layout.asked), heads.shape[2])
        saved = [_see(part, lines, out, rule) for part in layout.parts]
        ctx.save_for_backward(cos, sin, lines, *(x for pair in saved for x in pair))
        ctx.layout, ctx.rule = layout, rule
        return out.index_select(0, layout.give).view(len(heads), -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (g,) = grads
        layout, (cos, sin, lines, *saved) = ctx.layout, ctx.saved_tensors
        tokens, size = len(g), lines.shape[1]
        g = g.reshape(-1, size).index_select(0, layout.asked).index_fill_(0, layout.blank, 0)
        slopes = torch.empty_like(lines)
        for part, *pair in zip(layout.parts, saved[::2], saved[1::2], strict=True):
            _by_lines(part, lines, g, slopes, pair, ctx.rule)
        by_lines = slopes.index_select(0, layout.own)
        by_lines.index_add_(0, layout.shared, slopes.index_select(0, layout.others))
        by_heads = turn_(by_lines.view(tokens, -1, size), cos, sin, layout.turned, -1)
        return by_heads, None, None, None, None


def _see(part: _Part, lines: Tensor, out: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Writes a block's outputs; returns the tensors that backward needs."""
    (q, k, v), outputs = part.of(lines), part.rows(out)
    if k.shape[2] > SHORT:
        mask = part.block.mask(rule, q.dtype)
        output, total = _fused(q, k, v, 0.0, mask is None, attn_mask=mask, scale=rule.scaling)
        outputs.copy_(output)
        return output, total
    mask, (q, k, v) = _mask(part, rule, q.dtype), _batched(q, k, v)
    weight = torch.baddbmm(mask, q, k.mT, alpha=rule.scaling).softmax(-1)
    torch.bmm(weight, v, out=outputs.view(q.shape))
    return weight, weight[:0]


def _by_lines(
    part: _Part, lines: Tensor, g: Tensor, slopes: Tensor, kept: list[Tensor], rule: Rule
) -> None:
    """Writes the gradients by a block's lines, from the gradient by its outputs."""
    (q, k, v), places, g = part.of(lines), part.of(slopes), part.rows(g)
    if k.shape[2] > SHORT:
        mask = part.block.mask(rule, q.dtype)
        options = {"attn_mask": mask, "scale": rule.scaling}
        gradients = _fused_back(g, q, k, v, *kept, 0.0, mask is None, **options)
        for place, x in zip(places, gradients, strict=True):
            place.copy_(x)
        return
    # out = P v with P = softmax(s · q kᵀ + mask), so for g = ∂/∂out:
    #     ∂/∂v = Pᵀ g      ∂/∂score = P · (g vᵀ − row sum of P · g vᵀ)      ∂/∂q = s · ∂/∂score · k
    (q, k, v), (by_q, by_k, by_v) = _batched(q, k, v), _batched(*places)
    weight, g = kept[0], g.view(q.shape)
    torch.bmm(weight.mT, g, out=by_v)
    by_weight = torch.bmm(g, v.mT)
    by_score = torch._softmax_backward_data(by_weight, weight, -1, weight.dtype).mul_(rule.scaling)
    torch.bmm(by_score, k, out=by_q)
    torch.bmm(by_score.mT, q, out=by_k)


_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _batched(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heads that share keys as more queries of one head: [R · Hkv, *, D]."""
    return q.view(k.shape[0] * k.shape[1], -1, q.shape[3]), k.flatten(0, 1), v.flatten(0, 1)


def _mask(part: _Part, rule: Rule, dtype: torch.dtype) -> Tensor:
    """`Block.mask` for every query of the block, [R · Hkv, *, Lk], made once for all layers of one
    window."""
    (rows, length), keys = part.block.query.shape, part.block.key.shape[1]
    masks, name = part.block.masks, ("each", rule.window, dtype)
    if name not in masks:
        mask = part.block.mask(rule, dtype)
        if mask is None:
            mask = torch.full((length, keys), torch.finfo(dtype).min / 2, dtype=dtype).triu_(1)
        masks[name] = mask.expand(rows, part.heads, length, keys).reshape(rows * part.kv, -1, keys)
    return masks[name]

"""The KV cache of the rows being decoded, and the three packings of decoding.

    Prefill      reads prompts and keeps their keys and values
    DecodeStep   adds one token to each live row
    Extension    adds several tokens to each of some rows

Live rows always stand in slots 0 … n−1 without holes, so a step works on a slice of the cache;
paused rows stand behind them. `Extension` reads an observation after what a row's slot holds, so no
token is ever forwarded twice.

Left out: paging (a slot is one stretch of memory), eviction beyond a sliding window, quantised
caches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from logpi.policies.packing import Block, Packed, Rule, attention, causal, single

# columns: the cache grows by whole grains, and at least doubles, up to the most that rows need
GRAIN = 64


@dataclass(frozen=True)
class Prefill:
    """Attends like `packed`, and keeps keys [N, Hkv, D] and values [N, Hkv, E] of each layer:
    `layers[layer]`."""

    packed: Packed
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def extent(self) -> Tensor | None:
        return self.packed.extent

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        self.layers[layer] = (k, v)
        return self.packed.attend(layer, q, k, v, rule)


class Cache:
    """Keys [slots, Hkv, length, D] and values [slots, Hkv, length, E] of each layer. Heads and
    sizes are those of the first keys and values that arrive."""

    def __init__(self) -> None:
        self.slots, self.length = 0, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        # how often its tensors were replaced by larger ones
        self.grown = 0

    def reserve(self, slots: int, length: int, most: int) -> None:
        """Make room for `slots` rows of `length` tokens, keeping what is there. No row will ever
        hold more than `most` tokens.

        Raises:
            MemoryError: there is no room; names `slots`.
        """
        if slots <= self.slots and length <= self.length:
            return
        self.slots, self.grown = max(slots, self.slots), self.grown + 1
        if length > self.length:
            self.length = -(-max(length, min(2 * self.length, most)) // GRAIN) * GRAIN
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = (self._grown(keys), self._grown(values))

    def of(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values. The first call makes them, with the heads and sizes of
        k [*, Hkv, D] and v [*, Hkv, E]."""
        if layer not in self.layers:
            empty = [x.new_empty((0, x.shape[1], 0, x.shape[2])) for x in (k, v)]
            self.layers[layer] = (self._grown(empty[0]), self._grown(empty[1]))
        return self.layers[layer]

    def _grown(self, old: Tensor) -> Tensor:
        slots, heads, length, size = old.shape
        try:
            new = old.new_zeros((self.slots, heads, self.length, size))
        except (MemoryError, RuntimeError) as error:
            raise MemoryError(
                f"no memory for the keys and values of {self.slots} rows of {self.length} tokens:"
                " use fewer slots or a smaller max_tokens"
            ) from error
        new[:slots, :, :length] = old
        return new

    def write(self, slots: Tensor, prefill: Prefill, index: Tensor) -> None:
        """Copy prompts into `slots` [r]: their tokens are at packed `index` [r, P] (padding: any
        token, for it is masked)."""
        length = index.shape[1]
        for layer, pair in prefill.layers.items():
            for cached, new in zip(self.of(layer, *pair), pair, strict=True):
                rows = new.index_select(0, index.flatten()).view(*index.shape, *new.shape[1:])
                cached[slots, :, :length] = rows.transpose(1, 2)

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Move the first `length` columns of slots `source` [m] to slots `target` [m]."""
        for pair in self.layers.values():
            for x in pair:
                x[target, :, :length] = x[source, :, :length]


@dataclass(frozen=True)
class DecodeStep:
    """One new token for each of the rows in slots 0 … n−1.

    Attributes:
        cache: of the rows. slot: [n] slots that are written: 0 … n−1, or a spare one for rows that
            nobody reads.
        position: [n] column of the new token in its slot.
        length: columns that are read. exact: the longest row has as many with its new token.
        extent: [n] as `Packed` has it, or None.
    """

    cache: Cache
    slot: Tensor
    position: Tensor
    length: int
    exact: bool = True
    extent: Tensor | None = None
    masks: dict = field(default_factory=dict, compare=False, repr=False)
    places: dict = field(default_factory=dict, compare=False, repr=False)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        keys, values = self.write(layer, k, v)
        n, heads, size = k.shape
        alone = n == 1 and self.exact
        if rule.softcap is not None or alone:
            mask = None
            if rule.window is not None or not alone:
                mask = self._mask(rule.window, 1, q.dtype)[:, None]
            return attention(q[:, :, None], keys, values, mask, rule).squeeze(2)
        if q.device.type == "cpu":
            return single(q, keys, values, self._mask(rule.window, heads, q.dtype), rule)
        mask = self._mask(rule.window, 1, q.dtype)[:, None]
        # heads that share keys are several queries of one, which every kernel can do
        queries = q.view(n, heads, -1, size)
        out = F.scaled_dot_product_attention(queries, keys, values, mask, scale=rule.scaling)
        return out.flatten(1, 2)

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The rows' keys [n, Hkv, length, D] and values [n, Hkv, length, E], with k and v of the
        new tokens."""
        pair = self.cache.of(layer, k, v)
        n = len(k)
        for cached, new in zip(pair, (k, v), strict=True):
            lines, place = cached.view(-1, new.shape[2]), self._place(new.shape[1])
            lines.index_copy_(0, place, new.flatten(0, 1))
        return pair[0][:n, :, : self.length], pair[1][:n, :, : self.length]

    def _place(self, heads: int) -> Tensor:
        """[n · heads] index of the new keys among the cache's [slots · heads · length, D]; made
        once for all layers.

        Slots 0 and 1, their new tokens at columns 5 and 3; 2 heads, a cache of 64 columns:

            (slot · 2 + head) · 64 + column    5, 69 (slot 0), 131, 195 (slot 1)
        """
        if heads not in self.places:
            head = torch.arange(heads, device=self.slot.device)
            place = (self.slot[:, None] * heads + head) * self.cache.length + self.position[:, None]
            self.places[heads] = place.flatten()
        return self.places[heads]

    def _mask(self, window: int | None, heads: int, dtype: torch.dtype) -> Tensor:
        """Additive [n · heads, 1, length]: a row sees the keys up to its new one, within the
        window."""
        if (window, heads) not in self.masks:
            mask = causal(self.position[:, None], self.length, window, dtype)
            self.masks[window, heads] = mask.repeat_interleave(heads, 0)[:, None]
        return self.masks[window, heads]


@dataclass(frozen=True)
class Extension:
    """Several new tokens for each of some rows; each sees its row's slot, and the new tokens before
    it.

    Row 0 in slot 4 holds 3 tokens and gets a b; row 1 in slot 1 holds 5 tokens and gets c:

        new tokens       a  b  c      laid out row by row, N = 3
        row              0  0  1
        position         3  4  5
        block.query      [0 1] [2 ·]  each row's own new tokens, R = 2 rows of Lq = 2; · is padding
        block.key        columns 0 … 5 of both slots; those behind a token's position are masked
        home             0  1  2      of the R · Lq outputs those that are no padding

    Attributes:
        cache: of the rows. slot: [R] of each row.
        row: [N] the row of each new token, 0 … R−1. position: [N] of each new token in its slot.
        home: [N] where each new token stands among the block's queries.
        block: which queries attend to which columns.
        extent: [N] as `Packed` has it, or None.
    """

    cache: Cache
    slot: Tensor
    row: Tensor
    position: Tensor
    home: Tensor
    block: Block
    extent: Tensor | None = None

    @classmethod
    def after(
        cls, cache: Cache, slot: Tensor, start: Tensor, count: Tensor, extent: Tensor | None = None
    ) -> Extension:
        """`count` [R] ≥ 1 new tokens of each row, from position `start` [R] on. extent: [R]."""
        column = torch.arange(int(count.max()), device=slot.device)
        valid = column < count[:, None]
        position = (start[:, None] + column)[valid]
        query = (count.cumsum(0) - count)[:, None] + column
        columns = torch.arange(int(position.max()) + 1, device=slot.device).expand(len(slot), -1)
        row = torch.arange(len(slot), device=slot.device).repeat_interleave(count)
        home = valid.flatten().nonzero().squeeze(1)
        block = Block(query.masked_fill(~valid, 0), columns, start, plain=False)
        return cls(cache, slot, row, position, home, block, None if extent is None else extent[row])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        slot, length = self.slot[self.row], self.block.key.shape[1]
        pair = self.cache.of(layer, k, v)
        for cached, new in zip(pair, (k, v), strict=True):
            cached[slot, :, self.position] = new
        keys, values = (cached[self.slot, :, :length] for cached in pair)
        query = self.block.query
        rows = q.index_select(0, query.flatten()).view(*query.shape, *q.shape[1:]).transpose(1, 2)
        out = attention(rows, keys, values, self.block.mask(rule, q.dtype), rule)
        return out.transpose(1, 2).flatten(0, 1).index_select(0, self.home)

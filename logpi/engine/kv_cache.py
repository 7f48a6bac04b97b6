"""Keys and values of the rows being decoded, and the three packings of decoding: reading prompts,
adding a token, going on.

Live rows always stand in slots 0 … n−1 without holes, so a step works on a slice and touches no
dead row; rows that wait for a reply stand behind them. `Extension` reads the reply after what a
row's slot holds, so no token is ever forwarded twice.

Left out: paging (a row's keys are one stretch of memory), eviction beyond a sliding window,
quantised caches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from logpi.policies.packing import Block, Packed, Rule, attention, single

GRAIN = 64  # the cache grows by whole grains, and at least doubles unless less is enough for ever


@dataclass(frozen=True)
class Prefill:
    """Attends like `packed` and keeps every layer's keys and values: {layer: (k, v)}, [N, Hkv, D]
    and [N, Hkv, E]."""

    packed: Packed
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def extent(self) -> Tensor | None:
        return self.packed.extent

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        self.kept[layer] = (k, v)
        return self.packed.attend(layer, q, k, v, rule)


class Cache:
    """Keys [rows, Hkv, length, D] and values [rows, Hkv, length, E] of each layer, shaped like the
    first that arrive."""

    def __init__(self) -> None:
        self.rows, self.length = 0, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.grown = 0  # times that its tensors were replaced by larger ones

    def reserve(self, rows: int, length: int, most: int) -> None:
        """Make room for `rows` rows of `length` tokens, keeping what is there. No row will ever
        hold more than `most`.

        Raises:
            MemoryError: there is none; names `slots`.
        """
        if rows <= self.rows and length <= self.length:
            return
        self.rows, self.grown = max(rows, self.rows), self.grown + 1
        if length > self.length:
            self.length = -(-max(length, min(2 * self.length, most)) // GRAIN) * GRAIN
        for layer, (keys, values) in self.layers.items():
            self.layers[layer] = (self._grown(keys), self._grown(values))

    def of(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values, made for heads like those of k [*, Hkv, D] and v [*, Hkv, E]
        if there are none."""
        if layer not in self.layers:
            keys, values = (
                self._grown(x.new_empty((0, x.shape[1], 0, x.shape[2]))) for x in (k, v)
            )
            self.layers[layer] = (keys, values)
        return self.layers[layer]

    def _grown(self, old: Tensor) -> Tensor:
        rows, heads, length, size = old.shape
        try:
            new = old.new_zeros((self.rows, heads, self.length, size))
        except (MemoryError, RuntimeError) as error:
            what = f"the keys and values of {self.rows} rows of {self.length} tokens"
            raise MemoryError(
                f"no memory for {what}: use fewer slots or a smaller max_tokens"
            ) from error
        new[:rows, :, :length] = old
        return new

    def write(self, slots: Tensor, prefill: Prefill, index: Tensor) -> None:
        """Give slots [r] the prompts whose tokens are at packed `index` [r, P] (padding: any token;
        it is masked)."""
        length = index.shape[1]
        for layer, pair in prefill.kept.items():
            for mine, theirs in zip(self.of(layer, *pair), pair, strict=True):
                rows = theirs.index_select(0, index.flatten()).view(*index.shape, *theirs.shape[1:])
                mine[slots, :, :length] = rows.transpose(1, 2)

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Move the rows in slots `source` [m] to slots `target` [m]."""
        for pair in self.layers.values():
            for x in pair:
                x[target, :, :length] = x[source, :, :length]


@dataclass(frozen=True)
class DecodeStep:
    """One new token for each of the rows in slots 0 … n−1.

    Attributes:
        slot: [n] the slots that are written, 0 … n−1 (or a spare one, for rows that nobody reads).
            position: [n] of the new token in its slot. length: columns that are read. exact: as
            many as the longest row has with that token, not more.
        extent: [n] as `Packed` has it.
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
            mask = (
                None
                if alone and rule.window is None
                else self._mask(rule.window, 1, q.dtype)[:, None]
            )
            return attention(q[:, :, None], keys, values, mask, rule).squeeze(2)
        if q.device.type == "cpu":
            return single(q, keys, values, self._mask(rule.window, heads, q.dtype), rule)
        mask = self._mask(rule.window, 1, q.dtype)[:, None]
        # heads that share keys are several queries of one, which every kernel can do
        asking = q.view(n, heads, -1, size)
        return F.scaled_dot_product_attention(
            asking, keys, values, mask, scale=rule.scaling
        ).flatten(1, 2)

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The rows' keys [n, Hkv, length, D] and values [n, Hkv, length, E], with the new token's k
        and v among them."""
        pair = self.cache.of(layer, k, v)
        n = len(k)
        for held, new in zip(pair, (k, v), strict=True):
            held.view(-1, new.shape[2]).index_copy_(0, self._place(new.shape[1]), new.flatten(0, 1))
        return pair[0][:n, :, : self.length], pair[1][:n, :, : self.length]

    def _place(self, heads: int) -> Tensor:
        """[n · heads] where the new keys belong among the cache's [rows · heads · length, D]; made
        once for all layers."""
        if heads not in self.places:
            head = torch.arange(heads, device=self.slot.device)
            place = (self.slot[:, None] * heads + head) * self.cache.length + self.position[:, None]
            self.places[heads] = place.flatten()
        return self.places[heads]

    def _mask(self, window: int | None, heads: int, dtype: torch.dtype) -> Tensor:
        """Additive [n · heads, 1, length]: a row sees the keys up to its own, within the window."""
        if (window, heads) not in self.masks:
            key = torch.arange(self.length, device=self.position.device)
            hidden = key > self.position[:, None]
            if window is not None and window < self.length:
                hidden |= key <= self.position[:, None] - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=key.device).masked_fill_(
                hidden, float("-inf")
            )
            self.masks[window, heads] = mask.repeat_interleave(heads, 0)[:, None]
        return self.masks[window, heads]


@dataclass(frozen=True)
class Extension:
    """Several new tokens for each of some rows, one after another: they see what the slot holds,
    and those before them.

    Attributes:
        slot: [R] of the rows. row: [N] 0 … R−1 of each new token. position: [N] of each. home: [N]
            where each is among the block's queries. block: queries [R, Lq] among the new tokens,
            and the slots' columns up to the last new position.
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
        """`count` [R] ≥ 1 new tokens from position `start` [R] on, of rows of `extent` [R]; laid
        out row by row."""
        column = torch.arange(int(count.max()), device=slot.device)
        valid = column < count[:, None]
        position = (start[:, None] + column)[valid]
        query = (count.cumsum(0) - count)[:, None] + column
        seen = torch.arange(int(position.max()) + 1, device=slot.device).expand(len(slot), -1)
        row = torch.arange(len(slot), device=slot.device).repeat_interleave(count)
        block = Block(query.masked_fill(~valid, 0), seen, start, plain=False)
        each = None if extent is None else extent[row]
        return cls(cache, slot, row, position, valid.flatten().nonzero().squeeze(1), block, each)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        own, length = self.slot[self.row], self.block.key.shape[1]
        pair = self.cache.of(layer, k, v)
        for held, new in zip(pair, (k, v), strict=True):
            held[own, :, self.position] = new
        keys, values = (held[self.slot, :, :length] for held in pair)
        query = self.block.query
        rows = q.index_select(0, query.flatten()).view(*query.shape, *q.shape[1:]).transpose(1, 2)
        out = attention(rows, keys, values, self.block.mask(rule, q.dtype), rule)
        return out.transpose(1, 2).flatten(0, 1).index_select(0, self.home)

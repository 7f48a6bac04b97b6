"""Packing: a model's own modules run on one sequence of real, unique tokens; only attention knows
about rows.

A Hugging Face model with the attention "logpi" calls `attend` below with its queries, keys and
values. `attend` passes them to the `packing` that the model's forward was called with. `Packed` is
the packing of training and of prompts: it gathers rows, attends, and returns every token's output;
on a GPU in half precision it attends to all rows at once (`fast/varlen.py`). `engine/kv_cache.py`
has the packings of decoding. Positions are in `position_ids`, so the model needs to know nothing
else. Rows are laid out on the CPU, where their lengths are numbers: nothing waits for a GPU.

Left out: dropout (sampler and learner must agree), attention patterns other than causal and causal
with a window, and sharing of more than a row's opening: two rows share tokens up to the first own
action, not later common stretches.

Legend: N packed tokens · R rows of a block · Lq, Lk queries and keys of a row, padded · H, Hkv
heads · D head size, of values E (multi-head latent attention has E < D).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from logpi.policies.fast import varlen as ragged
from logpi.policies.fast.varlen import Ragged
from logpi.policies.openings import openings

# the name under which `attend` is registered with transformers
ATTENTION = "logpi"
# query-key pairs of one block at most: bounds the memory of its mask
CELLS = 2**24


class Rule(NamedTuple):
    """A layer's settings of attention.

    Attributes:
        scaling: of the scores. window: keys that a query sees, its own included; None for all.
        softcap: scores become cap · tanh(score / cap) (Gemma 2), or None.
    """

    scaling: float
    window: int | None = None
    softcap: float | None = None


class Packing(Protocol):
    """Which tokens are rows, and how they attend.

    `attend` maps q [N, H, D], k [N, Hkv, D] and v [N, Hkv, E] to the outputs [N, H, E].

    extent: [N] as `Packed` has it, or None.
    """

    @property
    def extent(self) -> Tensor | None: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor: ...


# arguments of attention that a packing obeys, or may ignore
KNOWN = {"sliding_window", "softcap", "dropout", "is_causal", "position_ids"}
KNOWN |= {"output_attentions", "use_cache", "cache_position"}


def attend(
    module, query, key, value, attention_mask, *, packing: Packing, scaling, **kwargs
) -> tuple[Tensor, None]:
    """The attention interface of transformers: [1, H, N, D] in, [1, N, H, E] out.

    Raises:
        TypeError: the model has another argument (a mask of its own, sinks, a bias by position):
            it runs plainly.
    """
    wants = {name for name, value in kwargs.items() if value is not None} - KNOWN
    if attention_mask is not None or wants:
        raise TypeError(f"attention of its own: {', '.join(sorted(wants)) or 'a mask'}")
    rule = Rule(scaling, kwargs.get("sliding_window"), kwargs.get("softcap"))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return packing.attend(module.layer_idx, q, k, v, rule)[None], None


def register() -> None:
    """Make `attend` known to transformers (which makes no mask for a name it has no mask function
    for)."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    """softmax(q kᵀ · scaling + mask) v for q [R, H, Lq, D], k [R, Hkv, Lk, D], v [R, Hkv, Lk, E],
    additive mask [R, 1, Lq, Lk].

    No mask: a single query sees all keys; several are as many as the keys, and each sees those up
    to its own (not with a soft cap). The fused kernel, except where scores are capped, which it
    cannot do.
    """
    if rule.softcap is not None:
        return _capped(q, k, v, mask, rule.scaling, rule.softcap)
    several, grouped = q.shape[2] > 1, q.shape[1] != k.shape[1]
    if several and grouped and q.device.type != "cpu":
        # On a GPU no fused kernel shares heads in float32, or with a mask. The fallback does, but
        # holds all scores.
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        grouped = False
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=several and mask is None,
        scale=rule.scaling,
        enable_gqa=grouped,
    )


def single(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rule: Rule) -> Tensor:
    """`attention` of one query a row, [R, H, D] in, [R, H, E] out, mask [R · Hkv, 1, Lk]; without a
    soft cap.

    Plain matrix products, which take half to two thirds of the fused kernel's time on a CPU. Heads
    that share keys are several queries of one head.
    """
    scores = torch.baddbmm(
        mask, q.reshape(mask.shape[0], -1, q.shape[2]), k.flatten(0, 1).mT, alpha=rule.scaling
    )
    weight = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return torch.bmm(weight, v.flatten(0, 1)).view(*q.shape[:2], v.shape[3])


def _capped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, cap: float
) -> Tensor:
    """`attention` with the soft cap `cap`, by plain matrix products."""
    rows, heads, length, size = q.shape
    keys = k.shape[2]
    # the heads that share keys become more queries of that head
    queries = q.reshape(rows * k.shape[1], -1, size)
    scores = torch.bmm(queries * scaling, k.flatten(0, 1).mT)
    scores = cap * torch.tanh(scores / cap)
    scores = scores.view(rows, heads, length, keys)
    if mask is not None:
        scores = scores + mask
    weight = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return torch.bmm(weight.view(len(queries), -1, keys), v.flatten(0, 1)).view(
        rows, heads, length, -1
    )


def causal(
    position: Tensor, keys: int, window: int | None, dtype: torch.dtype, lowest: float = -torch.inf
) -> Tensor:
    """Additive mask [*, keys] of queries at `position` [*, 1]: 0 for the keys up to the query's
    own, within the window, and `lowest` for all others."""
    key = torch.arange(keys, device=position.device)
    hidden = key > position
    if window is not None and window < keys:
        hidden |= key <= position - window
    return torch.zeros(hidden.shape, dtype=dtype, device=key.device).masked_fill_(hidden, lowest)


# Three rows; the first two open with the same prompt a b c, and their prefix is 3:
#
#     row 0   a b c d e      packed index     0 1 2 3 4           length 5, shared 0: forwards all
#     row 1   a b c f        token            a b c d e | f | g h length 4, shared 3: forwards f
#     row 2   g h            row              0 0 0 0 0   1   2 2 length 2, shared 0
#
#     where   row 0: 0 1 2 3 4    row 1: 0 1 2 5    row 2: 6 7    (W = 5; the rest is unspecified)
#
# Leaders and followers are blocks apart. The block of rows 0 and 2, and that of row 1:
#
#     query   0 1 2 3 4      key   0 1 2 3 4      start 0      plain: causality is the whole mask
#             6 7 0 0 0            6 7 0 0 0            0      0 is padding: behind the row's end
#     query   5              key   0 1 2 5        start 3      f is at position 3, and sees 4 keys
#
#     home    0 1 2 3 4 | 10 | 5 6           place of each packed token among the 10 + 1 outputs


@dataclass(frozen=True)
class Block:
    """Rows that attend together, padded on the right, where causality masks the padding.

    A row's keys stand in the order of their positions 0, 1, 2, …: first those it shares with
    another row, then its own.

    Attributes:
        query: [R, Lq] packed index of the row's own tokens. Padding points to token 0, which is
            finite and never read.
        key: [R, Lk] packed index of all that the row can see, padded alike.
        start: [R] position of the row's first query.
        plain: no row shares anything: queries are the keys, and attention is plainly causal.
    """

    query: Tensor
    key: Tensor
    start: Tensor
    plain: bool
    masks: dict = field(default_factory=dict, compare=False, repr=False)

    def mask(self, rule: Rule, dtype: torch.dtype) -> Tensor | None:
        """Additive [R, 1, Lq, Lk], made once for all layers of one window; None where plain
        causality is enough."""
        window = rule.window
        if window is not None and window >= self.key.shape[1]:
            window = None
        if self.plain and window is None and rule.softcap is None:
            return None
        if (window, dtype) not in self.masks:
            self.masks[window, dtype] = self._mask(window, dtype)
        return self.masks[window, dtype]

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        # start 3, one query, Lk = 4, window 2: position 3, keys 0 1 2 3, hidden 1 1 0 0
        position = self.start[:, None] + torch.arange(self.query.shape[1], device=self.start.device)
        # finite: a padding query that sees nothing must not become NaN
        lowest = torch.finfo(dtype).min / 2
        return causal(position[:, None, :, None], self.key.shape[1], window, dtype, lowest)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """[R · Lq, H, E]"""
        rows, length = self.query.shape
        q = q.index_select(0, self.query.flatten()).view(rows, length, *q.shape[1:]).transpose(1, 2)
        k, v = (
            x.index_select(0, self.key.flatten()).view(rows, -1, *x.shape[1:]).transpose(1, 2)
            for x in (k, v)
        )
        return attention(q, k, v, self.mask(rule, q.dtype), rule).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class RowLayout:
    """How rows stand in a packed sequence. It is on the CPU; attention's first use makes blocks, or
    ragged rows, on `device`.

    Attributes:
        where: [B, W] packed index of token t of row b; unspecified for tokens that are not
            forwarded.
        length: [B] tokens. shared: [B] how many of them another row forwards.
    """

    where: Tensor
    length: Tensor
    shared: Tensor
    device: torch.device

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], Tensor]:
        """Blocks of rows of similar length, and [N] where each token's output is among the blocks'
        concatenated outputs."""
        blocks, home = [], torch.empty(int((self.length - self.shared).sum()), dtype=torch.long)
        offset = 0
        for rows in _buckets(self.length, self.shared):
            start = self.shared[rows]
            query, key, valid = _block(self.where[rows], self.length[rows], start)
            home[query[valid]] = offset + valid.flatten().nonzero().squeeze(1)
            offset += valid.numel()
            parts = (sent(x, self.device) for x in (query, key, start))
            blocks.append(Block(*parts, plain=not bool((start > 0).any())))
        return tuple(blocks), sent(home, self.device)

    @cached_property
    def ragged(self) -> Ragged:
        """The rows that forward tokens; a row's own tokens stand side by side, in the order of
        rows."""
        asking = (self.length > self.shared).nonzero().squeeze(1)
        length, shared = self.length[asking], self.shared[asking]
        is_key = torch.arange(self.where.shape[1]) < length[:, None]
        key = sent(self.where[asking][is_key], self.device) if bool((shared > 0).any()) else None
        ends = [F.pad(n.cumsum(0), (1, 0)).int() for n in (length - shared, length)]
        queries, keys = (sent(x, self.device) for x in ends)
        return Ragged(key, queries, keys, int((length - shared).max()), int(length.max()))


@dataclass(frozen=True)
class Packed:
    """Ragged rows as one sequence of unique tokens.

    Attributes:
        ids, position: [N] token ids and their positions, for the model's forward. where: [B, W], as
            `rows.where`.
        rows: how they stand in it. extent: [N] the extent of each token's row, or None
            (`positions.py`).
    """

    ids: Tensor
    position: Tensor
    where: Tensor
    rows: RowLayout
    extent: Tensor | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        kernel = ragged.kernel(q, k, v) if rule.softcap is None else None
        if kernel is not None:
            return self.rows.ragged.attend(kernel, q, k, v, rule.scaling, rule.window)
        blocks, home = self.rows.blocks
        outputs = [block.attend(q, k, v, rule) for block in blocks]
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).index_select(0, home)


def pack(
    tokens: Tensor,
    length: Tensor,
    prefix: Tensor,
    device: torch.device | None = None,
    extent: Tensor | None = None,
) -> Packed:
    """Lay out the rows `tokens[b, :length[b]]`; a common opening of several rows is forwarded once.

    Rows whose first `prefix[b]` tokens are the same share them: one forwards the whole row, the
    others only the rest.

    Args:
        tokens: [B, W] long, best on the CPU.
        length, prefix: [B] long, prefix ≤ length; a row of length 0 is left out.
        device: the model's, if it is not that of the tokens.
        extent: [B], for models in which a token's state depends on it: rows share only where it is
            the same.
    """
    device = tokens.device if device is None else device
    tokens, length, prefix = tokens.cpu(), length.cpu(), prefix.cpu()
    column = torch.arange(tokens.shape[1])
    leader, shared = openings(tokens, prefix, extent)
    forwarded = (column >= shared[:, None]) & (column < length[:, None])
    own = forwarded.flatten().cumsum(0).view_as(tokens) - 1
    where = torch.where(column < shared[:, None], own[leader], own)
    rows = RowLayout(where, length, shared, device)
    ids, position = (sent(x[forwarded], device) for x in (tokens, column.expand_as(tokens)))
    each = None if extent is None else sent(extent[:, None].expand_as(tokens)[forwarded], device)
    return Packed(ids, position, sent(where, device), rows, each)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on this device. From the CPU to a GPU it is copied out of pinned memory, without waiting
    for the GPU's work."""
    if x.device.type == "cpu" and device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """[B, T, *] on x's device, with x [M, *] where `mask` [B, T], which is on the CPU, is True, and
    0 elsewhere. Carries gradients."""
    place = sent(mask.flatten().nonzero().squeeze(1), x.device)
    blank = x.new_zeros(mask.numel(), *x.shape[1:])
    return blank.index_copy(0, place, x).view(*mask.shape, *x.shape[1:])


def _buckets(length: Tensor, shared: Tensor) -> list[Tensor]:
    """Rows [R] of similar length: at least half of the longest, unless few, and within `CELLS`.
    Followers apart."""
    out = []
    for follower in (False, True):
        members = ((length > 0) & ((shared > 0) == follower)).nonzero().squeeze(1)
        members = members[length[members].argsort(descending=True, stable=True)]
        sizes, begin = length[members].tolist(), 0
        for end in range(1, len(sizes) + 1):
            full = (end - begin + 1) * sizes[begin] ** 2 > CELLS
            if end == len(sizes) or full or (2 * sizes[end] < sizes[begin] and end - begin >= 8):
                out.append(members[begin:end])
                begin = end
    return out


def _block(where: Tensor, length: Tensor, shared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """query [R, Lq] and key [R, Lk] of the block of rows with `where` [R, W], and which of its
    queries [R, Lq] are real."""
    key = torch.arange(int(length.max()), device=where.device)
    query = torch.arange(int((length - shared).max()), device=where.device)
    valid = query < (length - shared)[:, None]
    keys = where[:, : len(key)].masked_fill(key >= length[:, None], 0)
    column = (shared[:, None] + query).clamp(max=where.shape[1] - 1)
    return where.gather(1, column).masked_fill(~valid, 0), keys, valid

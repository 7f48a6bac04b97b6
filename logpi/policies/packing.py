"""Packing: a model's own modules run on one sequence of real, unique tokens; only attention knows
about rows.

A Hugging Face model whose attention is switched to "logpi" hands its queries, keys and values to
`attend` below, which asks the `packing` object that was given to the model's forward what to do
with them. `Packed` is the one for training and for prompts: it gathers rows, attends, and gives
every token its output; on a GPU in half precision all rows at once (`fast/varlen.py`). Decoding has
its own, in `engine/kv_cache.py`. Position information is in `position_ids`, so the model needs to
know nothing else. Rows are laid out on the CPU, where their lengths are numbers: a GPU is never
waited for.

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

ATTENTION = "logpi"  # the name under which `attend` is registered with transformers
CELLS = 2**24  # query-key pairs of one block at most: bounds the memory of its mask


class Rule(NamedTuple):
    """What a layer asks of its attention.

    Attributes:
        scaling: of the scores. window: keys that a query sees, its own included; None for all.
        softcap: scores become cap · tanh(score / cap) (Gemma 2), or None.
    """

    scaling: float
    window: int | None = None
    softcap: float | None = None


class Packing(Protocol):
    """Knows which tokens are rows. `attend` maps q and k [N, H, D], [N, Hkv, D] and v [N, Hkv, E]
    to the outputs [N, H, E].

    extent: [N] as `Packed` has it, or None.
    """

    @property
    def extent(self) -> Tensor | None: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor: ...


# what a model may hand its attention and a packing knows how to do, or need not know
KNOWN = set(
    [
        "sliding_window",
        "softcap",
        "dropout",
        "is_causal",
        "position_ids",
        "output_attentions",
        "use_cache",
        "cache_position",
    ]
)


def attend(
    module, query, key, value, attention_mask, *, packing: Packing, scaling, **kwargs
) -> tuple[Tensor, None]:
    """The attention interface of transformers: [1, H, N, D] in, [1, N, H, E] out.

    Raises:
        TypeError: the model asks for something else (a mask of its own, sinks, a bias by position):
            it is run plainly.
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
        return _products(q, k, v, mask, rule)
    several, grouped = q.shape[2] > 1, q.shape[1] != k.shape[1]
    if several and grouped and q.device.type != "cpu":
        # no fused kernel of a GPU shares heads in float32, or with a mask: the one that does holds
        # all scores
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


def _products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    rows, heads, length, size = q.shape
    seen = k.shape[2]
    # the heads that share keys become more queries of that head
    queries = q.reshape(rows * k.shape[1], -1, size)
    scores = torch.bmm(queries * rule.scaling, k.flatten(0, 1).mT)
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    scores = scores.view(rows, heads, length, seen)
    if mask is not None:
        scores = scores + mask
    weight = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return torch.bmm(weight.view(len(queries), -1, seen), v.flatten(0, 1)).view(
        rows, heads, length, -1
    )


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
    """Rows that attend together, padded on the right, where causality hides the padding.

    A row's keys stand in the order of their positions 0, 1, 2, …: first those it shares with
    another row, then its own.

    Attributes:
        query: [R, Lq] packed index of the row's own tokens. key: [R, Lk] packed index of all it can
            see.
        start: [R] position of the row's first query. Padding points to token 0, which is finite and
            never read.
        plain: no row shares anything: queries are the keys, and attention is plainly causal.
    """

    query: Tensor
    key: Tensor
    start: Tensor
    plain: bool
    masks: dict = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device) -> Block:
        query, key, start = (sent(x, device) for x in (self.query, self.key, self.start))
        return Block(query, key, start, self.plain)

    def mask(self, rule: Rule, dtype: torch.dtype) -> Tensor | None:
        """Additive [R, 1, Lq, Lk], made once for all layers of one window; None where plain
        causality is enough."""
        window = (
            rule.window if rule.window is not None and rule.window < self.key.shape[1] else None
        )
        if self.plain and window is None and rule.softcap is None:
            return None
        if (window, dtype) not in self.masks:
            self.masks[window, dtype] = self._mask(window, dtype)
        return self.masks[window, dtype]

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        # start 3, one query, Lk = 4, window 2: position 3, keys 0 1 2 3, hidden 1 1 0 0
        device = self.query.device
        position = self.start[:, None] + torch.arange(self.query.shape[1], device=device)
        position = position[:, None, :, None]
        key = torch.arange(self.key.shape[1], device=device)
        hidden = key > position
        if window is not None:
            hidden |= key <= position - window
        # finite: a padding query that sees nothing must not become NaN
        lowest = torch.finfo(dtype).min / 2
        return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, lowest)

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
    """How rows stand in a packed sequence; on the CPU, and what it makes on `device`, once, where
    attention first asks for it.

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
        """Rows of similar length, and [N] where each token's output is in the blocks' outputs,
        concatenated."""
        blocks, home = [], torch.empty(int((self.length - self.shared).sum()), dtype=torch.long)
        offset = 0
        for rows in _buckets(self.length, self.shared):
            block, valid = _block(self.where, rows, self.length[rows], self.shared[rows])
            home[block.query[valid]] = offset + valid.flatten().nonzero().squeeze(1)
            offset += valid.numel()
            blocks.append(block.to(self.device))
        return tuple(blocks), sent(home, self.device)

    @cached_property
    def ragged(self) -> Ragged:
        """The rows that forward anything; their own tokens stand side by side, in the order of
        rows."""
        asking = (self.length > self.shared).nonzero().squeeze(1)
        length, shared = self.length[asking], self.shared[asking]
        seen = torch.arange(self.where.shape[1]) < length[:, None]
        key = sent(self.where[asking][seen], self.device) if bool((shared > 0).any()) else None
        ends = [F.pad(n.cumsum(0), (1, 0)).int() for n in (length - shared, length)]
        queries, keys = (sent(x, self.device) for x in ends)
        return Ragged(key, queries, keys, int((length - shared).max()), int(length.max()))


@dataclass(frozen=True)
class Packed:
    """Ragged rows as one sequence of unique tokens.

    Attributes:
        ids, position: [N] token ids and their positions, for the model's forward. where: [B, W], as
            `rows.where`.
        rows: how they stand in it. extent: [N] how long each token's row is said to be, or None
            (`positions.py`).
    """

    ids: Tensor
    position: Tensor
    where: Tensor
    rows: RowLayout
    extent: Tensor | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.rows.blocks[0]

    @property
    def home(self) -> Tensor:
        return self.rows.blocks[1]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        kernel = ragged.kernel(q, k, v) if rule.softcap is None else None
        if kernel is not None:
            return self.rows.ragged.attend(kernel, q, k, v, rule.scaling, rule.window)
        outputs = [block.attend(q, k, v, rule) for block in self.blocks]
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).index_select(0, self.home)


def pack(
    tokens: Tensor,
    length: Tensor,
    prefix: Tensor,
    device: torch.device | None = None,
    extent: Tensor | None = None,
) -> Packed:
    """Lay out the rows `tokens[b, :length[b]]`, forwarding what several rows open with only once.

    Rows whose first `prefix[b]` tokens are the same share them: one forwards the whole row, the
    others only what follows. Equality is decided by the tokens themselves. tokens [B, W] long;
    length, prefix [B] long, prefix ≤ length; a row of length 0 is left out. device: the model's, if
    it is not that of the tokens, which had better be on the CPU. extent: [B], for models in which a
    token's meaning depends on it: rows share only where it is the same.
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
    """`x` on this device. From the CPU to a GPU without waiting for what that is still at, out of
    memory it can read by itself."""
    if x.device.type == "cpu" and device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """[B, *] on x's device, with x [M] where `mask`, which is on the CPU, is True, and 0 elsewhere.
    Carries gradients."""
    place = sent(mask.flatten().nonzero().squeeze(1), x.device)
    return x.new_zeros(mask.numel()).index_copy(0, place, x).view(mask.shape)


def _buckets(length: Tensor, shared: Tensor) -> list[Tensor]:
    """Rows [R] of similar length: at least half of the longest, unless few, and within `CELLS`.
    Followers apart."""
    out = []
    for follower in (False, True):
        chosen = ((length > 0) & ((shared > 0) == follower)).nonzero().squeeze(1)
        chosen = chosen[length[chosen].argsort(descending=True, stable=True)]
        sizes, begin = length[chosen].tolist(), 0
        for end in range(1, len(sizes) + 1):
            full = (end - begin + 1) * sizes[begin] ** 2 > CELLS
            if end == len(sizes) or full or (2 * sizes[end] < sizes[begin] and end - begin >= 8):
                out.append(chosen[begin:end])
                begin = end
    return out


def _block(where: Tensor, rows: Tensor, length: Tensor, shared: Tensor) -> tuple[Block, Tensor]:
    """The block of `rows` and which of its queries [R, Lq] are real."""
    key = torch.arange(int(length.max()), device=where.device)
    query = torch.arange(int((length - shared).max()), device=where.device)
    valid = query < (length - shared)[:, None]
    keys = where[rows, : len(key)].masked_fill(key >= length[:, None], 0)
    column = (shared[:, None] + query).clamp(max=where.shape[1] - 1)
    queries = where[rows].gather(1, column).masked_fill(~valid, 0)
    return Block(queries, keys, shared, plain=not bool((shared > 0).any())), valid

"""Prompts: read once for all rows that continue them, and long ones held once while several rows
decode.

A short prompt's keys and values are copied into each row's slot. Those of a long one stay here,
[Hkv, P, D] a layer, and the slots of its rows hold only what the rows sampled themselves. A step
then multiplies all its rows' queries with the prompt's keys in one product, which reads the keys
once instead of once a row. Scores of prompt and own tokens stand side by side under one softmax, so
nothing is approximate.

Left out: several long prompts read their common opening once, but each holds it. Rows with
`on_turn_end` hold their prompts themselves (`Extension` reads slots only), and so do rows on a GPU,
where the fused kernel has not been measured against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from logpi.engine.kv_cache import Cache, DecodeStep, Prefill
from logpi.policies.openings import opening
from logpi.policies.packing import Packing, Rule, pack

# prompt tokens read at a time, at least one prompt
PREFILL = 2**13
# tokens that a step need not read again; from so many on a prompt is worth its own calls
SAVED = 512

Held = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of a prompt, [Hkv, P, D] by layer."""


class Forward(Protocol):
    """A `CausalLM`, or a `Decoder` of its weights."""

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor: ...


class PromptCache:
    """Keys and values of prompts that are still needed, by the prompts' numbers.

    Args:
        forward: runs the weights. device: theirs. texts: token ids of each prompt.
        rows: most rows of each prompt that are live together.
        extent: of each prompt, as `Packed` has it, or None.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        texts: Sequence[tuple[int, ...]],
        rows: Sequence[int],
        extent: Tensor | None = None,
    ) -> None:
        self.forward, self.device, self.extent = forward, device, extent
        self.texts = list(texts)
        # of each prompt the tokens that no slot holds
        self.offset = [held_once(len(t) - 1, n) for t, n in zip(texts, rows, strict=True)]
        # short prompts: where they were read, and their packed indices there
        self.read: dict[int, tuple[Prefill, Tensor]] = {}
        self.held: dict[int, Held] = {}

    def put(self, prompt: int, text: tuple[int, ...], rows: int, extent: Tensor | None) -> None:
        """Another text under the number of a prompt that no row needs any more."""
        self.read.pop(prompt, None)
        self.held.pop(prompt, None)
        self.texts[prompt], self.offset[prompt] = text, held_once(len(text) - 1, rows)
        if self.extent is not None and extent is not None:
            self.extent[prompt] = extent

    def give(self, cache: Cache, slot: int, prompts: Sequence[int]) -> None:
        """Copy short prompts to the rows in empty slots `slot`, `slot` + 1, …; read unread ones
        first."""
        self._read([p for p in dict.fromkeys(prompts) if p not in self.read and p not in self.held])
        by_prefill: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            if prompt not in self.held:
                by_prefill.setdefault(id(self.read[prompt][0]), []).append(i)
        for members in by_prefill.values():
            prefill = self.read[prompts[members[0]]][0]
            indices = [self.read[prompts[i]][1] for i in members]
            index = pad_sequence(indices, batch_first=True)
            cache.write(torch.tensor(members, device=index.device) + slot, prefill, index)

    def keep(self, waiting: Sequence[int], live: Sequence[int]) -> None:
        """Forget all prompts but those of waiting and of live rows."""
        self.read = {p: v for p, v in self.read.items() if p in waiting}
        needed = {*waiting, *live}
        self.held = {p: v for p, v in self.held.items() if p in needed}

    def shared(self, prompts: Sequence[int]) -> SharedPrompts | None:
        """The prompts that live rows share, given the rows' prompts in the order of slots; None if
        every row holds its own prompt."""
        if not self.held:
            return None
        rows: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            rows.setdefault(prompt, []).append(i)
        groups = [(self.held[p], _index(r, self.device)) for p, r in rows.items() if p in self.held]
        offset = torch.tensor([self.offset[p] for p in prompts], device=self.device)
        return SharedPrompts(tuple(groups), offset)

    def _read(self, prompts: list[int]) -> None:
        """Forward all of the prompts but their last tokens, which are the rows' first step."""
        while prompts:
            some = prompts[: self._together(prompts)]
            prompts = prompts[len(some) :]
            texts = [self.texts[p] for p in some]
            length = torch.tensor([len(t) - 1 for t in texts])
            tokens = pad_sequence([torch.tensor(t) for t in texts], batch_first=True)
            common = torch.full_like(length, opening(texts))
            extent = None if self.extent is None else self.extent[torch.tensor(some)]
            packed = pack(tokens, length, common, self.device, extent)
            prefill = Prefill(packed)
            self.forward.hidden(prefill, packed.ids, packed.position)
            for i, p in enumerate(some):
                self._store(p, prefill, packed.where[i, : len(texts[i]) - 1])

    def _together(self, prompts: list[int]) -> int:
        """How many of the first prompts are read at a time: PREFILL tokens, at least one prompt."""
        tokens = accumulate(len(self.texts[p]) for p in prompts)
        return max(1, sum(n <= PREFILL for n in tokens))

    def _store(self, prompt: int, prefill: Prefill, index: Tensor) -> None:
        """Keep a prompt that was read; its tokens are at packed `index` [P]."""
        if not self.offset[prompt]:
            self.read[prompt] = prefill, index
            return
        self.held[prompt] = {
            layer: (_picked(k, index), _picked(v, index))
            for layer, (k, v) in prefill.layers.items()
        }


def held_once(tokens: int, rows: int) -> int:
    """How many of a prompt's tokens its rows share: all or none.

    >>> held_once(100, 8), held_once(100, 4), held_once(600, 1)
    (100, 0, 0)
    """
    return tokens if (rows - 1) * tokens >= SAVED else 0


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """[Hkv, P, D] of packed keys or values [N, Hkv, D]."""
    return x.index_select(0, index).transpose(0, 1).contiguous()


def _index(rows: list[int], device: torch.device) -> slice | Tensor:
    """An index of rows in ascending order: a slice, which needs no copies, where they stand side by
    side."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)


@dataclass(frozen=True)
class SharedPrompts:
    """The prompts that live rows share.

    Attributes:
        groups: keys and values of each prompt, and its rows.
        offset: [n] P of each row's prompt, 0 where the row holds its own.
    """

    groups: tuple[tuple[Held, slice | Tensor], ...]
    offset: Tensor


@dataclass(frozen=True)
class SharedStep:
    """A `DecodeStep` of rows some of which share prompts.

    Rows 0 and 1 share a prompt of 3 tokens (P) and hold 2 and 1 tokens of their own (a, b); row 2
    holds its prompt itself (c, 4 tokens). Scores have 3 + 4 columns; · is masked:

        row   offset   position   prompt   own
        0        3         1      P P P    a a · ·
        1        3         0      P P P    b · · ·
        2        0         3      · · ·    c c c c

    The first three columns of rows 0 and 1 are one product with the prompt's keys.

    Attributes:
        step: of the rows' own slots, in which `step.position` counts.
        shared: the prompts that are not in the slots.
    """

    step: DecodeStep
    shared: SharedPrompts
    masks: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def extent(self) -> Tensor | None:
        return self.step.extent

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        keys, values = self.step.write(layer, k, v)
        mask = self._mask(rule.window, q.dtype)
        width = mask.shape[-1] - keys.shape[2]
        # [n, Hkv, G, D]: heads that share keys are several queries of one
        queries = q.view(*keys.shape[:2], -1, keys.shape[3])
        scores = q.new_zeros((*queries.shape[:3], mask.shape[-1]))
        scores[..., width:] = queries @ keys.mT
        for prompt, rows in self.shared.groups:
            of_prompt = _product(queries[rows], prompt[layer][0].mT)
            scores[rows, ..., : of_prompt.shape[-1]] = of_prompt
        scores *= rule.scaling
        if rule.softcap is not None:
            scores = rule.softcap * torch.tanh(scores / rule.softcap)
        precision = torch.promote_types(q.dtype, torch.float32)
        weight = (scores + mask).softmax(-1, dtype=precision).to(q.dtype)
        out = weight[..., width:] @ values
        for prompt, rows in self.shared.groups:
            prompt_values = prompt[layer][1]
            out[rows] += _product(weight[rows, ..., : prompt_values.shape[1]], prompt_values)
        return out.flatten(1, 2)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive [n, 1, 1, longest prompt + length]: each row's prompt, then its own slot; made
        once for all layers."""
        if window not in self.masks:
            offset, position = self.shared.offset[:, None], self.step.position[:, None]
            prompt = torch.arange(int(offset.max()), device=offset.device)
            own = torch.arange(self.step.length, device=offset.device)
            hidden = torch.cat([prompt >= offset, own > position], 1)
            if window is not None:
                behind = [prompt <= offset + position - window, own <= position - window]
                hidden |= torch.cat(behind, 1)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=offset.device)
            self.masks[window] = mask.masked_fill_(hidden, float("-inf"))[:, None, None]
        return self.masks[window]


def _product(rows: Tensor, shared: Tensor) -> Tensor:
    """[r, Hkv, G, *] products of rows [r, Hkv, G, x] with a shared matrix [Hkv, x, *]."""
    together = rows.transpose(0, 1).flatten(1, 2)
    out = torch.bmm(together, shared)
    return out.view(shared.shape[0], rows.shape[0], -1, shared.shape[2]).transpose(0, 1)

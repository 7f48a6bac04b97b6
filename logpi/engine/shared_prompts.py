"""PromptCache: read once for all rows that go on from them, and long ones held once while several rows
decode.

A short prompt's keys and values are copied into each row's slot. Those of a long one stay here,
[Hkv, P, D] a layer, and its rows' slots hold only what the rows sampled themselves. A step then
asks the prompt all its rows' queries in one product, which reads its keys once instead of once a
row; scores of prompt and own tokens stand side by side under one softmax, so nothing is
approximate.

Left out: what several long prompts open with is read once, but held by each. Rows with a partner
hold their prompts themselves (`Extension`, which reads replies, knows slots only), and so do rows
on a GPU, where the fused kernel has not been measured against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from logpi.engine.kv_cache import Cache, DecodeStep, Prefill
from logpi.policies.packing import Packing, Rule, opening, pack

PREFILL = 2**13  # prompt tokens read at a time, at least one prompt
SAVED = (
    512  # tokens that a step need not read again, from which on this is worth a prompt's own calls
)


Held = dict[int, tuple[Tensor, Tensor]]  # a prompt's keys and values [Hkv, P, D], by layer


class Forward(Protocol):
    """A `CausalLM`, or what decodes in its place."""

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor: ...


class PromptCache:
    """What has been read and is still needed. PromptCache go by their number.

    Args:
        forward: of the weights of the moment. device: theirs. texts: token ids of each prompt.
            rows: of each prompt that may be live together. extent: of each prompt, as `Packed` has
            it, or None.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        texts: Sequence[tuple[int, ...]],
        rows: Sequence[int],
        extent: Tensor | None = None,
    ) -> None:
        self.forward, self.device, self.texts, self.extent = forward, device, texts, extent
        self.offset = [
            held_once(len(t) - 1, n) for t, n in zip(texts, rows, strict=True)
        ]  # tokens that no slot holds
        self.read: dict[int, tuple[Prefill, Tensor]] = {}
        self.held: dict[int, Held] = {}

    def give(self, cache: Cache, slot: int, prompts: Sequence[int]) -> None:
        """To the rows in slots `slot`, `slot` + 1, …, which stand empty, their prompts; those that
        were not read are read."""
        self._read([p for p in dict.fromkeys(prompts) if p not in self.read and p not in self.held])
        by_prefill: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            if prompt not in self.held:
                by_prefill.setdefault(id(self.read[prompt][0]), []).append(i)
        for members in by_prefill.values():
            prefill = self.read[prompts[members[0]]][0]
            index = torch.nn.utils.rnn.pad_sequence(
                [self.read[prompts[i]][1] for i in members], batch_first=True
            )
            cache.write(torch.tensor(members, device=index.device) + slot, prefill, index)

    def keep(self, waiting: Sequence[int], live: Sequence[int]) -> None:
        """Forget all others."""
        self.read = {p: v for p, v in self.read.items() if p in waiting}
        needed = {*waiting, *live}
        self.held = {p: v for p, v in self.held.items() if p in needed}

    def shared(self, prompts: Sequence[int]) -> SharedPrompts | None:
        """For live rows, by their prompts in the order of slots; None if all of them hold their
        own."""
        if not self.held:
            return None
        rows: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            rows.setdefault(prompt, []).append(i)
        groups = tuple(
            (self.held[p], _index(r, self.device)) for p, r in rows.items() if p in self.held
        )
        return SharedPrompts(
            groups, torch.tensor([self.offset[p] for p in prompts], device=self.device)
        )

    def _read(self, prompts: list[int]) -> None:
        """Forward all of the prompts but their last tokens, which are the rows' first step."""
        while prompts:
            count, total = 0, 0
            while count < len(prompts) and (
                count == 0 or total + len(self.texts[prompts[count]]) <= PREFILL
            ):
                total, count = total + len(self.texts[prompts[count]]), count + 1
            some, prompts = prompts[:count], prompts[count:]
            texts = [self.texts[p] for p in some]
            length = torch.tensor([len(t) - 1 for t in texts])
            tokens = torch.zeros((len(some), int(length.max()) + 1), dtype=torch.long)
            for i, t in enumerate(texts):
                tokens[i, : len(t)] = torch.tensor(t)
            common = torch.full_like(length, opening(texts))
            extent = None if self.extent is None else self.extent[torch.tensor(some)]
            packed = pack(tokens, length, common, self.device, extent)
            prefill = Prefill(packed)
            self.forward.hidden(prefill, packed.ids, packed.position)
            for i, p in enumerate(some):
                self._note(p, prefill, packed.where[i, : len(texts[i]) - 1])

    def _note(self, prompt: int, prefill: Prefill, where: Tensor) -> None:
        if not self.offset[prompt]:
            self.read[prompt] = prefill, where
            return
        pairs = prefill.kept.items()
        self.held[prompt] = {
            layer: (_picked(k, where), _picked(v, where)) for layer, (k, v) in pairs
        }


def held_once(tokens: int, rows: int) -> int:
    """Of a prompt's tokens those that its rows share: all or none.

    >>> held_once(100, 8), held_once(100, 4), held_once(600, 1)
    (100, 0, 0)
    """
    return tokens if (rows - 1) * tokens >= SAVED else 0


def _picked(x: Tensor, where: Tensor) -> Tensor:
    """[Hkv, P, D] of packed keys or values [N, Hkv, D]."""
    return x.index_select(0, where).transpose(0, 1).contiguous()


def _index(rows: list[int], device: torch.device) -> slice | Tensor:
    """Of rows in ascending order; a slice, which needs no copies, where they stand side by side."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)


@dataclass(frozen=True)
class SharedPrompts:
    """The prompts that live rows share.

    Attributes:
        groups: what is held of each prompt, and its rows. offset: [n] P of each row's prompt, 0
            where it holds its own.
    """

    groups: tuple[tuple[Held, slice | Tensor], ...]
    offset: Tensor


@dataclass(frozen=True)
class SharedStep:
    """`DecodeStep`, for rows some of which share prompts.

    Attributes:
        step: of what the rows hold themselves; its positions are those in the slots. shared: the
            rest.
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
        asking = q.view(*keys.shape[:2], -1, keys.shape[3])  # [n, Hkv, G, D]
        scores = q.new_zeros((*asking.shape[:3], mask.shape[-1]))
        scores[..., width:] = asking @ keys.mT
        for prompt, rows in self.shared.groups:
            found = _asked(asking[rows], prompt[layer][0].mT)
            scores[rows, ..., : found.shape[-1]] = found
        scores *= rule.scaling
        if rule.softcap is not None:
            scores = rule.softcap * torch.tanh(scores / rule.softcap)
        weight = (
            (scores + mask)
            .softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
            .to(q.dtype)
        )
        seen = weight[..., width:] @ values
        for prompt, rows in self.shared.groups:
            said = prompt[layer][1]
            seen[rows] += _asked(weight[rows, ..., : said.shape[1]], said)
        return seen.flatten(1, 2)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive [n, 1, 1, longest prompt + length]: each row's prompt, then what it holds
        itself; made once for all layers."""
        if window not in self.masks:
            offset, position = self.shared.offset[:, None], self.step.position[:, None]
            prompt = torch.arange(int(offset.max()), device=offset.device)
            own = torch.arange(self.step.length, device=offset.device)
            hidden = torch.cat([prompt >= offset, own > position], 1)
            if window is not None:
                hidden |= torch.cat(
                    [prompt <= offset + position - window, own <= position - window], 1
                )
            mask = torch.zeros(hidden.shape, dtype=dtype, device=offset.device).masked_fill_(
                hidden, float("-inf")
            )
            self.masks[window] = mask[:, None, None]
        return self.masks[window]


def _asked(rows: Tensor, of: Tensor) -> Tensor:
    """[r, Hkv, G, *] products of rows [r, Hkv, G, x] and what they share [Hkv, x, *]."""
    together = rows.transpose(0, 1).flatten(1, 2)
    return torch.bmm(together, of).view(of.shape[0], rows.shape[0], -1, of.shape[2]).transpose(0, 1)

"""A transformers model's own modules on a packed sequence: how they are run, and whether they can
be.

Whether they can is found when a model is loaded, on a few tokens: packed and plain must say the
same, every layer must attend once (decoding keeps what it attended to by layer), and a window must
be known to attention, not to a mask alone.

Left out: quicker equals of the modules (`fast/trunk.py`, `fast/decoder.py`).
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.policies.packing import ATTENTION, Packed, Packing, Rule, pack

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.positions import Ropes


@dataclass(frozen=True)
class Watched:
    """Attends like `packed` and writes down what each layer asks for, call by call."""

    packed: Packed
    rules: dict[int, list[Rule]] = field(default_factory=lambda: defaultdict(list))
    extent: None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        self.rules[layer].append(rule)
        return self.packed.attend(layer, q, k, v, rule)

    def check(self, config: Any) -> None:
        """Raises ValueError if a cache by layers would not do, or if windows are only in masks,
        which nobody makes here."""
        if any(len(calls) > 1 for calls in self.rules.values()):
            raise ValueError("a layer attends more than once")
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None) is not None
        for layer, (rule,) in self.rules.items():
            if (kinds[layer] == "sliding_attention" if kinds else window) and rule.window is None:
                raise ValueError("a layer has a window of its own")


def run(trunk: Any, ropes: Ropes | None, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
    """[N, d] last hidden states of packed tokens by a model's own modules."""
    with nullcontext() if ropes is None else ropes.told(packing.extent):
        out = trunk(
            input_ids=ids[None], position_ids=position[None], use_cache=False, packing=packing
        )
    return out.last_hidden_state[0]


@torch.no_grad()
def packs(policy: CausalLM) -> bool:
    """Whether the model says the same packed and plain. Raises ValueError if what it says depends
    on what follows."""
    model, length, split = policy.model, 16, 11
    rows = (torch.arange(2 * length, device=policy.device) * 7919 + 13).view(
        2, length
    ) % policy.vocabulary
    rows[1, :split] = rows[0, :split]
    was_training = model.training
    model.eval()
    try:
        plain = model(input_ids=rows, use_cache=False).logits
        scale = 1e-3 if plain.dtype == torch.float32 else 5e-2
        tolerance = scale * (1 + float(plain.abs().max()))
        if float((plain[0, :split] - plain[1, :split]).abs().max()) > tolerance:
            raise ValueError(
                f"{type(model).__name__} is not a causal language model: it looks at what follows"
            )
        packed = _packed_logits(policy, rows, split)
        return packed is not None and float((packed - plain).abs().max()) <= tolerance
    finally:
        model.train(was_training)


def _packed_logits(policy: CausalLM, rows: Tensor, split: int) -> Tensor | None:
    """Untempered logits [2, W, V] by way of the packing, or None if the model cannot be run so."""
    config = policy.model.config
    if not policy.model._supports_attention_backend or getattr(
        config, "attention_chunk_size", None
    ):
        return None
    full = torch.full((2,), rows.shape[1], device=rows.device)
    packed: Packed = pack(rows, full, torch.full_like(full, split))
    watched = Watched(packed)
    before, config._attn_implementation = config._attn_implementation, ATTENTION
    try:
        hidden = policy.by_modules(watched, packed.ids, packed.position)
        watched.check(config.get_text_config())
        return policy.head.logits(hidden)[packed.where] * policy.temperature
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # whatever a model that knows no `packing` makes of it
    finally:
        config._attn_implementation = before

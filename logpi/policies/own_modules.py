"""Whether a model's own modules can read packed rows, and their attention exchanged if so.

A probe of a few tokens decides when a model is loaded. Packed and plain forwards must give the same
numbers, every layer must attend once (decoding keeps keys and values by layer), and attention must
know its window, which may not stand in a mask alone.

Left out: quicker equals of the modules (`fast/trunk.py`, `fast/decoder.py`), which are compared
with what `recorded` returns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.distributed.sharding import inside
from logpi.policies.fast.probe import agree, finds, notice, sample_rows
from logpi.policies.packing import ATTENTION, Packed, Rule, pack, register
from logpi.policies.plain_attention import attention, exchange

if TYPE_CHECKING:
    from logpi.policies.packed_model import PackedModel

SHARED = 11  # tokens that a probe's two rows open with


@dataclass(frozen=True)
class Recorder:
    """A packing that attends like `packed` and records the rule of every call, by layer."""

    packed: Packed
    calls: dict[int, list[Rule]] = field(default_factory=lambda: defaultdict(list))
    extent: None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        self.calls[layer].append(rule)
        return self.packed.attend(layer, q, k, v, rule)

    @property
    def rules(self) -> dict[int, Rule]:
        """Each layer's last rule, in the order of the calls."""
        return {layer: rules[-1] for layer, rules in self.calls.items()}

    def check(self, config: Any) -> None:
        """Raises ValueError if a cache by layers would not do, or if windows are only in masks,
        which nobody makes here."""
        if any(len(rules) > 1 for rules in self.calls.values()):
            raise ValueError("a layer attends more than once")
        types = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None) is not None
        for layer, rule in self.rules.items():
            if (types[layer] == "sliding_attention" if types else window) and rule.window is None:
                raise ValueError("a layer has a window of its own")


def exchanged(
    policy: PackedModel,
    plain: Callable[[Tensor], Tensor],
    outputs: Callable[[Tensor], Tensor],
    causal: bool = False,
) -> bool:
    """Exchange the model's attention for the packing's, if it computes the same packed and plain;
    else a notice. Returns whether it does.

    Args:
        plain: maps token ids [2, W] to the model's own outputs for them, [2, W, *].
        outputs: maps hidden states [N, d] of packed tokens to the same outputs, [N, *].
        causal: refuse a model that looks at later tokens.
    Raises:
        ValueError: it does, and must not.
    """
    rows, model = sample_rows(policy.embeddings, SHARED, policy.device), policy.model
    training, name = model.training, type(model).__name__
    model.eval()
    try:
        with torch.no_grad():
            theirs = plain(rows)
            if causal and not agree(theirs[0, :SHARED], theirs[1, :SHARED]):
                raise ValueError(f"{name} is not a causal language model: it looks at what follows")
            is_same = model._supports_attention_backend
            is_same &= not getattr(model.config, "attention_chunk_size", None)
            ours = partial(_by_packing, policy, outputs)
            is_same = is_same and finds(lambda: [inside(model, ours)], [theirs])
    finally:
        model.train(training)
    if is_same:
        exchange(model)
    else:
        notice(name, "does not let its attention be exchanged", "it runs padded, and slower")
    return is_same


def _by_packing(policy: PackedModel, outputs: Callable[[Tensor], Tensor]) -> Tensor:
    """[2, W, *] the model's outputs for rows whose opening is forwarded once."""
    register()
    with attention(policy.model, ATTENTION):
        recorder, hidden = _run(policy, SHARED)
    recorder.check(policy.model.config.get_text_config())
    return outputs(hidden)[recorder.packed.where]


def recorded(policy: PackedModel) -> tuple[Packed, dict[int, Rule], Tensor]:
    """A few packed tokens, each layer's rule for them, and their hidden states [N, d] by the
    model's own modules."""
    recorder, hidden = _run(policy, 0)
    return recorder.packed, recorder.rules, hidden


def _run(policy: PackedModel, shared: int) -> tuple[Recorder, Tensor]:
    """The model's own modules on a probe's two rows, which open with `shared` equal tokens; hidden
    states [N, d]."""
    rows = sample_rows(policy.embeddings, shared, policy.device)
    length = torch.full((2,), rows.shape[1], device=rows.device)
    recorder = Recorder(pack(rows, length, torch.full_like(length, shared)))
    return recorder, policy.by_modules(recorder, recorder.packed.ids, recorder.packed.position)

"""A `transformers` model with its tokenizer, run on packed rows: what policies and reward models
have in common.

    PackedModel ← CausalLM        log-probabilities, entropies, values of tokens
                ← RewardModel     scores of texts
    Need                          the states of a batch that are read

It prepares the model once (no dropout, checkpointing, rotary embeddings by length), runs its base
model on a packing, and turns prompts into tokens. Dropout is off: the policy that samples and the
policy that learns must be the same function.

Left out: whether the modules compute the same packed and plain (`own_modules.py`), quicker equals
of them (`fast/`), and what is read from the hidden states.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from logpi.distributed.world import current
from logpi.policies import plain_attention
from logpi.policies.chat_template import ChatTemplate
from logpi.policies.loading import quiet
from logpi.policies.positions import NO_LIMIT, Ropes, positions
from logpi.policies.shards import plain

if TYPE_CHECKING:
    from logpi.policies.packing import Packing


# One row of mask · 1 1 · (T = 4), cut off, whose next state is read too: first 1, last 2.
#
#     obs       o0 o1 o2 o3 ·      length 4: o0 … o3        prefix 2: o0 o1, before the first action
#     valued    ·  1  1  1  ·      the states before own actions, and the one behind the last


@dataclass(frozen=True)
class Need:
    """Which states of a batch are read.

    Attributes:
        length: [B] tokens to forward. prefix: [B] tokens up to the state of the first own action.
        last: [B] index of the last own action, 0 without one.
        valued: [B, T+1] bool, the states of own actions, and some rows' state behind the last.
    """

    length: Tensor
    prefix: Tensor
    last: Tensor
    valued: Tensor

    @classmethod
    def of(cls, mask: Tensor, further: Tensor) -> Need:
        """For own actions `mask` [B, T]; `further` [B] bool: the state behind a row's last own
        action is read too."""
        own, column = mask.any(1), torch.arange(mask.shape[1], device=mask.device)
        first, last = mask.long().argmax(1), (mask * column).amax(1)
        further = further & own
        valued = nn.functional.pad(mask, (0, 1))
        valued[further, last[further] + 1] = True
        return cls((last + 1 + further) * own, (first + 1) * own, last, valued)

    @property
    def extent(self) -> Tensor:
        """[B] tokens up to that of the last own action."""
        return self.last + 2


class PackedModel(nn.Module):
    """A model that reads rows packed where it can, padded elsewhere.

    Args:
        model: of `transformers`, used in place. tokenizer: its own.
        gradient_checkpointing: keep only each layer's input for backward; about a third more time,
            far less memory.
        template_options: variables of the chat template. end_token: what ends an answer, instead of
            what the template writes.

    Attributes:
        packed: rows are packed (False until a probe has said so).
        context: positions that the configuration speaks of. positions: those with an embedding.
        ropes: rotary embeddings that depend on a text's length, or None.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        gradient_checkpointing: bool = False,
        template_options: Mapping[str, Any] | None = None,
        end_token: str = "",
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.template_options, self.end_token = template_options or {}, end_token
        self._template: tuple[Any, ChatTemplate] | None = None
        config = model.config.get_text_config()
        self.context: int = getattr(config, "max_position_embeddings", None) or NO_LIMIT
        self.positions, self.ropes = positions(model), Ropes.of(model)
        self.packed = False
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if gradient_checkpointing:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Keep only each layer's input for backward from now on."""
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.model.train()  # transformers checkpoints in training mode only

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def embeddings(self) -> int:
        """Number of tokens that the model can read."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer with its chat template, and how answers end."""
        stops = self._stops()
        key = (self.tokenizer, self.tokenizer.chat_template, self.tokenizer.eos_token_id, stops)
        if self._template is None or self._template[0] != key:
            template = ChatTemplate(self.tokenizer, self.template_options, self.end_token, stops)
            self._template = key, template
        return self._template[1]

    def _stops(self) -> tuple[int, ...]:
        """Tokens that end a text, beside the tokenizer's and the template's."""
        return ()

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends a response; last the one that ends a turn in the chat template."""
        return self.template.ends

    def render(
        self, prompt: str | list[dict], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Token ids of a prompt: messages through the model's chat template, a string as it is
        (with its BOS, if any).

        `tools`: JSON schemas for the template.

        Raises:
            ValueError: messages, but the tokenizer has no chat template.
        """
        if isinstance(prompt, str):
            return self.template.plain(prompt)
        return self.template.ids(prompt, tools)

    def fitting(self, max_length: int) -> int:
        """`max_length`, or the number of positions of the model where that is smaller (with a
        warning)."""
        if self.positions < max_length:
            warnings.warn(
                f"rows are cut after {self.positions} tokens, not {max_length}: the model has no"
                " more positions",
                stacklevel=2,
            )
        return min(max_length, self.positions)

    def extents(self, length: Tensor) -> Tensor | None:
        """Extents (`positions.py`) of rows of this length [*]; None for models whose rotary
        embeddings do not depend on it."""
        return None if self.ropes is None else self.ropes.classes(length)

    def by_modules(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d] last hidden states of packed tokens ids [N] at positions [N], by the model's own
        modules."""
        if not len(ids):
            return self.model.get_input_embeddings()(ids)  # some models choke on no tokens at all
        with nullcontext() if self.ropes is None else self.ropes.extended(packing.extent):
            output = self.model.base_model(
                input_ids=ids[None],
                position_ids=position[None],
                use_cache=False,
                packing=_Sealed(packing),
            )
        return output.last_hidden_state[0]

    def plain_attention(self) -> AbstractContextManager[None]:
        """The model as `transformers` made it, for its own forward and for saving."""
        return plain_attention.plain_attention(self.model)

    def save(self, directory: str | Path) -> None:
        """Write what `transformers`' automatic classes load: the model and its tokenizer. Of
        several ranks, all call it and the first writes."""
        with self.plain_attention(), quiet():
            model, state = plain(self.model)
            if current().first:
                Path(directory).mkdir(parents=True, exist_ok=True)
                self._write(model, state, Path(directory))

    def _write(self, model: Any, state: dict[str, Tensor] | None, directory: Path) -> None:
        """What `save` writes of a model whose weights are in `state`, or its own."""
        model.save_pretrained(directory, state_dict=state)
        self.tokenizer.save_pretrained(directory)


class _Sealed:
    """A packing that no module looks into: FSDP would cast a dataclass field by field."""

    def __init__(self, packing: Packing) -> None:
        self.attend = packing.attend

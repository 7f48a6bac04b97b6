"""A Hugging Face causal language model as a policy: evaluate recorded tokens, render prompts, load,
save.

The model's own modules run, unchanged, on one packed sequence (`packing.py`), or a quicker equal of
theirs (`fast/trunk.py`): a prompt that a group shares is forwarded once, padding never, and the
output layer (`heads.py`) sees only the states in which the policy chose a token. Models that do not
let their attention be exchanged are run plainly, padded, after one notice.

Left out: sampling (`engine/engine.py`), finding and reading files (`loading.py`), optimisers,
adapters. Dropout is switched off: the policy that samples and the policy that learns must be the
same function.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logpi.ops.distributions import Categorical, Distributions
from logpi.policies.chat_template import ChatTemplate
from logpi.policies.fast.trunk import trunk
from logpi.policies.heads import Head, score
from logpi.policies.own_modules import packs, run
from logpi.policies.packing import ATTENTION, Packing, pack, register, sent, spread
from logpi.policies.positions import NO_LIMIT, Ropes, fitting, positions, within
from logpi.types import Batch, PolicyOutput

VALUE_FILE = "value_head.safetensors"


class CausalLM(nn.Module):
    """π(token | tokens so far) of a causal language model, and with a critic V(tokens so far). A
    `logpi.types.Policy`.

    Args:
        model: a `transformers` causal language model. It is used as it is, in place.
        tokenizer: its tokenizer.
        critic: add a linear value head (float32, zero at first) on the trunk's last hidden state.
        gradient_checkpointing: keep only each layer's input for backward; about a third more time,
            far less memory.
        temperature: > 0, part of the policy: log-probabilities and entropies are those of logits /
            temperature.
        chunk: logits alive at a time; 2**24 is 64 MB in float32, the default on a CPU. On a GPU it
            is 2**26: for a product of few rows it reads the whole matrix all the same. More than
            one chunk are computed again in backward.
        template_options: variables of the chat template. end_token: what ends an answer, instead of
            what the template writes.

    Raises:
        ValueError: not a causal model, or the temperature is not positive.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        critic: bool = False,
        gradient_checkpointing: bool = False,
        temperature: float = 1.0,
        chunk: int | None = None,
        template_options: Mapping[str, Any] | None = None,
        end_token: str = "",
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f"temperature must be positive, not {temperature}; ask for greedy decoding in a"
                " request"
            )
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.temperature = temperature
        self.template_options, self.end_token = template_options or {}, end_token
        self._template: tuple[Any, ChatTemplate] | None = None
        self.chunk = chunk or (2**24 if self.device.type == "cpu" else 2**26)
        config = model.config.get_text_config()
        self.value_head = _value_head(config.hidden_size, self.device) if critic else None
        self.context: int = getattr(config, "max_position_embeddings", None) or NO_LIMIT
        self.positions = positions(model)
        self.ropes = Ropes.of(model)
        if self.ropes is not None and self.ropes.limit < self.context:
            kept = self.ropes.limit
            warnings.warn(
                f"this model reads texts of more than {kept} tokens with other rotary frequencies:"
                f" what begins within {kept} tokens is sampled up to there",
                stacklevel=2,
            )
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.train()  # transformers checkpoints in training mode only
        register()
        self._plain_attention: str = model.config._attn_implementation
        self.packed = packs(self)  # False: the model runs plainly, on padded rows
        if self.packed:
            model.config._attn_implementation = ATTENTION
        else:
            name = type(model).__name__
            warnings.warn(
                f"{name} does not let its attention be exchanged; it runs padded, and slower",
                stacklevel=2,
            )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        critic: bool = False,
        dtype: str = "float32",
        device: str | torch.device | None = None,
        four_bit: bool = False,
        **options,
    ) -> CausalLM:
        """From a local directory, a hub name, a `.gguf` file or a directory with one. `options` as
        the constructor's.

        `device`: cpu, cuda, cuda:1, auto (a CUDA GPU if there is one); default CPU. `four_bit`:
        frozen linear layers in 4 bits, for LoRA.

        A critic that `save` wrote is read back if `critic` is asked for.

        Raises:
            ValueError: one line: nothing there, no tokenizer, not a causal language model, unknown
                dtype, no such device.
        """
        from logpi.policies.loading import load_model, load_tokenizer, refuse_unembedded

        model, tokenizer = load_model(path, dtype, device, four_bit), load_tokenizer(path)
        try:
            refuse_unembedded(tokenizer, model.get_input_embeddings().weight.shape[0])
            policy = cls(model, tokenizer, critic=critic, **options)
        except ValueError as error:
            raise ValueError(f"cannot load a model from {path}: {error}") from None
        saved = Path(path) / VALUE_FILE
        if policy.value_head is not None and saved.is_file():
            from safetensors.torch import load_file

            policy.value_head.load_state_dict(load_file(saved))
        return policy

    def save(self, directory: str | Path) -> None:
        """Write what `transformers.AutoModelForCausalLM` and `AutoTokenizer` load, and the value
        head beside it.

        Whoever loads it stops where it learned to stop: the generation config has the token that
        ends a turn.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        from logpi.policies.loading import quiet

        stops = self.eos_ids
        if not set(stops) <= set(self.template.stops):
            self.model.generation_config.eos_token_id = list(stops)
        with self.plain_attention(), quiet():
            self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        (directory / VALUE_FILE).unlink(missing_ok=True)
        if self.value_head is not None:
            from safetensors.torch import save_file

            save_file(
                {k: v.contiguous() for k, v in self.value_head.state_dict().items()},
                directory / VALUE_FILE,
            )

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def vocabulary(self) -> int:
        """Number of logits; may be more than the tokenizer has tokens."""
        return self.model.get_output_embeddings().weight.shape[0]

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer with its chat template, and how answers end."""
        ids = self.model.generation_config.eos_token_id
        stops = () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)
        key = (self.tokenizer, self.tokenizer.chat_template, self.tokenizer.eos_token_id, stops)
        if self._template is None or self._template[0] != key:
            self._template = (
                key,
                ChatTemplate(self.tokenizer, self.template_options, self.end_token, stops),
            )
        return self._template[1]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends a response; last the one that ends a turn in the chat template."""
        return self.template.ends

    @property
    def head(self) -> Head:
        return Head.of(self.model, self.temperature)

    def reach(self, prompt: int) -> int:
        """Tokens that a row may come to have in all which begins with a prompt of so many."""
        return self.context if self.ropes is None else self.ropes.reach(prompt, self.context)

    def fitting(self, max_length: int) -> int:
        """Tokens that a row may have which is to have so many at most; says it if the model has
        fewer positions."""
        return fitting(max_length, self.positions)

    def extents(self, length: Tensor) -> Tensor | None:
        """What a packing is told of rows of this length [*]; None for models to which it does not
        matter."""
        return None if self.ropes is None else self.ropes.classes(length)

    def render(
        self, prompt: str | list[dict], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Token ids of a prompt: messages through the model's chat template, a string as it is
        (with its BOS, if any).

        `tools`: JSON schemas for the template.

        Raises:
            ValueError: messages, but the tokenizer has no chat template.
        """
        return (
            self.template.plain(prompt)
            if isinstance(prompt, str)
            else self.template.ids(prompt, tools)
        )

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d] last hidden states of packed tokens ids [N] at positions [N]; rows are what
        `packing` says.

        Carries gradients once: what needs a second derivative takes `by_modules`.
        """
        quick = trunk(self) if len(ids) else None
        return (
            self.by_modules(packing, ids, position)
            if quick is None
            else quick.hidden(packing, ids, position)
        )

    def by_modules(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """`hidden` as the model's own modules find it."""
        if not len(ids):
            return self.model.get_input_embeddings()(ids)  # some models choke on no tokens at all
        return run(self.model.base_model, self.ropes, packing, ids, position)

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """logp, entropy [B, T] nats and value [B, T+1] in units of return; 0 where `mask` is False.
        Carries gradients.

        Forwards each row up to the state of its last own action (with a critic, and unless the row
        terminated, one further), and what several rows open with once. Order, padding and
        neighbours change nothing but rounding.
        """
        batch = batch.to("cpu")  # where rows are laid out
        need = _need(batch, self.value_head is not None)
        hidden, where, states, head = self._states(batch, need, self.hidden)
        action = sent(batch.action[batch.mask], self.device)
        logp, entropy = (
            spread(x, batch.mask) for x in score(head, states, action, self.vocabulary, self.chunk)
        )
        value = None
        if self.value_head is not None:
            states = hidden.index_select(0, sent(where[need.valued], self.device)).to(
                self.value_head.weight.dtype
            )
            value = spread(self.value_head(states).squeeze(-1), need.valued)
        return PolicyOutput(logp, entropy, value)

    def distributions(self, batch: Batch) -> Distributions:
        """The whole distribution of each own action, which a trust region needs. Carries gradients,
        twice if need be.

        All M × V logits are alive at once, so this is for small vocabularies (0.4 GB for 1,000
        actions of 100,000 tokens).
        """
        batch = batch.to("cpu")
        _, _, states, head = self._states(batch, _need(batch, False), self.by_modules)
        return Distributions(Categorical(self.vocabulary), head.logits(states))

    def _states(
        self, batch: Batch, need: _Need, forward: Callable[[Packing, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Head]:
        """Hidden states [N, d], where [B, T+1] each token's is, those of own actions [M, *], and
        the head for the latter. What is an index is on the CPU, as the batch is."""
        within(need.length, self.positions)
        if self.packed:
            packed = pack(
                batch.obs, need.length, need.prefix, self.device, self.extents(need.extent)
            )
            where = packed.rows.where
            hidden = outputs = forward(packed, packed.ids, packed.position)
        else:
            where = torch.arange(batch.obs.numel()).view_as(batch.obs)
            hidden, outputs = self._plain(batch.obs, need)
        states = outputs.index_select(0, sent(where[:, :-1][batch.mask], self.device))
        return (
            hidden,
            where,
            states,
            self.head if self.packed else Head(nn.Identity(), None, self.temperature),
        )

    def _plain(self, tokens: Tensor, need: _Need) -> tuple[Tensor, Tensor]:
        """hidden [B · W, d] and untempered logits [B · W, V] of the model's own padded forward."""
        if self.ropes is None:
            return self._padded(sent(tokens, self.device), sent(need.length, self.device))
        rows = []
        for row, length, extent in zip(
            tokens, need.length[:, None], self.ropes.classes(need.extent), strict=True
        ):
            with self.ropes.told(sent(extent.expand_as(row), self.device)):
                rows.append(self._padded(sent(row[None], self.device), sent(length, self.device)))
        hidden, logits = zip(*rows, strict=True)
        return torch.cat(hidden), torch.cat(logits)

    def _padded(self, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The same of any rows tokens [B, W]."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        self.model.eval()  # attention dropout is a number inside the modules, not a module
        out = self.model(
            input_ids=tokens.masked_fill(~real, 0),
            attention_mask=real.long(),
            use_cache=False,
            output_hidden_states=self.value_head is not None,
        )
        logits = out.logits.flatten(0, 1)
        return (
            out.hidden_states[-1].flatten(0, 1) if self.value_head is not None else logits
        ), logits

    @contextmanager
    def plain_attention(self) -> Iterator[None]:
        """The model as `transformers` made it, for its own `generate`, its plain forward, and for
        saving."""
        config = self.model.config
        before, config._attn_implementation = config._attn_implementation, self._plain_attention
        try:
            yield
        finally:
            config._attn_implementation = before


@dataclass(frozen=True)
class _Need:
    """length [B]: tokens to forward. prefix [B]: up to the state of the first own action. valued
    [B, T+1] bool. extent [B]: tokens up to that of the last own action."""

    length: Tensor
    prefix: Tensor
    valued: Tensor
    extent: Tensor


def _need(batch: Batch, critic: bool) -> _Need:
    mask = batch.mask
    own, column = mask.any(1), torch.arange(mask.shape[1], device=mask.device)
    first = mask.long().argmax(1)
    last = (mask * column).amax(1)
    valued = nn.functional.pad(mask, (0, 1))
    cut_off = (own & ~batch.terminated).nonzero().squeeze(1) if critic else last[:0]
    valued[cut_off, last[cut_off] + 1] = True
    length = (last + 1).index_add(0, cut_off, torch.ones_like(cut_off))
    return _Need(length * own, (first + 1) * own, valued, last + 2)


def _value_head(size: int, device: torch.device) -> nn.Linear:
    head = nn.Linear(size, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head

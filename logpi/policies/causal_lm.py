"""A Hugging Face causal language model as a policy: evaluate recorded tokens, load, save.

The model's own modules, or a quicker equal of them (`fast/trunk.py`), run on one packed sequence
(`packing.py`). A prompt that a group shares is forwarded once, padding never, and the output layer
(`heads.py`) reads only the states in which the policy chose a token. A model whose attention cannot
be exchanged runs plainly, padded, after one notice.

Left out: sampling (`engine/engine.py`), prompts and templates (`packed_model.py`), finding and
reading files (`loading.py`), optimisers, adapters.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from logpi.distributed.sharding import Shard, inside, sharded
from logpi.policies import objects
from logpi.policies.distributions import Categorical, Distributions
from logpi.policies.fast.trunk import trunk
from logpi.policies.heads import Head, score
from logpi.policies.loading import load_model, load_tokenizer, refuse_unembedded
from logpi.policies.own_modules import exchanged
from logpi.policies.packed_model import Need, PackedModel
from logpi.policies.packing import Packing, pack, sent, spread
from logpi.policies.positions import within
from logpi.policies.shards import cut, twin
from logpi.types import Batch, PolicyOutput

VALUE_FILE = "value_head.safetensors"
# the constructor's options beside critic and checkpointing
DEFAULTS = {"temperature": 1.0, "chunk": None, "template_options": {}, "end_token": ""}


class CausalLM(PackedModel):
    """π(token | tokens so far) of a causal language model, and with a critic V(tokens so far). A
    `logpi.types.Policy`.

    Args:
        model: a `transformers` causal language model, used in place.
        tokenizer: its tokenizer.
        critic: add a linear value head (float32, zero at first) on the trunk's last hidden state.
        temperature: > 0, part of the policy: log-probabilities and entropies are those of logits /
            temperature.
        chunk: logits alive at a time. The default is 2**24 on a CPU, 64 MB in float32, and 2**26 on
            a GPU, where a product reads the whole matrix even for few rows. With several chunks,
            backward computes their logits again.
        options: gradient_checkpointing, template_options and end_token of `PackedModel`.

    Raises:
        ValueError: not a causal model, or the temperature is not positive.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        critic: bool = False,
        temperature: float = 1.0,
        chunk: int | None = None,
        **options: Any,
    ) -> None:
        if not temperature > 0:
            raise ValueError(
                f"temperature must be positive, not {temperature}; ask for greedy decoding in a"
                " request"
            )
        super().__init__(model, tokenizer, **options)
        self.temperature = temperature
        self.chunk = chunk or (2**24 if self.device.type == "cpu" else 2**26)
        self.value_head: nn.Linear | None = None
        if critic:
            self.add_critic()
        if self.ropes is not None and self.ropes.limit < self.context:
            limit = self.ropes.limit
            warnings.warn(
                f"this model reads texts of more than {limit} tokens with other rotary frequencies:"
                f" what begins within {limit} tokens is sampled up to there",
                stacklevel=2,
            )
        self.packed = exchanged(self, self._own_logits, self._own_logits_of, causal=True)
        if sharded(model) and self.ropes is not None and not self.packed:
            # a forward for each row: ranks with fewer rows would not keep step
            raise ValueError(
                "its rotary embeddings depend on a text's length and it keeps its own attention,"
                " so it cannot be in shards: leave --shard out"
            )

    @classmethod
    def load(
        cls,
        source: Any,
        *,
        tokenizer: Any = None,
        critic: bool = False,
        dtype: str = "float32",
        device: str | torch.device | None = None,
        four_bit: bool = False,
        shard: Shard | str | None = None,
        **options: Any,
    ) -> Self:
        """A policy from a path, a name or an object (`objects.py`).

        Args:
            source: a local directory, a hub name, a `.gguf` file or a directory with one; a loaded
                `transformers` model; a `CausalLM`, which is returned as it is; `FILE.py:NAME`.
            tokenizer: of a `transformers` model.
            critic: with a value head: the saved one, if there is one.
            dtype: of weights that are read. device: cpu, cuda, cuda:1, auto (a CUDA GPU if there is
                one); default CPU, or the object's.
            four_bit: frozen linear layers in 4 bits, for LoRA.
            shard: layout over the ranks, which all call: none (default), auto, N, NxM (`Shard`).
            options: the constructor's.
        Raises:
            ValueError: one line: nothing there, no tokenizer, not a causal language model, unknown
                dtype, no such device, an option that an object does not have.
        """
        source, tokenizer = objects.source_of(source, tokenizer)
        layout = Shard.parse(shard)
        if isinstance(source, CausalLM):
            _refuse_whole(source, layout)
            return cls._of_policy(source, tokenizer, critic, dtype, device, four_bit, options)
        if isinstance(source, str | Path):
            model = load_model(source, dtype, device, four_bit, layout)
            tokenizer = load_tokenizer(source)
        else:
            objects.check_model(source, tokenizer, "policy")
            objects.check_options(source, dtype, four_bit)
            model = cut(objects.moved(source, device), layout)
        with objects.named_errors(source):
            if model.get_output_embeddings() is None:
                raise ValueError("it has no output layer over tokens")
            refuse_unembedded(tokenizer, model)
            policy = cls(model, tokenizer, critic=critic, **options)
        if isinstance(source, str | Path):
            policy._read_critic(Path(source) / VALUE_FILE)
        return policy

    def _read_critic(self, file: Path) -> None:
        if self.value_head is not None and file.is_file():
            from safetensors.torch import load_file

            self.value_head.load_state_dict(load_file(file))

    @classmethod
    def _of_policy(
        cls,
        policy: CausalLM,
        tokenizer: Any,
        critic: bool,
        dtype: str,
        device: str | torch.device | None,
        four_bit: bool,
        options: Mapping[str, Any],
    ) -> Self:
        """The policy itself; where a subclass is asked for, one with the same model and head."""
        if tokenizer is not None and tokenizer is not policy.tokenizer:
            raise ValueError("this policy has a tokenizer of its own: leave tokenizer out")
        objects.check_options(policy.model, dtype, four_bit)
        objects.check_settings(policy, options, DEFAULTS)
        if critic and policy.value_head is None:
            policy.add_critic()
        policy = objects.moved(policy, device)
        if isinstance(policy, cls):
            return policy
        subclass = cls._with(policy, policy.model)
        subclass.value_head = policy.value_head
        return subclass

    def add_critic(self) -> None:
        """Put a new value head on the trunk: 0 in every state until it learns."""
        size = self.model.config.get_text_config().hidden_size
        self.value_head = nn.Linear(size, 1, device=self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def save(self, directory: str | Path) -> None:
        """Write a directory for `transformers.AutoModelForCausalLM` and `AutoTokenizer`, and the
        value head in it. Of several ranks, all call it and the first writes.

        The saved generation config stops at the token that ends a turn.
        """
        stops = self.eos_ids
        if not set(stops) <= set(self.template.stops):
            self.model.generation_config.eos_token_id = list(stops)
        super().save(directory)

    def _write(self, model: Any, state: dict[str, Tensor] | None, directory: Path) -> None:
        super()._write(model, state, directory)
        (directory / VALUE_FILE).unlink(missing_ok=True)
        if self.value_head is not None:
            from safetensors.torch import save_file

            head = self.value_head.state_dict()
            save_file({k: v.contiguous() for k, v in head.items()}, directory / VALUE_FILE)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As of any module, also in shards, where torch copies none: a frozen reference, say."""
        if sharded(self.model):
            with self.plain_attention():
                model = twin(self.model)
            made = self._with(self, model)
            made.value_head = copy.deepcopy(self.value_head)
        else:
            made = type(self).__new__(type(self))
            made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        memo[id(self)] = made
        return made

    @classmethod
    def _with(cls, policy: CausalLM, model: Any) -> Self:
        """A policy like another, with this model."""
        return cls(model, policy.tokenizer, **{x: getattr(policy, x) for x in DEFAULTS})

    @property
    def vocabulary(self) -> int:
        """Number of logits; may be more than the tokenizer has tokens."""
        return self.model.get_output_embeddings().weight.shape[0]

    @cached_property
    def _named(self) -> int:
        """Number of logits up to the tokenizer's last token. Its ids may have gaps, so this is not
        its length."""
        return min(self.vocabulary, 1 + max(self.tokenizer.get_vocab().values()))

    def _stops(self) -> tuple[int, ...]:
        ids = self.model.generation_config.eos_token_id
        return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)

    @property
    def head(self) -> Head:
        return Head.of(self.model, self.temperature)

    def reach(self, prompt: int) -> int:
        """Most tokens of a row whose prompt has `prompt` tokens, with its samples."""
        return self.context if self.ropes is None else self.ropes.reach(prompt, self.context)

    def hidden(self, packing: Packing, ids: Tensor, position: Tensor) -> Tensor:
        """[N, d] last hidden states of packed tokens ids [N] at positions [N], in the rows of
        `packing`.

        Carries gradients once; second derivatives need `by_modules`.
        """
        quick = trunk(self) if len(ids) else None
        forward = self.by_modules if quick is None else quick.hidden
        return forward(packing, ids, position)

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """logp, entropy [B, T] nats, value [B, T+1] in units of return and others [B, T, K] nats;
        0 where `mask` is False. Carries gradients.

        It forwards each row up to the state of its last own action (with a critic one further,
        unless the row terminated), and a common opening of rows once. Order, padding and neighbours
        change nothing but rounding.
        """
        # rows are laid out on the CPU
        batch = batch.to("cpu")
        return PolicyOutput(*inside(self.model, partial(self._evaluate, batch)))

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """`evaluate`, inside the model."""
        need = Need.of(batch.mask, ~batch.terminated & (self.value_head is not None))
        hidden, where, states, head = self._states(batch, need, self.hidden)
        actions = batch.action[batch.mask][:, None]
        if batch.others is not None:
            actions = torch.cat([actions, batch.others[batch.mask]], 1)
        by_action, entropy = score(
            head, states, sent(actions, self.device), self.vocabulary, self.chunk
        )
        logp = spread(by_action[:, 0], batch.mask)
        others = None if batch.others is None else spread(by_action[:, 1:], batch.mask)
        value = None
        if self.value_head is not None:
            states = hidden.index_select(0, sent(where[need.valued], self.device))
            values = self.value_head(states.to(self.value_head.weight.dtype))
            value = spread(values.squeeze(-1), need.valued)
        return logp, spread(entropy, batch.mask), value, others

    @torch.no_grad()
    def likeliest(self, batch: Batch, number: int) -> tuple[Tensor, PolicyOutput]:
        """The likeliest tokens in the state of each own action, ids [B, T, K], and the output with
        them as `others`; K is `number`, or the number of tokens if that is smaller. No gradient.

        Logits beyond the tokenizer's tokens only fill up a matrix, and models of one family have
        different numbers of them: they are never among the likeliest.
        """
        batch = batch.to("cpu")
        number = min(number, self._named)
        ids, *output = inside(self.model, partial(self._likeliest, batch, number))
        return ids, PolicyOutput(output[0], output[1], others=output[2])

    def _likeliest(self, batch: Batch, number: int) -> list[Tensor]:
        """ids, logp, entropy and others of `likeliest`, inside the model."""
        need = Need.of(batch.mask, torch.zeros_like(batch.terminated))
        _, _, states, head = self._states(batch, need, self.hidden)
        actions = sent(batch.action[batch.mask][:, None], self.device)
        rows, parts = max(1, self.chunk // self.vocabulary), []
        for hidden, action in zip(states.split(rows), actions.split(rows), strict=True):
            logp = head.logits(hidden).log_softmax(-1)
            top, entropy = logp[:, : self._named].topk(number), -(logp.exp() * logp).sum(-1)
            parts.append((top.indices, logp.gather(-1, action).squeeze(-1), entropy, top.values))
        return [spread(torch.cat(x), batch.mask) for x in zip(*parts, strict=True)]

    def distributions(self, batch: Batch) -> Distributions:
        """The whole distribution of each own action, which a trust region needs. Carries gradients,
        twice if need be.

        All M × V logits are alive at once, so this is for small vocabularies (0.4 GB for 1,000
        actions of 100,000 tokens).
        """
        batch = batch.to("cpu")
        need = Need.of(batch.mask, torch.zeros_like(batch.terminated))
        _, _, states, head = self._states(batch, need, self.by_modules)
        return Distributions(Categorical(self.vocabulary), head.logits(states))

    def _states(
        self, batch: Batch, need: Need, forward: Callable[[Packing, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Head]:
        """Hidden states [N, d], the index [B, T+1] of each token's, the states of own actions
        [M, *], and the head for these. The batch and the index are on the CPU."""
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

    def _plain(self, tokens: Tensor, need: Need) -> tuple[Tensor, Tensor]:
        """hidden [B · W, d] and untempered logits [B · W, V] of the model's own padded forward."""
        if self.ropes is None:
            return self._padded(sent(tokens, self.device), sent(need.length, self.device))
        rows = []
        for row, length, extent in zip(
            tokens, need.length[:, None], self.ropes.classes(need.extent), strict=True
        ):
            with self.ropes.extended(sent(extent.expand_as(row), self.device)):
                rows.append(self._padded(sent(row[None], self.device), sent(length, self.device)))
        hidden, logits = zip(*rows, strict=True)
        return torch.cat(hidden), torch.cat(logits)

    def _padded(self, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The same for rows tokens [B, W] in one forward."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        # dropout of attention is a number inside the modules, not a module
        self.model.eval()
        out = self.model(
            input_ids=tokens.masked_fill(~real, 0),
            attention_mask=real.long(),
            use_cache=False,
            output_hidden_states=self.value_head is not None,
        )
        logits = out.logits.flatten(0, 1)
        hidden = logits if self.value_head is None else out.hidden_states[-1].flatten(0, 1)
        return hidden, logits

    def _own_logits(self, ids: Tensor) -> Tensor:
        """[B, W, V] the model's own logits of tokens [B, W]."""
        return self.model(input_ids=ids, use_cache=False).logits

    def _own_logits_of(self, hidden: Tensor) -> Tensor:
        """[N, V] untempered logits of hidden states [N, d]."""
        return self.head.logits(hidden) * self.temperature


def _refuse_whole(policy: CausalLM, shard: Shard) -> None:
    """Raises ValueError: shards are asked for, and the policy is whole."""
    if shard and not sharded(policy):
        raise ValueError(f"this {type(policy).__name__} is whole: load its path with shard")

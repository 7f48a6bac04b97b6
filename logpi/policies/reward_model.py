"""A reward model: a language model's trunk with one number for each state, read where a response
ends.

It reads and writes `transformers` sequence classifiers, and runs packed like `CausalLM`
(`packing.py`): it forwards the common opening of chosen and rejected responses once, and padding
never. As a policy it has values but no probabilities, so the learner trains it by `BradleyTerry`,
and a critic may begin as one (`WithCritic`). It also reads heads that other libraries save beside a
trunk (`reward_heads.py`). A row is scored where `transformers` scores it: in its last token that is
not the padding token.

Left out: what a pair is (`rollouts/preference_pairs.py`), and how a reward enters a sum of rewards
(`rewards/model.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from logpi.distributed.sharding import Shard, inside
from logpi.policies import objects
from logpi.policies.loading import load_tokenizer, read, refuse_unembedded
from logpi.policies.own_modules import exchanged
from logpi.policies.packed_model import Need, PackedModel
from logpi.policies.packing import pack, sent, spread
from logpi.policies.plain_attention import plain_attention
from logpi.policies.positions import within
from logpi.policies.reward_heads import RewardHead, head_of
from logpi.types import Batch, PolicyOutput

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

# in config.json: how prompts were rendered in training
CHAT = "logpi_chat"


class RewardModel(PackedModel):
    """r(tokens so far), a number without unit: only differences between responses to one prompt
    mean anything.

    Args:
        model: a `transformers` sequence classifier, used in place.
        tokenizer: its tokenizer.
        label: the label whose number is the score, by name or number; "" if there is only one.
        pad: the token that ends no row (transformers' `pad_token_id`), or None.
        gradient_checkpointing: keep only each layer's input for backward.
    Raises:
        ValueError: no linear `score` layer; several labels and none chosen, or one that it does not
            have.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: str = "",
        pad: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        head = _head(model)
        column = _label(model, label)
        # scores in half precision would tie
        head.to(torch.promote_types(head.weight.dtype, torch.float32))
        model.eval()
        super().__init__(model, tokenizer, gradient_checkpointing=gradient_checkpointing)
        self.label, self.pad = column, pad
        self.template_options = self.chat.get("options", {})
        own = lambda ids: inside(model, partial(self._own_states, ids))  # noqa: E731
        self.packed = exchanged(self, own, lambda hidden: hidden)

    @classmethod
    def load(
        cls,
        source: Any,
        *,
        tokenizer: Any = None,
        dtype: str = "float32",
        device: str | torch.device | None = None,
        four_bit: bool = False,
        shard: Shard | str | None = None,
        trained: bool = False,
        **options: Any,
    ) -> Self:
        """A reward model from a path, a name or an object (`objects.py`).

        Args:
            source: a reward model's directory or hub name, or, to be trained, a causal language
                model's: with a new head of zeros; a loaded `transformers` sequence classifier or,
                to be trained, causal language model or a policy with one, whose trunk is copied; a
                `RewardModel`, which is returned as it is; `FILE.py:NAME`.
            tokenizer: of a `transformers` model.
            dtype, device, four_bit, shard: as `CausalLM.load`'s.
            trained: refuse a model without a trained head, which cannot score.
            options: the constructor's.
        Raises:
            ValueError: one line: nothing there, no tokenizer, no trained head, several labels,
                unknown dtype, no such device.
        """
        source, tokenizer = objects.source_of(source, tokenizer)
        if isinstance(source, cls):
            objects.check_options(source.model, dtype, four_bit)
            if label := options.get("label"):
                options["label"] = _label(source.model, label)
            objects.check_settings(source, options, {"label": "", "pad": None})
            return objects.moved(source, device)
        if isinstance(source, PackedModel):
            source, tokenizer = source.model, tokenizer or source.tokenizer
        with objects.named_errors(source, "reward model"):
            if isinstance(source, str | Path):
                layout = Shard.parse(shard)
                return cls._read(source, dtype, device, four_bit, layout, trained, options)
            objects.check_model(source, tokenizer, "reward model")
            objects.check_options(source, dtype, four_bit)
            model = _with_score(source, tokenizer) if not trained else source
            pad = model.config.get_text_config().pad_token_id
            return cls(objects.moved(model, device), tokenizer, pad=pad, **options)

    @classmethod
    def _read(
        cls,
        path: str | Path,
        dtype: str,
        device: str | torch.device | None,
        four_bit: bool,
        shard: Shard,
        trained: bool,
        options: Mapping[str, Any],
    ) -> Self:
        from transformers import AutoModelForSequenceClassification as Classifier

        head = head_of(path)
        if trained and head is None:
            raise ValueError(
                "it has no trained head for scores, so it is no reward model: train one (logpi"
                " reward-model)"
            )
        labels = head.labels if head else 1
        model, missing, _ = read(
            path, Classifier, dtype, device, four_bit, shard, num_labels=labels
        )
        if lost := [name for name in missing if not name.startswith("score.")]:
            raise ValueError(f"there are no weights for {lost[0]!r}")
        _head(model)
        tokenizer = load_tokenizer(path)
        refuse_unembedded(tokenizer, model)
        # a new head: every response scores 0 until it learns
        new = RewardHead(torch.zeros(model.score.weight.shape), None, True)
        (head or new).put_on(model)
        config = model.config.get_text_config()
        # users of the saved model need one for their batches
        if not trained and config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
        pad = config.pad_token_id if head is None or head.pools else None
        return cls(model, tokenizer, pad=pad, **options)

    @property
    def chat(self) -> dict[str, Any]:
        """`wrap`, `system` and template `options` of the prompts in training; without a record,
        prompts are wrapped if there is a template."""
        record = self.model.config.to_dict().get(CHAT)
        return record or {"wrap": self.tokenizer.chat_template is not None, "system": ""}

    def remember(self, wrap: bool, system: str, options: Mapping[str, Any]) -> None:
        """Keep with the model how its prompts are rendered."""
        self.template_options = dict(options)
        chat = {"wrap": wrap, "system": system, "options": self.template_options}
        setattr(self.model.config, CHAT, chat)
        self._template = None

    def hidden(self, tokens: Tensor, length: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """[N, d] last hidden states, and [B, W] the index of that of token w of row b (unspecified
        if it is not forwarded). Arguments and index are on the CPU."""
        within(length, self.positions)
        if not self.packed:
            real = torch.arange(tokens.shape[1]) < length[:, None]
            ids, unpadded = sent(tokens * real, self.device), sent(real.long(), self.device)
            where = torch.arange(tokens.numel()).view_as(tokens)
            return self._own_states(ids, unpadded).flatten(0, 1), where
        packed = pack(tokens, length, prefix, self.device, self.extents(length))
        return self.by_modules(packed, packed.ids, packed.position), packed.rows.where

    def _inside(self, *tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`hidden`, inside the model."""
        return inside(self.model, partial(self.hidden, *tokens))

    def _end(self, tokens: Tensor, length: Tensor) -> Tensor:
        """[B] where each row tokens [B, W] of `length` is scored: in its last token that is not
        padding."""
        column = torch.arange(tokens.shape[1])
        counts = column < length[:, None]
        if self.pad is not None:
            counts &= tokens != self.pad
        return (column * counts).amax(1)

    def _own_states(self, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, W, d] the model's own last hidden states of tokens [B, W]; padding is not `seen`."""
        with self.plain_attention():
            out = self.model.base_model(input_ids=ids, attention_mask=seen, use_cache=False)
        return out.last_hidden_state

    def _score(self, states: Tensor) -> Tensor:
        """[n] scores of hidden states [n, d]."""
        return self.model.score(states.to(self.model.score.weight.dtype))[:, self.label].float()

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """value [B, T+1]: the score in every state in which an action was chosen, and in the one
        after a row's last.

        Log-probabilities and entropies are 0: it is no policy. Carries gradients.
        """
        # rows are laid out on the CPU
        batch = batch.to("cpu")
        need = Need.of(batch.mask, batch.mask.any(1))
        hidden, where = self._inside(batch.obs, need.length, need.prefix)
        end = self._end(batch.obs, need.length)[:, None]
        where = where.scatter(1, need.last[:, None] + 1, where.gather(1, end))
        score = self._score(hidden.index_select(0, sent(where[need.valued], self.device)))
        blank = torch.zeros(batch.mask.shape, device=self.device)
        return PolicyOutput(blank, blank, spread(score, need.valued))

    @torch.no_grad()
    def scores(self, rows: Sequence[Sequence[int]], tokens: int = 16_384) -> Tensor:
        """[n] the score of each row of token ids in its last state, longest rows first in batches
        of `tokens`."""
        out = torch.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        while order:
            width = len(rows[order[0]])
            part, order = order[: max(1, tokens // width)], order[max(1, tokens // width) :]
            texts = [torch.tensor(rows[i], dtype=torch.long) for i in part]
            length = torch.tensor([len(text) for text in texts])
            padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
            hidden, where = self._inside(padded, length, torch.zeros_like(length))
            at_end = where.gather(1, self._end(padded, length)[:, None]).squeeze(1)
            out[part] = self._score(hidden.index_select(0, sent(at_end, self.device))).cpu()
        return out


class WithCritic(nn.Module):
    """A policy and a critic with a trunk of its own. A `logpi.types.Policy`; the engine samples
    from `policy` alone.

    Args:
        policy: a `CausalLM` without a value head. critic: a `RewardModel` with the same tokens; its
            scores are the first values (InstructGPT, arXiv:2203.02155, appendix C.4), or 0 if its
            head is new.
    Raises:
        ValueError: another tokenizer.
    """

    def __init__(self, policy: CausalLM, critic: RewardModel) -> None:
        super().__init__()
        if policy.tokenizer.get_vocab() != critic.tokenizer.get_vocab():
            raise ValueError(
                "the critic has another tokenizer than the policy, so it cannot read its tokens"
            )
        self.policy, self.critic = policy, critic

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """The policy's log-probabilities and entropies, the critic's values."""
        return replace(self.policy.evaluate(batch), value=self.critic.evaluate(batch).value)

    def saver(self, policy: Any) -> Any:
        """A saver that saves the policy as `policy` does, and the critic in its directory
        `critic/`."""
        return _Both(policy, self.critic)


@dataclass(frozen=True)
class _Both:
    policy: Any
    critic: RewardModel

    def save(self, directory: str | Path) -> None:
        self.policy.save(directory)
        self.critic.save(Path(directory) / "critic")


def _with_score(model: Any, tokenizer: Any) -> Any:
    """A classifier as it is; of a causal language model a copy of its trunk under a new head of
    zeros."""
    from transformers import AutoModelForSequenceClassification as Classifier

    if "score" in dict(model.named_children()) or model.get_output_embeddings() is None:
        return model
    with plain_attention(model):
        trunk = copy.deepcopy(model.base_model)
    trunk.config.num_labels = 1
    text = trunk.config.get_text_config()
    if text.pad_token_id is None:
        text.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    # Nothing of the shell's own trunk is kept, so it needs no memory.
    with torch.device("meta"):
        shell = Classifier.from_config(trunk.config)
    if type(shell.base_model) is not type(trunk):
        raise ValueError(f"transformers has no classifier on the trunk of {type(model).__name__}")
    setattr(shell, shell.base_model_prefix, trunk)
    shell.config, first = trunk.config, next(trunk.parameters())
    placed = {"device": first.device, "dtype": first.dtype}
    shell.score = nn.Linear(shell.score.in_features, 1, bias=False, **placed)
    nn.init.zeros_(shell.score.weight)
    return shell


def _head(model: Any) -> nn.Linear:
    head = dict(model.named_children()).get("score")
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"{type(model).__name__} is no reward model here: it needs a linear layer `score` on a"
            " causal language model (encoders, as BERT and DeBERTa, have none)"
        )
    return head


def _label(model: Any, chosen: str) -> int:
    """The column of a label. Raises ValueError: none is chosen and there are several; or there is
    no such label."""
    config, labels = model.config, model.score.out_features
    names = [str(config.id2label.get(i, i)) for i in range(labels)]
    if not chosen and labels == 1:
        return 0
    if chosen in names:
        return names.index(chosen)
    if chosen.isdecimal() and int(chosen) < labels:
        return int(chosen)
    choices = ", ".join(names[:20])
    wrong = (
        f"has no label {chosen!r}"
        if chosen
        else f"has {labels} labels: say which is the score (model:PATH#LABEL)"
    )
    raise ValueError(f"it {wrong}; there are: {choices}")

"""A reward model: a language model's trunk with one number for each state, read where a response
ends.

It is a `transformers` sequence classifier, in and out, run packed like `CausalLM` (`packing.py`):
what chosen and rejected responses open with is forwarded once, padding never. As a policy it says
nothing of actions and gives values, so the learner trains it by `BradleyTerry`, and a critic may
begin as one (`WithCritic`). Heads that others save beside a trunk are read too (`reward_heads.py`).
Where a row is scored is where `transformers` does: in its last token that is not the padding token.

Left out: what a pair is (`rollouts/preference_pairs.py`), and how a reward enters a sum of rewards
(`rewards/model.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logpi.policies.causal_lm import CausalLM
from logpi.policies.chat_template import ChatTemplate
from logpi.policies.loading import load_tokenizer, quiet, read, refuse_unembedded
from logpi.policies.own_modules import Watched, run
from logpi.policies.packing import ATTENTION, pack, register, sent, spread
from logpi.policies.positions import Ropes, fitting, positions, within
from logpi.policies.reward_heads import head_of
from logpi.types import Batch, PolicyOutput

CHAT = "logpi_chat"  # in config.json: how prompts were rendered in training


class RewardModel(nn.Module):
    """r(tokens so far), a number without unit: only differences between responses to one prompt
    mean anything.

    Args:
        model: a `transformers` sequence classifier, used in place.
        tokenizer: its tokenizer.
        label: which of its labels is the score: a name or a number; may be left out if there is
            one.
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
        super().__init__()
        head = _head(model)
        self.label, self.pad = _label(model.config, head.out_features, label), pad
        head.to(torch.promote_types(head.weight.dtype, torch.float32))  # scores of 8 bits would tie
        self.model, self.tokenizer = model, tokenizer
        self._template: ChatTemplate | None = None
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.eval()
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.train()
        self.ropes, self.positions = Ropes.of(model), positions(model)
        register()
        self._plain_attention: str = model.config._attn_implementation
        self.packed = _probe(self)
        if self.packed:
            model.config._attn_implementation = (
                ATTENTION  # for good: checkpointing runs the forward again in backward
            )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: str = "float32",
        device: str | torch.device | None = None,
        four_bit: bool = False,
        trained: bool = False,
        **options: Any,
    ) -> RewardModel:
        """From a reward model's directory or hub name, or, to be trained, from a causal language
        model's: with a new head of zeros.

        `device`: cpu, cuda, cuda:1, auto (a CUDA GPU if there is one); default CPU. `four_bit`:
        frozen linear layers in 4 bits, for LoRA. `trained`: only with a head that was trained: for
        scoring. `options` as the constructor's.

        Raises:
            ValueError: one line: nothing there, no tokenizer, no trained head, several labels,
                unknown dtype, no such device.
        """
        from transformers import AutoModelForSequenceClassification

        try:
            head = head_of(path)
            if trained and head is None:
                raise ValueError(
                    "it has no trained head for scores, so it is no reward model: train one (logpi"
                    " reward-model)"
                )
            model, missing, _ = read(
                path,
                AutoModelForSequenceClassification,
                dtype,
                device,
                four_bit,
                num_labels=head.labels if head else 1,
            )
            if lost := [name for name in missing if not name.startswith("score.")]:
                raise ValueError(f"there are no weights for {lost[0]!r}")
            _head(model)
            tokenizer = load_tokenizer(path)
            refuse_unembedded(tokenizer, model.get_input_embeddings().weight.shape[0])
            if head is not None:
                head.put_on(model)
            else:
                nn.init.zeros_(
                    model.score.weight
                )  # a new head: every response scores 0 until it learns
            config = model.config.get_text_config()
            if not trained and config.pad_token_id is None:  # batches of what is saved need one
                config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
            return cls(
                model,
                tokenizer,
                pad=config.pad_token_id if head is None or head.pools else None,
                **options,
            )
        except ValueError as error:
            reason = str(error).removeprefix(f"cannot load a model from {path}: ")
            raise ValueError(f"cannot load a reward model from {path}: {reason}") from None

    def save(self, directory: str | Path) -> None:
        """Write what `transformers.AutoModelForSequenceClassification` and `AutoTokenizer` load."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with self._attention(self._plain_attention), quiet():
            self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    render = CausalLM.render

    @property
    def device(self) -> torch.device:
        return self.model.score.weight.device

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer with its chat template, and how answers end."""
        if (
            self._template is None
            or self._template.tokenizer.chat_template != self.tokenizer.chat_template
        ):
            self._template = ChatTemplate(self.tokenizer, self.chat.get("options", {}))
        return self._template

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.template.ends

    @property
    def chat(self) -> dict[str, Any]:
        """`wrap`, `system` and template `options` of the prompts it was trained on; without a
        record, wrapped if there is a template."""
        known = self.model.config.to_dict().get(CHAT)
        return known or {"wrap": self.tokenizer.chat_template is not None, "system": ""}

    def remember(self, wrap: bool, system: str, options: Mapping[str, Any]) -> None:
        """Keep with the model how its prompts are rendered."""
        setattr(self.model.config, CHAT, {"wrap": wrap, "system": system, "options": dict(options)})
        self._template = None

    def hidden(self, tokens: Tensor, length: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """[N, d] last hidden states, and [B, W] which of them belongs to token w of row b
        (unspecified if not run). What is given and what says where is on the CPU."""
        within(length, self.positions)
        if not self.packed:
            real = torch.arange(tokens.shape[1]) < length[:, None]
            ids, seen = sent(tokens * real, self.device), sent(real.long(), self.device)
            with self._attention(self._plain_attention):
                out = self.model.base_model(input_ids=ids, attention_mask=seen, use_cache=False)
            return out.last_hidden_state.flatten(0, 1), torch.arange(tokens.numel()).view_as(tokens)
        laid = pack(tokens, length, prefix, self.device, self._extents(length))
        return (
            run(self.model.base_model, self.ropes, laid, laid.ids, laid.position),
            laid.rows.where,
        )

    def fitting(self, max_length: int) -> int:
        """As `CausalLM.fitting`."""
        return fitting(max_length, self.positions)

    def _extents(self, length: Tensor) -> Tensor | None:
        return None if self.ropes is None else self.ropes.classes(length)

    def _end(self, tokens: Tensor, length: Tensor) -> Tensor:
        """[B] where each row tokens [B, W] of `length` is scored: in its last token that is not
        padding."""
        column = torch.arange(tokens.shape[1])
        counts = column < length[:, None]
        if self.pad is not None:
            counts &= tokens != self.pad
        return (column * counts).amax(1)

    @contextmanager
    def _attention(self, name: str) -> Iterator[None]:
        """The model with this attention, for a while."""
        config = self.model.config
        before, config._attn_implementation = config._attn_implementation, name
        try:
            yield
        finally:
            config._attn_implementation = before

    def _score(self, states: Tensor) -> Tensor:
        """[n] scores of hidden states [n, d]."""
        return self.model.score(states.to(self.model.score.weight.dtype))[:, self.label].float()

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """value [B, T+1]: the score in every state in which an action was chosen, and in the one
        after a row's last.

        Log-probabilities and entropies are 0: it is no policy. Carries gradients.
        """
        batch = batch.to("cpu")  # where rows are laid out
        mask = batch.mask
        any_own, column = mask.any(1), torch.arange(mask.shape[1])
        last = (mask * column).amax(1)
        read = nn.functional.pad(mask, (0, 1))
        read[any_own, last[any_own] + 1] = True
        first = mask.long().argmax(1)
        length = (last + 2) * any_own
        hidden, where = self.hidden(batch.obs, length, (first + 1) * any_own)
        where = where.scatter(
            1, last[:, None] + 1, where.gather(1, self._end(batch.obs, length)[:, None])
        )
        score = self._score(hidden.index_select(0, sent(where[read], self.device)))
        blank = torch.zeros(mask.shape, device=self.device)
        return PolicyOutput(blank, blank, spread(score, read))

    @torch.no_grad()
    def scores(self, rows: Sequence[Sequence[int]], tokens: int = 16_384) -> Tensor:
        """[n] the score of each row of token ids in its last state, longest rows first in batches
        of `tokens`."""
        out = torch.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        while order:
            width = len(rows[order[0]])
            part, order = order[: max(1, tokens // width)], order[max(1, tokens // width) :]
            padded = torch.zeros(len(part), width, dtype=torch.long)
            length = torch.tensor([len(rows[i]) for i in part])
            for line, i in zip(padded, part, strict=True):
                line[: len(rows[i])] = torch.tensor(rows[i])
            hidden, where = self.hidden(padded, length, torch.zeros_like(length))
            at_end = sent(
                where.gather(1, self._end(padded, length)[:, None]).squeeze(1), self.device
            )
            out[part] = self._score(hidden.index_select(0, at_end)).cpu()
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
        now = self.policy.evaluate(batch)
        return PolicyOutput(now.logp, now.entropy, self.critic.evaluate(batch).value)

    def saver(self, policy: Any) -> Any:
        """What saves the policy as `policy` would, and in its directory `critic/`, a reward
        model's."""
        return _Both(policy, self.critic)


@dataclass(frozen=True)
class _Both:
    policy: Any
    critic: RewardModel

    def save(self, directory: str | Path) -> None:
        self.policy.save(directory)
        self.critic.save(Path(directory) / "critic")


def _head(model: Any) -> nn.Linear:
    head = dict(model.named_children()).get("score")
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"{type(model).__name__} is no reward model here: it needs a linear layer `score` on a"
            " causal language model (encoders, as BERT and DeBERTa, have none)"
        )
    return head


def _label(config: Any, labels: int, chosen: str) -> int:
    """The column of a label. Raises ValueError: none is chosen and there are several; or there is
    no such label."""
    names = [str(config.id2label.get(i, i)) for i in range(labels)]
    if not chosen and labels == 1:
        return 0
    if chosen in names:
        return names.index(chosen)
    if chosen.isdecimal() and int(chosen) < labels:
        return int(chosen)
    shown = ", ".join(names[:20])
    wrong = (
        f"has no label {chosen!r}"
        if chosen
        else f"has {labels} labels: say which is the score (model:PATH#LABEL)"
    )
    raise ValueError(f"it {wrong}; there are: {shown}")


@torch.no_grad()
def _probe(reward: RewardModel) -> bool:
    """Whether the trunk says the same packed and plain."""
    model = reward.model
    size = model.get_input_embeddings().weight.shape[0]
    rows = (torch.arange(24) * 7919 + 13).view(2, 12) % size
    rows[1, :8] = rows[0, :8]
    full, config = torch.full((2,), 12), model.config
    reward.packed = False
    plain, _ = reward.hidden(rows, full, full)
    if not model._supports_attention_backend or getattr(config, "attention_chunk_size", None):
        return False
    reward.packed = True
    try:
        laid = pack(rows, full, torch.full_like(full, 8), reward.device)
        watched = Watched(laid)
        with reward._attention(ATTENTION):
            hidden, where = (
                run(model.base_model, reward.ropes, watched, laid.ids, laid.position),
                laid.rows.where,
            )
        watched.check(config.get_text_config())
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # whatever a model that knows no `packing` makes of it
    scale = 1e-3 if plain.dtype == torch.float32 else 5e-2
    return float((hidden[where.flatten()] - plain).abs().max()) <= scale * (
        1 + float(plain.abs().max())
    )

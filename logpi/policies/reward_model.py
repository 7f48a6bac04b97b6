"""A reward model: a language model's trunk with one number for each state, read where a response ends.

It is a `transformers` sequence classifier with one label, in and out, run packed like `CausalLM` (`packing.py`): what
chosen and rejected responses open with is forwarded once, padding never. As a policy it says nothing of actions and
gives values, so the learner trains it by `RewardModelling`, and a critic may begin as one (`WithCritic`).

Left out: what a pair is (`rollouts/pairs.py`), and how a reward enters a sum of rewards (`rewards/model.py`).
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
from logpi.policies.loading import DTYPES, four_bits, load_tokenizer, place, quiet
from logpi.policies.packing import ATTENTION, pack, register, sent, spread
from logpi.types import Batch, Evaluation

__all__ = ["RewardModel", "WithCritic"]


CHAT = "logpi_chat"  # in config.json: how prompts were rendered in training


class RewardModel(nn.Module):
    """r(tokens so far), a number without unit: only differences between responses to one prompt mean anything.

    Args:
        model: a `transformers` sequence classifier with one label, used in place.
        tokenizer: its tokenizer.
        gradient_checkpointing: keep only each layer's input for backward.
    Raises:
        ValueError: more than one label, or no linear `score` layer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        head = dict(model.named_children()).get("score")
        if not isinstance(head, nn.Linear) or head.out_features != 1:
            raise ValueError(f"{type(model).__name__} with {model.config.num_labels} labels is no reward model: "
                             "it needs a linear layer `score` with one output")  # fmt: skip
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
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
        register()
        self._plain_attention: str = model.config._attn_implementation
        self.packed = _probe(self)
        if self.packed:
            model.config._attn_implementation = ATTENTION  # for good: checkpointing runs the forward again in backward

    @classmethod
    def load(
        cls, path: str | Path, *, dtype: str = "float32", device: str | torch.device | None = None,
        four_bit: bool = False, **options: Any,
    ) -> RewardModel:  # fmt: skip
        """From a reward model's directory or hub name, or from a causal language model's, with a new head of zeros.

        `device`: cpu, cuda, cuda:1, auto (a CUDA GPU if there is one); default CPU. `four_bit`: frozen linear layers in 4
        bits, for LoRA.

        Raises:
            ValueError: one line: nothing there, no tokenizer, more than one label, unknown dtype, no such device.
        """
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)}")
        device = None if device is None else place(device)
        tokenizer = load_tokenizer(path)
        loudness = logging.get_verbosity()
        logging.set_verbosity_error()  # a new head is no reason for a report
        try:
            with quiet():
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    str(path), num_labels=1, dtype=DTYPES[dtype], output_loading_info=True,
                    **(four_bits(dtype, device) if four_bit else {}),
                )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"cannot load a reward model from {path}: {str(error).strip().splitlines()[0]}") from None
        finally:
            logging.set_verbosity(loudness)
        if any(name.startswith("score") for name in info["missing_keys"]):
            nn.init.zeros_(model.score.weight)  # a new head: every response scores 0 until it learns
        return cls(model if device is None or four_bit else model.to(device), tokenizer, **options)

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
        if self._template is None or self._template.tokenizer.chat_template != self.tokenizer.chat_template:
            self._template = ChatTemplate(self.tokenizer, self.chat.get("options", {}))
        return self._template

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.template.ends

    @property
    def chat(self) -> dict[str, Any]:
        """`wrap`, `system` and template `options` of the prompts it was trained on; without a record, wrapped if there is a template."""
        known = self.model.config.to_dict().get(CHAT)
        return known or {"wrap": self.tokenizer.chat_template is not None, "system": ""}

    def remember(self, wrap: bool, system: str, options: Mapping[str, Any]) -> None:
        """Keep with the model how its prompts are rendered."""
        setattr(self.model.config, CHAT, {"wrap": wrap, "system": system, "options": dict(options)})
        self._template = None

    def hidden(self, tokens: Tensor, length: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """[N, d] last hidden states, and [B, W] which of them belongs to token w of row b (unspecified if not run). What is given
        and what says where is on the CPU."""
        if not self.packed:
            real = torch.arange(tokens.shape[1]) < length[:, None]
            ids, seen = sent(tokens * real, self.device), sent(real.long(), self.device)
            with self._attention(self._plain_attention):
                out = self.model.base_model(input_ids=ids, attention_mask=seen, use_cache=False)
            return out.last_hidden_state.flatten(0, 1), torch.arange(tokens.numel()).view_as(tokens)
        laid = pack(tokens, length, prefix, self.device)
        trunk = self.model.base_model
        out = trunk(input_ids=laid.ids[None], position_ids=laid.position[None], use_cache=False, packing=laid)
        return out.last_hidden_state[0], laid.rows.where

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
        return self.model.score(states.to(self.model.score.weight.dtype)).squeeze(-1).float()

    def evaluate(self, batch: Batch) -> Evaluation:
        """value [B, T+1]: the score in every state in which an action was chosen, and in the one after a row's last.

        Log-probabilities and entropies are 0: it is no policy. Carries gradients.
        """
        batch = batch.to("cpu")  # where rows are laid out
        mask = batch.mask
        any_own, column = mask.any(1), torch.arange(mask.shape[1])
        last = (mask * column).amax(1)
        read = nn.functional.pad(mask, (0, 1))
        read[any_own, last[any_own] + 1] = True
        first = mask.long().argmax(1)
        hidden, where = self.hidden(batch.obs, (last + 2) * any_own, (first + 1) * any_own)
        score = self._score(hidden.index_select(0, sent(where[read], self.device)))
        blank = torch.zeros(mask.shape, device=self.device)
        return Evaluation(blank, blank, spread(score, read))

    @torch.no_grad()
    def scores(self, rows: Sequence[Sequence[int]], tokens: int = 16_384) -> Tensor:
        """[n] the score of each row of token ids in its last state, longest rows first in batches of `tokens`."""
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
            at_end = sent(where.gather(1, length[:, None] - 1).squeeze(1), self.device)
            out[part] = self._score(hidden.index_select(0, at_end)).cpu()
        return out


class WithCritic(nn.Module):
    """A policy and a critic with a trunk of its own. A `logpi.types.Policy`; the engine samples from `policy` alone.

    Args:
        policy: a `CausalLM` without a value head. critic: a `RewardModel` with the same tokens; its scores are the
            first values (InstructGPT, arXiv:2203.02155, appendix C.4), or 0 if its head is new.
    Raises:
        ValueError: another tokenizer.
    """

    def __init__(self, policy: CausalLM, critic: RewardModel) -> None:
        super().__init__()
        if policy.tokenizer.get_vocab() != critic.tokenizer.get_vocab():
            raise ValueError("the critic has another tokenizer than the policy, so it cannot read its tokens")
        self.policy, self.critic = policy, critic

    def evaluate(self, batch: Batch) -> Evaluation:
        """The policy's log-probabilities and entropies, the critic's values."""
        now = self.policy.evaluate(batch)
        return Evaluation(now.logp, now.entropy, self.critic.evaluate(batch).value)

    def saver(self, policy: Any) -> Any:
        """What saves the policy as `policy` would, and in its directory `critic/`, a reward model's."""
        return _Both(policy, self.critic)


@dataclass(frozen=True)
class _Both:
    policy: Any
    critic: RewardModel

    def save(self, directory: str | Path) -> None:
        self.policy.save(directory)
        self.critic.save(Path(directory) / "critic")


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
        with reward._attention(ATTENTION):
            hidden, where = reward.hidden(rows, full, torch.full_like(full, 8))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # whatever a model that knows no `packing` makes of it
    scale = 1e-3 if plain.dtype == torch.float32 else 5e-2
    return float((hidden[where.flatten()] - plain).abs().max()) <= scale * (1 + float(plain.abs().max()))

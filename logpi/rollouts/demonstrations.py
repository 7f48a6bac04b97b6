"""Demonstrations as rollouts: someone else's completions become rows, so that supervised fine-tuning is one more algorithm.

The mask covers the completion and its end token, or everything; prompts are context. Rows are forwarded without padding and
never see each other (`policies/packing.py`), so there is no packing of texts to leak across. Preferences are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from logpi.envs.rows import Row, Split, Task
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards
from logpi.rollouts.text import Chat, Prompts
from logpi.types import Collected, Trajectory, collate

__all__ = ["Demonstrations"]


class Demonstrations:
    """Batches of rows with a `completion`. A `logpi.types.Rollout`.

    Args:
        policy: its tokenizer and chat template. task: rows with `prompt` and `completion`.
        rows: for each batch. max_length: longer rows are cut on the right and then have no end token.
        chat: how prompts become tokens. seed: of the order. whole: learn the prompt's tokens too. split: which rows.
    Raises:
        UserError: a row without a completion, or a prompt as long as `max_length`.
    """

    def __init__(
        self,
        policy: CausalLM,
        task: Task,
        *,
        rows: int,
        max_length: int = 1024,
        chat: Chat | None = None,
        seed: int = 0,
        whole: bool = False,
        split: Split = "train",
    ) -> None:
        self.policy, self.size, self.max_length, self.whole = policy, rows, max_length, whole
        self.chat, self.prompts = chat or Chat(), Prompts(task if split == "train" else _HeldOut(task), seed)
        self._row(self.prompts.take(1)[0], 0)  # a mistake in the data is said before any work
        self.prompts.cursor = 0

    def __call__(self) -> Collected:
        first = self.prompts.cursor
        rows = [self._row(row, first + i) for i, row in enumerate(self.prompts.take(self.size))]
        tokens = float(sum(int(r.mask.sum()) for r in rows))
        cut = sum(not r.terminated for r in rows) / len(rows)
        return Collected(collate(rows), {"num_tokens": tokens, "completions/clipped_ratio": cut})

    def _row(self, row: Row, number: int) -> Trajectory:
        completion = row.get("completion")
        if not completion:
            raise UserError(f"row {number} has no completion to learn from (columns: {', '.join(row)})")
        prompt = self.chat(self.policy, row["prompt"]) or [self.policy.eos_ids[-1]]  # plain text without a BOS
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        ids = self.policy.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.policy.eos_ids[-1]]
        if len(prompt) >= self.max_length:
            raise UserError(f"row {number}: the prompt has {len(prompt)} tokens, max_length is {self.max_length}")
        tokens = torch.tensor((prompt + ids)[: self.max_length])
        own = torch.zeros(len(tokens) - 1, dtype=torch.bool)
        own[0 if self.whole else len(prompt) - 1 :] = True
        blank = torch.zeros(len(own))
        complete = len(prompt) + len(ids) <= self.max_length
        return Trajectory(tokens, tokens[1:], own, blank, blank, terminated=complete, group=number)

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.prompts.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.cursor = state["cursor"]


@dataclass(frozen=True)
class _HeldOut:
    """A task whose training rows are the held-out ones, in their own order."""

    task: Task

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def reward(self) -> Rewards:
        return self.task.reward

    def rows(self, split: Split = "train", seed: int = 0) -> Sequence[Row]:
        return self.task.rows("test")

"""Demonstrations as rollouts: someone else's answers become rows, so that supervised fine-tuning is
one more algorithm.

    prompt + completion   the completion and its end token are learned          (plain, or a prompt of messages); of a completion
                          of messages only the assistant's, so nothing that a tool said
    messages              every answer of the assistant (`chat_rows.py`)      or only the last
    text                  all of it, its end token too, as it is: no template

or everything is learned, prompts too. Rows are forwarded without padding and never see each other
(`policies/packing.py`), so there is no packing of texts to leak across. Left out: preferences
(`preference_pairs.py`), reading files (`envs/data.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from logpi.envs.task import GeneratedRows, Row, Split, Task
from logpi.errors import UserError, row_place
from logpi.rewards.text import text_of
from logpi.rollouts.chat import Chat
from logpi.rollouts.chat_rows import (
    TokenRow,
    plain_completion,
    plain_conversation,
    shape,
    token_rows,
)
from logpi.rollouts.prompt_sources import TaskPrompts
from logpi.types import Collected, Trajectory, collate

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.chat_template import ChatTemplate
    from logpi.rewards import Rewards

Learn = Literal["assistant", "last", "all"]


class Demonstrations:
    """Batches of rows with a completion, messages or text. A `logpi.types.Rollout`.

    Args:
        policy: its tokenizer and chat template. task: the rows.
        rows: for each batch. max_length: longer rows are cut on the right and then have no end
            token; where nothing to learn is left, a row is left out and counted (`rows/too_long`).
        chat: how prompts become tokens. seed: of the order. split: which rows.
        learn: every answer of the assistant, the last, or all tokens.
    Raises:
        UserError: a row with nothing to learn from, or a conversation that the template cannot
            write.
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
        learn: Learn = "assistant",
        split: Split = "train",
    ) -> None:
        self.policy, self.size, self.max_length, self.learn = policy, rows, max_length, learn
        self.chat, self.prompts = (
            chat or Chat(),
            TaskPrompts(task if split == "train" else _TestRows(task), seed),
        )
        self._check(task.rows(split))

    def __call__(self) -> Collected:
        first = self.prompts.cursor
        found = [self._rows(row, first + i) for i, row in enumerate(self.prompts.take(self.size))]
        rows = [t for several in found for t in several if t.mask.any()]
        if not rows:
            raise UserError(
                f"none of {len(found)} rows has anything to learn from within max_length"
                f" {self.max_length}"
            )
        lost = sum(not any(t.mask.any() for t in several) for several in found)
        return Collected(
            collate(rows),
            {
                "num_tokens": float(sum(int(t.mask.sum()) for t in rows)),
                "rows/too_long": float(lost),
                "completions/clipped_ratio": sum(not t.terminated for t in rows) / len(rows),
            },
        )

    def _check(self, rows: Sequence[Row]) -> None:
        """A mistake in the data is said before any work: every row of a file, one of those that are
        made on demand; through the chat template goes one row of each shape."""
        shapes: set[Hashable] = set()
        for i, row in enumerate([rows[0]] if isinstance(rows, GeneratedRows) else rows):
            if not (row.get("completion") or row.get("messages")):
                raise UserError(
                    f"row {i} has no completion to learn from (columns: {', '.join(row)})"
                )
            if shape(row) not in shapes:
                shapes.add(shape(row))
                self._rows(row, i)

    def _rows(self, row: Row, number: int) -> list[Trajectory]:
        try:
            found = self._conversations(row)
        except ValueError as error:
            raise UserError(f"{row_place(row, f'row {number}')}: {error}") from None
        return [self._row(t, number) for t in found]

    def _conversations(self, row: Row) -> list[TokenRow]:
        """Tokens and the assistant's share of them, by the row's layout."""
        template, options = self.policy.template, row.get("chat_template_kwargs")
        messages, completion, prompt = row.get("messages"), row.get("completion"), row["prompt"]
        if messages and not (completion and isinstance(prompt, str)):
            asked = self.chat.messages(self.policy, messages) or []
            return token_rows(
                self.policy, asked, row.get("tools"), last=self.learn == "last", options=options
            )
        if not prompt:
            return [_text(template, text_of(completion or ""))]
        tools = row.get("template_tools") or ()
        start = self.chat(self.policy, prompt, tools, options)
        asked = self.chat.messages(self.policy, prompt)
        if asked is None and completion and not isinstance(completion, str):
            return [plain_conversation(self.policy, start, completion)]
        if asked is None:
            return [plain_completion(template, start, completion or "")]
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": template.unended(completion)}]
        return token_rows(
            self.policy, [*asked, *(completion or [])], tools, start=len(asked), options=options
        )

    def _row(self, found: TokenRow, number: int) -> Trajectory:
        tokens = torch.tensor(found.ids[: self.max_length])
        own = torch.tensor(found.own[1 : self.max_length], dtype=torch.bool)
        if self.learn == "all":
            own = torch.ones_like(own)
        blank = torch.zeros(len(own))
        complete = len(found.ids) <= self.max_length
        return Trajectory(tokens, tokens[1:], own, blank, blank, terminated=complete, group=number)

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.prompts.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.cursor = state["cursor"]


@dataclass(frozen=True)
class _TestRows:
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


def _text(template: ChatTemplate, text: str) -> TokenRow:
    """A text as it is, with one BOS and one end; without a BOS an end token stands before it, so
    that its first token is learned too, unless a template wrote it."""
    ids, end = template.plain(text), template.eos_id
    if (
        end is not None
        and not (ids and ids[-1] in template.ends)
        and not text.rstrip().endswith(template.spelled_ends)
    ):
        ids = [*ids, end]
    begun = bool(ids) and (
        ids[0] == template.tokenizer.bos_token_id or template.opening(text) != ""
    )
    ids = ids if begun or end is None else [end, *ids]
    return TokenRow(ids, [False] + [True] * (len(ids) - 1))

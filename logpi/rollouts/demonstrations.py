"""Demonstrations as rollouts: recorded answers become rows, so that supervised fine-tuning is one
more algorithm.

    an item has           what is learned
    prompt, completion    the completion and its end token; if the completion is messages, only the
                          assistant's
    messages              every answer of the assistant (`chat_rows.py`), or only the last
    text                  all of it and its end token, without a chat template

`learn="all"` learns all tokens, prompts too. Rows never attend to each other
(`policies/packing.py`). Left out: preferences (`preference_pairs.py`), reading files
(`envs/data.py`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
from logpi.rollouts.collate import collate
from logpi.rollouts.prompt_sources import TaskPrompts
from logpi.rollouts.unread import tell_unread
from logpi.types import Collected, Trajectory

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.chat_template import ChatTemplate

Learn = Literal["assistant", "last", "all"]


class Demonstrations:
    """Batches of rows with a completion, messages or text. A `logpi.types.Rollout`.

    Args:
        policy: its tokenizer and chat template. task: the items. rows: items of each batch.
        max_length: longer rows are cut on the right and lose their end token; a row with nothing
            left to learn is dropped and counted (`rows/too_long`).
        chat: how prompts become tokens. seed: of the order. split: which items.
        learn: every answer of the assistant, the last, or all tokens.

    Raises:
        UserError: an item with nothing to learn from, or a conversation that the template cannot
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
        self.chat = chat or Chat()
        self.prompts = TaskPrompts(task, seed, split)
        self._check(task.rows(split))

    def __call__(self) -> Collected:
        first = self.prompts.cursor
        items = enumerate(self.prompts.take(self.size), first)
        trajectories = [self.trajectories(row, i) for i, row in items]
        rows = [t for group in trajectories for t in group if t.mask.any()]
        if not rows:
            raise UserError(
                f"none of {len(trajectories)} rows has anything to learn from within max_length"
                f" {self.max_length}"
            )
        lost = sum(not any(t.mask.any() for t in group) for group in trajectories)
        return Collected(
            collate(rows),
            {
                "num_tokens": float(sum(int(t.mask.sum()) for t in rows)),
                "rows/too_long": float(lost),
                "completions/clipped_ratio": sum(not t.terminated for t in rows) / len(rows),
            },
        )

    def _check(self, rows: Sequence[Row]) -> None:
        """Find mistakes in the data before any work: in every item of a file, in the first of
        generated items. One item of each shape goes through the chat template."""
        tell_unread(self.policy, rows, "rows", "messages", "completion")
        shapes: set[Hashable] = set()
        for i, row in enumerate([rows[0]] if isinstance(rows, GeneratedRows) else rows):
            if not (row.get("completion") or row.get("messages")):
                raise UserError(
                    f"{row_place(row, f'row {i}')}: no completion to learn from (columns:"
                    f" {', '.join(row)})"
                )
            if shape(row) not in shapes:
                shapes.add(shape(row))
                self.trajectories(row, i)

    def trajectories(self, row: Row, number: int) -> list[Trajectory]:
        """The rows of one item. Raises UserError if the template cannot write it."""
        try:
            rows = self._token_rows(row)
        except ValueError as error:
            raise UserError(f"{row_place(row, f'row {number}')}: {error}") from None
        return [self._trajectory(r, number) for r in rows]

    def _token_rows(self, row: Row) -> list[TokenRow]:
        """An item's tokens, and which are learned, by its layout."""
        template, options = self.policy.template, row.get("chat_template_kwargs")
        messages, completion, prompt = row.get("messages"), row.get("completion"), row["prompt"]
        if messages and not (completion and isinstance(prompt, str)):
            messages, last = self.chat.messages(self.policy, messages) or [], self.learn == "last"
            return token_rows(self.policy, messages, row.get("tools"), last=last, options=options)
        if not prompt:
            return [_text(template, text_of(completion or ""))]
        tools = row.get("template_tools") or ()
        start = self.chat(self.policy, prompt, tools, options)
        before = self.chat.messages(self.policy, prompt)
        if before is None and completion and not isinstance(completion, str):
            return [plain_conversation(self.policy, start, completion)]
        if before is None:
            return [plain_completion(template, start, completion or "")]
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": template.unended(completion)}]
        whole = [*before, *(completion or [])]
        return token_rows(self.policy, whole, tools, start=len(before), options=options)

    def _trajectory(self, row: TokenRow, number: int) -> Trajectory:
        tokens = torch.tensor(row.ids[: self.max_length])
        own = torch.tensor(row.own[1 : self.max_length], dtype=torch.bool)
        if self.learn == "all":
            own = torch.ones_like(own)
        blank = torch.zeros(len(own))
        complete = len(row.ids) <= self.max_length
        return Trajectory(tokens, tokens[1:], own, blank, blank, terminated=complete, group=number)

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.prompts.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.prompts.cursor = state["cursor"]


def _text(template: ChatTemplate, text: str) -> TokenRow:
    """A text with one BOS and one end token. Where the model has no BOS, an end token stands in
    front, so that the first token is learned too, unless a template wrote the text."""
    ids, end = template.plain(text), template.eos_id
    is_ended = ids and ids[-1] in template.ends
    if end is not None and not is_ended and not text.rstrip().endswith(template.spelled_ends):
        ids = [*ids, end]
    has_bos = ids and ids[0] == template.tokenizer.bos_token_id
    if end is not None and not has_bos and not (ids and template.opening(text)):
        ids = [end, *ids]
    return TokenRow(ids, [False] + [True] * (len(ids) - 1))

"""Drops the items whose prompts a policy cannot read: its chat template refuses them, or they leave
no room for a response in its context.

    check    all items of a file, before any work; an error names the place of a refused item
    fits     one prompt, while prompts are drawn
    ids      its tokens; with "cut" an overlong prompt loses its beginning, except the BOS, but
             never the announcement of tools

A template refuses a conversation for its roles and never for its words, so `check` renders one item
of each shape. A text has no more tokens than bytes, so `check` tokenises only items that could be
too long. Left out: where responses are cut off (the sampler's limits).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logpi.calls.messages import texts
from logpi.errors import UserError, row_place
from logpi.rollouts.chat_rows import shape
from logpi.rollouts.unread import tell_unread

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.tool_conversations import ToolConversations


@dataclass(frozen=True)
class PromptFilter:
    """Prompts of a policy as token ids.

    Attributes:
        policy, chat, conversations: as in a rollout.
        overlong: what to do with a prompt that fills the context: "drop", "cut" or "refuse".
    """

    policy: CausalLM
    chat: Chat
    conversations: ToolConversations | None = None
    overlong: str = "drop"

    @property
    def room(self) -> int:
        """Most tokens of a prompt: one less than the context, so that a response has at least
        one."""
        return self.policy.context - 1

    def ids(self, row: Row) -> list[int]:
        """Token ids of what the policy sees first.

        An item's column `template_tools` goes to the chat template; an environment's tools take its
        place.

        Raises:
            UserError: the template refuses the prompt or has no place for its tools; "cut" would
                cut the announcement of tools, or leaves nothing of the row.
        """
        try:
            ids = self._uncut(row)
        except ValueError as error:
            raise UserError(f"{row_place(row, 'a row')}: {error}") from None
        if self.overlong != "cut" or len(ids) <= self.room:
            return ids
        if self._announces(row) or len(ids) - self._own(row) >= self.room:
            raise UserError(
                f"{self._named(row, 'a row')}, and --overlong-prompts cut would cut what stands in"
                " front of the row, not the row: shorten that, or choose a model with a longer"
                " context"
            )
        first = ids[:1] if ids[0] == self.policy.tokenizer.bos_token_id else []
        return [*first, *ids[len(ids) - self.room + len(first) :]]

    def _uncut(self, row: Row) -> list[int]:
        if self.conversations is not None:
            return self.conversations.prompt(row)
        tools = row.get("template_tools") or ()
        return self.chat(self.policy, row["prompt"], tools, row.get("chat_template_kwargs"))

    def check(self, rows: Sequence[Row], what: str) -> Sequence[Row]:
        """The items of a file that fit. Of generated items it tries the first, and returns all.

        Raises:
            UserError: an item that the template refuses; an overlong prompt with "refuse"; no item
                is left; the vocabulary lacks characters of every item.
        """
        tell_unread(self.policy, rows, what)
        if not isinstance(rows, list):
            self.ids(rows[0])
            return rows
        overheads: dict[Hashable, int] = {}
        long: list[int] = []
        for i, row in enumerate(rows):
            kind = shape(row) if self.conversations is None else i
            if kind not in overheads:
                overheads[kind] = len(self.ids(row))
            if overheads[kind] + _size(row) > self.room and len(self.ids(row)) > self.room:
                long.append(i)
        return self._without(rows, long, what)

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether a prompt leaves room for a response."""
        return len(ids) <= self.room

    def _without(self, rows: list[Row], long: list[int], what: str) -> list[Row]:
        if not long:
            return rows
        first = rows[long[0]]
        named, fits = self._named(first, f"row {long[0]}"), self._own(first) <= self.room
        if self.overlong == "refuse":
            cut = "" if fits else ", cut shortens them"
            raise UserError(f"{named} (--overlong-prompts drop leaves such rows out{cut})")
        if len(long) == len(rows):
            remedy = "that" if fits else "them (--overlong-prompts cut)"
            raise UserError(
                f"{named}, and so are all {len(rows)} {what}: shorten {remedy}, or choose another"
                " model"
            )
        print(f"{len(long)} of {len(rows)} {what} dropped: {named}", file=sys.stderr)
        dropped = set(long)
        return [r for i, r in enumerate(rows) if i not in dropped]

    def _named(self, row: Row, otherwise: str) -> str:
        """The place of an overlong row; and what else is long, where the row alone would fit.

        line 5: its prompt is longer than the model's context of 256 tokens: 5 of its 312 are the
        row's own, the others are of the announcement of the tools
        """
        named = (
            f"{row_place(row, otherwise)}: its prompt is longer than the model's context of"
            f" {self.room + 1} tokens"
        )
        own = self._own(row)
        if own > self.room:
            return named
        parts = {
            "the announcement of the tools": self._announces(row),
            "the prompt template (--prompt-template)": self.chat.around,
            "the system message (--system)": self.chat.system,
        }
        others = [name for name, there in parts.items() if there] or ["the chat template"]
        whole = len(self._uncut(row))
        return f"{named}: {own} of its {whole} are the row's own, the others {', '.join(others)}"

    def _own(self, row: Row) -> int:
        """Tokens of the prompt without what is put around it."""
        return len(self.policy.template.continuation("".join(texts(row["prompt"]))))

    def _announces(self, row: Row) -> bool:
        """Whether the prompt tells of tools: the environment's, or the row's own."""
        return self.conversations is not None or bool(row.get("template_tools"))


def _size(row: Row) -> int:
    """Bytes of what a prompt may show of an item, at most."""
    parts = {k: row.get(k) for k in ("prompt", "template_tools", "chat_template_kwargs")}
    return len(json.dumps(parts, ensure_ascii=False, default=str).encode(errors="replace"))

"""Which rows' prompts a policy can read: the chat template takes them, and they leave room for an
answer in its context.

    check    a file's rows before any work: a row that the template refuses is named with its place; overlong prompts are counted
    fits     one row, while prompts are drawn
    ids      its tokens; with "cut" an overlong prompt loses what comes first, after its BOS

Templates refuse a conversation for the roles in it, not for its words, so `check` renders one row
of each shape. A text has no more tokens than bytes, so only rows that could be too long are
tokenised. Left out: what of an answer is cut off (the engine's limits).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logpi.errors import UserError, row_place
from logpi.rollouts.chat_rows import shape
from logpi.rollouts.responses import prompt_ids

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.tool_conversations import Dialogues


@dataclass(frozen=True)
class PromptFilter:
    """Prompts of a policy as token ids.

    Attributes:
        policy, chat, dialogues: as in a rollout. overlong: what becomes of a prompt that fills the
            context: drop, cut, refuse.
    """

    policy: CausalLM
    chat: Chat
    dialogues: Dialogues | None = None
    overlong: str = "drop"

    @property
    def room(self) -> int:
        """Tokens that a prompt may have: one less than the context, for at least one of an
        answer."""
        return self.policy.context - 1

    def ids(self, row: Row) -> list[int]:
        """Token ids of the row's prompt.

        Raises:
            UserError: the template refuses it.
        """
        try:
            ids = prompt_ids(self.policy, self.chat, row, self.dialogues)
        except ValueError as error:
            raise UserError(f"{row_place(row, 'a row')}: {error}") from None
        if self.overlong != "cut" or len(ids) <= self.room:
            return ids
        first = ids[:1] if ids[0] == self.policy.tokenizer.bos_token_id else []
        return [*first, *ids[len(ids) - self.room + len(first) :]]

    def check(self, rows: Sequence[Row], what: str) -> Sequence[Row]:
        """Those of a file's rows that fit; of rows that are made on demand the first is tried.

        Raises:
            UserError: a row that the template refuses; an overlong prompt where these are refused;
                no row is left.
        """
        if not isinstance(rows, list):
            self.ids(rows[0])
            return rows
        overheads: dict[Hashable, int] = {}
        long: list[int] = []
        for i, row in enumerate(rows):
            kind = shape(row) if self.dialogues is None else i
            if kind not in overheads:
                overheads[kind] = len(self.ids(row))
            if overheads[kind] + _size(row) > self.room and len(self.ids(row)) > self.room:
                long.append(i)
        return self._without(rows, long, what)

    def fits(self, ids: Sequence[int]) -> bool:
        """Whether a prompt of these tokens leaves room for an answer."""
        return len(ids) <= self.room

    def _without(self, rows: list[Row], long: list[int], what: str) -> list[Row]:
        if not long:
            return rows
        named = (
            f"{row_place(rows[long[0]], f'row {long[0]}')}: its prompt is longer than the model's"
            f" context of {self.room + 1} tokens"
        )
        if self.overlong == "refuse":
            raise UserError(
                f"{named} (--overlong-prompts drop leaves such rows out, cut shortens them)"
            )
        if len(long) == len(rows):
            raise UserError(
                f"{named}, and so are all {len(rows)} {what}: shorten them (--overlong-prompts"
                " cut), or choose another model"
            )
        print(f"{len(long)} of {len(rows)} {what} dropped: {named}", file=sys.stderr)
        dropped = set(long)
        return [r for i, r in enumerate(rows) if i not in dropped]


def _size(row: Row) -> int:
    """Bytes of what a prompt may show of a row, at most."""
    shown = {k: row.get(k) for k in ("prompt", "template_tools", "chat_template_kwargs")}
    return len(json.dumps(shown, ensure_ascii=False, default=str).encode(errors="replace"))

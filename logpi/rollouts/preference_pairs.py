"""Preference data as rollouts: pairs and labelled responses, with reference log-probabilities that
are computed once.

    read_pairs    items with chosen and rejected: groups of two rows, whose rewards are 1 (plus the
                  item's margin) and 0
    read_labels   items with completion and label: groups of two rows, the response (reward ±1), and
                  another prompt's response to the same prompt (reward 0) for KTO's reference point
    Preferences   batches of such groups; a `logpi.types.Rollout`

All items are tokenised before the first step, so that a mistake in row 9,000 costs no work. Left
out: reading files and their layouts (`envs/data.py`); pairs from a policy's own samples
(`text_rollout.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.envs.implicit_prompts import shared_messages
from logpi.errors import UserError, row_place
from logpi.rewards.text import text_of
from logpi.rollouts.chat import Chat
from logpi.rollouts.chat_rows import TokenRow, plain_completion, token_rows
from logpi.rollouts.collate import collate
from logpi.types import Batch, Collected, Policy, Trajectory
from logpi.updates.micro_batches import evaluate

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.chat_template import Reader

Group = tuple[Trajectory, ...]
Messages = Sequence[Mapping[str, Any]]
Prompt = str | Messages
Response = str | Messages


@dataclass(frozen=True)
class PreferenceGroups:
    """Groups of rows.

    Attributes:
        groups: the groups. dropped: number of items whose responses are equal after the cut, or one
            of which is empty.
    """

    groups: list[Group]
    dropped: int


def without_empty(rows: Sequence[Row]) -> list[Row]:
    """The items whose responses are not empty; `read_pairs` and `read_labels` refuse the others."""
    columns = ("chosen", "rejected", "completion")
    return [r for r in rows if all(_text(r[c]).strip() for c in columns if c in r)]


def read_pairs(
    reader: Reader,
    rows: Sequence[Row],
    *,
    max_length: int = 1024,
    chat: Chat | None = None,
    whole: bool = False,
) -> PreferenceGroups:
    """Pairs of chosen and rejected responses. Longer rows are cut on the right (TRL's keep_start)
    and lose their end token.

    Args:
        reader: turns text into tokens. rows: the items. max_length: tokens of a row.
        whole: a response includes what the template writes behind it, for a reward model scores
            the row's last token.

    Raises:
        UserError: an item without a chosen or rejected response, or with an empty one; or no pair
            is left.
    """
    write, groups = _PairWriter(reader, chat or Chat(), max_length, whole), []
    for i, row in enumerate(rows):
        prompt, chosen, rejected = _sides(row, i)
        margin = float(row.get("margin") or 0.0)
        better = write(row, prompt, chosen, 1.0 + margin, i)
        worse = write(row, prompt, rejected, 0.0, i)
        if better.mask.any() and worse.mask.any() and not torch.equal(better.obs, worse.obs):
            groups.append((better, worse))
    _warn_repeated(rows)
    return _checked(groups, len(rows), max_length)


def read_labels(
    reader: Reader, rows: Sequence[Row], *, max_length: int = 1024, chat: Chat | None = None
) -> PreferenceGroups:
    """Labelled responses, each with a response to another prompt. A pair counts as a good and a bad
    response.

    Raises:
        UserError: an item without completion and label, an empty completion; or nothing is left.
    """
    write, groups = _PairWriter(reader, chat or Chat(), max_length), []
    single = [x for i, row in enumerate(rows) for x in _labels(row, i)]
    for i, (row, prompt, response, good) in enumerate(single):
        others = (single[(i + k) % len(single)] for k in range(1, len(single)))
        mismatched = next((r for _, p, r, _ in others if p != prompt), None)
        if mismatched is None:
            raise UserError(
                "KTO compares with responses to other prompts, and all rows have the same prompt"
            )
        own = write(row, prompt, response, 1.0 if good else -1.0, i)
        if own.mask.any():
            groups.append((own, write(row, prompt, mismatched, 0.0, i)))
    return _checked(groups, sum(2 if "chosen" in row else 1 for row in rows), max_length)


def _checked(groups: list[Group], rows: int, max_length: int) -> PreferenceGroups:
    if not groups:
        raise UserError(
            f"nothing can be learned from any of the {rows} rows: their responses are the same, or"
            f" prompts longer than max_length {max_length} leave no room for them"
        )
    return PreferenceGroups(groups, rows - len(groups))


def _labels(row: Row, number: int) -> list[tuple[Row, Prompt, Response, bool]]:
    """An item's labelled responses: (item, prompt, response, whether it is good)."""
    if "chosen" in row:
        prompt, chosen, rejected = _sides(row, number)
        if chosen == rejected:
            return []
        return [(row, prompt, chosen, True), (row, prompt, rejected, False)]
    place = row_place(row, f"row {number}")
    if not isinstance(row.get("label"), bool) or not row.get("completion"):
        raise UserError(
            f"{place}: expected a completion and a label (true or false), or chosen and"
            f" rejected; found: {', '.join(row)}"
        )
    return [(row, row["prompt"], row["completion"], row["label"])]


def _sides(row: Row, number: int) -> tuple[Prompt, Response, Response]:
    """The prompt and both responses to it, without the prompt if they repeat it.

    Raises:
        UserError: no such column, an empty response, or conversations that do not begin with the
            prompt.
    """
    place = row_place(row, f"row {number}")
    for side in ("chosen", "rejected"):
        if row.get(side) is None:
            raise UserError(f"{place}: no column {side!r}; found: {', '.join(row)}")
    prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    if _is_whole(chosen) and _is_whole(rejected):
        shared = shared_messages(chosen, rejected)
        texts = [prompt] if isinstance(prompt, str) else [m.get("content") for m in prompt]
        known = {str(m.get("content")).strip() for m in shared}
        if not {str(text).strip() for text in texts if text} <= known:
            raise UserError(
                f"{place}: the prompt is not what both conversations begin with: leave it out,"
                " or repair it"
            )
        prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    elif _is_whole(chosen) or _is_whole(rejected):
        raise UserError(f"{place}: one response is a whole conversation, the other is not")
    for side, response in (("chosen", chosen), ("rejected", rejected)):
        if not _text(response).strip():
            raise UserError(
                f"{place}: {side!r} is empty; expected a response to the prompt (--skip-empty"
                " leaves such rows out)"
            )
    return prompt, chosen, rejected


def _is_whole(response: Response) -> bool:
    """Whether the response repeats its prompt."""
    if isinstance(response, str) or not response:
        return False
    return response[0].get("role") not in ("assistant", "tool")


def _text(response: Any) -> str:
    """The assistant's words and calls in a response, as text."""
    if isinstance(response, str) or not isinstance(response, Sequence):
        return response if isinstance(response, str) else ""
    calls = [str(m["tool_calls"]) for m in response if m.get("tool_calls")]
    return text_of(response) + "".join(calls)


def _warn_repeated(rows: Sequence[Row]) -> None:
    """Warn if all responses begin with their prompts: the data may repeat these."""
    texts = [(r["prompt"], r[s]) for r in rows for s in ("chosen", "rejected")]
    if all(isinstance(p, str) and p and isinstance(t, str) and t.startswith(p) for p, t in texts):
        warnings.warn(
            "all responses begin with the words of their prompt, and are learned as they stand; if"
            " the data repeat the prompt there, leave its column out",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _PairWriter:
    """Writes a prompt and a response as a row, which does not terminate: a reward model scores the
    state behind it."""

    reader: Reader
    chat: Chat
    max_length: int
    whole: bool = False

    def __call__(
        self, row: Row, prompt: Prompt, response: Response, reward: float, group: int
    ) -> Trajectory:
        try:
            tokens = self._tokens(prompt, response, row)
        except ValueError as error:
            raise UserError(f"{row_place(row, f'row {group}')}: {error}") from None
        size = len(tokens.ids)
        end = size if self.whole else size - tokens.own[::-1].index(True)
        obs = torch.tensor(tokens.ids[: min(end, self.max_length)])
        own = torch.tensor(tokens.own[1 : len(obs)], dtype=torch.bool)
        if self.whole:
            own[tokens.own.index(True) - 1 :] = True
        rewards, logp = torch.zeros(len(own)), torch.zeros(len(own))
        rewards[-1:] = reward
        rewards = torch.where(own, rewards, 0.0)
        info = {"prompt": prompt, "completion": response}
        return Trajectory(obs, obs[1:], own, rewards, logp, False, group, info=info)

    def _tokens(self, prompt: Prompt, response: Response, row: Row) -> TokenRow:
        """Tokens, with those of the response as learned ones. Raises ValueError."""
        template, before = self.reader.template, self.chat.messages(self.reader, prompt)
        if isinstance(response, str):
            response = [{"role": "assistant", "content": template.unended(response)}]
        texts = [m.get("content") for m in response if not m.get("tool_calls")]
        if before is None and len(texts) == 1 and isinstance(texts[0], str):
            return plain_completion(template, self.chat(self.reader, prompt), texts[0])
        before = [{"role": "user", "content": prompt}] if before is None else before
        rows = token_rows(
            self.reader,
            [*before, *response],
            row.get("tools"),
            start=len(before),
            options=row.get("chat_template_kwargs"),
        )
        if len(rows) > 1:
            raise ValueError(
                "the chat template rewrites earlier turns, so a response of several turns is no"
                " single row: give its last turn as the response, and the turns before as the"
                " prompt"
            )
        only = rows[0]
        if self.whole and not template.ends_turns and only.ids[-1] == template.end_id:
            # a reward model scores the template's own text, which has no end token here
            return TokenRow(only.ids[:-1], only.own[:-1])
        return only


class Preferences:
    """Batches of groups, in a new order in each pass. A `logpi.types.Rollout`; its state is one
    integer.

    Args:
        groups: from `read_pairs` or `read_labels`. size: groups for each batch. seed: of the order.
    """

    def __init__(self, groups: Sequence[Group], *, size: int, seed: int = 0) -> None:
        self.groups, self.size, self.seed = list(groups), size, seed
        self.cursor = 0
        self._pass, self._order = -1, list(range(len(self.groups)))

    def record(self, reference: Policy, tokens: int = 16_384, batches: int | None = None) -> None:
        """Write the reference's log-probabilities into the rows (`Batch.logp`), so that the
        reference need not stay in memory.

        Args:
            reference: the policy before the first step. tokens: of a forward.
            batches: number of batches of the run; groups that it does not reach are left out.
        """
        numbers = list(range(len(self.groups)))
        if batches is not None and batches * self.size < len(numbers):
            numbers = sorted(self._shuffled(0)[: batches * self.size])
        for start in range(0, len(numbers), self.size):
            part = numbers[start : start + self.size]
            groups = _recorded([self.groups[i] for i in part], reference, tokens)
            for i, group in zip(part, groups, strict=True):
                self.groups[i] = group

    def batches(self) -> Iterator[Batch]:
        """Every group once, in the order of the data."""
        for start in range(0, len(self.groups), self.size):
            yield collate([t for group in self.groups[start : start + self.size] for t in group])

    def __call__(self) -> Collected:
        """The next `size` groups, with new numbers: a group that two passes bring into one batch
        counts as two."""
        rows = [replace(t, group=number) for number in range(self.size) for t in self._next()]
        metrics = {
            "num_tokens": float(sum(int(t.mask.sum()) for t in rows)),
            "epoch": self.cursor / len(self.groups),
        }
        return Collected(collate(rows), metrics)

    def _next(self) -> Group:
        number, place = divmod(self.cursor, len(self.groups))
        if number != self._pass:
            self._pass, self._order = number, self._shuffled(number)
        self.cursor += 1
        return self.groups[self._order[place]]

    def _shuffled(self, number: int) -> list[int]:
        """The order of a pass."""
        order = list(range(len(self.groups)))
        Random(f"{self.seed}/{number}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self.cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cursor = state["cursor"]


@torch.no_grad()
def _recorded(groups: Sequence[Group], reference: Policy, tokens: int) -> list[Group]:
    batch = collate([t for group in groups for t in group])
    logp: Iterator[Tensor] = iter(
        torch.where(batch.mask, evaluate(reference, batch, tokens).logp, 0.0)
    )
    return [
        tuple(replace(t, logp=next(logp)[: len(t.mask)].clone()) for t in group) for group in groups
    ]

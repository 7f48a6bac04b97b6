"""Preference data as rollouts: pairs, labelled responses, and their reference log-probabilities,
computed once.

    read_pairs    rows with chosen and rejected   -> groups of two rows, rewards 1 (+ the row's margin) and 0
    read_labels   rows with completion and label  -> groups of two rows: the response (reward ±1), and another prompt's
                                                     response to the same prompt (reward 0), for
                                                     KTO's reference point
    Preferences   batches of such groups; a `logpi.types.Rollout`

Everything is tokenised before the first step, so that a mistake in row 9,000 costs nothing. Left
out: reading files and bringing layouts to one (`envs/data.py`); pairs from a policy's own samples,
    which are what `rollouts/text_rollout.py` brings.
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
from logpi.types import Batch, Collected, Policy, Trajectory, collate
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
    """Groups, and how many rows were dropped: after the cut their responses are the same, or one
    has nothing left."""

    groups: list[Group]
    dropped: int


def without_empty(rows: Sequence[Row]) -> list[Row]:
    """The rows whose responses are not empty (`read_pairs` and `read_labels` refuse the others)."""
    return [
        r
        for r in rows
        if all(_said(r[s]).strip() for s in ("chosen", "rejected", "completion") if s in r)
    ]


def read_pairs(
    reader: Reader,
    rows: Sequence[Row],
    *,
    max_length: int = 1024,
    chat: Chat | None = None,
    whole: bool = False,
) -> PreferenceGroups:
    """Pairs of chosen and rejected responses; longer rows are cut on the right (TRL's keep_start),
    end token and all.

    Args:
        whole: what the template writes behind a response belongs to it, for a reward model is asked
            about the last token of all.
    Raises:
        UserError: a row without a chosen or rejected response, or with an empty one; or no pair is
            left.
    """
    write, groups = _PairWriter(reader, chat or Chat(), max_length, whole), []
    for i, row in enumerate(rows):
        prompt, *sides = _sides(row, i)
        wins = 1.0 + float(row.get("margin") or 0.0)
        pair = tuple(
            write(row, prompt, said, r, i) for said, r in zip(sides, (wins, 0.0), strict=True)
        )
        if all(t.mask.any() for t in pair) and not torch.equal(pair[0].obs, pair[1].obs):
            groups.append(pair)
    _say_repeated(rows)
    return _checked(groups, len(rows), max_length)


def read_labels(
    reader: Reader, rows: Sequence[Row], *, max_length: int = 1024, chat: Chat | None = None
) -> PreferenceGroups:
    """Labelled responses, each with a mismatched one; pairs are taken apart into a good and a bad
    response.

    Raises:
        UserError: a row without completion and label, an empty completion; or nothing is left.
    """
    write, groups = _PairWriter(reader, chat or Chat(), max_length), []
    single = [x for i, row in enumerate(rows) for x in _labels(row, i)]
    for i, (row, prompt, said, good) in enumerate(single):
        others = (single[(i + k) % len(single)] for k in range(1, len(single)))
        stranger = next((s for _, p, s, _ in others if p != prompt), None)
        if stranger is None:
            raise UserError(
                "KTO compares with responses to other prompts, and all rows have the same prompt"
            )
        made = (
            write(row, prompt, said, 1.0 if good else -1.0, i),
            write(row, prompt, stranger, 0.0, i),
        )
        if made[0].mask.any():
            groups.append(made)
    return _checked(groups, sum(2 if "chosen" in row else 1 for row in rows), max_length)


def _checked(groups: list[Group], rows: int, max_length: int) -> PreferenceGroups:
    if not groups:
        raise UserError(
            f"nothing can be learned from any of the {rows} rows: their responses are the same, or"
            f" prompts longer than max_length {max_length} leave no room for them"
        )
    return PreferenceGroups(groups, rows - len(groups))


def _labels(row: Row, number: int) -> list[tuple[Row, Prompt, Response, bool]]:
    if "chosen" in row:
        prompt, chosen, rejected = _sides(row, number)
        return (
            [(row, prompt, chosen, True), (row, prompt, rejected, False)]
            if chosen != rejected
            else []
        )
    if not isinstance(row.get("label"), bool) or not row.get("completion"):
        found = ", ".join(row)
        raise UserError(
            f"row {number}: expected a completion and a label (true or false), or chosen and"
            f" rejected; found: {found}"
        )
    return [(row, row["prompt"], row["completion"], row["label"])]


def _sides(row: Row, number: int) -> tuple[Prompt, Response, Response]:
    """The prompt and both responses to it; conversations that repeat the prompt lose it.

    Raises:
        UserError: no such column, an empty response, or conversations that do not begin with the
            prompt.
    """
    for side in ("chosen", "rejected"):
        if row.get(side) is None:
            raise UserError(f"row {number} has no column {side!r}; found: {', '.join(row)}")
    prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    if _is_whole(chosen) and _is_whole(rejected):
        shared = shared_messages(chosen, rejected)
        asked = [prompt] if isinstance(prompt, str) else [m.get("content") for m in prompt]
        if not {str(a).strip() for a in asked if a} <= {
            str(m.get("content")).strip() for m in shared
        }:
            raise UserError(
                f"row {number}: the prompt is not what both conversations begin with: leave it out,"
                " or repair it"
            )
        prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    elif _is_whole(chosen) or _is_whole(rejected):
        raise UserError(f"row {number}: one response is a whole conversation, the other is not")
    for side, said in (("chosen", chosen), ("rejected", rejected)):
        if not _said(said).strip():
            raise UserError(
                f"row {number}: {side!r} is empty; expected a response to the prompt (--skip-empty"
                " leaves such rows out)"
            )
    return prompt, chosen, rejected


def _is_whole(response: Response) -> bool:
    """Whether the response repeats what was asked."""
    return (
        not isinstance(response, str)
        and bool(response)
        and response[0].get("role") not in ("assistant", "tool")
    )


def _said(response: Any) -> str:
    """What the assistant says or calls in a response, as text."""
    if isinstance(response, str) or not isinstance(response, Sequence):
        return response if isinstance(response, str) else ""
    return text_of(response) + "".join(
        str(m["tool_calls"]) for m in response if m.get("tool_calls")
    )


def _say_repeated(rows: Sequence[Row]) -> None:
    """If all responses begin with their prompts, someone may have meant that they repeat them."""
    texts = [(r["prompt"], r[s]) for r in rows for s in ("chosen", "rejected")]
    if all(isinstance(p, str) and p and isinstance(t, str) and t.startswith(p) for p, t in texts):
        warnings.warn(
            "all responses begin with the words of their prompt, and are learned as they stand; if"
            " the data repeat the prompt there, leave its column out",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _PairWriter:
    """A prompt and a response as a row. It does not terminate: the state after it is what a reward
    model scores."""

    reader: Reader
    chat: Chat
    max_length: int
    whole: bool = False

    def __call__(
        self, row: Row, prompt: Prompt, said: Response, reward: float, group: int
    ) -> Trajectory:
        try:
            token_rows = self._turns(prompt, said, row)
        except ValueError as error:
            raise UserError(f"{row_place(row, f'row {group}')}: {error}") from None
        end = (
            len(token_rows.ids)
            if self.whole
            else len(token_rows.own) - token_rows.own[::-1].index(True)
        )
        obs = torch.tensor(token_rows.ids[: min(end, self.max_length)])
        own = torch.tensor(token_rows.own[1 : len(obs)], dtype=torch.bool)
        if self.whole:
            own[token_rows.own.index(True) - 1 :] = True
        rewards = torch.zeros(len(own))
        rewards[-1:] = reward
        info = {"prompt": prompt, "completion": said}
        blank = torch.zeros(len(own))
        return Trajectory(
            obs, obs[1:], own, torch.where(own, rewards, 0.0), blank, False, group, info=info
        )

    def _turns(self, prompt: Prompt, said: Response, row: Row) -> TokenRow:
        """Tokens, and which are the response's. Raises ValueError."""
        asked = self.chat.messages(self.reader, prompt)
        said = self.reader.template.unended(said) if isinstance(said, str) else said
        single = (
            [said]
            if isinstance(said, str)
            else [m.get("content") for m in said if not m.get("tool_calls")]
        )
        if asked is None and len(single) == 1 and isinstance(single[0], str):
            return plain_completion(self.reader.template, self.chat(self.reader, prompt), single[0])
        asked = [{"role": "user", "content": prompt}] if asked is None else asked
        response = [{"role": "assistant", "content": said}] if isinstance(said, str) else list(said)
        made = token_rows(
            self.reader,
            [*asked, *response],
            row.get("tools"),
            start=len(asked),
            options=row.get("chat_template_kwargs"),
        )
        if len(made) > 1:
            raise ValueError(
                "the chat template rewrites earlier turns, so a response of several turns is no"
                " single row: give its last turn as the response, and what came before as the"
                " prompt"
            )
        template, only = self.reader.template, made[0]
        if self.whole and not template.ends_turns and only.ids[-1] == template.end_id:
            return TokenRow(
                only.ids[:-1], only.own[:-1]
            )  # a score is asked of what the template writes, which has no end here
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
        """Write the reference's log-probabilities into the rows (`Batch.logp`), so that it can be
        forgotten.

        Args:
            reference: the policy as it is before the first step. tokens: of a forward.
            batches: only the groups of the first so many batches, if the run sees no more.
        """
        wanted = list(range(len(self.groups)))
        if batches is not None and batches * self.size < len(wanted):
            wanted = sorted(self._shuffled(0)[: batches * self.size])
        for start in range(0, len(wanted), self.size):
            part = wanted[start : start + self.size]
            made = _recorded([self.groups[i] for i in part], reference, tokens)
            for i, group in zip(part, made, strict=True):
                self.groups[i] = group

    def batches(self) -> Iterator[Batch]:
        """Every group once, in the order of the data."""
        for start in range(0, len(self.groups), self.size):
            yield collate([t for group in self.groups[start : start + self.size] for t in group])

    def __call__(self) -> Collected:
        """The next `size` groups, numbered anew: one that two passes bring into the same batch
        counts twice, as two."""
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

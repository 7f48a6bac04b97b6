"""Preference data as rollouts: pairs, labelled responses, and their reference log-probabilities, computed once.

    read_pairs    rows with chosen and rejected   -> groups of two rows, rewards 1 (+ the row's margin) and 0
    read_labels   rows with completion and label  -> groups of two rows: the response (reward ±1), and another prompt's
                                                     response to the same prompt (reward 0), for KTO's reference point
    Preferences   batches of such groups; a `logpi.types.Rollout`

Everything is tokenised before the first step, so that a mistake in row 9,000 costs nothing. Left out: reading files and
bringing layouts to one (`envs/data.py`); pairs from a policy's own samples, which are what `rollouts/text.py` brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from logpi.batching import evaluate
from logpi.envs.rows import Row
from logpi.errors import UserError
from logpi.rewards.text import text_of
from logpi.rollouts.text import Chat
from logpi.types import Batch, Collected, Policy, Trajectory, collate

__all__ = ["Group", "Preferences", "Read", "continuation", "read_labels", "read_pairs", "without_empty"]

Group = tuple[Trajectory, ...]


class Reader(Protocol):
    """What turns text into tokens: a `CausalLM` or a `RewardModel`."""

    tokenizer: Any

    @property
    def eos_ids(self) -> tuple[int, ...]: ...

    def render(self, prompt: str | list[dict]) -> list[int]: ...


@dataclass(frozen=True)
class Read:
    """Groups, and how many rows were dropped: after the cut their responses are the same, or one has nothing left."""

    groups: list[Group]
    dropped: int


def without_empty(rows: Sequence[Row]) -> list[Row]:
    """The rows whose responses are not empty (`continuation` refuses the others)."""
    kept = []
    for i, row in enumerate(rows):
        sides = [s for s in ("chosen", "rejected") if isinstance(row.get(s), str | list)]
        if all(_text(row, s, i).strip() for s in sides) and row.get("completion", "-"):
            kept.append(row)
    return kept


def read_pairs(reader: Reader, rows: Sequence[Row], *, max_length: int = 1024, chat: Chat | None = None) -> Read:
    """Pairs of chosen and rejected responses; longer rows are cut on the right (TRL's keep_start), end token and all.

    Raises:
        UserError: a row without a chosen or rejected response, or with an empty one; or no pair is left.
    """
    write, groups = _Writer(reader, chat or Chat(), max_length), []
    for i, row in enumerate(rows):
        sides = [continuation(row, side, i) for side in ("chosen", "rejected")]
        wins = 1.0 + float(row.get("margin") or 0.0)
        pair = tuple(write(row["prompt"], text, r, i) for text, r in zip(sides, (wins, 0.0), strict=True))
        if all(t.mask.any() for t in pair) and not torch.equal(pair[0].obs, pair[1].obs):
            groups.append(pair)
    return _checked(groups, len(rows), max_length)


def read_labels(reader: Reader, rows: Sequence[Row], *, max_length: int = 1024, chat: Chat | None = None) -> Read:
    """Labelled responses, each with a mismatched one; pairs are taken apart into a good and a bad response.

    Raises:
        UserError: a row without completion and label, an empty completion; or nothing is left.
    """
    write, groups = _Writer(reader, chat or Chat(), max_length), []
    single = [x for i, row in enumerate(rows) for x in _labels(row, i)]
    for i, (prompt, text, good) in enumerate(single):
        others = (single[(i + k) % len(single)] for k in range(1, len(single)))
        stranger = next((t for p, t, _ in others if p != prompt), None)
        if stranger is None:
            raise UserError("KTO compares with responses to other prompts, and all rows have the same prompt")
        made = (write(prompt, text, 1.0 if good else -1.0, i), write(prompt, stranger, 0.0, i))
        if made[0].mask.any():
            groups.append(made)
    return _checked(groups, len(single), max_length)


def _checked(groups: list[Group], rows: int, max_length: int) -> Read:
    if not groups:
        raise UserError(f"nothing can be learned from any of the {rows} rows: their responses are the same, or prompts "
                        f"longer than max_length {max_length} leave no room for them")  # fmt: skip
    return Read(groups, rows - len(groups))


def _labels(row: Row, number: int) -> list[tuple[Any, str, bool]]:
    if "chosen" in row:
        return [(row["prompt"], continuation(row, s, number), s == "chosen") for s in ("chosen", "rejected")]
    if not isinstance(row.get("label"), bool) or not row.get("completion"):
        found = ", ".join(row)
        raise UserError(f"row {number}: expected a completion and a label (true or false), or chosen and rejected; "
                        f"found: {found}")  # fmt: skip
    return [(row["prompt"], row["completion"], row["label"])]


def continuation(row: Row, side: str, number: int) -> str:
    """The text of `row[side]` after the prompt; some data sets repeat the prompt in both responses.

    Raises:
        UserError: no such column, or nothing after the prompt.
    """
    text = _text(row, side, number)
    if not text.strip():
        raise UserError(
            f"row {number}: {side!r} is empty; expected a response to the prompt (--skip-empty leaves such rows out)"
        )
    return text


def _text(row: Row, side: str, number: int) -> str:
    value, prompt = row.get(side), row["prompt"]
    if value is None:
        raise UserError(f"row {number} has no column {side!r}; found: {', '.join(row)}")
    if isinstance(value, str):
        other = str(row.get("rejected" if side == "chosen" else "chosen"))
        repeated = prompt and isinstance(prompt, str) and value.startswith(prompt) and other.startswith(prompt)
        return value[len(prompt) :] if repeated else value
    start = len(prompt) if isinstance(prompt, list) and value[: len(prompt)] == prompt else 0
    return text_of(value[start:])


@dataclass(frozen=True)
class _Writer:
    """A prompt and a response as a row. It does not terminate: the state after it is what a reward model scores."""

    reader: Reader
    chat: Chat
    max_length: int

    def __call__(self, prompt: Any, text: str, reward: float, group: int) -> Trajectory:
        start = self.chat(self.reader, prompt) or [self.reader.eos_ids[-1]]  # type: ignore[arg-type]
        ids = self.reader.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.reader.eos_ids[-1]]
        obs = torch.tensor((start + ids)[: self.max_length])
        own = torch.arange(len(obs) - 1) >= len(start) - 1
        rewards = torch.zeros(len(own))
        rewards[-1:] = reward
        info = {"prompt": prompt, "completion": text}
        blank = torch.zeros(len(own))
        return Trajectory(obs, obs[1:], own, torch.where(own, rewards, 0.0), blank, False, group, info=info)


class Preferences:
    """Batches of groups, in a new order in each pass. A `logpi.types.Rollout`; its state is one integer.

    Args:
        groups: from `read_pairs` or `read_labels`. size: groups for each batch. seed: of the order.
    """

    def __init__(self, groups: Sequence[Group], *, size: int, seed: int = 0) -> None:
        self.groups, self.size, self.seed = list(groups), size, seed
        self.cursor = 0
        self._pass, self._order = -1, list(range(len(self.groups)))

    def record(self, reference: Policy, tokens: int = 16_384, batches: int | None = None) -> None:
        """Write the reference's log-probabilities into the rows (`Batch.logp`), so that it can be forgotten.

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
        """The next `size` groups, numbered anew: one that two passes bring into the same batch counts twice, as two."""
        rows = [replace(t, group=number) for number in range(self.size) for t in self._next()]
        metrics = {"num_tokens": float(sum(int(t.mask.sum()) for t in rows)), "epoch": self.cursor / len(self.groups)}
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
    logp: Iterator[Tensor] = iter(torch.where(batch.mask, evaluate(reference, batch, tokens).logp, 0.0))
    return [tuple(replace(t, logp=next(logp)[: len(t.mask)].clone()) for t in group) for group in groups]

"""Turns: what passes between the decoder and whoever answers a row, and what is kept of a
conversation.

    engine ── Spoken (the row's turn is over) ──▶ Partner ── Heard (what follows, or the end) ──▶
    engine

Token ids only: text, tools and threads are in `rollouts/tool_conversations.py`. Left out:
conversations in which the environment rewrites what was said before; a row's tokens only ever grow
at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

ENDED = ("eos", "stop")
"""Stop reasons of rows that ended by themselves. All others are limits: "length" (of what the
policy may write), "turns", "calls" and "context"; such a row was cut off, and the algorithm's
`Truncation` says what becomes of it."""


@dataclass(frozen=True)
class Spoken:
    """A row has ended a turn.

    Attributes:
        row: its number in the call. tokens: of this turn, with what ended it (an end token, or the
            stop string's last).
        stop: "eos" or "stop". left: tokens it may still sample. room: tokens that may follow in the
            model's context and leave place for one more of its own; negative if the context is
            full.
    """

    row: int
    tokens: Sequence[int]
    stop: str
    left: int
    room: int


@dataclass(frozen=True)
class Heard:
    """The answer to a turn.

    Attributes:
        row: whose. observation: token ids that follow, perhaps none; None: the row is over.
        stop: why it is over, if that was not the policy's own end.
    """

    row: int
    observation: Sequence[int] | None
    stop: str = ""


class Partner(Protocol):
    """Answers turns, in its own time."""

    def hear(self, spoken: Spoken) -> None:
        """A turn to answer. Returns at once."""
        ...

    def replies(self, wait: bool) -> list[Heard]:
        """The answers that have come since the last call. wait: at least one, for nothing else can
        go on."""
        ...


@dataclass(frozen=True)
class Turn:
    """One turn of the policy, and what followed.

    Attributes:
        tokens: how many the policy sampled. text: what they say, special tokens left out.
        observation: token ids that followed. shown: what these say, for people.
        reward: of this turn, in units of return; it stands at the turn's last token.
    """

    tokens: int
    text: str
    observation: tuple[int, ...] = ()
    shown: str = ""
    reward: float = 0.0


@dataclass(frozen=True)
class Talk:
    """A conversation that is over. metrics: numbers that the environment and the rollout counted in
    it."""

    turns: tuple[Turn, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the policy wrote, turns joined by line breaks."""
        return "\n".join(turn.text for turn in self.turns)

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards, in units of return."""
        return sum(t.reward for t in self.turns)

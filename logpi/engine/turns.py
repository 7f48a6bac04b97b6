"""Turns: the end of a row's turn, and the tokens that the row reads next.

    engine ── TurnEnd ──▶ on_turn_end ── Continuation (tokens to read, or the end) ──▶ engine

Token ids only: text, tools and threads are in `rollouts/open_conversations.py`. Left out:
conversations whose environment rewrites earlier turns; the tokens of a row only grow at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ENDED = ("eos", "stop")
"""Stop reasons of rows that ended by themselves. All others are limits: "length" (of the policy's
own tokens), "turns", "calls" and "context". A limit cuts the row off, and the algorithm's
`Truncation` decides how to learn from it."""


@dataclass(frozen=True)
class TurnEnd:
    """The policy has ended a turn of a row.

    Attributes:
        row: its number in the call of the sampler.
        tokens: ids of this turn, with the one that ended it (an end token, or a stop string's
            last).
        stop: "eos" or "stop".
        left: tokens that the row may still sample.
        room: tokens that may follow in the model's context and leave room for one more of the
            policy's; negative if the context is full.
    """

    row: int
    tokens: Sequence[int]
    stop: str
    left: int
    room: int


@dataclass(frozen=True)
class Continuation:
    """What follows a turn.

    Attributes:
        row: the row's number.
        observation: token ids that the row reads next, perhaps none; None ends the row.
        stop: why the row ends, if the policy did not end it.
    """

    row: int
    observation: Sequence[int] | None
    stop: str = ""


OnTurnEnd = Callable[[Sequence[TurnEnd], bool], Sequence[Continuation]]
"""`on_turn_end(ended, wait)`: takes the turns that ended since the last call, perhaps none, and
returns the continuations that are known by now. The sampler calls it repeatedly while rows wait.
`wait`: return at least one, for no other row can proceed.

A sampler that is called with `on_turn_end=None` ends every row at the end of its first turn."""

"""One episode of verifiers, whose event loop asks for turns, played from a thread that answers
them.

    the thread                          the event loop
    begin()             ────────▶       the environment runs, until it wants a turn
              ◀──────── Asked           its messages so far
    answer(message)     ────────▶       it goes on: tools run, a user speaks
              ◀──────── Asked           …
    leave()             ────────▶       it is asked no more, and judges what there is
              ◀──────── Over            rewards by name

Left out: verifiers itself (`plugin_verifiers.py`), and conversations (`verifiers.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from logpi.envs.conversation import error_text

Message = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The environment wants a turn: the conversation so far, and the tools, in OpenAI's form."""

    messages: Sequence[Message]
    tools: Sequence[Message]


@dataclass(frozen=True)
class Over:
    """The episode is over.

    Attributes:
        rewards: by name, unweighted; None where one was not judged. weights: of each.
        metrics: its other numbers. error: why there is no verdict.
    """

    rewards: Mapping[str, float | None] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""


class Left(Exception):
    """The policy writes no further turn."""


class Episode:
    """One episode.

    Args:
        loop: the environment's. play: runs the episode in it; it calls `ask` for each turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, play: Callable[[Episode], Awaitable[Over]]
    ) -> None:
        self._loop, self._play = loop, play
        self._events: SimpleQueue[Asked | Over] = SimpleQueue()
        self._answer: asyncio.Future[tuple[Message, str]] | None = None
        self._left = False

    # --- in the thread ---

    def begin(self) -> Asked | Over:
        """Run up to the first turn."""
        asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        return self._events.get()

    def answer(self, message: Message, finish: str = "stop") -> Asked | Over:
        """Give the turn that was asked for. `finish`: why it ends, in OpenAI's words."""
        self._loop.call_soon_threadsafe(self._settle, message, finish)
        return self._events.get()

    def leave(self) -> Over:
        """Refuse the turn that is asked for and all later ones, and wait for the verdict."""
        self._loop.call_soon_threadsafe(self._settle, None, "")
        while isinstance(event := self._events.get(), Asked):
            pass
        return event

    # --- in the loop ---

    async def ask(self, messages: Sequence[Message], tools: Sequence[Message]) -> Any:
        """The turn after these messages, and why it ends. Raises Left: there will be none."""
        if self._left:
            raise Left
        self._answer = self._loop.create_future()
        self._events.put(Asked(messages, tools))
        return await self._answer

    def _settle(self, message: Message | None, finish: str) -> None:
        self._left |= message is None
        if self._answer is None or self._answer.done():
            return
        if message is None:
            self._answer.set_exception(Left())
        else:
            self._answer.set_result((message, finish))

    async def _run(self) -> None:
        try:
            over = await self._play(self)
        except BaseException as error:  # the environment's code may raise anything
            over = Over(error=error_text(error))
        self._events.put(over)

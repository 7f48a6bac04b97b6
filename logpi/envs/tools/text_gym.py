"""A Gymnasium-style text environment as conversations: the text of `reset` is the prompt, the
policy's turn is the action.

    reset()      → text | (text, info)
    step(text)   → text, reward, terminated, truncated, info; old Gym's: text, reward, done, info

Rewards are step rewards: each stands at the last token of its turn. The end of an episode and a
time limit both end the conversation. Left out: observations that are not text (wrap the
environment).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logpi.envs.conversation import Conversation, Reply
from logpi.envs.scalars import flag, number

if TYPE_CHECKING:
    from logpi.envs.task import Row


@dataclass(frozen=True)
class TextGym:
    """Conversations with a text environment. A `TextEnvironment`.

    Attributes:
        make: a new environment for an item: `lambda row: gymnasium.make("...")`. Its `reset` gets
            the item's `seed`, if it takes one.
        before, after: stand around an observation, e.g. "\\n" and "\\n> ".
        stop: strings that end a turn.
        role: observations are messages with this role ("user", "tool"); "": plain text.
    """

    make: Callable[[Row], Any]
    before: str = "\n"
    after: str = "\n"
    stop: tuple[str, ...] = ()
    role: str = ""
    tools: tuple[()] = field(default=(), init=False, repr=False)

    def start(self, row: Row) -> Conversation:
        return _Episode(self, row)


class _Episode:
    """One episode."""

    def __init__(self, gym: TextGym, row: Row) -> None:
        self.gym, self.env = gym, gym.make(row)
        is_seeded = "seed" in row and "seed" in inspect.signature(self.env.reset).parameters
        first = self.env.reset(seed=row["seed"]) if is_seeded else self.env.reset()
        text = str(first[0] if isinstance(first, tuple) else first)
        task = row.get("prompt") or ""
        self.prompt: str | list[dict[str, Any]]
        if not isinstance(task, str):
            self.prompt = [*task, {"role": "user", "content": text}]
        else:
            self.prompt = f"{task}{gym.before}{text}{gym.after}" if task else f"{text}{gym.after}"

    def reply(self, text: str) -> Reply:
        observation, reward, *over, _ = self.env.step(text.strip())
        done = any(flag(x, "the end of an episode") for x in over)
        if done:
            close = getattr(self.env, "close", None)
            if close is not None:
                close()
        return Reply(self._shown(str(observation)), number(reward), done)

    def _shown(self, observation: str) -> str | Sequence[dict[str, Any]]:
        if self.gym.role:
            return [{"role": self.gym.role, "content": observation}]
        return f"{self.gym.before}{observation}{self.gym.after}"

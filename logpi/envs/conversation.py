"""Environments made of text: the policy writes, the environment answers, until one of them has had
enough.

An `Env` begins one `Conversation` for each sample of a row; the conversation alone holds what
happens in it. Replies may be slow (a search, a sandbox): the rollout calls `reply` in threads, one
call at a time for each conversation. Left out: sampling, token ids and masks (`rollouts/`), and
what the final answer is worth (`Rewards`, from the policy's own words alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from logpi.envs.task import Row, Task

Message = dict[str, Any]
"""A chat message, as chat templates read it: `role` ("tool", "user") and `content`."""


def encodable(said: Any) -> Any:
    r"""What a stranger said (text, or whatever JSON holds), with `?` for halves of characters:
    nothing encodes them.

    >>> encodable(["na\u00efve \ud83d", {"n": 1}])
    ['naïve ?', {'n': 1}]
    """
    if isinstance(said, str):
        return said if said.isascii() else said.encode("utf-8", "replace").decode("utf-8")
    if isinstance(said, Mapping):
        return {encodable(k): encodable(v) for k, v in said.items()}
    return [encodable(x) for x in said] if isinstance(said, list | tuple) else said


def told(error: BaseException) -> str:
    """What a stranger's exception says; some cannot even say what they are."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}: (it cannot say what)"


@dataclass(frozen=True)
class Reply:
    """What the environment makes of one turn of the policy.

    The search environment, on the policy's `…<search>capital of France</search>`:

        Reply("\\n\\n<information>Doc 1 …</information>\\n\\n", metrics={"tool_calls": 1})

    Attributes:
        observation: what follows in the context: text, or messages that the model's chat template
            writes. Never trained. Control tokens in it are text; nothing at all is answered with an
            error for the policy to read.
        reward: for this turn, in units of return; it stands at the turn's last token and is added
            to nothing else.
        done: the conversation is over; the observation is not shown.
        metrics: numbers that add up over the conversation (`tool_calls`, `tool_errors`, `searches`,
            …).
    """

    observation: str | Sequence[Message] = ""
    reward: float = 0.0
    done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


class Conversation(Protocol):
    """One conversation about one row."""

    @property
    def prompt(self) -> str | list[Message]:
        """What the policy sees first."""
        ...

    def reply(self, text: str) -> Reply:
        """The answer to the policy's turn, its end token left out. What it raises becomes an error
        observation, and is counted."""
        ...


class Env(Protocol):
    """Begins conversations.

    Attributes:
        stop: strings that end a turn ("</search>"); an end-of-sequence token always does. They stay
            in the text.
        tools: JSON schemas for the chat template's `tools` argument, or () without one.
    """

    @property
    def stop(self) -> tuple[str, ...]: ...

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]: ...

    def start(self, row: Row) -> Conversation:
        """A fresh conversation; equal rows may be asked for many times, and at the same time."""
        ...


@runtime_checkable
class ToolTask(Task, Protocol):
    """A task whose rows are talked about with an environment; without one (None) a row is answered
    in one turn."""

    @property
    def env(self) -> Env | None: ...

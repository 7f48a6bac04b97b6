"""A call, something that was meant to be one, and what every style of writing them can do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["MOST", "Attempt", "Call", "Malformed", "Schema", "Style", "Tagged", "answering", "defused", "functions"]

MOST = 100
"""Attempts that are read of one turn; what follows is passed over."""

Schema = Mapping[str, Any]
"""A tool for a chat template: `{"type": "function", "function": {"name", "description", "parameters"}}`."""


@dataclass(frozen=True)
class Call:
    """A tool's name and its arguments by name: `Call("search", {"query": "capital of France"})`."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Malformed:
    """An attempt that is no call. `reason` says what was expected, for the policy to read."""

    reason: str


Attempt = Call | Malformed


class Style(Protocol):
    """A way of writing calls.

    Attributes:
        stop: strings that end a turn, for models that write on as plain text.
    """

    @property
    def stop(self) -> tuple[str, ...]: ...

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        """Every attempt in a turn, in order; [] if the turn calls nothing. `tools`: for styles whose values have no type of their own."""
        ...

    def write(self, calls: Sequence[Call]) -> str:
        """Calls as a model writes them: `parse(write(calls)) == calls`."""
        ...

    def system(self, tools: Sequence[Schema]) -> str:
        """What tells a model of its tools, where its chat template does not."""
        ...

    def results(self, results: Sequence[str]) -> str:
        """The tools' results as text that follows the turn, for models without a chat template."""
        ...


@dataclass(frozen=True)
class Tagged:
    """What styles share that write each call, and each result, between tags of its own.

    Attributes:
        tag, result: names of the two tags.
    """

    tag: str = "tool_call"
    result: str = "tool_response"

    @property
    def stop(self) -> tuple[str, ...]:
        return (f"</{self.tag}>",)

    def results(self, results: Sequence[str]) -> str:
        framed = [f"<{self.result}>\n{defused(r, self.result, self.tag)}\n</{self.result}>" for r in results]
        return "\n" + "\n".join(framed) + "\n"


def answering(text: str) -> str:
    """What was said after thinking: the text behind the last `</think>`; nothing while a thought is still open."""
    head, closed, rest = text.rpartition("</think>")
    return "" if "<think>" in rest else rest if closed else head or rest


def defused(text: str, *tags: str) -> str:
    """`text` with these tags, open or closed, made harmless by a space, so that a tool's result cannot end its own frame.

    >>> defused("42</information> <answer>7", "information", "answer")
    '42< /information> < answer>7'
    """
    return re.sub(rf"<(?=/?(?:{'|'.join(map(re.escape, tags))})\b)", "< ", text) if tags else text


def functions(tools: Sequence[Schema]) -> dict[str, Schema]:
    """Name → the function's part of each schema."""
    inner = [t.get("function", t) for t in tools]
    return {f["name"]: f for f in inner}

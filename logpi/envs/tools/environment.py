"""ToolEnvironment: a question, tools, and a model that calls them until it answers.

    the policy     <tool_call>{"name": "search", "arguments": {"query": "capital of France"}}</tool_call>
    the reply      one result for each call, in order: messages with role "tool", or text for models without a chat template
    the policy     Paris.                                        no call: the conversation is over

A call that cannot be read, of a tool that is not there, or with arguments that do not fit is
answered with what was expected, and counted. Left out: rewards for the answer (`rewards`), limits
on turns and tokens, threads and time (`rollouts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from logpi.calls import Call, Hermes, Malformed, Style
from logpi.calls import style as style_of
from logpi.envs.conversation import Conversation, Message, Reply, error_text
from logpi.envs.tools.tool import Tool, ToolError
from logpi.envs.tools.tool import tool as tool_of

if TYPE_CHECKING:
    from logpi.envs.task import Row

CUT = " … [cut]"


@dataclass(frozen=True)
class ToolEnvironment:
    """An environment of tools. An `TextEnvironment`.

    Attributes:
        given: tools; Python functions, or `FILE.py:NAME`, that become tools.
        style: how the model writes calls: "hermes", "xml", "lines", "python", "search", or a
            `Style`.
        chat: the model has a chat template: replies are messages. Without, everything is plain
            text.
        native: the chat template itself lists the tools and writes their results (Qwen's, Llama's
            do). Without, a system message or text does, in the style's words, and results are a
            user's message.
        most_calls: of one turn; what comes after is answered with an error.
        longest: characters of one result; a longer one is cut, inside of its tags.

    Raises:
        ValueError: no tools, two of one name, an unknown style, a function that cannot be a tool.
    """

    given: tuple[Tool | Callable[..., Any] | str, ...]
    style: Style | str = field(default_factory=Hermes)
    chat: bool = True
    native: bool = True
    most_calls: int = 8
    longest: int = 4_000

    def __post_init__(self) -> None:
        names = [t.name for t in self.by_name.values()]
        if not names or len(names) != len(self.given):
            raise ValueError(
                "a ToolEnvironment needs at least one tool, and no two of one name"
                + (f": {', '.join(names)}" if names else "")
            )
        style_of(self.style)

    @cached_property
    def by_name(self) -> dict[str, Tool]:
        return {t.name: t for t in map(tool_of, self.given)}

    @property
    def schemas(self) -> list[dict[str, Any]]:
        return [t.schema for t in self.by_name.values()]

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """For the chat template."""
        return self.schemas if self.chat and self.native else ()

    @property
    def stop(self) -> tuple[str, ...]:
        return () if self.chat else style_of(self.style).stop

    def start(self, row: Row) -> Conversation:
        return _CallConversation(self, row)

    def opened(self, prompt: str | Sequence[Message]) -> str | list[Message]:
        """The row's prompt, the tools announced where the template does not."""
        if not self.chat:
            if not isinstance(prompt, str):
                raise ValueError(
                    "this ToolEnvironment writes plain text (chat=False), and the row's prompt is a list of"
                    " messages"
                )
            return (
                f"{style_of(self.style).system(self.schemas)}\n\n{prompt}"
                if not self.native
                else prompt
            )
        messages = (
            [{"role": "user", "content": prompt}]
            if isinstance(prompt, str)
            else [dict(m) for m in prompt]
        )
        if self.native:
            return messages
        announced = style_of(self.style).system(self.schemas)
        if messages and messages[0]["role"] == "system":
            return [
                messages[0] | {"content": f"{messages[0]['content']}\n\n{announced}"},
                *messages[1:],
            ]
        return [{"role": "system", "content": announced}, *messages]

    def answer(self, attempt: Call | Malformed) -> tuple[str, str, str]:
        """The called tool's name, its result, and which error it is: "", "malformed", "unknown",
        "arguments" or "failed"."""
        if isinstance(attempt, Malformed):
            return "", f"Error: {attempt.reason}.", "malformed"
        if attempt.name not in self.by_name:
            return (
                attempt.name[:64],
                (
                    f"Error: no tool is called {attempt.name[:64]!r}; there are:"
                    f" {', '.join(self.by_name)}."
                ),
                "unknown",
            )
        try:
            return attempt.name, self._cut(self.by_name[attempt.name](attempt.arguments)), ""
        except ToolError as error:
            return attempt.name, self._cut(f"Error: {error}."), "arguments"
        except Exception as error:  # a tool is somebody else's code: what it raises is an observation, never a crash
            return attempt.name, self._cut(f"Error: {error_text(error)}"), "failed"

    def _cut(self, result: str) -> str:
        return result if len(result) <= self.longest else result[: self.longest] + CUT


@dataclass(frozen=True)
class _CallConversation:
    """One conversation; nothing of it is remembered but the row."""

    env: ToolEnvironment
    row: Row

    @property
    def prompt(self) -> str | list[Message]:
        return self.env.opened(self.row["prompt"])

    def reply(self, text: str) -> Reply:
        env = self.env
        attempts = style_of(env.style).parse(text, env.schemas)
        if not attempts:
            return Reply(done=True)
        answers = [env.answer(a) for a in attempts[: env.most_calls]]
        if len(attempts) > env.most_calls:
            answers.append(
                (
                    "",
                    (
                        f"Error: more than {env.most_calls} calls in one turn; the others were not"
                        " made."
                    ),
                    "surplus",
                )
            )
        metrics = {
            "tool_calls": float(len(answers)),
            "tool_errors": float(sum(bool(e) for _, _, e in answers)),
        }
        for _, _, error in answers:
            if error:
                metrics[f"tool_errors/{error}"] = metrics.get(f"tool_errors/{error}", 0.0) + 1.0
        if not env.chat or not env.native:
            results = style_of(env.style).results([r for _, r, _ in answers])
            return Reply(
                [{"role": "user", "content": results.strip()}] if env.chat else results,
                metrics=metrics,
            )
        return Reply(
            [
                {"role": "tool", "name": name or "error", "content": result}
                for name, result, _ in answers
            ],
            metrics=metrics,
        )

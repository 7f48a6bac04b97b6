"""ToolEnvironment: a question, tools, and a model that calls them until it answers.

    the policy   <tool_call>{"name": "search", "arguments": {"query": "Paris"}}</tool_call>
    the reply    one result for each call, in order: messages with role "tool", or text for models
                 without a chat template
    the policy   Paris is the capital of France.
                 no call: the conversation is over

A call that cannot be read, of an unknown tool, or with arguments that do not fit gets an error that
says what was expected, and is counted. Left out: rewards for the answer (`rewards/`), threads, and
limits on turns, tokens and time (`rollouts/`).
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
    """An environment of tools. A `TextEnvironment`.

    Attributes:
        given: tools; Python functions, or `FILE.py:NAME`, that become tools.
        style: how the model writes calls: "hermes", "xml", "lines", "python", "search", or a
            `Style`.
        chat: the model has a chat template, and replies are messages. False: everything is plain
            text.
        native: the chat template itself lists the tools and writes their results (Qwen's, Llama's
            do). False: a system message or text lists them in the style's words, and results are a
            user's message.
        most_calls: of one turn; the calls after these get an error.
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

    def prompt(self, prompt: str | Sequence[Message]) -> str | list[Message]:
        """The item's prompt, with a list of the tools unless the chat template writes one."""
        if not self.chat:
            return self._plain_prompt(prompt)
        if isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
        else:
            messages = [dict(m) for m in prompt]
        if self.native:
            return messages
        tools = style_of(self.style).system(self.schemas)
        if messages and messages[0]["role"] == "system":
            system = messages[0] | {"content": f"{messages[0]['content']}\n\n{tools}"}
            return [system, *messages[1:]]
        return [{"role": "system", "content": tools}, *messages]

    def _plain_prompt(self, prompt: str | Sequence[Message]) -> str:
        if not isinstance(prompt, str):
            raise ValueError(
                "this ToolEnvironment writes plain text (chat=False), and the row's prompt is a"
                " list of messages"
            )
        if self.native:
            return prompt
        return f"{style_of(self.style).system(self.schemas)}\n\n{prompt}"

    def call(self, attempt: Call | Malformed) -> ToolResult:
        """The result of a call, or an error that the model reads."""
        if isinstance(attempt, Malformed):
            return ToolResult("", f"Error: {attempt.reason}.", "malformed")
        if attempt.name not in self.by_name:
            name, known = attempt.name[:64], ", ".join(self.by_name)
            text = f"Error: no tool is called {name!r}; there are: {known}."
            return ToolResult(name, text, "unknown")
        try:
            text, error = self.by_name[attempt.name](attempt.arguments), ""
        except ToolError as problem:
            text, error = f"Error: {problem}.", "arguments"
        except Exception as problem:  # the user's tool failed: the model reads it
            text, error = f"Error: {error_text(problem)}", "failed"
        if len(text) > self.longest:
            text = text[: self.longest] + CUT
        return ToolResult(attempt.name, text, error)


@dataclass(frozen=True)
class ToolResult:
    """The result of a call.

    Attributes:
        name: of the tool, or "". text: for the model.
        error: "", "malformed", "unknown", "arguments", "failed" or "surplus".
    """

    name: str
    text: str
    error: str


@dataclass(frozen=True)
class _CallConversation:
    """One conversation; its only state is the item."""

    environment: ToolEnvironment
    row: Row

    @property
    def prompt(self) -> str | list[Message]:
        return self.environment.prompt(self.row["prompt"])

    def reply(self, text: str) -> Reply:
        env = self.environment
        style = style_of(env.style)
        attempts = style.parse(text, env.schemas)
        if not attempts:
            return Reply(done=True)
        results = [env.call(a) for a in attempts[: env.most_calls]]
        if len(attempts) > env.most_calls:
            error = (
                f"Error: more than {env.most_calls} calls in one turn; the others were not made."
            )
            results.append(ToolResult("", error, "surplus"))
        metrics = _counts(results)
        if env.chat and env.native:
            messages = [
                {"role": "tool", "name": r.name or "error", "content": r.text} for r in results
            ]
            return Reply(messages, metrics=metrics)
        observation = style.results([r.text for r in results])
        if env.chat:
            return Reply([{"role": "user", "content": observation.strip()}], metrics=metrics)
        return Reply(observation, metrics=metrics)


def _counts(results: Sequence[ToolResult]) -> dict[str, float]:
    """Calls and errors of a turn, and errors by their kinds."""
    errors = [r.error for r in results if r.error]
    counts = {"tool_calls": float(len(results)), "tool_errors": float(len(errors))}
    for error in errors:
        counts[f"tool_errors/{error}"] = counts.get(f"tool_errors/{error}", 0.0) + 1.0
    return counts

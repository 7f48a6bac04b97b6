"""Conversations in rows: messages and tools in one form, what of them is asked, and what is
answered.

Left out: what a message looks like (`calls/messages.py`), other columns (`data.py`), the prompt
that pairs share (`implicit_prompts.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from logpi.calls.messages import conversation, tool_list, without_nulls
from logpi.rewards.text import text_of

if TYPE_CHECKING:
    from logpi.envs.task import Row

_COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected")


def in_one_form(row: Row, where: str) -> Row:
    """The row with its messages and tools in one form; ShareGPT's `conversations` as `messages`,
    its `system` the first."""
    row = dict(row)
    if "messages" not in row and isinstance(row.get("conversations"), list):
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        row["messages"] = [*system, *row.pop("conversations")]
    columns = [c for c in _COLUMNS if _structs(row.get(c))]
    row |= {c: messages_of(row[c], c, where) for c in columns}
    if row.get("chat_template_kwargs"):
        row["chat_template_kwargs"] = _said_where(
            where, "chat_template_kwargs", _options, row["chat_template_kwargs"]
        )
    if columns and row.get("tools"):
        row["tools"] = _said_where(where, "tools", tool_list, row["tools"])
        row |= {} if "messages" in row else {"template_tools": row["tools"]}
    return row


def _options(value: Any) -> Any:
    """Variables of a template, also as JSON text; nulls are Parquet's."""
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ValueError(
            f"expected names and values of the template's variables, got {str(value)[:60]!r}"
        )
    return without_nulls(found)


def _structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def messages_of(value: Any, column: str, where: str) -> list[Row]:
    """A column's messages. Raises ValueError with its place."""
    if not isinstance(value, list) or not value:
        expected = "a text, or a list of messages with role and content"
        raise ValueError(
            f"{where}: {column!r} must be {expected}, got {type(value).__name__}"
            f" {str(value)[:60]!r}"
        )
    return _said_where(where, column, conversation, value)


def _said_where(where: str, column: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{where}: {column!r}: {error}") from None


def split_demonstration(messages: list[Row], where: str) -> tuple[Any, str]:
    """A conversation as a prompt and the assistant's last message, the demonstration."""
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"{where}: 'messages' must end with the assistant's answer to something")
    return messages[:-1], text_of(messages[-1:])


def completion_of(completion: list[Row], prompt: Any, where: str) -> str | list[Row]:
    """The assistant's words; all messages if it calls tools, has thoughts of its own, or others
    speak between them."""
    calling = any(m.get("tool_calls") for m in completion)
    if calling and isinstance(prompt, str):
        raise ValueError(
            f"{where}: the completion calls tools, which a text cannot go on with: give 'prompt' as"
            " messages"
        )
    more = any(m["role"] != "assistant" or m.get("reasoning_content") for m in completion)
    return completion if calling or more else text_of(completion)


def has_content(completion: str | list[Row]) -> bool:
    """Whether there is anything to learn from: words or calls."""
    calls = isinstance(completion, list) and any(m.get("tool_calls") for m in completion)
    return calls or bool(text_of(completion).strip())

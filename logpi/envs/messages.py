"""Conversations in items: brings messages and tools into one form, and splits messages into prompt
and completion.

Left out: the form of a message (`calls/messages.py`), other columns (`data.py`), the prompt that
pairs share (`implicit_prompts.py`).
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
    """The item with its messages and tools in one form. ShareGPT's `conversations` become
    `messages`, the first of which is its `system`."""
    row = dict(row)
    if "messages" not in row and isinstance(row.get("conversations"), list):
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        row["messages"] = [*system, *row.pop("conversations")]
    columns = [c for c in _COLUMNS if _are_structs(row.get(c))]
    row |= {c: messages_of(row[c], c, where) for c in columns}
    if row.get("chat_template_kwargs"):
        row["chat_template_kwargs"] = _read_column(
            where, "chat_template_kwargs", _options, row["chat_template_kwargs"]
        )
    if columns and row.get("tools"):
        row["tools"] = _read_column(where, "tools", tool_list, row["tools"])
        row |= {} if "messages" in row else {"template_tools": row["tools"]}
    return row


def _options(value: Any) -> Any:
    """A template's variables, also from JSON text, without nulls, which Parquet adds."""
    options = json.loads(value) if isinstance(value, str) else value
    if not isinstance(options, Mapping):
        raise ValueError(
            f"expected names and values of the template's variables, got {str(value)[:60]!r}"
        )
    return without_nulls(options)


def _are_structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def messages_of(value: Any, column: str, where: str) -> list[Row]:
    """The messages of a column. Raises ValueError with their place (`where`)."""
    if not isinstance(value, list) or not value:
        expected = "a text, or a list of messages with role and content"
        raise ValueError(
            f"{where}: {column!r} must be {expected}, got {type(value).__name__}"
            f" {str(value)[:60]!r}"
        )
    return _read_column(where, column, conversation, value)


def _read_column(where: str, column: str, read: Callable[[Any], Any], value: Any) -> Any:
    """`read(value)`; its ValueError gets the place."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{where}: {column!r}: {error}") from None


def split_demonstration(messages: list[Row], where: str) -> tuple[Any, str]:
    """A conversation as a prompt and a completion, the assistant's last message."""
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(f"{where}: 'messages' must end with the assistant's answer to something")
    return messages[:-1], text_of(messages[-1:])


def completion_of(completion: list[Row], prompt: Any, where: str) -> str | list[Row]:
    """The assistant's words; all messages if they have calls or thoughts, or messages of others
    between them."""
    has_calls = any(m.get("tool_calls") for m in completion)
    if has_calls and isinstance(prompt, str):
        raise ValueError(
            f"{where}: the completion calls tools, which cannot follow a text: give 'prompt' as"
            " messages"
        )
    has_more = any(m["role"] != "assistant" or m.get("reasoning_content") for m in completion)
    return completion if has_calls or has_more else text_of(completion)


def has_content(completion: str | list[Row]) -> bool:
    """Whether there is anything to learn from: words or calls."""
    has_calls = isinstance(completion, list) and any(m.get("tool_calls") for m in completion)
    return has_calls or bool(text_of(completion).strip())

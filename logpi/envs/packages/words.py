"""A policy's turn as other libraries take it: an OpenAI message, whose calls and thought stand
apart from what it says.

Left out: the reading of calls (`calls/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logpi.calls import Call, Malformed
from logpi.calls.call import as_openai
from logpi.calls.reading import spoken

Schema = Mapping[str, Any]
THOUGHT, THOUGHT_END = "<think>", "</think>"


def thought_and_words(text: str) -> tuple[str | None, str]:
    """The thought of a turn, and what it says after it.

    A chat template may have opened the thought; one that never ends says nothing.

    >>> thought_and_words("<think>hm</think>\\n\\n4"), thought_and_words("4")
    (('hm', '4'), (None, '4'))
    >>> thought_and_words("hm</think>4"), thought_and_words("<think>hm")
    (('hm', '4'), ('hm', ''))
    """
    head, end, tail = text.partition(THOUGHT_END)
    opened = head.lstrip().startswith(THOUGHT)
    if not end and not opened:
        return None, text
    thought = head.lstrip().removeprefix(THOUGHT) if opened else head
    return thought.strip(), tail.lstrip() if end else ""


def as_message(text: str, tools: Sequence[Schema]) -> tuple[dict[str, Any], int]:
    """A turn as an assistant's message, and the number of malformed calls in it.

    Calls have the ids `call_0`, `call_1`, …; `content` is what stands before them. A turn with a
    call that cannot be read is text, as from OpenAI's servers.

    >>> tools = [{"function": {"name": "sin", "parameters": {}}}]
    >>> message, bad = as_message('So: <tool_call>{"name": "sin", "arguments": {}}</tool_call>',
    ...                           tools)
    >>> message["content"], message["tool_calls"][0]["function"], bad
    ('So:', {'name': 'sin', 'arguments': '{}'}, 0)
    """
    thought, words = thought_and_words(text)
    said, attempts = spoken(words, tools) if tools else (words, [])
    malformed = sum(isinstance(a, Malformed) for a in attempts)
    message: dict[str, Any] = {"role": "assistant", "content": words if malformed else said}
    if thought is not None:
        message["reasoning_content"] = thought
    calls = [a for a in attempts if isinstance(a, Call) and not malformed]
    if calls:
        message["tool_calls"] = [as_openai(call, f"call_{i}") for i, call in enumerate(calls)]
    return message, malformed


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages with text alone, as chat templates take them.

    Raises:
        ValueError: a part that is no text, such as an image.
    """
    return [{**m, "content": _text(m.get("content"))} for m in messages]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    kinds = [part.get("type", "?") for part in content if part.get("type") != "text"]
    if kinds:
        raise ValueError(f"its messages hold {kinds[0]}, and logpi's policies read text alone")
    return "\n".join(part["text"] for part in content)

"""Compare a chat template's output with its messages.

    refuse_omissions    refuse a template that leaves out a part that the model must read
    holds               whether an answer, with its thought, is in the output
    behind_opening      an answer behind a thought that the prompt has opened

Left out: running the template (`chat_template.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# roles whose content must reach the model
READ = ("system", "developer", "user", "tool")
WORD = re.compile(r"[A-Za-z0-9]+")
OPENED = re.compile(r"(<think(?:ing)?>|\[THINK\])\s*\Z")


def refuse_omissions(messages: Sequence[Mapping[str, Any]], text: str) -> None:
    """Refuse a template that leaves out a message's content, or its calls. Only the words of a
    tool's reply must be there: its quotes and line breaks may be escaped.

    Raises:
        ValueError: with the first such message.
    """
    for i, message in enumerate(messages):
        role = message.get("role")
        content = str(message.get("content") or "").strip() if role in READ else ""
        parts = WORD.findall(content) if role == "tool" else [content]
        if not all(part in text for part in parts):
            raise ValueError(
                f"the chat template leaves out message {i}, of the {role}: {content[:60]!r}"
            )
        names = [call["function"]["name"] for call in message.get("tool_calls") or ()]
        missing = next((name for name in names if name not in text), None)
        if missing is not None:
            raise ValueError(f"the chat template leaves out the call of message {i}: {missing!r}")


def holds(content: Any, text: str) -> bool:
    """Whether all of an answer, with its thought, is in a template's output.

    >>> holds("<think>add</think>4", "<|assistant|><think>\\nadd\\n</think>\\n\\n4")
    True
    >>> holds("<think>add</think>4", "<|assistant|>4")
    False
    """
    if not isinstance(content, str):
        return True
    head, tag, rest = content.rpartition("</think>")
    parts = [head.rpartition("<think>")[2], rest] if tag else [content]
    return all(part.strip() in text for part in parts)


def behind_opening(asked: str, answer: str) -> str:
    """An answer behind the prompt `asked`. A thought that the prompt has opened is not opened
    twice; it is closed at once if the answer has no thought.

    >>> behind_opening("…<think>\\n", "<think>\\nadd\\n</think>\\n\\n4")
    'add\\n</think>\\n\\n4'
    >>> behind_opening("…<think>\\n", "4"), behind_opening("…", "4")
    ('\\n</think>\\n\\n4', '4')
    """
    match = OPENED.search(asked)
    if match is None:
        return answer
    tag = match[1]
    if answer.lstrip().startswith(tag):
        answer = answer.lstrip()[len(tag) :]
        return answer.lstrip("\n") if match[0].endswith("\n") else answer
    closing = tag.replace("<", "</").replace("[", "[/")
    return answer if closing in answer else f"\n{closing}\n\n{answer}"

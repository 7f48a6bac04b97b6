"""Finds the style in which a chat template writes calls, by rendering one; and whether
`reading.py` can read it back.

`render` turns messages and tools into text: `ChatTemplate.text` of a model, or
`tokenizer.apply_chat_template(..., tokenize=False)`. Left out: the styles themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

from logpi.calls import STYLES, Call
from logpi.calls.reading import MARKS, read

Render = Callable[[Sequence[Any], Sequence[Any]], str]

# an unfinished mark at the end of a text
_OPENED = re.compile(r"[<\[][^<>\[\]]*\Z")
_ASKED, _SAID = "logpi asks", "logpi says so"
_CALL = Call("logpi_tool", {"key": _SAID})
_FUNCTION = {"name": _CALL.name, "arguments": dict(_CALL.arguments)}
_MESSAGES = [
    {"role": "user", "content": _ASKED},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00000", "type": "function", "function": _FUNCTION}],
    },
]
_KEY = {"type": "string", "description": "what is said"}
_PARAMETERS = {"type": "object", "properties": {"key": _KEY}, "required": ["key"]}
_TOOLS = [
    {
        "type": "function",
        "function": {"name": _CALL.name, "description": "Says it.", "parameters": _PARAMETERS},
    }
]


def _written(render: Render) -> str:
    """The assistant's calls as the template writes them, without the prefix of every turn."""
    question = _MESSAGES[:1]
    calling, speaking = (
        render([*question, m], _TOOLS).rpartition(_ASKED)[2]
        for m in (_MESSAGES[1], {"role": "assistant", "content": _SAID})
    )
    head = commonprefix([calling, speaking])
    return calling[len(_OPENED.sub("", head)) :]


def style_of_template(render: Render) -> str | None:
    """The name of the style that writes calls as the template does.

    None if no style does, or if the template shows no calls. Styles are compared up to the end of
    the first value and without white space, as the template may add an id after it.
    """
    turn, lengths = _bare(_written(render)), {}
    for name, style in STYLES.items():
        whole = "" if name == "search" else _bare(style.write([_CALL]))
        begin = whole[: whole.find(_bare(_SAID)) + len(_bare(_SAID))]
        at = turn.find(begin) if begin else -1
        if at >= 0 and (begin.startswith(tuple(MARKS)) or not turn[:at].endswith(tuple(MARKS))):
            lengths[name] = len(begin)
    return max(lengths, key=lambda n: lengths[n], default=None)


def unread(render: Render) -> str:
    """The call as the template writes it, if it cannot be read back.

    "" if it can, or if the template shows no calls.
    """
    try:
        turn = _written(render)
    # the template refuses calls
    except ValueError:
        return ""
    return turn if _SAID in turn and read(turn, _TOOLS) != [_CALL] else ""


def _bare(text: str) -> str:
    return "".join(text.split())

"""Conversations and tools as data sets have them, brought to the one form that chat templates read.

    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}   OpenAI's
    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
                                                                                     its old form
    {"from": "function_call", "value": "{\\"name\\": \\"f\\", \\"arguments\\": {}}"}   ShareGPT's
    {"role": "user", "content": [{"type": "text", "text": "1+1?"}]}                content in parts

become messages with `role`, `content` as text and, where there are calls, `tool_calls` with
arguments as objects; all other keys stay. A message in that form stays as it is. Arrow's and
Parquet's structs have every key that any of their kind has, null where one has none:
`without_nulls` removes these. In JSON lines a null is meant, and stays. `forms` has what else a
template may need. Left out: which roles a template takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from logpi.calls.call import Call, dumps

Message = dict[str, Any]

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
    "developer": "system",
}
_SHAREGPT = {"from": "role", "value": "content"}
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_TEXTS = ("text", "input_text", "output_text")


def without_nulls(value: Any) -> Any:
    """`value` without keys that are null, all the way down; nulls in lists stay.

    >>> without_nulls({"a": None, "b": [{"c": None, "d": 0}, None]})
    {'b': [{'d': 0}, None]}
    """
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list | tuple) else value


def from_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Parquet's or of `datasets`, its lists of structs without nulls: conversations,
    tools, calls."""
    return {k: without_nulls(v) if _structs(v) else v for k, v in row.items()}


def _structs(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, Mapping) for v in value)


def conversation(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Messages in one form.

    Raises:
        ValueError: one without a role, or with content that is no text; a call without a name, or
            whose arguments are no object.

    >>> calling = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    >>> conversation([{"from": "human", "value": "Hi"}, calling])[1]
    {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name':
    'f', 'arguments': {}}}]}
    """
    return [_message(m, number) for number, m in enumerate(messages, 1)]


def _message(message: Any, number: int) -> Message:
    try:
        return _normal(message)
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from None


def _normal(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(
            f"expected role and content, got {type(message).__name__} {str(message)[:60]!r}"
        )
    renamed = {} if "role" in message else _SHAREGPT
    made: Message = {str(renamed.get(k, k)): v for k, v in message.items()}
    role = made.get("role")
    if not isinstance(role, str):
        raise ValueError(
            f"expected role and content, found {', '.join(map(str, message)) or 'nothing'}"
        )
    if role == "function_call":
        made |= {"role": "assistant", "content": "", "tool_calls": made.get("content")}
    made["role"] = _ROLES.get(str(made["role"]), made["role"])
    calls = _listed(made.pop("tool_calls", None)) + _listed(made.pop("function_call", None))
    thought = made.get("reasoning_content") or made.get("reasoning") or made.get("thinking")
    made |= {"reasoning_content": thought} if isinstance(thought, str) else {}
    content = _content(made, silent=bool(calls or thought))
    rest = {k: v for k, v in made.items() if k not in ("role", "content")}
    return {
        "role": made["role"],
        "content": content,
        **rest,
        **({"tool_calls": [_call(c) for c in calls]} if calls else {}),
    }


def _listed(calls: Any) -> list[Any]:
    """Calls as a list: from the text of one, or from a single call."""
    if isinstance(calls, str):
        calls = _decoded(calls, "tool calls") if calls.strip() else None
    return list(calls) if isinstance(calls, list | tuple) else [calls] if calls else []


def _content(message: Message, silent: bool) -> str:
    """What a message says. silent: it need not say anything."""
    content = message.get("content")
    if content is None and silent:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and (message["role"] != "tool" or _parts(content)):
        return "".join(map(_part, content))
    if message["role"] == "tool" and content is not None:
        # a tool's result that is not text is shown as JSON, as a tool's here is
        return dumps(content)
    found = "nothing" if content is None else f"{type(content).__name__} {str(content)[:60]!r}"
    raise ValueError(
        f"the content of role {message['role']!r} must be a text, or a list of parts of type text,"
        f" got {found}"
    )


def _parts(content: Sequence[Any]) -> bool:
    return bool(content) and all(isinstance(p, Mapping) and "type" in p for p in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind not in _TEXTS or not isinstance(text, str):
        raise ValueError(f"content has a part of type {str(kind)[:40]!r}; only text is read")
    return text


def _call(call: Any) -> Message:
    """One call: `{"type": "function", "function": {"name", "arguments"}}`, with what else it has,
    an id say."""
    inner = call.get("function") if isinstance(call, Mapping) else None
    around = (
        {k: v for k, v in call.items() if k != "function"} if isinstance(inner, Mapping) else {}
    )
    inner = inner if isinstance(inner, Mapping) else call
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str):
        raise ValueError(
            f"a tool call needs a name, and arguments as a JSON object, got {str(call)[:80]!r}"
        )
    given = inner.get("arguments", inner.get("parameters"))
    arguments = (
        _decoded(given, f"the arguments of {name!r}")
        if isinstance(given, str) and given.strip()
        else given or {}
    )
    if not isinstance(arguments, Mapping):
        raise ValueError(
            f"a tool call needs a name, and arguments as a JSON object, got {str(call)[:80]!r}"
        )
    kept = around if around else {k: v for k, v in inner.items() if k in ("id", "type")}
    return {"type": "function", **kept, "function": {"name": name, "arguments": dict(arguments)}}


def calls_of(calls: Any) -> list[Call]:
    """Calls as data have them: a list, one, or JSON text; OpenAI's, or name and arguments (or
    parameters). Raises ValueError.

    >>> calls_of('{"name": "f", "parameters": {"x": 1}}')
    [Call(name='f', arguments={'x': 1})]
    """
    inner = (_call(c)["function"] for c in _listed(calls))
    return [Call(f["name"], f["arguments"]) for f in inner]


def _decoded(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what}: not valid JSON, though a text: {text[:60]!r}") from None


def tool_list(tools: Any) -> list[Any]:
    """Tools as a list of schemas: from the JSON text of one, from texts of a schema each, from bare
    functions.

    Raises:
        ValueError: a text that is no JSON, a tool without a name.

    >>> tool_list('[{"name": "f", "parameters": {}}]')
    [{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]
    """
    tools = (
        (_decoded(tools, "the list") if tools.strip() else []) if isinstance(tools, str) else tools
    )
    if isinstance(tools, Mapping):
        tools = [tools]
    if not isinstance(tools, Sequence):
        raise ValueError(
            f"'tools' must be a list of schemas, or its JSON text, got {type(tools).__name__}"
        )
    return [_tool(t) for t in tools]


def _tool(tool: Any) -> Any:
    tool = _decoded(tool, "a tool") if isinstance(tool, str) else tool
    if callable(tool):
        # a Python function, whose schema the template makes
        return tool
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValueError(
            f"a tool needs a name, a description and parameters, got {str(tool)[:80]!r}"
        )
    return dict(tool) if inner is not tool else {"type": "function", "function": dict(tool)}


def forms(messages: Iterable[Mapping[str, Any]]) -> Iterator[list[Message]]:
    """The messages as they are and, where they call tools, the other forms that some templates ask
    for, likeliest first.

    Mistral's want ids of nine characters; DeepSeek's want arguments as a text, though they write it
    as JSON.
    """
    one = [dict(m) for m in messages]
    yield one
    if any(m.get("tool_calls") for m in one):
        yield _numbered(one)
        yield _as_texts(one)
        yield _as_texts(_numbered(one))


def _as_texts(messages: Iterable[Message]) -> list[Message]:
    """Messages with calls' arguments as JSON text."""
    made = []
    for message in messages:
        calls = message.get("tool_calls") or ()
        inner = ({**c["function"], "arguments": dumps(c["function"]["arguments"])} for c in calls)
        texts = [{**c, "function": f} for c, f in zip(calls, inner, strict=True)]
        made.append({**message, "tool_calls": texts} if texts else message)
    return made


def _numbered(messages: Iterable[Message]) -> list[Message]:
    """Messages with ids of nine characters for calls and their results.

    Ids of that form stay; others, and missing ones, become `call00000`, `call00001`, … A result
    without an id answers the first call that no result has answered yet.

    >>> calling = {"role": "assistant", "tool_calls": [{"id": "c"}]}
    >>> [m.get("tool_call_id") for m in _numbered([calling, {"role": "tool"}])]
    [None, 'call00000']
    """
    made: list[Message] = []
    names: dict[str, str] = {}
    waiting: list[str] = []
    number = 0
    for message in messages:
        calls = []
        for call in message.get("tool_calls") or ():
            old = str(call.get("id") or f"\0{number}")
            names[old] = old if _NINE.fullmatch(old) else f"call{number:05d}"
            calls.append({**call, "id": names[old]})
            waiting.append(names[old])
            number += 1
        answered = {}
        if message.get("role") == "tool":
            told = names.get(str(message.get("tool_call_id"))) or (
                waiting[0] if waiting else "call00000"
            )
            answered = {"tool_call_id": told}
            waiting = [w for w in waiting if w != told]
        made.append({**message, **({"tool_calls": calls} if calls else {}), **answered})
    return made

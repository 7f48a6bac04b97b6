"""Brings the conversations and tools of data sets to the one form that chat templates read.

    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}   OpenAI's
    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
                                                                                     its old form
    {"from": "function_call", "value": "{\\"name\\": \\"f\\", \\"arguments\\": {}}"}   ShareGPT's
    {"role": "user", "content": [{"type": "text", "text": "1+1?"}]}                content in parts

become messages with `role`, `content` as text and, if there are calls, `tool_calls` whose arguments
are objects. All other keys stay. Arrow and Parquet give each struct of a column the same keys and
fill the missing ones with null: `without_nulls` removes those. In JSON lines a null is meant, and
stays. `forms` has the variants that some templates need. Left out: which roles a template accepts.
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
_NO_TEXTS = ("role", "type", "id", "tool_call_id")
_TEXTS = ("text", "input_text", "output_text")


def without_nulls(value: Any) -> Any:
    """`value` without keys that are null, at every depth. Nulls in lists stay.

    >>> without_nulls({"a": None, "b": [{"c": None, "d": 0}, None]})
    {'b': [{'d': 0}, None]}
    """
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list | tuple) else value


def from_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Parquet or of `datasets` without the nulls in lists of structs: conversations,
    tools, calls."""

    def has_structs(value: Any) -> bool:
        return isinstance(value, list) and any(isinstance(v, Mapping) for v in value)

    return {k: without_nulls(v) if has_structs(v) else v for k, v in row.items()}


def conversation(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The messages in one form.

    Raises:
        ValueError: a message without a role, or whose content is not text; a call without a name,
            or whose arguments are not an object.

    >>> calling = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    >>> conversation([{"from": "human", "value": "Hi"}, calling])[1]
    {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name':
    'f', 'arguments': {}}}]}
    """
    normal: list[Message] = []
    for number, message in enumerate(messages, 1):
        try:
            normal.append(_normal(message))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from None
    return normal


def _normal(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(
            f"expected role and content, got {type(message).__name__} {str(message)[:60]!r}"
        )
    renamed = {} if "role" in message else _SHAREGPT
    fields: Message = {str(renamed.get(k, k)): v for k, v in message.items()}
    role = fields.get("role")
    if not isinstance(role, str):
        raise ValueError(
            f"expected role and content, found {', '.join(map(str, message)) or 'nothing'}"
        )
    if role == "function_call":
        role = "assistant"
        fields |= {"content": "", "tool_calls": fields.get("content")}
    role = _ROLES.get(role, role)
    calls = _listed(fields.pop("tool_calls", None)) + _listed(fields.pop("function_call", None))
    thought = fields.get("reasoning_content") or fields.get("reasoning") or fields.get("thinking")
    content = _content(role, fields.get("content"), silent=bool(calls or thought))
    fields |= {"reasoning_content": thought} if isinstance(thought, str) else {}
    fields |= {"tool_calls": [_call(c) for c in calls]} if calls else {}
    return {"role": role, "content": content} | {
        k: v for k, v in fields.items() if k not in ("role", "content")
    }


def _listed(calls: Any) -> list[Any]:
    """Calls as a list, from a list, from a single call, or from the JSON text of either."""
    if isinstance(calls, str):
        calls = _decoded(calls, "tool calls") if calls.strip() else None
    return list(calls) if isinstance(calls, list | tuple) else [calls] if calls else []


def _content(role: str, content: Any, silent: bool) -> str:
    """The text of a message's content. `silent` allows None."""
    if content is None and silent:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and (role != "tool" or _parts(content)):
        return "".join(map(_part, content))
    # a tool's result that is not text becomes JSON, as the library's own tools write it
    if role == "tool" and content is not None:
        return dumps(content)
    actual = "nothing" if content is None else f"{type(content).__name__} {str(content)[:60]!r}"
    raise ValueError(
        f"the content of role {role!r} must be a text, or a list of parts of type text,"
        f" got {actual}"
    )


def _parts(content: Sequence[Any]) -> bool:
    return bool(content) and all(isinstance(p, Mapping) and "type" in p for p in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    fields = part if isinstance(part, Mapping) else {"type": type(part).__name__}
    kind, text = fields.get("type"), fields.get("text")
    if kind not in _TEXTS or not isinstance(text, str):
        raise ValueError(f"content has a part of type {str(kind)[:40]!r}; only text is read")
    return text


def _call(call: Any) -> Message:
    """One call as `{"type": "function", "function": {"name", "arguments"}}`, and its other keys,
    such as an id."""
    outer = call if isinstance(call, Mapping) else {}
    inner = outer["function"] if isinstance(outer.get("function"), Mapping) else outer
    name, arguments = inner.get("name"), inner.get("arguments", inner.get("parameters"))
    if isinstance(name, str) and isinstance(arguments, str) and arguments.strip():
        arguments = _decoded(arguments, f"the arguments of {name!r}")
    arguments = arguments or {}
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ValueError(
            f"a tool call needs a name, and arguments as a JSON object, got {str(call)[:80]!r}"
        )
    around = {k: v for k, v in outer.items() if k != "function"} if inner is not outer else {}
    kept = around or {k: v for k, v in inner.items() if k in ("id", "type")}
    return {"type": "function", **kept, "function": {"name": name, "arguments": dict(arguments)}}


def texts(value: Any) -> Iterator[str]:
    """The texts that a model may read of messages, tools or a plain prompt.

    >>> list(texts([{"role": "user", "content": "1+1"}])), list(texts("2"))
    (['1+1'], ['2'])
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from () if key in _NO_TEXTS else texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def calls_of(calls: Any) -> list[Call]:
    """The calls of a data set's column: a list, one call, or JSON text. Raises ValueError.

    A call is OpenAI's, or an object with a name and arguments (or parameters).

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
    """Tools as a list of schemas: from a list, its JSON text, or one schema.

    An item may be a schema, the JSON text of one, or a Python function.

    Raises:
        ValueError: a text that is not JSON, a tool without a name.

    >>> tool_list('[{"name": "f", "parameters": {}}]')
    [{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]
    """
    if isinstance(tools, str):
        tools = _decoded(tools, "the list") if tools.strip() else []
    if isinstance(tools, Mapping):
        tools = [tools]
    if not isinstance(tools, Sequence):
        raise ValueError(
            f"'tools' must be a list of schemas, or its JSON text, got {type(tools).__name__}"
        )
    return [_tool(t) for t in tools]


def _tool(tool: Any) -> Any:
    tool = _decoded(tool, "a tool") if isinstance(tool, str) else tool
    # the chat template makes a schema of a Python function
    if callable(tool):
        return tool
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValueError(
            f"a tool needs a name, a description and parameters, got {str(tool)[:80]!r}"
        )
    return dict(tool) if inner is not tool else {"type": "function", "function": dict(tool)}


def forms(messages: Iterable[Mapping[str, Any]]) -> Iterator[list[Message]]:
    """The messages as they are; if they call tools, also the variants that some templates need.

    The likeliest variant comes first. Mistral's templates need ids of nine characters; DeepSeek's
    need arguments as JSON text.
    """
    plain = [dict(m) for m in messages]
    yield plain
    if any(m.get("tool_calls") for m in plain):
        numbered = _numbered(plain)
        yield from (numbered, _as_texts(plain), _as_texts(numbered))


def _as_texts(messages: Iterable[Message]) -> list[Message]:
    """The messages, with the arguments of calls as JSON text."""

    def as_text(call: Message) -> Message:
        inner = call["function"]
        return {**call, "function": {**inner, "arguments": dumps(inner["arguments"])}}

    return [
        {**m, "tool_calls": [as_text(c) for c in m["tool_calls"]]} if m.get("tool_calls") else m
        for m in messages
    ]


def _numbered(messages: Iterable[Message]) -> list[Message]:
    """The messages, with ids of nine characters for calls and their results.

    Ids of that form stay. Other and missing ids become `call00000`, `call00001`, … A result without
    an id answers the first call that has no result yet.

    >>> calling = {"role": "assistant", "tool_calls": [{"id": "c"}]}
    >>> [m.get("tool_call_id") for m in _numbered([calling, {"role": "tool"}])]
    [None, 'call00000']
    """
    numbered: list[Message] = []
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
        message = {**message, "tool_calls": calls} if calls else message
        if message.get("role") == "tool":
            first = waiting[0] if waiting else "call00000"
            answered = names.get(str(message.get("tool_call_id"))) or first
            message = {**message, "tool_call_id": answered}
            waiting = [w for w in waiting if w != answered]
        numbered.append(message)
    return numbered

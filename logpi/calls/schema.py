"""JSON schemas of tools: makes one from a Python function, renames the types of other dialects, and
converts text to the type that a schema gives.

Left out: whether a value fits a schema (`json_schema.py`).
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

from logpi.calls.json_schema import ALIASES, is_type, types_of
from logpi.calls.pythonic import python_value

_PLAIN = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict: "object",
    list: "array",
}


def from_function(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of a function as a tool.

    It has the function's name, the docstring's first paragraph, and the parameters with their type
    hints and `Args:` lines.

    Raises:
        ValueError: no docstring; a parameter without a type hint, without a name (*args), or of a
            type that JSON lacks.

    >>> def add(a: int, b: int = 0) -> int:
    ...     '''Adds two numbers.
    ...
    ...     Args:
    ...         a: the first
    ...     '''
    >>> from_function(add)["function"]["parameters"]["properties"]
    {'a': {'type': 'integer', 'description': 'the first'}, 'b': {'type': 'integer', 'default': 0}}
    """
    name = getattr(function, "__name__", type(function).__name__)
    text = inspect.getdoc(function) if inspect.isroutine(function) else None
    if not text:
        raise ValueError(
            f"tool {name!r} needs a docstring: its first lines are what the model reads of it"
        )
    hints, notes = typing.get_type_hints(function), _arguments(text)
    properties, required = {}, []
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
            raise ValueError(
                f"tool {name!r}: a model gives arguments by name; write parameter {p.name!r}"
                " without * or /"
            )
        if p.name not in hints:
            raise ValueError(
                f"tool {name!r}: parameter {p.name!r} has no type hint; write {p.name}: str, int,"
                " list[float], …"
            )
        properties[p.name] = _of(hints[p.name], f"tool {name!r}, parameter {p.name!r}")
        properties[p.name] |= {"description": notes[p.name]} if p.name in notes else {}
        if p.default is p.empty:
            required.append(p.name)
        elif _jsonable(p.default):
            properties[p.name]["default"] = p.default
    parameters = {"type": "object", "properties": properties, "required": required}
    description = re.split(r"\n\s*\n|\n\s*Args:", text)[0].replace("\n", " ").strip()
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def _arguments(docstring: str) -> dict[str, str]:
    """The `name: description` entries of a Google-style Args section. A line with a deeper indent
    continues the entry."""
    _, heading, section = docstring.partition("Args:\n")
    notes: dict[str, str] = {}
    last, width = "", 0
    for line in section.splitlines() if heading else ():
        indent = len(line) - len(line.lstrip())
        entry = re.match(r"\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)
        if not line.strip() or indent == 0:
            break
        if entry and (not width or indent <= width):
            last, width = entry[1], indent
            notes[last] = entry[2].strip()
        elif last:
            notes[last] += " " + line.strip()
    return notes


def _of(hint: Any, where: str) -> dict[str, Any]:
    """The schema of a type hint."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal:
        kinds = {_PLAIN.get(type(v), "any") for v in inner}
        return {"type": kinds.pop() if len(kinds) == 1 else sorted(kinds), "enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(t, where) for t in inner]}
    if origin in (list, tuple, set, Sequence, typing.get_origin(Sequence[int])):
        of = [t for t in inner if t is not Ellipsis]
        return {"type": "array", "items": _of(of[0], where)} if of else {"type": "array"}
    if origin in (dict, Mapping, typing.get_origin(Mapping[str, int])):
        return {"type": "object", "additionalProperties": _of(inner[1], where)}
    if typing.is_typeddict(hint):
        properties = {k: _of(t, where) for k, t in typing.get_type_hints(hint).items()}
        return {
            "type": "object",
            "properties": properties,
            "required": sorted(hint.__required_keys__),
        }
    raise ValueError(
        f"{where}: JSON has no {getattr(hint, '__name__', hint)}; use str, int, float, bool, list,"
        " dict, Literal or a union"
    )


def _jsonable(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def standard(schema: Any) -> Any:
    """A schema with JSON Schema's type names in place of BFCL's (dict, float, tuple), at every
    depth.

    >>> standard({"type": "dict", "properties": {"x": {"type": "float"}}})
    {'type': 'object', 'properties': {'x': {'type': 'number'}}}
    """
    if isinstance(schema, list):
        return [standard(s) for s in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {k: standard(v) for k, v in schema.items()}
    kind = renamed.get("type")
    if kind == "any":
        renamed.pop("type")
    elif isinstance(kind, str):
        renamed["type"] = ALIASES.get(kind, kind)
    return renamed


def read(text: str, schema: Mapping[str, Any]) -> Any:
    """`text` as a value of the schema's type; the text itself if it is not of that type.

    >>> read("3", {"type": "integer"}), read("3", {"type": "string"})
    (3, '3')
    >>> read("three", {"type": "integer"})
    'three'
    """
    options = schema.get("anyOf", [schema])
    names = {name for option in options for name in types_of(option)}
    if names <= {"string", "any"}:
        return text
    plain = {"true": "true", "false": "false", "none": "null", "null": "null"}.get(
        text.strip().lower(), text.strip()
    )
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        value = _as_python(plain)
    return value if any(is_type(value, name) for name in names) else text


def _as_python(text: str) -> Any:
    """A list or dict in Python's notation, which some templates use; any other text as it is."""
    try:
        return python_value(text) if text[:1] in ("{", "[") else text
    except ValueError:
        return text

"""Regular expressions and JSON schemas against texts, as a worker process runs them. Standard
library only.

Left out: keywords of JSON Schema beyond `_CHECKS`, which `unknown` names, and the deadline
(`processes.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

MAX_TEXT = 1_000_000
_NOTES = {
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "$comment",
}
_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def matches(prompts, completions, *, pattern, search, flags) -> list[float | None]:
    """1.0 where the text matches its pattern."""
    rows = zip(completions, pattern, search, flags, strict=True)
    return [
        None if not p else float(bool((re.search if s else re.fullmatch)(p, c, f)))
        for c, p, s, f in rows
    ]


def fits(prompts, completions, *, schema) -> list[float | None]:
    """1.0 where the text is JSON that fits its schema."""
    return [
        None if not s else float(_fits(c, json.loads(s)))
        for c, s in zip(completions, schema, strict=True)
    ]


def _fits(text: str, schema: Any) -> bool:
    block = _BLOCK.findall(text)
    try:
        value = (
            json.loads(block[-1] if block else text, parse_constant=_refuse)
            if len(text) <= MAX_TEXT
            else _refuse("")
        )
        return valid(value, schema, schema)
    except (ValueError, RecursionError, OverflowError):  # 1e999 is JSON, and infinite here
        return False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def unknown(schema: Any) -> list[str]:
    """The keywords of a schema that `valid` would have to pass over.

    Raises:
        ValueError: a keyword is set to what JSON Schema does not allow: `{"type": "int"}`,
            `{"required": "name"}`.
    """
    strange = _unknown(schema)
    for at in _references(schema):
        if not at.startswith("#"):
            raise ValueError(f"$ref {at!r} is outside of the schema")
        try:
            _target(at, schema)
        except (KeyError, TypeError):
            raise ValueError(f"$ref {at!r} is not in the schema") from None
    return strange


def _references(schema: Any) -> list[str]:
    """Every $ref in it."""
    if isinstance(schema, list):
        return [r for x in schema for r in _references(x)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [
        r for k, x in schema.items() if k not in ("enum", "const") for r in _references(x)
    ]


def _unknown(schema: Any) -> list[str]:
    if isinstance(schema, bool):
        return []
    if not isinstance(schema, dict):
        raise ValueError(f"a schema is an object or a boolean, not {str(schema)[:60]!r}")
    for key, value in schema.items():
        wanted, fits = _SETTINGS.get(key, ("", lambda _: True))
        if not fits(value):
            raise ValueError(f"{key} must be {wanted}, not {json.dumps(value)[:60]}")
    strange = set(schema) - set(_CHECKS) - _NOTES - {"additionalProperties"}
    below = [
        s for key in ("properties", "$defs", "definitions") for s in schema.get(key, {}).values()
    ]
    below += [schema[key] for key in ("items", "not", "additionalProperties") if key in schema]
    below += [s for key in ("anyOf", "oneOf", "allOf", "prefixItems") for s in schema.get(key, [])]
    return sorted(strange.union(*[_unknown(s) for s in below]))


def valid(value: Any, schema: Any, root: Any) -> bool:
    """Whether a JSON value fits a schema (JSON Schema 2020-12, the keywords of `_CHECKS`)."""
    if isinstance(schema, bool):
        return schema
    return all(check(value, schema, root) for key, check in _CHECKS.items() if key in schema)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: _number(v) and v == int(v),
    "number": lambda v: _number(v),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(value: Any) -> Any:
    """Equal for values that are equal as JSON (1 is 1.0 and is not true), and hashable: many items
    are told apart in linear time."""
    if isinstance(value, list):
        return "array", *map(_key, value)
    if isinstance(value, dict):
        return "object", frozenset((k, _key(v)) for k, v in value.items())
    return isinstance(value, bool), value


def _kinds(schema: dict) -> list[str]:
    return schema["type"] if isinstance(schema["type"], list) else [schema["type"]]


def _object(value: dict, schema: dict, root: Any) -> bool:
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    return all(valid(v, known.get(k, rest), root) for k, v in value.items())


def _array(value: list, schema: dict, root: Any) -> bool:
    first = schema.get("prefixItems", [])
    return all(
        valid(v, first[i] if i < len(first) else schema.get("items", True), root)
        for i, v in enumerate(value)
    )


def _unique(value: list) -> bool:
    return len(set(map(_key, value))) == len(value)


def _refers(value: Any, schema: dict, root: Any) -> bool:
    return valid(value, _target(schema["$ref"], root), root)


def _target(at: str, root: Any) -> Any:
    """The part of a schema that a $ref names. Raises KeyError or TypeError if there is none."""
    for part in at.removeprefix("#").split("/")[1:]:
        root = root[part.replace("~1", "/").replace("~0", "~")]
    return root


def _only(
    kind: Callable[[Any], bool], check: Callable[[Any, dict], bool]
) -> Callable[[Any, dict, Any], bool]:
    """A check of values of one kind; others pass, as JSON Schema has it."""
    return lambda value, schema, root: not kind(value) or check(value, schema)


_text, _list, _dict = _TYPES["string"], _TYPES["array"], _TYPES["object"]
_CHECKS: dict[str, Callable[[Any, dict, Any], bool]] = {
    "type": lambda v, s, r: any(_TYPES[k](v) for k in _kinds(s)),
    "enum": lambda v, s, r: _key(v) in map(_key, s["enum"]),
    "const": lambda v, s, r: _key(v) == _key(s["const"]),
    "properties": lambda v, s, r: not _dict(v) or _object(v, s, r),
    "additionalProperties": lambda v, s, r: not _dict(v) or _object(v, s, r),
    "required": _only(_dict, lambda v, s: all(k in v for k in s["required"])),
    "minProperties": _only(_dict, lambda v, s: len(v) >= s["minProperties"]),
    "maxProperties": _only(_dict, lambda v, s: len(v) <= s["maxProperties"]),
    "items": lambda v, s, r: not _list(v) or _array(v, s, r),
    "prefixItems": lambda v, s, r: not _list(v) or _array(v, s, r),
    "minItems": _only(_list, lambda v, s: len(v) >= s["minItems"]),
    "maxItems": _only(_list, lambda v, s: len(v) <= s["maxItems"]),
    "uniqueItems": _only(_list, lambda v, s: not s["uniqueItems"] or _unique(v)),
    "minLength": _only(_text, lambda v, s: len(v) >= s["minLength"]),
    "maxLength": _only(_text, lambda v, s: len(v) <= s["maxLength"]),
    "pattern": _only(_text, lambda v, s: re.search(s["pattern"], v) is not None),
    "minimum": _only(_number, lambda v, s: v >= s["minimum"]),
    "maximum": _only(_number, lambda v, s: v <= s["maximum"]),
    "exclusiveMinimum": _only(_number, lambda v, s: v > s["exclusiveMinimum"]),
    "exclusiveMaximum": _only(_number, lambda v, s: v < s["exclusiveMaximum"]),
    "multipleOf": _only(
        _number, lambda v, s: abs(v / s["multipleOf"] - round(v / s["multipleOf"])) < 1e-9
    ),
    "anyOf": lambda v, s, r: any(valid(v, x, r) for x in s["anyOf"]),
    "oneOf": lambda v, s, r: sum(valid(v, x, r) for x in s["oneOf"]) == 1,
    "allOf": lambda v, s, r: all(valid(v, x, r) for x in s["allOf"]),
    "not": lambda v, s, r: not valid(v, s["not"], r),
    "$ref": _refers,
}


def _regex(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except (re.error, OverflowError, RecursionError):
        return False


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)


# keyword -> what it may be set to, in words and as a check
_OBJECT = ("an object", _dict)
_SCHEMAS = ("a list of schemas", lambda v: isinstance(v, list) and bool(v))
_COUNT = ("a whole number from 0", lambda v: _TYPES["integer"](v) and v >= 0)
_A_NUMBER = ("a number", _number)
_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "type": (
        f"of {', '.join(_TYPES)}, or a list of these",
        lambda v: v in list(_TYPES) or (_names(v) and set(v) <= set(_TYPES)),
    ),
    "enum": ("a list", _list),
    "required": ("a list of names", _names),
    "uniqueItems": ("true or false", _TYPES["boolean"]),
    "pattern": ("a regular expression", _regex),
    "multipleOf": ("a number above 0", lambda v: _number(v) and v > 0),
    "$ref": ("a text", _text),
    **dict.fromkeys(("properties", "$defs", "definitions"), _OBJECT),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(
        ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), _COUNT
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _A_NUMBER),
}

"""Checks values and schemas by the library `jsonschema`, and says in one line what is wrong.

Three things differ from the library. Nothing comes from the network. `uniqueItems` takes linear
time on a policy's values, and 0.3 is a multiple of 0.1. Messages name the place and fit on a line.
Left out: which schema a tool has (`schema.py`), and deadlines. A `pattern` may run for ever on a
hostile text, so rewards check schemas in a worker process and tools ignore patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from logpi.errors import did_you_mean

DEEPEST = 32
_ANNOTATIONS = set(
    "$schema $id $anchor $dynamicAnchor $recursiveAnchor $vocabulary $comment $defs definitions"
    " title description default examples deprecated readOnly writeOnly contentEncoding"
    " contentMediaType contentSchema then else minContains maxContains".split()
)
# keyword -> the requirement on a value, with the keyword's own value as {}
_MUST = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be above {}",
    "exclusiveMaximum": "must be below {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have {} characters or more",
    "maxLength": "must have {} characters or fewer",
    "minItems": "must have {} items or more",
    "maxItems": "must have {} items or fewer",
    "uniqueItems": "must not have an item twice",
    "minProperties": "must have {} properties or more",
    "maxProperties": "must have {} properties or fewer",
    "pattern": "must match {}",
    "format": "must be of the format {}",
    "const": "must be {}",
    "enum": "must be one of {}",
}


def problem(value: Any, schema: Any) -> str | None:
    """The first fault of a tool's arguments, in words for the model, or None.

    It ignores patterns and references out of the schema. An argument that the schema does not list
    is a fault unless the schema allows others.

    >>> problem({"a": "1"}, {"properties": {"a": {"type": "integer"}}})
    "'a' must be of type integer, got '1'"
    >>> problem({"b": 1}, {"properties": {"a": {"type": "integer"}}})
    "there is no 'b'; there are: a"
    """
    from referencing import Registry

    if _depth(value) > DEEPEST:
        return "the value is nested too deep"
    try:
        return _first(_tools_class()(schema, registry=Registry()).iter_errors(value))
    except RecursionError:
        return "the value is nested too deep"
    # the schema itself is at fault: the tool will report what it lacks
    except (TypeError, ValueError, AttributeError, KeyError):
        return None


def fits(value: Any, schema: Any) -> bool:
    """Whether a JSON value fits a schema. Raises RecursionError if either is nested too deep."""
    return _validator(schema).is_valid(value)


def schema_problem(schema: Any) -> str | None:
    """The first fault of a schema, or None. Raises RecursionError if it is nested too deep.

    Faults are a keyword with an impossible value, an unknown keyword, and a $ref to nothing.

    >>> schema_problem({"minLength": -1})
    "'minLength' must be at least 0, got -1"
    >>> schema_problem({"requird": ["a"]})
    'there is no keyword requird; did you mean required?'
    """
    if not isinstance(schema, bool | Mapping):
        return f"a schema is an object or a boolean, not {short(schema)}"
    validator = type(_validator(schema))
    checker = validator(validator.META_SCHEMA, format_checker=validator.FORMAT_CHECKER)
    wrong = _first(checker.iter_errors(schema))
    return wrong or _unknown_keyword(schema, validator) or _missing_reference(schema)


def short(value: Any, most: int = 60) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= most else text[:most] + "…"


# --- schemas ---


def _specification(schema: Any) -> Any:
    """The draft of JSON Schema that a schema follows."""
    from referencing.jsonschema import DRAFT202012, specification_with

    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    return specification_with(named, default=DRAFT202012) if isinstance(named, str) else DRAFT202012


def _subschemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and the schemas inside it."""
    if isinstance(schema, Mapping):
        yield schema
        for inner in _specification(schema).subresources_of(schema):
            yield from _subschemas(inner)


def _unknown_keyword(schema: Any, validator: Any) -> str | None:
    known = _ANNOTATIONS | set(validator.VALIDATORS)
    for inner in _subschemas(schema):
        for name in inner:
            if name not in known and not name.startswith("x-"):
                return f"there is no keyword {name}{did_you_mean(name, sorted(known))}"
    return None


def _missing_reference(schema: Any) -> str | None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    resource = _specification(schema).create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for inner in _subschemas(schema):
        reference = inner.get("$ref")
        if isinstance(reference, str):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                return f"$ref {short(reference)} is not in the schema"
    return None


# --- validators ---


def _validator(schema: Any) -> Any:
    """A validator of the schema's draft, without network access."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    return _extended(validator_for(schema, Draft202012Validator))(schema, registry=Registry())


@cache
def _extended(draft: Any) -> Any:
    from jsonschema.validators import extend

    return extend(draft, {"uniqueItems": _unique, "multipleOf": _multiple})


@cache
def _tools_class() -> Any:
    """The validator class for the arguments of tools."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    own = {"type": _type, "properties": _properties, "$ref": _reference}
    ignored = dict.fromkeys(("pattern", "patternProperties"), lambda *_: ())
    return extend(_extended(Draft202012Validator), own | ignored)


def _error(message: str, **details: Any) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message, **details)


def _key(value: Any) -> Any:
    """A hashable key; equal for values that are equal as JSON (1 is 1.0 and is not true)."""
    if isinstance(value, list):
        return "array", *map(_key, value)
    if isinstance(value, dict):
        return "object", frozenset((k, _key(v)) for k, v in value.items())
    return isinstance(value, bool), value


def _unique(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[Any]:
    """`uniqueItems` in linear time; the library's is quadratic on items without an order."""
    if wanted and validator.is_type(value, "array") and len({*map(_key, value)}) < len(value):
        yield _error("an item twice")


def _multiple(validator: Any, step: float, value: Any, schema: Any) -> Iterator[Any]:
    """`multipleOf` up to 1e-9 of a step, so that 0.3 is three times 0.1."""
    if validator.is_type(value, "number"):
        quotient = value / step
        if abs(quotient - round(quotient)) >= 1e-9:
            yield _error("no multiple")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# BFCL's type names -> JSON Schema's
ALIASES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "tuple": "array",
    "list": "array",
    "int": "integer",
    "str": "string",
    "bool": "boolean",
}
_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: _is_number(v) and (isinstance(v, int) or v.is_integer()),
    "number": _is_number,
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, Mapping),
    "array": lambda v: isinstance(v, list | tuple),
}


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """JSON Schema's names of the types that a schema allows; "any" if it names none."""
    named = schema.get("type", "any")
    return [ALIASES.get(t, t) for t in ([named] if isinstance(named, str) else named)]


def is_type(value: Any, name: str) -> bool:
    """Whether a value is of a type; true for an unknown type."""
    return _TYPES.get(name, lambda _: True)(value)


def _type(validator: Any, named: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not any(is_type(value, name) for name in types_of(schema)):
        yield _error("type")


def _properties(validator: Any, properties: Any, value: Any, schema: Any) -> Iterator[Any]:
    """Refuses properties that the schema does not list, unless it has a rule for others."""
    rules = {"additionalProperties", "patternProperties"} & set(schema)
    if not rules and validator.is_type(value, "object") and not set(value) <= set(properties):
        yield _error("unlisted", validator="additionalProperties", validator_value=False)
    yield from _of_draft("properties", validator, properties, value, schema)


def _reference(validator: Any, reference: str, value: Any, schema: Any) -> Iterator[Any]:
    from referencing.exceptions import Unresolvable

    try:
        yield from _of_draft("$ref", validator, reference, value, schema)
    except Unresolvable:
        return


def _of_draft(keyword: str, validator: Any, *args: Any) -> Iterable[Any]:
    from jsonschema import Draft202012Validator

    return Draft202012Validator.VALIDATORS[keyword](validator, *args) or ()


def _depth(value: Any) -> int:
    """The depth of nested lists and objects, counted up to `DEEPEST` + 1."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, list | tuple):
                inner += item
        level = inner
        depth += bool(inner)
    return depth


# --- messages ---


def _first(errors: Iterable[Any]) -> str | None:
    error = next(iter(errors), None)
    return None if error is None else _message(error)


def _message(error: Any) -> str:
    """A `ValidationError` as one line: the place, the requirement, the value."""
    where, wanted = _where(error.absolute_path), error.validator_value
    at = where or "the value"
    match error.validator:
        case "type":
            types = " or ".join(types_of(error.schema))
            return f"{at} must be of type {types}, got {short(error.instance)}"
        case "required":
            missing = next(name for name in wanted if name not in error.instance)
            return f"{_inside(where, missing)} is missing"
        case "additionalProperties" if wanted is False:
            known = list(error.schema.get("properties", {}))
            extra = next(name for name in error.instance if name not in known)
            return f"there is no {_inside(where, extra)}; there are: {', '.join(known) or 'none'}"
        case "anyOf" | "oneOf" if error.context:
            # the first error of each alternative
            each = {e.relative_schema_path[0]: e for e in reversed(error.context)}
            lines = [_message(each[i]) for i in sorted(each)]
            return " or ".join(dict.fromkeys(lines))
    if error.validator in _MUST:
        must = _MUST[error.validator].format(short(wanted, 200))
        return f"{at} {must}, got {short(error.instance)}"
    return f"{at} does not fit {error.validator} {short(wanted)}, got {short(error.instance)}"


def _where(path: Sequence[str | int]) -> str:
    """The place of a value: `'at'.points[3].x`."""
    where = ""
    for part in path:
        where = f"{where}[{part}]" if isinstance(part, int) else _inside(where, part)
    return where


def _inside(where: str, name: str) -> str:
    return f"{where}.{name[:64]}" if where else repr(name[:64])

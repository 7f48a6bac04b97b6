"""Reads calls that are JSON objects: `{"name": …, "arguments": {…}}`, and the same object with the
key names of other model families.

The JSON decoder starts at a position in the text, so a closing tag inside a string closes nothing.
Left out: NaN and Infinity, which are not JSON, and where calls stand in a turn (`reading.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from logpi.calls.call import Attempt, Call, Malformed

ARGUMENTS = ("arguments", "parameters")
# `tool_name` is Cohere's, `function` what Llama sometimes writes
_NAMES = ("name", "tool_name", "function")
_BESIDE = {"type", "id", "tool_call_id", "index"}
_NEARLY = {"args", "params", "input", "inputs", "kwargs", "argument", "parameter", "function_args"}
_SPACE = re.compile(r"\s*")
# the start of a call, even of one whose JSON is broken
LOOKS = re.compile(
    r"""(?:\[\s*+)?\{\s*+(?:["']type["']\s*:\s*["']function["']\s*,\s*)?"""
    r"""["'](?:name|tool_name|function)["']\s*:\s*["'][^"'\n]*["']\s*,\s*"""
    r"""["'](?:arguments|parameters)["']\s*:"""
)


class Text(str):
    """A text for the JSON decoder that never counts lines.

    A decoding error counts the lines before it. A text full of errors would take quadratic time.
    """

    def count(self, *_: Any) -> int:
        return 0

    def rfind(self, *_: Any) -> int:
        return -1


class NoJson(ValueError):
    """The text holds no JSON value here. Reading may continue at `at`, not before."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"not valid JSON ({reason})")
        self.at = at


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def value_at(text: Text, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `at`, and its end.

    Raises:
        NoJson: (a ValueError) no value begins there. The decoder may raise a plain ValueError.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise NoJson(f"{error.msg} at character {error.pos - at}", max(error.pos, at + 1)) from None
    except RecursionError:
        raise NoJson("nested too deep", len(text)) from None


def past(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The position after what `pattern` matches at `at`; `at` itself where it does not match."""
    match = pattern.match(text, at)
    return match.end() if match else at


def blank(text: str, at: int) -> int:
    """The position after the white space at `at`."""
    return past(_SPACE, text, at)


def as_call(value: Any, key: str = "arguments") -> Attempt:
    """A decoded object as a call. It ignores other keys.

    OpenAI's form nests the function in the call and gives its arguments as JSON text.

    Args:
        key: what the reason of a malformed call names the arguments.
    """
    if isinstance(value, Mapping) and isinstance(inner := value.get("function"), Mapping):
        value = {**inner, **{k: _decoded(inner[k]) for k in ARGUMENTS if k in inner}}
    name = _first(value, _NAMES) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(name, str):
        return Malformed(
            f'a call must be an object {{"name": …, "{key}": {{…}}}} with a text as name'
        )
    arguments = _first(value, ARGUMENTS)
    if not isinstance(arguments, Mapping):
        return Malformed(f'the call of {name[:64]!r} needs "{key}" as an object of its parameters')
    return Call(name, arguments)


def _first(value: Mapping[str, Any], keys: Collection[str]) -> Any:
    return next((value[k] for k in keys if k in value), None)


def _decoded(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def json_calls(text: Text, at: int) -> tuple[list[Attempt], int]:
    """The call or list of calls that begins at `at`, and its end. Raises ValueError if there is
    none."""
    value, end = value_at(text, at)
    several = value if isinstance(value, list) else [value]
    if not any(isinstance(v, Mapping) for v in several):
        raise ValueError('no call: a call must be an object {"name": …, "arguments": {…}}')
    return [as_call(v) for v in several], end


def unmarked(value: Any, known: Collection[str], alone: bool) -> Attempt | None:
    """A call from a decoded value without a mark, or None: then the value is an answer in JSON.

    A call has a call's keys and no others.

    Args:
        known: the names of the tools; may be empty.
        alone: the turn holds no words beside the value. Between words, a call must name a tool.
    """
    if not isinstance(value, Mapping):
        return None
    inner = value["function"] if isinstance(value.get("function"), Mapping) else value
    keys, name = set(inner) - _BESIDE, _first(inner, _NAMES)
    if not isinstance(name, str):
        tool = any(isinstance(v, str) and v in known for v in inner.values())
        # {"tool": …, "arguments": …}
        return as_call(value) if tool and keys & {*ARGUMENTS, *_NEARLY} else None
    if known and not alone and name not in known:
        return None
    rest = keys - set(_NAMES)
    if len(keys) != 2 or len(rest) != 1:
        return as_call(value) if keys <= set(_NAMES) and name in known else None
    key = rest.pop()
    given = inner[key]
    meant = isinstance(given, Mapping) or (
        isinstance(given, str) and given.lstrip().startswith("{")
    )
    if key in ARGUMENTS and (meant or name in known):
        return as_call(value)
    nearly = key in _NEARLY and isinstance(given, Mapping) and name in (known or (name,))
    return as_call(value) if nearly else None

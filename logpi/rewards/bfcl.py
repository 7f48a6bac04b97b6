"""BFCL's verdict on function calls: the matching of syntax trees of the Berkeley Function-Calling
Leaderboard (ShishirPatil/gorilla, Apache-2.0).

A row lists the allowed values of each parameter of each expected call. "" among them makes the
parameter optional.

    name      equal
    required  every one present, and none that the schema lacks
    types     exactly the schema's; an integer passes for a float, and so does the type of the
              allowed values (a variable)
    text      equal without case, spaces and , . / - _ * ^; ' is "
    list      one of the lists, its texts compared as texts
    object    each of its values is allowed
    several   each expected call takes the first unused call that matches; equal numbers of calls

The rules are BFCL's to the letter, with their accidents, so that figures compare: True equals 1 as
in Python, an empty list passes for an optional list, nested types are checked one level deep. If
BFCL's checker would raise, the answer is wrong here. Divergence: a malformed call beside good ones
is wrong here; BFCL ignores it. Left out: Java, JavaScript, executed calls, and conversations of
several turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.calls import Call, style
from logpi.rewards.text import text_of

_TYPES = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_NOISE = re.compile(r"[ ,./\-_*^]")


def _plain(value: Any) -> Any:
    """A text in normal form; any other value as it is."""
    return _NOISE.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _kind_of(allowed: Sequence[Any]) -> type | None:
    """The type of the first allowed value; None if there is none but ""."""
    return next((type(a) for a in allowed if a != ""), None)


def _typed(value: Any, allowed: Sequence[Any], kind: type, inner: type | None) -> tuple[bool, bool]:
    """Whether the type is right, and whether the value is a variable.

    A variable has the type of the allowed values instead of the schema's. It is compared as it is.
    """
    theirs = _kind_of(allowed)
    if type(value) is kind:
        fits = inner is None or any(
            not isinstance(a, list) or all(_typed(v, a, inner, None)[0] for v in value)
            for a in allowed
        )
        return fits, theirs is not None and theirs is not kind
    return theirs is not None and type(value) is theirs, True


def _object(value: Mapping[str, Any], allowed: Sequence[Any]) -> bool:
    return any(_one_object(value, a) for a in allowed if a != "")


def _one_object(value: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]]) -> bool:
    known = all(
        k in allowed and _plain(v) in [_plain(a) for a in allowed[k]] for k, v in value.items()
    )
    return known and all(k in value or "" in a for k, a in allowed.items())


def _objects(value: Sequence[Any], allowed: Sequence[Any]) -> bool:
    return any(
        len(value) == len(a) and all(_object(v, [w]) for v, w in zip(value, a, strict=True))
        for a in allowed
    )


def _list(value: Sequence[Any], allowed: Sequence[Any]) -> bool:
    return [_plain(v) for v in value] in [[_plain(v) for v in a] for a in allowed]


def _text(value: str, allowed: Sequence[Any]) -> bool:
    return _plain(value) in [_plain(a) for a in allowed if isinstance(a, str)]


def _comparison(kind: type, inner: type | None) -> Callable[[Any, Sequence[Any]], bool]:
    if kind is list and inner is dict:
        return _objects
    return {dict: _object, str: _text, list: _list}.get(
        kind, lambda value, allowed: value in allowed
    )


def _parameter(value: Any, allowed: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    """Whether the value of a parameter is right."""
    kind = _TYPES[schema["type"]]
    inner = _TYPES[schema["items"]["type"]] if schema["type"] in ("array", "tuple") else None
    if schema["type"] == "float" and type(value) is int:
        value = float(value)
    fits, variable = _typed(value, allowed, kind, inner)
    return fits and (value in allowed if variable else _comparison(kind, inner)(value, allowed))


def _one(
    function: Mapping[str, Any], call: Call, answer: Mapping[str, Sequence[Any]]
) -> str | None:
    """The fault of a call, or None."""
    known, given = function["parameters"]["properties"], call.arguments
    if call.name != function["name"]:
        return f"expected a call of {function['name']}, got {call.name}"
    missing = [p for p in function["parameters"].get("required", ()) if p not in given]
    missing += [p for p, allowed in answer.items() if p not in given and "" not in allowed]
    if missing:
        return f"{call.name}: {missing[0]} is missing"
    for name, value in given.items():
        if name not in known or name not in answer:
            return f"{call.name}: {name} is not expected"
        try:
            right = _parameter(value, answer[name], known[name])
        # the published checker would raise here
        except (TypeError, KeyError, AttributeError, OverflowError):
            right = False
        if not right:
            return f"{call.name}: {name} is {value!r:.60}, expected one of {answer[name]!r:.120}"
    return None


def wrong(
    functions: Sequence[Mapping[str, Any]],
    calls: Sequence[Call],
    possible: Sequence[Mapping[str, Any]],
) -> str | None:
    """The fault of the calls, in words, or None if they are right.

    Args:
        functions: BFCL's schemas of the functions.
        possible: for each expected call, name → parameter → allowed values; empty if the right
            answer calls nothing.

    >>> parameters = {"properties": {"x": {"type": "float"}}, "required": ["x"]}
    >>> f = {"name": "sin", "parameters": parameters}
    >>> wrong([f], [Call("sin", {"x": 2})], [{"sin": {"x": [1.0]}}])
    'sin: x is 2, expected one of [1.0]'
    """
    if len(calls) != len(possible):
        return f"expected {len(possible)} calls, got {len(calls)}"
    # of two functions with one name the first counts
    by_name = {f["name"]: f for f in reversed(functions)}
    left = list(calls)
    for expected in possible:
        name, answer = next(iter(expected.items()))
        problems = [
            _one(by_name[name], call, answer) if name in by_name else f"{name} is not described"
            for call in left
        ]
        if None not in problems:
            return problems[0]
        left.pop(problems.index(None))
    return None


@dataclass(frozen=True)
class BfclReward:
    """1 if the completion's calls are right by BFCL's rules, else 0.

    It needs the columns `functions` and `possible`, which `envs.tasks.Bfcl` makes.

    Attributes:
        style: the style of the calls: "hermes", "xml", "python" (BFCL's own prompt), "lines".

    Raises:
        ValueError: an unknown style.
    """

    style: str = "hermes"
    name: str = "bfcl"
    needs: ClassVar[tuple[str, ...]] = ("functions", "possible")

    def __post_init__(self) -> None:
        style(self.style)

    def __call__(
        self,
        prompts,
        completions,
        completion_ids=None,
        *,
        functions: Sequence[Any],
        possible: Sequence[Any],
        **columns,
    ) -> list[float | None]:
        tools = columns.get("tools") or [()] * len(completions)
        rows = zip(completions, functions, possible, tools, strict=True)
        return [float(self._right(text_of(c), f, p, t or ())) for c, f, p, t in rows]

    def _right(
        self, text: str, functions: Sequence[Any], possible: Sequence[Any], tools: Sequence[Any]
    ) -> bool:
        attempts = style(self.style).parse(text, tools)
        calls = [a for a in attempts if isinstance(a, Call)]
        malformed = len(calls) < len(attempts)
        return not (possible and malformed) and wrong(functions, calls, possible) is None

"""Schemas from functions, and values against schemas.

Run: python -m pytest -q tests/calls/test_schema.py
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import pytest

from logpi.calls.schema import from_function, read, standard


class Point(TypedDict):
    x: float
    y: float


def weather(
    city: str,
    days: int = 3,
    units: Literal["C", "F"] = "C",
    tags: list[str] | None = None,
    at: Point | None = None,
    extra: dict[str, int] | None = None,
    anything: Any = None,
) -> str:
    """Says how the weather will be
    in a city.

    More that the model need not read.

    Args:
        city: where, as in
            "Paris, France"
        days (int): how far ahead
    Returns:
        a forecast
    """
    return city


def test_a_function_becomes_a_schema():
    made = from_function(weather)["function"]
    assert (
        made["name"] == "weather"
        and made["description"] == "Says how the weather will be in a city."
    )
    properties = made["parameters"]["properties"]
    assert made["parameters"]["required"] == ["city"]
    assert properties["city"] == {"type": "string", "description": 'where, as in "Paris, France"'}
    assert properties["days"] == {"type": "integer", "description": "how far ahead", "default": 3}
    assert properties["units"] == {"type": "string", "enum": ["C", "F"], "default": "C"}
    assert properties["tags"]["anyOf"] == [
        {"type": "array", "items": {"type": "string"}},
        {"type": "null"},
    ]
    assert properties["at"]["anyOf"][0]["required"] == ["x", "y"]
    assert properties["extra"]["anyOf"][0] == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
    }
    assert properties["anything"] == {"default": None}


def no_hint(a):
    """Doc."""


def no_doc(a: int): ...


def starred(*a: int):
    """Doc."""


def odd(a: complex):
    """Doc."""


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (no_hint, "tool 'no_hint': parameter 'a' has no type hint; write a: str, int"),
        (no_doc, "tool 'no_doc' needs a docstring"),
        (starred, "parameter 'a' without \\* or /"),
        (odd, "tool 'odd', parameter 'a': JSON has no complex"),
    ],
)
def test_functions_that_cannot_be_tools(function, line):
    with pytest.raises(ValueError, match=line) as error:
        from_function(function)
    assert "\n" not in str(error.value)


def test_text_is_read_as_the_schema_says():
    cases = [
        ("integer", "3", 3),
        ("integer", "3.5", "3.5"),
        ("number", "3", 3),
        ("string", "3", "3"),
        ("boolean", "True", True),
        ("boolean", "1", "1"),
        ("null", "None", None),
        ("array", "[1, 2]", [1, 2]),
        ("object", '{"a": 1}', {"a": 1}),
        ("array", "[" * 100_000, "[" * 100_000),
    ]
    for kind, text, value in cases:
        assert read(text, {"type": kind}) == value and type(read(text, {"type": kind})) is type(
            value
        )
    assert read("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}) is None
    assert read("4", {}) == "4"


def test_the_leaderboards_type_names_become_json_schema():
    given = {
        "type": "dict",
        "properties": {
            "t": {"type": "tuple", "items": {"type": "float"}},
            "a": {"type": "any"},
            "type": {"type": "string"},
        },
    }
    assert standard(given) == {
        "type": "object",
        "properties": {
            "t": {"type": "array", "items": {"type": "number"}},
            "a": {},
            "type": {"type": "string"},
        },
    }

"""Values against JSON schemas, and schemas that are none: one line that says what is wrong.

Run: python -m pytest -q tests/calls/test_json_schema.py
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from logpi.calls.json_schema import problem, schema_problem
from logpi.calls.schema import from_function
from tests.calls.test_schema import weather

SCHEMA = from_function(weather)["function"]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"city": "Rome"}, None),
        (
            {
                "city": "Rome",
                "days": 2.0,
                "tags": ["a"],
                "at": {"x": 1, "y": 2},
                "extra": {"k": 1},
                "anything": [1],
            },
            None,
        ),
        ({}, "'city' is missing"),
        ({"city": 7}, "'city' must be of type string, got 7"),
        ({"city": "Rome", "days": True}, "'days' must be of type integer, got True"),
        ({"city": "Rome", "days": 2.5}, "'days' must be of type integer, got 2.5"),
        ({"city": "Rome", "units": "K"}, "'units' must be one of ['C', 'F'], got 'K'"),
        ({"city": "Rome", "town": 1}, "there is no 'town'; there are: city, days, units"),
        ({"city": "Rome", "at": {"x": 1}}, "'at'.y is missing or 'at' must be of type null"),
        ({"city": "Rome", "extra": {"k": "1"}}, "'extra'.k must be of type integer"),
        ({"city": "Rome", "tags": ["a", 2]}, "'tags'[1] must be of type string, got 2"),
    ],
)
def test_arguments_are_checked_in_words(arguments, expected):
    found = problem(arguments, SCHEMA)
    assert found is None if expected is None else expected in str(found)


def test_references_and_depth():
    tree = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"child": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}},
            }
        },
        "$ref": "#/$defs/node",
    }
    assert problem({"child": {"child": {"v": 1}}}, tree) is None
    assert "'child'.child.v must be of type integer" in str(
        problem({"child": {"child": {"v": "1"}}}, tree)
    )
    deep: dict = {}
    for _ in range(100):
        deep = {"child": deep}
    assert "nested too deep" in str(problem(deep, tree))
    assert (
        problem(1, {"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}})
        == "the value is nested too deep"
    )
    assert len(str(problem({"city": "x" * 10_000, "days": "y" * 10_000}, SCHEMA))) < 200


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"minimum": 3}, 2, "'x' must be at least 3, got 2"),
        ({"maxLength": 2}, "abc", "'x' must have 2 characters or fewer, got 'abc'"),
        ({"multipleOf": 0.1}, 0.3, None),
        ({"multipleOf": 0.1}, 0.35, "'x' must be a multiple of 0.1, got 0.35"),
        (
            {"uniqueItems": True},
            [1, "a", 1.0],
            "'x' must not have an item twice, got [1, 'a', 1.0]",
        ),
        ({"uniqueItems": True}, [1, True], None),
        ({"const": 1}, True, "'x' must be 1, got True"),
        ({"not": {"type": "string"}}, "a", "'x' does not fit not {'type': 'string'}, got 'a'"),
        ({"type": "dict"}, [], "'x' must be of type object, got []"),
        ({"type": "nobody knows"}, [], None),
        ({"pattern": "^a"}, "b", None),
        ({"$ref": "https://example.org/s.json"}, 1, None),
        ({"$ref": "#/none"}, 1, None),
        ({"minimum": "3"}, 2, None),
        (
            {"additionalProperties": {"type": "integer"}},
            {"a": "b"},
            "'x'.a must be of type integer",
        ),
        ({"properties": {}}, {"a": 1}, "there is no 'x'.a; there are: none"),
        ({"properties": {}, "additionalProperties": True}, {"a": 1}, None),
    ],
)
def test_keywords_in_words(schema: dict, value: Any, expected: str | None) -> None:
    line = problem({"x": value}, {"properties": {"x": schema}})
    assert line is None if expected is None else expected in str(line)


def test_hostile_arguments_cost_little() -> None:
    """They come from a policy, and are checked in the trainer's own process."""
    start = time.monotonic()
    endless = {"properties": {"x": {"pattern": "(a|aa)+b"}}}
    assert problem({"x": "a" * 100}, endless) is None
    mixed = [*range(20_000), *map(str, range(20_000))]
    assert problem({"x": mixed}, {"properties": {"x": {"uniqueItems": True}}}) is None
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert problem({"x": deep}, {}) == "the value is nested too deep"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["integer", "null"]}, None),
        (True, None),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}]}, None),
        ({"properties": {"requird": {}}, "x-order": 3, "$defs": {"a": {"title": "A"}}}, None),
        ({"enum": [{"no": "schema"}]}, None),
        ({"items": {"requird": ["a"]}}, "there is no keyword requird; did you mean required?"),
        ({"items": {"$ref": "#/$defs/a"}}, "$ref '#/$defs/a' is not in the schema"),
        ({"minLength": -1}, "'minLength' must be at least 0, got -1"),
    ],
)
def test_schemas(schema: Any, expected: str | None) -> None:
    assert schema_problem(schema) == expected

"""BFCL's files as a task, and verdicts that are the published checker's (excerpts in
tests/data/bfcl, Apache-2.0).

Run: python -m pytest -q tests/envs/tasks/test_bfcl.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logpi.calls import Call, style
from logpi.envs.tasks import Bfcl, task
from logpi.rewards import BfclReward
from logpi.rewards.bfcl import wrong

DATA = Path(__file__).parents[2] / "data" / "bfcl"
CASES = [
    json.loads(line) for line in (DATA / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_verdicts_are_the_published_checkers():
    assert len(CASES) > 100 and {c["valid"] for c in CASES} == {True, False}
    for c in CASES:
        calls = [Call(name, arguments) for name, arguments in c["calls"]]
        assert (wrong(c["functions"], calls, c["possible"]) is None) == c["valid"], c["id"]


@pytest.mark.parametrize("written", ["hermes", "lines", "python"])
def test_verdicts_survive_being_written_and_read(written):
    for c in CASES:
        calls = [Call(name, arguments) for name, arguments in c["calls"]]
        if written == "python" and any(
            not k.isidentifier() for call in calls for k in call.arguments
        ):
            continue
        text = style(written).write(calls) if calls else "Nothing to call."
        (value,) = BfclReward(written)(
            prompts=["?"], completions=[text], functions=[c["functions"]], possible=[c["possible"]]
        )
        assert value == c["valid"], (c["id"], text)


F = {
    "name": "f",
    "parameters": {
        "properties": {
            "s": {"type": "string"},
            "i": {"type": "integer"},
            "x": {"type": "float"},
            "b": {"type": "boolean"},
            "o": {"type": "dict"},
            "l": {"type": "array", "items": {"type": "string"}},
            "fs": {"type": "array", "items": {"type": "float"}},
            "os": {"type": "array", "items": {"type": "dict"}},
            "t": {"type": "tuple", "items": {"type": "integer"}},
            "a": {"type": "any"},
        },
        "required": [],
    },
}


@pytest.mark.parametrize(
    ("name", "value", "allowed", "right"),
    [
        ("s", "New-York, N.Y.", ["new york ny"], True),
        ("s", "it's", ['it"s'], True),
        ("s", "Boston", ["new york"], False),
        ("s", 5, ["5"], False),
        ("i", 5, [5], True),
        ("i", 5.0, [5], False),
        ("i", True, [1], False),
        ("i", "n", ["n", ""], True),  # a variable
        ("x", 5, [5.0], True),
        ("x", "5", [5.0], False),
        ("b", True, [True], True),
        ("b", 1, [True], False),
        ("l", ["A b", "c"], [["ab", "C"]], True),
        ("l", ["c", "ab"], [["ab", "c"]], False),
        ("l", [], [["ab"], ""], True),  # their accident: an optional list may be an empty one
        ("l", [1], [["ab"]], False),
        ("fs", [1, 2.0], [[1.0, 2.0]], False),  # nested integers are no floats
        ("fs", [1.0, 2.0], [[1.0, 2.0]], True),
        ("t", [1, 2], [[1, 2]], True),
        ("o", {"k": "V-1"}, [{"k": ["v1"], "z": ["", 3]}], True),
        ("o", {"k": "V-1"}, [{"k": ["v1"], "z": [3]}], False),
        ("o", {"k": "v", "q": 1}, [{"k": ["v"]}], False),
        ("os", [{"k": "v"}, {"k": "w"}], [[{"k": ["v"]}, {"k": ["w"]}]], True),
        ("os", [{"k": "w"}, {"k": "v"}], [[{"k": ["v"]}, {"k": ["w"]}]], False),
        ("os", [1], [[{"k": ["v"]}]], False),
        ("a", "x", ["x"], True),
        ("a", 3, [3], True),
        ("a", {"k": [1]}, ["x"], False),
    ],
)
def test_rules(name, value, allowed, right):
    assert (wrong([F], [Call("f", {name: value})], [{"f": {name: allowed}}]) is None) == right


def test_parameters_and_counts():
    def says(calls, possible):
        return wrong([F], [Call(*c) for c in calls], possible)

    assert says([("f", {"s": "x"})], [{"f": {"s": ["x"], "i": [1]}}]) == "f: i is missing"
    assert says([("f", {"s": "x"})], [{"f": {"s": ["x"], "i": [1, ""]}}]) is None
    assert says([("f", {"s": "x", "zz": 1})], [{"f": {"s": ["x"]}}]) == "f: zz is not expected"
    assert says([("g", {})], [{"f": {}}]) == "expected a call of f, got g"
    assert says([], []) is None and says([("f", {})], []) == "expected 0 calls, got 1"
    two = [{"f": {"i": [1]}}, {"f": {"i": [2]}}]
    assert says([("f", {"i": 2}), ("f", {"i": 1})], two) is None
    assert "i is 1" in str(says([("f", {"i": 1}), ("f", {"i": 1})], two))
    assert says([("f", {"i": 10**400})], [{"f": {"x": [1.0], "i": [1]}}]) == "f: x is missing"
    assert says([("f", {"x": 10**400})], [{"f": {"x": [1.0]}}]) is not None  # no float is so great


def test_a_directory_and_a_file_are_tasks():
    t = task(f"bfcl:{DATA}")
    rows = t.rows("test")
    assert [r["category"] for r in rows].count("irrelevance") == 2 and len(rows) == 9
    t.reward.check(list(rows[0]))
    row = next(r for r in rows if r["category"] == "simple_python")
    assert (
        row["prompt"][0]["role"] == "system"
        and row["functions"][0]["name"] in row["prompt"][0]["content"]
    )
    assert row["tools"][0]["function"]["parameters"]["type"] == "object"
    assert (
        len(task(f"bfcl:{DATA}/BFCL_v4_multiple.json", style="python", chat=False).rows("test"))
        == 2
    )


@pytest.mark.parametrize("written", ["hermes", "python"])
def test_right_answers_are_right_and_silence_is_right_where_nothing_fits(written):
    t = Bfcl(str(DATA), style=written)
    for row in t.rows("test"):
        calls = [
            Call(
                n,
                {
                    k: next(v for v in vs if v != "")
                    for k, vs in p.items()
                    if any(v != "" for v in vs)
                },
            )
            for e in row["possible"]
            for n, p in e.items()
        ]
        text = style(written).write(calls) if calls else "None of the functions fits."
        junk = "<tool_call>{broken</tool_call>" if written == "hermes" else "[f(]"
        columns = {k: [v] * 3 for k, v in row.items()}
        scores = t.reward.score(columns["prompt"], [text, "Sorry.", junk], columns=columns)
        idle = row["category"] == "irrelevance"
        assert [s.total for s in scores] == [1.0, float(idle), float(idle)]


def test_error_lines(tmp_path):
    (tmp_path / "BFCL_v4_multi_turn_base.json").write_text("{}")
    (tmp_path / "BFCL_v4_simple_python.json").write_text('{"id": "x"}\n')
    (tmp_path / "BFCL_v4_parallel.json").write_text(
        '{"id": "x", "question": [[]], "function": []}\n'
    )
    for path, line in [
        ("nowhere.json", "no such file or directory"),
        (
            "BFCL_v4_multi_turn_base.json",
            "only simple, multiple, parallel, parallel_multiple and irrelevance",
        ),
        ("BFCL_v4_simple_python.json", "line 1: no column 'question'"),
        (
            "BFCL_v4_parallel.json",
            "possible answers of BFCL_v4_parallel.json belong there, or give answers=FILE",
        ),
    ]:
        with pytest.raises(ValueError, match=line):
            task(f"bfcl:{tmp_path / path}").rows("test")
    with pytest.raises(ValueError, match="bfcl is a test"):
        task(f"bfcl:{DATA}").rows("train")
    with pytest.raises(ValueError, match="no style of tool calls"):
        task(f"bfcl:{DATA}", style="yaml")

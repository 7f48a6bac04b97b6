"""Regular expressions, JSON schemas and external commands as rewards, with texts that are paid to
break them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from logpi.errors import UserError
from logpi.rewards import (
    CommandReward,
    Failure,
    JsonSchema,
    Regex,
    Rewards,
    Weighted,
    reward,
    rewards,
)

ASK = ["?"]


def test_a_pattern_matches_the_whole_or_a_part() -> None:
    texts = ["2026-11-21", "on 2026-11-21", "21 Nov"]
    assert Regex(r"\d{4}-\d\d-\d\d")(ASK * 3, texts) == [1.0, 0.0, 0.0]
    assert Regex(r"\d{4}-\d\d-\d\d", search=True)(ASK * 3, texts) == [1.0, 1.0, 0.0]
    assert Regex("NOV", search=True, flags="i")(ASK, ["21 Nov"]) == [1.0]
    assert Regex()(ASK * 2, ["ab", "ab"], pattern=["a.", "b."]) == [1.0, 0.0]


def test_a_pattern_that_runs_for_ever_costs_only_the_guilty_text() -> None:
    start = time.monotonic()
    good, bad, also_good = Regex(r"(a|aa)+b", seconds=1)(ASK * 3, ["aab", "a" * 60, "ab"])
    assert (good, also_good) == (1.0, 1.0) and isinstance(bad, Failure) and bad.kind == "hung"
    assert time.monotonic() - start < 20


def test_patterns_are_checked_before_any_work() -> None:
    with pytest.raises(ValueError, match="does not compile: missing"):
        Regex("(a")
    with pytest.raises(ValueError, match="'regex' needs the column 'pattern'"):
        Rewards((Weighted(Regex()),)).check(["prompt"])


def test_numbers_beyond_floating_point_are_wrong_and_not_without_a_verdict() -> None:
    """A text without a verdict is not learned from: writing 1e999 must not be a way out of a 0."""
    assert JsonSchema('{"type": "integer"}')(ASK * 2, ["1e999", "7"]) == [0.0, 1.0]
    assert JsonSchema('{"multipleOf": 2.5}')(ASK * 2, ["1" + "0" * 400, "5"]) == [0.0, 1.0]


def test_many_items_are_told_apart_in_time() -> None:
    many = list(range(20_000))
    verdicts = JsonSchema('{"uniqueItems": true}')(
        ASK * 3, [json.dumps(many), json.dumps([*many, 7.0]), "[1, true]"]
    )
    assert verdicts == [1.0, 0.0, 1.0]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "tags": {
            "type": "array",
            "items": {"enum": ["a", "b"]},
            "uniqueItems": True,
            "maxItems": 2,
        },
        "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Ada", "age": 36}, True),
        ({"name": "Ada", "age": 36.0}, True),
        ({"name": "Ada", "age": 36.5}, False),
        ({"name": "Ada", "age": True}, False),
        ({"name": "ada", "age": 36}, False),
        ({"name": "", "age": 36}, False),
        ({"name": "Ada"}, False),
        ({"name": "Ada", "age": 150}, False),
        ({"name": "Ada", "age": 1, "more": 1}, False),
        ({"name": "Ada", "age": 1, "tags": ["a", "b"]}, True),
        ({"name": "Ada", "age": 1, "tags": ["a", "a"]}, False),
        ({"name": "Ada", "age": 1, "tags": ["c"]}, False),
        ({"name": "Ada", "age": 1, "next": {"name": "Bob", "age": 2, "next": None}}, True),
        ({"name": "Ada", "age": 1, "next": {"name": "Bob"}}, False),
        ([], False),
        ("Ada", False),
    ],
)
def test_schemas(value, fits: bool) -> None:
    assert JsonSchema(json.dumps(SCHEMA))(ASK, [json.dumps(value)]) == [float(fits)]


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        ({"enum": [1]}, "true", False),
        ({"const": [1, {"a": 2.0}]}, '[1.0, {"a": 2}]', True),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "3", False),
        ({"not": {"type": "string"}}, '"x"', False),
        ({"contains": {"const": 1}}, "[2, 1]", True),
        ({"contains": {"const": 1}, "maxContains": 1}, "[1, 1]", False),
        ({"dependentRequired": {"a": ["b"]}}, '{"a": 1}', False),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, '"x"', False),
        ({"$ref": "#"}, "1", False),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}, '["x", 1, 2]', True),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}, '["x", "y"]', False),
        ({"multipleOf": 0.1}, "0.3", True),
        ({"additionalProperties": {"type": "number"}}, '{"a": 1, "b": "x"}', False),
        ({}, "NaN", False),
        ({}, "Sure!\n```json\n[1]\n```", True),
        ({}, "Sure! [1]", False),
        ({}, "[" * 100_000, False),
        (False, "1", False),
    ],
)
def test_more_schemas(schema, text: str, fits: bool) -> None:
    assert JsonSchema()(ASK, [text], schema=[schema]) == [float(fits)]


def test_a_keyword_that_does_not_exist_is_refused_not_passed_over(tmp_path) -> None:
    with pytest.raises(ValueError, match="json_schema: there is no keyword requird; did you mean"):
        JsonSchema('{"properties": {"a": {"requird": ["b"]}}}')
    with pytest.raises(ValueError, match="the schema is not JSON"):
        JsonSchema("{")
    with pytest.raises(ValueError, match="there is no file none.json"):
        JsonSchema("none.json")
    (tmp_path / "s.json").write_text('{"type": "array"}')
    assert JsonSchema(str(tmp_path / "s.json"))(ASK, ["[]"]) == [1.0]


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ('{"type": "int"}', "'type' must be one of \\['array', 'boolean', 'integer'"),
        ('{"type": 3}', "'type' must be"),
        ('{"properties": []}', "'properties' must be of type object, got \\[\\]"),
        ('{"properties": {"a": 3}}', "'properties'.a must be of type object or boolean, got 3"),
        ('{"required": "a"}', "'required' must be of type array"),
        ('{"anyOf": {}}', "'anyOf' must be of type array"),
        ('{"items": [{}]}', "'items' must be of type object or boolean"),
        ('{"minimum": "1"}', "'minimum' must be of type number, got '1'"),
        ('{"minLength": -1}', "'minLength' must be at least 0, got -1"),
        ('{"multipleOf": 0}', "'multipleOf' must be above 0, got 0"),
        ('{"pattern": "("}', "'pattern' must be of the format 'regex'"),
        ('{"enum": 3}', "'enum' must be of type array"),
        ('{"$ref": "#/$defs/none"}', "'#/\\$defs/none' is not in the schema"),
        ('{"$ref": "https://e.org/s.json"}', "'https://e.org/s.json' is not in the schema"),
        ("3", "a schema is an object"),
        ('"x"', "a schema is an object"),
        ("[" * 100_000, "not JSON"),
        ('{"not":' * 900 + "{}" + "}" * 900, "recursion"),
    ],
)
def test_schemas_that_are_none_are_one_line(schema, line):
    with pytest.raises(ValueError, match=f"^json_schema: .*{line}"):
        JsonSchema(schema)


def test_a_relative_path_is_where_the_user_stands(tmp_path, monkeypatch) -> None:
    """The command runs in a directory of its own; its files stay the user's."""
    monkeypatch.chdir(tmp_path)
    judge, checks = tmp_path / "judge", tmp_path / "checks"
    checks.mkdir()
    judge.write_text('#!/bin/sh\ngrep -q 42 "$1"\n')
    judge.chmod(0o755)
    (checks / "run.py").write_text("import sys\nprint(open(sys.argv[1]).read().count('4'))\n")
    (tmp_path / "top.py").write_text("print(3)\n")
    (tmp_path / "42").write_text("a file that a pattern is called like")
    reward_of = [
        CommandReward("./judge {file}"),
        CommandReward("python3 checks/run.py {file} --y={file}"),
        CommandReward("grep -q 42"),
        CommandReward("python3 top.py"),
    ]
    scored = CommandReward("python3 checks/run.py {file}", score=True)
    monkeypatch.chdir(checks)
    assert reward_of[0](ASK * 2, ["It is 42.", "It is 7."]) == [1.0, 0.0]
    assert (
        reward_of[1](ASK, ["x"]) == [1.0]
        and reward_of[2](ASK * 2, ["42", "7"]) == [1.0, 0.0]
        and reward_of[3](ASK, ["x"]) == [1.0]
    )
    assert scored(ASK, ["4 + 4"]) == [2.0]
    with pytest.raises(ValueError, match=r"there is no program './judge'"):
        CommandReward("./judge {file}")
    with pytest.raises(ValueError, match=r"there is no file './run2.py' in .*checks"):
        CommandReward("python3 ./run2.py")
    with pytest.raises(ValueError, match="cannot read .*No closing quotation"):
        CommandReward("grep 'x")
    judge.chmod(0o644)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not executable"):
        CommandReward("./judge {file}")


def test_a_program_that_always_fails_is_told_before_training() -> None:
    judged = Rewards((Weighted(CommandReward("python3 none.py")),))
    with pytest.raises(
        ValueError,
        match="reward 'command' judges none of 4 trial completions: died: exit code 2: .*none.py",
    ):
        judged.check(["prompt"], [{"prompt": "?"}])


def test_a_command_says_yes_or_no_or_a_number() -> None:
    assert CommandReward("grep -q 42")(ASK * 2, ["It is 42.", "It is 7."]) == [1.0, 0.0]
    assert CommandReward("grep -q 42 {file}")(ASK, ["42"]) == [1.0]
    assert CommandReward("wc -c", score=True)(ASK * 2, ["abc", ""]) == [3.0, 0.0]
    checker = (
        'python3 -c \'import json,sys; r = json.loads(input()); sys.exit(r["completion"] !='
        ' r["row"]["answer"])\''
    )
    assert CommandReward(checker, json_input=True)(ASK * 2, ["7", "8"], answer=["7", "7"]) == [
        1.0,
        0.0,
    ]


@pytest.mark.parametrize(
    ("command", "options", "kind"),
    [
        ("sleep 60", {}, "hung"),
        ("yes", {}, "hung"),
        ("sh -c 'sleep 60 & sleep 60'", {}, "hung"),
        ("sh -c 'exit 3'", {}, "died"),
        ("sh -c 'kill -9 $$'", {}, "died"),
        ("python3 -c 'bytearray(8 << 30)'", {"score": True}, "died"),
        ("echo right", {"score": True}, "type"),
        ("echo nan", {"score": True}, "nan"),
    ],
)
def test_a_command_that_fails_leaves_no_verdict(command: str, options: dict, kind: str) -> None:
    start = time.monotonic()
    [verdict] = CommandReward(command, seconds=2, **options)(ASK, ["x"])
    assert isinstance(verdict, Failure) and verdict.kind == kind and time.monotonic() - start < 6


def test_processes_that_a_command_leaves_behind_are_killed(tmp_path) -> None:
    script, note = tmp_path / "judge.sh", tmp_path / "pid"
    script.write_text(f"sleep 60 >/dev/null 2>&1 &\necho $! > {note}\nexit 0\n")
    assert CommandReward(f"sh {script}")(["?"], ["a"]) == [1.0]
    stat = Path(f"/proc/{note.read_text().strip()}/stat")
    for _ in range(50):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        time.sleep(0.1)
    raise AssertionError("it still runs")


def test_a_completion_never_reaches_a_shell(tmp_path) -> None:
    CommandReward("cat {file}")(
        ASK, [f"'; touch {tmp_path}/x; $(touch {tmp_path}/x) `touch {tmp_path}/x`"]
    )
    assert not list(tmp_path.iterdir())


def test_commands_are_checked_before_any_work() -> None:
    with pytest.raises(ValueError, match="there is no program 'no-such-prover'"):
        reward('command("no-such-prover --stdin")')
    with pytest.raises(ValueError, match="give a program"):
        CommandReward(" ")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nosuch"}, "nosuch"),
        ('{"type":', "not JSON"),
        ({"iff": {}}, "there is no keyword iff"),
        (None, "json_schema"),
    ],
)
def test_a_rows_own_schema_is_read_before_the_work(schema, says):
    rows = [{"prompt": "a", "schema": {"type": "object"}}, {"prompt": "b", "schema": schema}]
    with pytest.raises(UserError, match=f"row 1.*{says}"):
        rewards(["json_schema"], "cpu").check(["prompt", "schema"], rows[:1], rows)

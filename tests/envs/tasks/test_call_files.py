"""ToolRL's files and conversations in OpenAI's format as tasks (excerpt in tests/data/toolrl,
Apache-2.0).

Run: python -m pytest -q tests/envs/tasks/test_call_files.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logpi.calls import Call, style
from logpi.calls.toolrl import system
from logpi.envs.tasks import OpenAICalls, ToolRL, task

EXCERPT = Path(__file__).parents[2] / "data" / "toolrl" / "excerpt.json"


def judged(t, rows, completions):
    columns = {k: [r.get(k) for r in rows] for k in rows[0]}
    return [s.total for s in t.reward.score(columns["prompt"], completions, columns=columns)]


def test_toolrls_sft_rows():
    t = ToolRL(str(EXCERPT), test_share=1.0)
    rows = t.rows("test")
    assert len(rows) == 4 and [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]
    assert (
        rows[0]["calls"]
        and not rows[0]["respond"]
        and rows[3]["calls"] == []
        and rows[3]["respond"]
    )
    assert judged(t, rows, [r["completion"] for r in rows]) == [
        4.0,
        4.0,
        4.0,
        1.0,
    ]  # where nothing is called, at most 1: as published
    assert judged(t, rows, ["hello"] * 4) == [-3.0, -3.0, -3.0, 0.0]
    with pytest.raises(ValueError, match="its train split is empty"):
        t.rows("train")


def test_toolrls_verl_rows_and_a_split_by_prompt(tmp_path):
    raw = json.loads(EXCERPT.read_text(encoding="utf-8"))
    verl = [
        {
            "prompt": [{"role": "user", "content": f"{r['input']} {i}"}],
            "reward_model": {"ground_truth": r["output"], "style": "rule"},
            "data_source": "rlla",
        }
        for i in range(20)
        for r in raw
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(verl))
    t = task(f"toolrl:{path}", test_share=0.25)
    train, test = t.rows("train", 1), t.rows("test")
    assert len(train) + len(test) == 80 and 8 < len(test) < 35
    assert not {str(r["prompt"]) for r in train} & {str(r["prompt"]) for r in test}
    assert (
        t.rows("train", 1) == train != t.rows("train", 2)
        and t.rows("test", 1) == t.rows("test", 2) == test
    )
    assert judged(t, train[:3], [r["completion"] for r in train[:3]])[0] in (4.0, 1.0)


def test_the_style_writes_toolrls_own_system_message():
    published = json.loads(EXCERPT.read_text(encoding="utf-8"))[0]["instruction"]
    head, tail = (
        published.partition("1. Name: ")[0],
        published[published.index("\n\n**Steps for Each Turn**") :],
    )
    made = system(
        [
            {
                "function": {
                    "name": "f",
                    "description": "F.",
                    "parameters": {"properties": {"x": {"type": "int", "description": "d"}}},
                }
            }
        ]
    )
    assert (
        made
        == head
        + '1. Name: f\nDescription: F.\nParameters: {"x": {"description": "d", "type": "int",'
        ' "default": ""}}' + tail
    )


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]


def conversation(said):
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1?"},
            {"role": "assistant", **said},
        ],
        "tools": TOOLS,
    }


def test_openai_conversations(tmp_path):
    path = tmp_path / "rows.jsonl"
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    rows = [
        conversation({"content": None, "tool_calls": [call, call]}),
        conversation({"content": "Hello."}),
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    t = task(f"openai:{path}", test_share=1.0)
    called, plain = t.rows("test")
    assert called["calls"] == [{"name": "add", "arguments": {"a": 1}}] * 2 and plain["calls"] == []
    assert called["prompt"][0]["content"].startswith("Be brief.\n\n# Tools") and called["prompt"][
        1
    ] == {
        "role": "user",
        "content": "1?",
    }
    assert (
        style("hermes").parse(called["completion"]) == [Call("add", {"a": 1})] * 2
        and plain["completion"] == "Hello."
    )
    once = style("hermes").write([Call("add", {"a": 1})])
    assert judged(t, [called, plain], [called["completion"], "Hi"]) == [1.0, 1.0]
    assert judged(t, [called, plain], [once, once]) == [pytest.approx((0.5 + 2) / 5), 0.0]
    bare = OpenAICalls(str(path), announce=False, style="xml", grain="all", test_share=1.0)
    assert (
        bare.rows("test")[0]["prompt"][0]["content"] == "Be brief."
        and "<function=add>" in bare.rows("test")[0]["completion"]
    )


@pytest.mark.parametrize(
    ("kind", "row", "line"),
    [
        (
            "openai",
            {"messages": [{"role": "user", "content": "?"}]},
            "line 1: expected messages that end with the assistant's",
        ),
        ("openai", {"prompt": "?"}, "found columns prompt"),
        (
            "openai",
            conversation({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
            "line 1: message 3: the arguments of 'f': not valid JSON",
        ),
        (
            "toolrl",
            {"prompt": "?"},
            "line 1: expected instruction, input, output; or prompt and reward_model.ground_truth",
        ),
        (
            "toolrl",
            {"instruction": "i", "output": "<tool_call>\n{broken\n</tool_call>"},
            "line 1: the recorded call cannot be read: a line is not valid JSON",
        ),
    ],
)
def test_error_lines(tmp_path, kind, row, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=line):
        task(f"{kind}:{path}").rows("test")
    with pytest.raises(ValueError, match="no such file"):
        task(f"{kind}:{tmp_path}/nowhere.jsonl").rows("test")

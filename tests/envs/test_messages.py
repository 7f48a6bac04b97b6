"""Conversations in users' files: OpenAI's and ShareGPT's forms, Parquet's nulls, tools, errors with
file and line; and as SFT learns them.

Run: python -m pytest -q tests/envs/test_messages.py
"""

from __future__ import annotations

import json

import pytest

from logpi.envs.data import load_rows

ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
SAY = {"type": "function", "function": {"name": "say", "arguments": {"text": "x"}}}
SCHEMA = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {}},
    },
}
ASKED, TOLD, ENDED = (
    {"role": "user", "content": "go"},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "done"},
)
CALLING = {"role": "assistant", "content": "", "tool_calls": [ADD, SAY]}


def rows(tmp_path, *raw, name="rows.jsonl", **options):
    path = tmp_path / name
    path.write_text("".join(json.dumps(r) + "\n" for r in raw))
    return load_rows(str(path), **options)


def test_parquets_nulls_are_no_arguments_and_a_null_in_json_stays(tmp_path):
    import pyarrow
    from pyarrow import parquet

    messages = [ASKED, {**CALLING, "content": None}, TOLD, ENDED]
    tools = [{"name": "add", "parameters": {"type": "object", "enum": None}}]
    parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": messages, "tools": tools}]), tmp_path / "a.parquet"
    )
    (row,) = load_rows(str(tmp_path / "a.parquet"))
    assert row["messages"] == [ASKED, CALLING, TOLD, ENDED] and row["prompt"] == [
        ASKED,
        CALLING,
        TOLD,
    ]
    assert row["tools"] == [
        {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    ]
    null = {"function": {"name": "add", "arguments": {"a": None}}}
    (row,) = rows(tmp_path, {"messages": [ASKED, {"role": "assistant", "tool_calls": [null]}]})
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"a": None}


def test_a_conversation_may_end_in_a_call(tmp_path):
    (row,) = rows(
        tmp_path,
        {"messages": [ASKED, CALLING], "tools": json.dumps([SCHEMA])},
        need=("prompt", "completion"),
    )
    assert (
        row["messages"] == [ASKED, CALLING] and row["completion"] == "" and row["tools"] == [SCHEMA]
    )
    (row,) = rows(tmp_path, {"prompt": [ASKED], "completion": [CALLING], "tools": [SCHEMA]})
    assert row["completion"] == [CALLING] and row["template_tools"] == [SCHEMA]
    (row,) = rows(tmp_path, {"prompt": [ASKED], "completion": [CALLING, TOLD, ENDED]})
    assert row["completion"] == [CALLING, TOLD, ENDED]
    (row,) = rows(tmp_path, {"prompt": [ASKED], "completion": [ENDED]})
    assert row["completion"] == "done" and "template_tools" not in row


def test_sharegpt(tmp_path):
    said = [
        {"from": "human", "value": "go"},
        {"from": "function_call", "value": json.dumps(ADD["function"])},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "done"},
    ]
    (row,) = rows(
        tmp_path, {"conversations": said, "system": "be brief", "tools": json.dumps([SCHEMA])}
    )
    system = {"role": "system", "content": "be brief"}
    assert (
        row["messages"] == [system, ASKED, {**CALLING, "tool_calls": [ADD]}, TOLD, ENDED]
        and row["completion"] == "done"
    )


def test_pairs_of_conversations_are_in_one_form(tmp_path):
    chosen = [
        ASKED,
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
    ]
    rejected = [{"role": "user", "content": [{"type": "text", "text": "go"}]}, ENDED]
    (row,) = rows(tmp_path, {"chosen": chosen, "rejected": rejected})
    assert row["prompt"] == [ASKED]
    assert row["chosen"][-1] == {**CALLING, "tool_calls": [ADD]} and row["rejected"][-1] == ENDED


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            {
                "messages": [
                    ASKED,
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                    },
                ]
            },
            "rows.jsonl, line 2: 'messages': message 2: the arguments of 'f': not valid JSON",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]},
            (
                "rows.jsonl, line 2: 'prompt': message 1: content has a part of type 'image'; only"
                " text is read"
            ),
        ),
        (
            {"messages": [ASKED, ENDED], "tools": "[{"},
            "rows.jsonl, line 2: 'tools': the list: not valid JSON",
        ),
        (
            {"messages": [ASKED, ENDED], "tools": ["calculator"]},
            "rows.jsonl, line 2: 'tools': a tool: not valid JSON",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": " "}]},
            "rows.jsonl, line 2: the completion is empty",
        ),
        (
            {"messages": [ASKED, {"role": "assistant"}]},
            "line 2: 'messages': message 2: the content of role 'assistant'",
        ),
        (
            {"prompt": "go", "completion": [CALLING]},
            "line 2: the completion calls tools, which cannot follow a text",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_line(tmp_path, row, line):
    with pytest.raises(ValueError) as error:
        rows(tmp_path, {"prompt": "fine"}, row)
    assert line in str(error.value) and "\n" not in str(error.value)

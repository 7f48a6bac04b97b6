"""Conversations and tools as data sets have them: one form, nulls of Arrow's, ids and texts that
some templates want.

Run: python -m pytest -q tests/calls/test_messages.py
"""

from __future__ import annotations

import json

import pytest

from logpi.calls import Call
from logpi.calls.messages import calls_of, conversation, forms, from_arrow, tool_list, without_nulls

ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    ("message", "made"),
    [
        (
            {"role": "user", "content": "hi", "weight": 0},
            {"role": "user", "content": "hi", "weight": 0},
        ),
        ({"role": "developer", "content": "be"}, {"role": "system", "content": "be"}),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            {"role": "user", "content": "ab"},
        ),
        ({"role": "user", "content": []}, {"role": "user", "content": ""}),
        (
            {"role": "assistant", "tool_calls": [ADD]},
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [ADD]},
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        (
            {"role": "assistant", "content": "x", "tool_calls": None},
            {"role": "assistant", "content": "x"},
        ),
        (
            {"role": "assistant", "content": "x", "tool_calls": []},
            {"role": "assistant", "content": "x"},
        ),
        (
            {"role": "assistant", "content": None, "reasoning_content": "hm"},
            {"role": "assistant", "content": "", "reasoning_content": "hm"},
        ),
        (
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"a": 1}'},
                    }
                ],
            },
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **ADD}]},
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"name": "add", "parameters": '{"a": 1}', "id": "c"}],
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "id": "c", "function": ADD["function"]}],
            },
        ),
        (
            {"role": "assistant", "tool_calls": json.dumps([ADD])},
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "add", "arguments": '{"a": 1}'},
            },
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": ""}}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {}}}],
            },
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f", "arguments": {"q": None}}}],
            },  # a null that is meant
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "f", "arguments": {"q": None}}}
                ],
            },
        ),
        (
            {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c1"},
            {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c1"},
        ),
        (
            {"role": "function", "content": "2", "name": "add"},
            {"role": "tool", "content": "2", "name": "add"},
        ),
        ({"role": "tool", "content": {"sum": 2}}, {"role": "tool", "content": '{"sum": 2}'}),
        ({"role": "tool", "content": [1, 2]}, {"role": "tool", "content": "[1, 2]"}),
        (
            {"role": "tool", "content": [{"type": "text", "text": "2"}]},
            {"role": "tool", "content": "2"},
        ),
        ({"from": "human", "value": "hi"}, {"role": "user", "content": "hi"}),
        ({"from": "gpt", "value": "ho"}, {"role": "assistant", "content": "ho"}),
        ({"from": "system", "value": "be"}, {"role": "system", "content": "be"}),
        (
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"role": "assistant", "content": "", "tool_calls": [ADD]},
        ),
        ({"from": "observation", "value": "2"}, {"role": "tool", "content": "2"}),
    ],
)
def test_one_form(message, made):
    assert conversation([message]) == [made]
    assert conversation(conversation([message])) == [made]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("hi", "message 2: expected role and content, got str 'hi'"),
        ({"text": "hi"}, "message 2: expected role and content, found text"),
        (
            {"role": "user"},
            (
                "message 2: the content of role 'user' must be a text, or a list of parts of type"
                " text, got nothing"
            ),
        ),
        ({"role": "user", "content": 3}, "parts of type text, got int '3'"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "content has a part of type 'image_url'; only text is read",
        ),
        ({"role": "user", "content": [3]}, "a part of type 'int'"),
        ({"role": "assistant", "content": None}, "got nothing"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            "the arguments of 'f': not valid JSON",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            "needs a name, and arguments as a JSON object",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]},
            "a tool call needs a name",
        ),
        ({"role": "assistant", "tool_calls": ["f"]}, "a tool call needs a name"),
        ({"from": "function_call", "value": "add 1"}, "tool calls: not valid JSON"),
    ],
)
def test_what_is_no_message_is_named(message, line):
    with pytest.raises(ValueError) as error:
        conversation([{"role": "user", "content": "?"}, message])
    assert line in str(error.value) and "\n" not in str(error.value)


def test_arrows_nulls_are_no_arguments_and_other_columns_stay():
    call = {
        "id": None,
        "function": {"name": "add", "arguments": {"a": 1, "text": None, "in": {"x": None}}},
    }
    row = {
        "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}],
        "extra": {"a": None},
        "tags": [None],
    }
    assert from_arrow(row) == {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "in": {}}}}],
            }
        ],
        "extra": {"a": None},
        "tags": [None],
    }
    assert without_nulls([None, {"a": (None, {"b": None})}]) == [None, {"a": [None, {}]}]


def test_tools_as_text_and_as_bare_functions():
    schema = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
    for given in (
        [schema],
        json.dumps([schema]),
        [json.dumps(schema)],
        [schema["function"]],
        schema,
    ):
        assert tool_list(given) == [schema]
    assert tool_list("") == tool_list([]) == [] and tool_list([len]) == [len]
    for bad, line in (
        ("[", "the list: not valid JSON"),
        (["calculator"], "a tool: not valid JSON"),
        ([{"parameters": {}}], "a tool needs a name"),
        (3, "must be a list"),
    ):
        with pytest.raises(ValueError, match=line):
            tool_list(bad)


def test_calls_of_any_form():
    assert (
        calls_of([ADD]) == calls_of(ADD) == calls_of(json.dumps([ADD])) == [Call("add", {"a": 1})]
    )
    assert calls_of(None) == calls_of([]) == []


def test_forms_that_some_templates_ask_for():
    talk = conversation(
        [
            {"role": "assistant", "tool_calls": [{"id": "call_longer", **ADD}, ADD]},
            {"role": "tool", "content": "2", "tool_call_id": "call_longer"},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "tool_calls": [{"id": "abcdefghi", **ADD}]},
            {"role": "tool", "content": "4", "tool_call_id": "abcdefghi"},
        ]
    )
    plain, numbered, texts, both = forms(talk)
    assert plain == talk
    assert [c["id"] for m in numbered for c in m.get("tool_calls", ())] == [
        "call00000",
        "call00001",
        "abcdefghi",
    ]
    assert [m["tool_call_id"] for m in numbered if m["role"] == "tool"] == [
        "call00000",
        "call00001",
        "abcdefghi",
    ]
    assert {c["function"]["arguments"] for m in texts for c in m.get("tool_calls", ())} == {
        '{"a": 1}'
    }
    assert both[0]["tool_calls"][1] == {
        "id": "call00001",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    assert list(forms([{"role": "user", "content": "?"}])) == [[{"role": "user", "content": "?"}]]

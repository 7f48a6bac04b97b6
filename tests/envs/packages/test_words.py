"""A turn as an OpenAI message.

Run: python -m pytest -q tests/envs/packages/test_words.py
"""

from __future__ import annotations

import json

import pytest

from logpi.envs.packages.words import as_message, plain

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    }
]
LOOK = '<tool_call>{"name": "look", "arguments": {"at": "łąka"}}</tool_call>'


def test_a_turn_of_words_is_content_alone():
    assert as_message("4 = 4", TOOLS) == ({"role": "assistant", "content": "4 = 4"}, 0)
    assert as_message(LOOK, []) == ({"role": "assistant", "content": LOOK}, 0), "no tools, no calls"


def test_calls_stand_apart_in_order_and_with_ids():
    message, malformed = as_message(f"I look. {LOOK}{LOOK}", TOOLS)
    assert malformed == 0 and message["content"] == "I look."
    assert [c["id"] for c in message["tool_calls"]] == ["call_0", "call_1"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"at": "łąka"}


def test_a_thought_is_no_word_and_no_call():
    message, _ = as_message(f"<think>{LOOK}</think>\n\nseen", TOOLS)
    assert message == {"role": "assistant", "content": "seen", "reasoning_content": LOOK}
    assert as_message("<think>on and on", [])[0]["content"] == ""


def test_what_cannot_be_read_stays_in_the_words_and_is_counted():
    text = "<tool_call>{'name': look</tool_call>"
    message, malformed = as_message(text, TOOLS)
    assert message == {"role": "assistant", "content": text} and malformed == 1


def test_parts_of_text_are_joined_and_others_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert plain([{"role": "user", "content": parts}])[0]["content"] == "a\nb"
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(ValueError, match="image_url.*text alone"):
        plain([{"role": "user", "content": image}])

"""What of a turn that is being written is surely no call; and what a whole one says before its
calls."""

from __future__ import annotations

import pytest

from logpi.calls import STYLES, Call
from logpi.calls.reading import spoken
from logpi.calls.unfinished import settled

TOOLS = [{"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}]
CALLS = [Call("add", {"a": 1}), Call("add", {"a": 2})]


@pytest.mark.parametrize("name", [n for n in STYLES if n != "search"])
@pytest.mark.parametrize("words", ["", "I look it up.", "<think>a < b [1]</think>\nFirst:"])
def test_what_was_settled_is_said(name: str, words: str) -> None:
    """At every point of every style: what was given out is a beginning of what is said before the
    calls."""
    text = f"{words}\n{STYLES[name].write(CALLS)}" if words else STYLES[name].write(CALLS)
    said, attempts = spoken(text, TOOLS)
    if name == "python" and words:
        # read only where nothing else is said
        assert (said, attempts) == (text, [])
        return
    assert (said, attempts) == (words, CALLS)
    at = 0
    for end in range(len(text) + 1):
        at = settled(text[:end], at)
        assert words.startswith(text[:at])


def test_an_answer_without_calls_is_all_said() -> None:
    text = "a [b] {c} <d> `e`\nz"
    assert spoken(text, TOOLS) == (text, []) and settled(text) == len(text)
    # "functools[{" may follow
    assert settled("z f") == 1


def test_a_call_that_the_model_forgot_to_open_is_not_said() -> None:
    call = '{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert spoken(f"First:\n{call}", TOOLS) == ("First:", CALLS[:1])


def test_a_call_before_a_thought_is_not_said() -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    assert spoken(f"First: {call} <think>hm</think>", TOOLS) == ("First:", CALLS[:1])


def test_a_call_in_a_thought_is_said() -> None:
    thought = '<think><tool_call>{"name": "add", "arguments": {}}</tool_call></think>'
    assert spoken(f"{thought} 3", TOOLS) == (f"{thought} 3", [])

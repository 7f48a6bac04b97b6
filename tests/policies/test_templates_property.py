"""Law: for every family and conversation, a demonstration's row is the template's rendering of the
whole, token by token, or the difference is said. Random conversations with unicode, control tokens,
tool calls, thoughts, white space at edges, no words, long words.

The right value is `transformers`' own `apply_chat_template`. Where data spell control tokens, which
act there, it is the count of control tokens without them, and the text.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logpi.errors import UserError
from logpi.policies.chat_template import ChatTemplate
from logpi.rollouts.chat_rows import token_rows
from logpi.rollouts.observations import CALL, Observations
from tests.families import FAMILIES, tokenizer

CHATS = [name for name, family in FAMILIES.items() if family.template is not None]
TOOLS = ("qwen3", "think-special", "qwq", "hermes", "items", "llama3.1", "mistral-tools")
SPELLED = tuple(
    dict.fromkeys(
        t for f in FAMILIES.values() for t in (f.end, f.eos, f.bos, *f.special, *f.stops) if t
    )
)
ODD = (
    "\U000f0000",
    "\U000f0001",
    "\U000f0003x",
    "\U00100000",
    "\U000ffffc",
    "▁",
    "\ufeff",
    "\u2028",
    "\x00",
    "e\u0301",
    "👩‍👩‍👧",
    "אב",
    "日本",
)
PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        [
            " ",
            "  ",
            "\n",
            "\n\n",
            "\t",
            "\r\n",
            "It is 4.",
            "the answer",
            "{{ m }}",
            "{% if %}",
            "a" * 300,
            "ab " * 40,
            "1234567890",
        ]
    ),
    st.sampled_from(ODD),
    st.sampled_from(SPELLED),
)
TEXT = st.lists(PARTS, max_size=5).map("".join)
THOUGHT = st.tuples(TEXT, TEXT).map(lambda t: f"<think>\n{t[0]}\n</think>\n\n{t[1]}")
ANSWER = st.one_of(TEXT, TEXT, THOUGHT)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "b", "town"]),
    st.one_of(TEXT, st.integers(-5, 10**9), st.booleans()),
    max_size=2,
)


class Reader:
    def __init__(self, name: str) -> None:
        made = tokenizer(name)
        self.template = ChatTemplate(
            made, stops=tuple(map(made.convert_tokens_to_ids, FAMILIES[name].stops))
        )


reader = cache(Reader)


@st.composite
def conversations(draw, tools: bool = False):
    """One to three questions with their answers, some after a system message, some by way of a
    tool."""
    messages = [{"role": "system", "content": draw(TEXT)}] if draw(st.integers(0, 4)) == 0 else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXT)})
        if tools and draw(st.booleans()):
            call = {**CALL, "function": {"name": "f", "arguments": draw(ARGUMENTS)}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "content": draw(TEXT), "tool_call_id": CALL["id"]})
        messages.append({"role": "assistant", "content": draw(ANSWER)})
    return messages


def rows_of(some: Reader, messages) -> tuple[list, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return token_rows(some, messages), [str(w.message) for w in told]


def written(some: Reader, messages, tokenize=True):
    made = some.template.tokenizer
    return made.apply_chat_template(
        messages, tokenize=tokenize, **({"return_dict": False} if tokenize else {})
    )


def clean(value, controls):
    """Data without what they spell of control tokens."""
    if isinstance(value, str):
        for token in sorted(controls, key=len, reverse=True):
            value = value.replace(token, "")
        return value
    if isinstance(value, dict):
        return {
            k: v if k in ("role", "id", "tool_call_id", "type", "name") else clean(v, controls)
            for k, v in value.items()
        }
    return [clean(v, controls) for v in value] if isinstance(value, list) else value


def counted(some: Reader, ids) -> Counter:
    made = some.template.tokenizer
    special = {made.convert_tokens_to_ids(c) for c in some.template.controls} - {made.unk_token_id}
    return Counter(i for i in ids if i in special)


def spelled(some: Reader, value) -> bool:
    return clean(value, some.template.controls) != value


def check(name: str, messages) -> None:
    some = reader(name)
    try:
        made, told = rows_of(some, messages)
    except (ValueError, UserError):
        return  # said
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    upto = [messages] if len(made) == 1 else [messages[: i + 1] for i in answers]
    end = some.template.end_id
    for row, part in zip(made, upto, strict=True):
        assert len(row.ids) == len(row.own)
        if not spelled(some, messages):
            ids = written(some, part)
            assert row.ids in (ids, [*ids, end]) or told, (row.ids, ids)
        elif not told:
            text = written(some, part, tokenize=False)
            assert squeezed(some, row.ids) in (joined(text), joined(text) + some.template.end_text)
        neutral, _ = (
            rows_of(some, clean(part, some.template.controls))
            if spelled(some, part)
            else ([row], [])
        )
        if len(neutral) == 1 and not thoughts(part):
            assert counted(some, row.ids) == counted(some, neutral[0].ids)
        check_own(some, row, part if len(made) == 1 else part[-1:], told)


def thoughts(messages) -> bool:
    """A thought's marks, and those of calls, may be control tokens of the answer's own."""
    return any(
        re.search(r"think>|tool_call|TOOL", str(m)) for m in messages if m["role"] == "assistant"
    )


def squeezed(some: Reader, ids) -> str:
    return joined(some.template.tokenizer.decode(ids))


def joined(text: str) -> str:
    """Without white space, of which SentencePiece's kind counts ▁ as some."""
    return "".join(text.replace("▁", " ").split())


def check_own(some: Reader, row, messages, told) -> None:
    """Every answer ends with the end of a turn and the first token is what a sampler would
    choose."""
    ids = [i for i, own in zip(row.ids, row.own, strict=True) if own]
    answers = [m for m in messages if m["role"] == "assistant"]
    closed = len(answers) if some.template.ends_turns else 1
    assert ids.count(some.template.end_id) == closed and ids[-1] == some.template.end_id
    if not told and len(answers) == 1 and "<think>" not in answers[0]["content"]:
        assert joined(answers[0]["content"]) in squeezed(some, ids)


QUICK = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
LONG = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", CHATS)
@QUICK
@given(messages=conversations())
def test_rows_are_the_templates_rendering(name, messages):
    check(name, messages)


@pytest.mark.parametrize("name", TOOLS)
@QUICK
@given(messages=conversations(tools=True))
def test_rows_with_calls_are_the_templates_rendering(name, messages):
    check(name, messages)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATS)
@LONG
@given(messages=conversations())
def test_many_rows_are_the_templates_rendering(name, messages):
    check(name, messages)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOOLS)
@LONG
@given(messages=conversations(tools=True))
def test_many_rows_with_calls_are_the_templates_rendering(name, messages):
    check(name, messages)


@pytest.mark.parametrize("name", FAMILIES)
@settings(QUICK, max_examples=25)
@given(text=TEXT)
def test_observations_and_continuations_hold_no_control_token(name, text):
    some = reader(name)
    for ids in (
        some.template.continuation(text),
        Observations(some.template, limit=10_000)(text, some.template.end_id).ids,
    ):
        assert not counted(some, ids)
        assert squeezed(some, ids) == joined(text)

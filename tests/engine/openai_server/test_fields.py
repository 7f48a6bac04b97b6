"""What a request may say: understood, harmless, or refused with a line."""

from __future__ import annotations

import pytest

from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.fields import CHAT, COMPLETION, NEUTRAL, checked, wish


def test_harmless_fields_pass() -> None:
    body = {"messages": [{}], "user": "u", "metadata": {"a": "b"}, "logit_bias": {}, "top_p": None}
    body |= {name: values[0] for name, values in NEUTRAL.items()}
    assert checked(body, CHAT) == {"messages": [{}]}


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"best_of": 4}, "best_of"),
        ({"min_p": 0.1}, "min_p"),
        ({"stop_token_ids": [5]}, "stop_token_ids"),
        ({"store": True}, "store"),
        ({"temprature": 1}, "did you mean temperature"),
        ({"n": 0}, "at least 1"),
        ({"n": 10**6}, "at most 128"),
        ({"n": True}, "integer"),
        ({"temperature": -1}, "at least 0"),
        ({"temperature": "hot"}, "number"),
        ({"top_p": 0}, "above 0"),
        ({"top_k": -2}, "at least -1"),
        ({"max_tokens": 1.5}, "integer"),
        ({"logprobs": 100}, "at most 20"),
        ({"seed": 2**70}, "at most"),
        ({"stop": ["a"] * 100}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "boolean"),
        ({"stream_options": {"nosuch": 1}}, "nosuch"),
    ],
)
def test_others_are_refused_with_their_name(field: dict, line: str) -> None:
    with pytest.raises(RequestError, match=line) as caught:
        checked({"prompt": "a", **field}, COMPLETION)
    assert caught.value.status == 400 and "\n" not in str(caught.value)


def test_a_cold_temperature_is_greedy() -> None:
    assert wish({"temperature": 0}, 5, None).greedy and not wish({}, 5, None).greedy
    assert wish({}, 5, None).temperature == 1.0 and wish({"top_k": -1}, 5, None).top_k == 0


def test_stream_options_need_a_stream() -> None:
    with pytest.raises(RequestError, match="stream=true"):
        wish({"stream_options": {"include_usage": True}}, 5, None)

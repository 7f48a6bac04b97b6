"""Tokens of families of tokenizers as answers call and place them, and texts that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from logpi.engine.openai_server.chat import chat
from logpi.engine.openai_server.completions import completion
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.prompts import Prompts
from logpi.engine.openai_server.scheduler import Piece, Started
from logpi.engine.openai_server.scores import PromptScore
from logpi.engine.openai_server.texts import TextStream
from logpi.policies.causal_lm import CausalLM
from tests.engine.openai_server.serving import QUESTION, TOOLS
from tests.families import family

TEXT = "What is é? It is 🎉 7, I think."


def prompts_of(name: str) -> Prompts:
    return Prompts(CausalLM(*family(name)), 512)


def echoed(words: Prompts, text: str, sample: list[int]) -> dict[str, Any]:
    """The choice that echoes `text` and goes on with `sample`."""
    body = {"prompt": text, "echo": True, "logprobs": 0, "max_tokens": 40}
    answer = completion(body, "m", words)
    [prompt] = answer.question.prompts
    known = len(prompt) - 1
    answer.begin(Started("v", [PromptScore((-1.0,) * known, ((),) * known)]))
    assert answer.wish.goes_on
    stream = TextStream(words.decoder, words.silent(False), after=prompt[-1])
    said = "".join(map(stream.push, sample)) + stream.end()
    none = [()] * len(sample)
    return answer.choice(Piece(0, sample, [-1.0] * len(sample), none, said, "length"))


@pytest.mark.parametrize("kind", ["qwen2.5", "llama3", "llama2", "gemma3", "base-always"])
def test_tokens_begin_where_their_text_does(kind: str) -> None:
    """Of the prompt and of the sample; characters of several tokens and stripped spaces too."""
    words = prompts_of(kind)
    sample = words.template.continuation(TEXT)
    choice = echoed(words, TEXT, sample)
    text, numbers = choice["text"], choice["logprobs"]
    assert text == TEXT + TEXT
    prompt, begins, names = words.plain(TEXT), numbers["text_offset"], numbers["tokens"]
    for begin, token, name in zip(begins, [*prompt, *sample], names, strict=True):
        if token not in words.silent(False) and "\ufffd" not in name:
            # the prompt's first space is stripped
            assert text.startswith(name if begin else name.lstrip(" "), begin)
    # the last tokens of the prompt and of the sample
    assert text[begins[len(prompt) - 1] : len(TEXT)] == names[len(prompt) - 1]
    assert text[begins[-1] :] == names[-1]


def test_words_of_sentencepiece_are_called_with_their_space() -> None:
    words = prompts_of("llama2")
    ids = words.template.continuation("What is it")
    names = [words.spelled(i) for i in ids]
    assert "".join(names) == "What is it" and names != [words.decoder.decode([i]) for i in ids]
    assert [words.spelled(i) for i in words.tokenizer.convert_tokens_to_ids(["<s>", "<0xC3>"])] == [
        "<s>",
        "\ufffd",
    ]


def test_a_completion_keeps_its_first_space() -> None:
    """SentencePiece's ▁What is " What" behind another word, though alone it is "What"."""
    words = prompts_of("llama2")
    choice = echoed(words, TEXT, words.plain(TEXT)[1:])
    assert choice["text"] == f"{TEXT} {TEXT}"
    at = choice["logprobs"]["text_offset"][-len(words.plain(TEXT)[1:])]
    assert choice["text"][at:].startswith(" What")


def test_marks_of_calls_stay_for_who_offers_tools() -> None:
    """Without [TOOL_CALLS], a special token, nothing would tell a call."""
    words = prompts_of("mistral-tools")
    body = {"messages": QUESTION, "skip_special_tokens": True}
    assert chat(body, "m", words).wish.skip_special
    assert not chat({**body, "tools": TOOLS}, "m", words).wish.skip_special


@pytest.mark.parametrize("special", [True, False])
def test_half_a_character(special: bool) -> None:
    with pytest.raises(RequestError, match="no UTF-8"):
        prompts_of("qwen2.5").plain("\ud83d", special)


def test_an_empty_text_has_no_tokens_and_is_no_prompt() -> None:
    words = prompts_of("qwen2.5")
    assert words.plain("") == [] and words.plain([]) == []
    with pytest.raises(RequestError, match="a prompt is empty"):
        words.room([], 5)


def test_roles_are_openais_or_the_templates_own() -> None:
    """A role in the template's quotes is its own; one that the library reads as another passes."""
    words = prompts_of("qwen2.5")
    plain = words.chat([{"role": "user", "content": "x"}], (), {})
    assert words.chat([{"role": "human", "content": "x"}], (), {}) == plain
    with pytest.raises(RequestError, match="no role 'critic'"):
        words.chat([{"role": "critic", "content": "x"}], (), {})
    source = words.tokenizer.chat_template
    words.tokenizer.chat_template = "{% if messages[0].role == 'critic' %}!{% endif %}" + source
    del words._quoted
    assert words.chat([{"role": "critic", "content": "x"}], (), {})

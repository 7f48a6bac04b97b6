"""Text of tokens as they come: characters whole, stop strings never, and all of it in the end."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logpi.engine.openai_server.texts import BROKEN, TextStream
from tests.tiny import tiny_tokenizer

TEXT = "é漢字 🎉🎉 ok\n<a>  Ünï\u200dx"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, as GPT-2's tokenizer has them; <eos> is 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {c: i for i, c in enumerate(alphabet, 1)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def fallback_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's way: words that begin with ▁, and bytes as <0xC3>."""
    words = ["<eos>", "▁", "▁a", "b", *(f"<0x{i:02X}>" for i in range(256))]
    core = Tokenizer(
        models.BPE(
            vocab={w: i for i, w in enumerate(words)},
            merges=[],
            unk_token="<eos>",
            byte_fallback=True,
        )
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def pushed(stream: TextStream, ids: list[int]) -> list[str]:
    return [*(stream.push(i) for i in ids), stream.end()]


def test_no_character_comes_in_parts() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    assert len(ids) == len(TEXT.encode())
    pieces = pushed(TextStream(tokenizer, {0}), ids)
    assert "".join(pieces) == TEXT and not any(BROKEN in p for p in pieces)
    # each character comes with its last byte
    ends = [len(TEXT[: i + 1].encode()) - 1 for i in range(len(TEXT))]
    assert [i for i, p in enumerate(pieces) if p] == ends


def test_spaces_of_a_tokenizer_that_strips_a_texts_first() -> None:
    tokenizer = fallback_tokenizer()
    ids = [2, 3, 2, 1, 1, 4 + 0xC3, 4 + 0xA9, 2, 3]
    whole = tokenizer.decode(ids)
    assert whole == "ab a  é ab"
    assert pushed(TextStream(tokenizer, {0}), ids)[:2] == ["a", "b"]
    assert "".join(pushed(TextStream(tokenizer, {0}), ids)) == whole


def test_a_text_that_goes_on_keeps_its_first_space() -> None:
    tokenizer = fallback_tokenizer()
    assert pushed(TextStream(tokenizer, {0}, after=3), [2, 3, 2]) == [" a", "b", " a", ""]
    # behind an end, or half a character (which the prompt keeps), a text begins
    assert pushed(TextStream(tokenizer, {0}, after=0), [2]) == ["a", ""]
    assert pushed(TextStream(tokenizer, {0}, after=4 + 0xC3), [2, 3]) == ["a", "b", ""]


def test_random_bytes_are_the_decoded_whole() -> None:
    """Broken characters too, as long as fewer than 64 tokens are broken in a row."""
    chance, tokenizer = random.Random(0), byte_tokenizer()
    for _ in range(200):
        data = b"".join(
            chance.choice([b"a", " é".encode(), "🎉".encode()[: chance.randint(1, 4)], b"\xff"])
            for _ in range(chance.randint(1, 12))
        )
        ids = [tokenizer.convert_tokens_to_ids(c) for c in as_characters(data)]
        pieces = pushed(TextStream(tokenizer, {0}), ids)
        assert "".join(pieces) == tokenizer.decode(ids) == data.decode("utf-8", "replace")


def as_characters(data: bytes) -> str:
    """Bytes as GPT-2's alphabet spells them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return "".join(bytes_to_unicode()[b] for b in data)


def test_broken_bytes_without_end_come_out_too() -> None:
    tokenizer = byte_tokenizer()
    bad = tokenizer.convert_tokens_to_ids(as_characters(b"\xff"))
    stream = TextStream(tokenizer, {0})
    assert any(stream.push(bad) for _ in range(100)) and len(stream._window) < 100


@pytest.mark.parametrize(
    ("text", "stop", "said", "stopped"),
    [
        ("x\n\nQ: y", ("\n\nQ:",), "x", "\n\nQ:"),
        ("x\n\nR: y", ("\n\nQ:",), "x\n\nR: y", ""),
        ("aab", ("ab",), "a", "ab"),
        ("abcabd", ("abd", "cx"), "abc", "abd"),
        # the first in the text, not in the list
        ("one two", ("two", "one"), "", "one"),
        # it begins one and ends
        ("xa", ("ab",), "xa", ""),
    ],
)
def test_stop_strings(text: str, stop: tuple[str, ...], said: str, stopped: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer, {0, 1, 2}, stop)
    pieces = pushed(stream, ids)
    assert "".join(pieces) == said and stream.stopped == stopped
    # nothing is said that a stop string could take back
    for i in range(len(pieces)):
        assert said.startswith("".join(pieces[:i]))


def test_silent_tokens_have_no_text() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert "".join(pushed(TextStream(tokenizer, {1, 2}), [1, *ids, 3, 2])) == "ab<unk>"

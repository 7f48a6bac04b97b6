"""The text of each token: half characters, bytes that are none, numbers that are no token."""

from __future__ import annotations

from pathlib import Path

import pytest

from logpi.viewer.files import Folders, ViewError
from logpi.viewer.token_pieces import by_turns, pieces, tokenizer_of
from tests.viewer.runs import byte_tokenizer, keep_tokenizer, make_run


@pytest.mark.parametrize("text", ["a", "aé", "é🦉等", "\u202e\x1b[31m\n\n x", ""])
def test_joined_pieces_are_the_text_and_every_token_has_one(text: str) -> None:
    ids = list(text.encode())
    each = pieces(byte_tokenizer(), ids)
    assert "".join(each) == text and len(each) == len(ids)


def test_bytes_that_are_no_text_lose_no_token() -> None:
    tokenizer = byte_tokenizer()
    # a lone continuation byte; the first half of an owl, then letters; half a character at the end
    for ids in ([0xA9, 97], [0xF0, 0x9F, 97, 98], [97, 0xC3], [0xFF] * 5):
        each = pieces(tokenizer, ids)
        assert "".join(each) == tokenizer.decode(ids) and len(each) == len(ids)


def test_numbers_that_are_no_token() -> None:
    assert pieces(byte_tokenizer(), [97, 10**9, -1, 98]) == ["a", "\ufffd", "\ufffd", "b"]


def test_a_turn_ends_a_character() -> None:
    # two halves of é in two turns are no é
    assert "é" not in "".join(by_turns(byte_tokenizer(), [0xC3, 0xA9], [1, 1]))
    assert by_turns(byte_tokenizer(), [97, 98, 99], [1, 1]) == ["a", "b", "c"]


def test_where_the_tokenizer_comes_from(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "rl-1")
    folders = Folders([run.parent])
    with pytest.raises(ViewError, match="no tokenizer"):
        tokenizer_of(folders, run, {"model": "nosuch\0"})
    # the model that it began with may be elsewhere
    keep_tokenizer(tmp_path)
    elsewhere = {"model": str(tmp_path / "tokenizer")}
    assert tokenizer_of(folders, run, elsewhere).get_vocab_size() == 256
    keep_tokenizer(run)
    (run / "tokenizer" / "tokenizer.json").write_text('{"model": "nonsense"}')
    with pytest.raises(ViewError, match="cannot be read"):
        tokenizer_of(folders, run, {})

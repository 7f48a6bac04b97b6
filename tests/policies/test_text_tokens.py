"""Characters that a vocabulary lacks: by an unknown token, by none, and never of families'."""

from __future__ import annotations

import pytest

from logpi.policies.small import character_tokenizer
from logpi.policies.text_tokens import TextTokens
from tests.families import FAMILIES, tokenizer

TEXT = "日本語 é\n\t🙂\u200b <unk> x"


@pytest.mark.parametrize("name", FAMILIES)
def test_families_lack_nothing(name: str) -> None:
    """They have a token for every byte, also those with an unknown token."""
    tokens = TextTokens(tokenizer(name))
    assert tokens.reads_all and tokens.lack(TEXT) == "" and tokens._unread(TEXT) == ""


def test_an_unknown_token_stands_for_what_is_lacking() -> None:
    tokens = TextTokens(character_tokenizer("0123456789+=", ["<think>"]))
    assert not tokens.reads_all
    assert tokens.lack("hi 12h") == (
        "the model's vocabulary lacks 'h', 'i', ' ': it reads <unk> instead"
    )
    assert tokens.lack("abcdefgh1").startswith(
        "the model's vocabulary lacks 'a', 'b', 'c', 'd', 'e', 'f' and 2 more: "
    )
    # a word of the vocabulary, and the unknown token that a text spells
    assert tokens.lack("<think>1+1=<unk>") == ""
    assert "lacks 'x': " in tokens.lack("<unk>x")


def test_a_tokenizer_without_an_unknown_token_drops_characters() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate("012+=")}, merges=[]))
    tokens = TextTokens(PreTrainedTokenizerFast(tokenizer_object=core))
    assert tokens.plain("1a2") == [1, 2]
    assert tokens.lack("1a2") == "the model's vocabulary lacks 'a': it reads nothing instead"
    # white space may be dropped by design
    assert tokens.lack("1 2\n") == ""


def test_words_that_only_their_whole_makes_unknown() -> None:
    """WordPiece: "ab" is known and "abc" is not; "c" begins a word, and goes on with none."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["[UNK]", "a", "##b", "c"])}
    core = Tokenizer(models.WordPiece(vocab=words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = TextTokens(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"))
    assert tokens.lack("ab c") == "" and "lacks 'a', 'b', 'c': it reads [UNK]" in tokens.lack("abc")

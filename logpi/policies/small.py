"""A small language model made on the spot: a Llama with random weights and a character tokenizer,
in Hugging Face format.

It is for demonstrations, tests and first experiments: about a million parameters learn a task's
characters in a minute on two cores. It is saved, loaded and served like any other model. Left out:
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from logpi.policies.causal_lm import CausalLM

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def character_tokenizer(alphabet: str, words: Sequence[str] = ()) -> Any:
    """One token for each character of `alphabet`, and one for each of `words`, anywhere in a text.

    <pad> 0, <bos> 1, <eos> 2, <unk> 3. Every text starts with <bos>.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *dict.fromkeys(alphabet)))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(words))
    return tokenizer


def small_policy(
    alphabet: str,
    *,
    words: Sequence[str] = (),
    width: int = 160,
    layers: int = 4,
    heads: int = 4,
    context: int = 256,
    seed: int = 0,
    **options: Any,
) -> CausalLM:
    """A Llama with random weights over the characters of `alphabet` and `words`; by default it has
    1.2 million parameters. `options` are `CausalLM`'s."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = character_tokenizer(alphabet, words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return CausalLM(model, tokenizer, **options)

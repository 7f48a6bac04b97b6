"""Tiny random models of each family, and a character tokenizer, both in Hugging Face format; for
tests and benchmarks.

`tiny_model("gemma3")` is a fresh `transformers` model, with weights large enough that its
distributions are not flat.
"""

from __future__ import annotations

import string

import torch

KINDS = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3")
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
VOCABULARY = len(SPECIAL) + len(CHARACTERS)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny_tokenizer(chat_template: str | None = TEMPLATE):
    """One token a character; <pad> 0, <bos> 1, <eos> 2, <unk> 3. Decoding is exact."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *CHARACTERS))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_model(kind: str = "llama", *, seed: int = 0, std: float = 0.2, **config):
    """A random causal model of family `kind` (one of `KINDS`): 2 layers, d 32, 4 query heads on 2
    key heads.

    Mistral has a window of 6 tokens in all layers, Gemma 2 and 3 of 5 in the first; Gemma 2 caps
    its scores and logits.
    """
    import transformers as hf

    shape = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=std,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    layers = ["sliding_attention", "full_attention"]
    gemma2 = dict(attn_logit_softcapping=2.0, final_logit_softcapping=3.0, query_pre_attn_scalar=16)
    families = {
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, {}),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM, {"tie_word_embeddings": True}),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, {"tie_word_embeddings": True}),
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM, {"sliding_window": 6}),
        "gemma2": (
            hf.Gemma2Config,
            hf.Gemma2ForCausalLM,
            {"sliding_window": 5, "layer_types": layers, **gemma2},
        ),
        "gemma3": (
            hf.Gemma3TextConfig,
            hf.Gemma3ForCausalLM,
            {"sliding_window": 5, "layer_types": layers},
        ),
    }
    make_config, make_model, own = families[kind]
    if kind == "qwen2":
        shape.pop("head_dim")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_model(make_config(**(shape | own | config))).eval()

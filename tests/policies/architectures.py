"""Small random models of the families that `transformers` knows, for tests: each with its odds and
ends switched on.

Windows are of 24 tokens, multipliers and caps are not 1, experts are several, state spaces stand
between attention layers. `QUICK` are those that differ in kind; `REST` the others.
"""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 64
SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    initializer_range=0.25,
    init_std=0.25,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    n_embd=64,
    n_layer=4,
    n_head=4,
    n_positions=256,
    n_inner=96,
    d_model=64,
    n_heads=4,
    n_layers=4,
    max_seq_len=256,
    ffn_dim=96,
    word_embed_proj_dim=64,
    rotary_dim=16,
    moe_intermediate_size=32,
    num_experts_per_tok=2,
)
EXPERTS = dict(num_local_experts=4, num_experts=4)
LATENT = dict(
    num_key_value_heads=4,
    kv_lora_rank=16,
    q_lora_rank=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    qk_nope_head_dim=16,
    n_routed_experts=4,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
)
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "factor": 8.0,
        "original_max_position_embeddings": 32, "rope_theta": 1e4}  # fmt: skip
WINDOW = dict(sliding_window=24)
MAMBA = dict(
    mamba_d_state=8, mamba_n_heads=8, mamba_d_head=16, mamba_n_groups=1, mamba_chunk_size=16
)

QUICK: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": WINDOW | dict(use_sliding_window=True, max_window_layers=2),
    "Gemma2": WINDOW,
    "GPT2": {},
    "Bloom": {},  # positions by a bias
    "Granite": dict(
        logits_scaling=4.0,
        embedding_multiplier=3.0,
        residual_multiplier=0.5,
        attention_multiplier=0.2,
    ),
    "Cohere": dict(logit_scale=0.25),
    "GptOss": WINDOW | EXPERTS,  # sinks
    "DeepseekV3": LATENT,
    "DiffLlama": {},  # attends twice in a layer
    "Doge": EXPERTS,  # a mask of its own
    "Phimoe": WINDOW | EXPERTS,  # a window that only its mask knows
    "Jamba": dict(attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False) | EXPERTS,
    "Rwkv": dict(attention_hidden_size=64),
    "Phi3 longrope": dict(
        original_max_position_embeddings=32,
        rope_scaling={k: LONG[k] for k in LONG if k != "factor"},
    ),
    "Llama dynamic": dict(
        max_position_embeddings=48,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    ),
}
REST: dict[str, dict[str, Any]] = {
    "Mistral": WINDOW,
    "Qwen3": {},
    "Qwen3Moe": EXPERTS,
    "Mixtral": EXPERTS,
    "Qwen2Moe": EXPERTS,
    "Olmo2": {},
    "Olmo3": WINDOW,
    "GPTNeoX": {},
    "OPT": {},
    "Falcon": dict(new_decoder_architecture=False),
    "Mpt": {},
    "StableLm": {},
    "Starcoder2": WINDOW,
    "Phi3": WINDOW,
    "Phi": {},
    "Cohere2": WINDOW | dict(logit_scale=0.25),
    "GraniteMoe": EXPERTS | dict(logits_scaling=4.0),
    "Gemma": {},
    "SmolLM3": dict(use_sliding_window=True) | WINDOW,
    "Glm4": {},
    "Exaone4": WINDOW,
    "Ernie4_5": {},
    "SeedOss": {},
    "Apertus": {},
    "HunYuanDenseV1": {},
    "DeepseekV2": LATENT,
    "MiniCPM3": LATENT,
    "Glm4MoeLite": LATENT,
    "Mamba": dict(state_size=8),
    "Mamba2": dict(state_size=8, num_heads=8, head_dim=16, n_groups=1, chunk_size=16),
    "FalconMamba": dict(state_size=8),
    "Bamba": MAMBA | dict(attn_layer_indices=[1, 3]),
    "FalconH1": MAMBA | dict(mamba_d_ssm=128),
    "Lfm2": dict(layer_types=["conv", "full_attention"] * 2),
    "RecurrentGemma": dict(attention_window_size=24, lru_width=64),
    "GPTNeo": dict(attention_types=[[["global", "local"], 2]], window_size=24),
    "GPTJ": {},
    "CodeGen": {},
    "GPTBigCode": {},
    "Persimmon": {},
    "Nemotron": {},
    "BioGpt": {},
    "XGLM": dict(ffn_dim=96),
    "Llama longrope": dict(rope_parameters=LONG),
    "Cohere longrope": dict(rope_parameters=LONG, logit_scale=0.25),
    "Phimoe longrope": EXPERTS
    | dict(rope_parameters=LONG | dict(short_mscale=1.1, long_mscale=1.3)),
}


def architecture(name: str) -> Any:
    """A fresh model in eval mode; its weights are large enough that its distributions are not
    flat."""
    import transformers as hf

    family = name.split()[0]
    settings = getattr(hf, f"{family}Config")
    known = set(settings.__dataclass_fields__) | set(settings.attribute_map)
    torch.manual_seed(0)
    config = settings(**{k: v for k, v in SHAPE.items() if k in known} | (QUICK | REST)[name])
    kinds = hf.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    model = kinds[type(config)](config).eval()
    for p in model.parameters():
        if p.dim() >= 2 and float(p.detach().std()) < 0.05:
            torch.nn.init.normal_(p, std=0.15)
    return model

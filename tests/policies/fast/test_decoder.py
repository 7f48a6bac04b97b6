"""The quicker forward for decoding against the model's own modules, and when it steps aside."""

from __future__ import annotations

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from logpi.policies.fast.decoder import (
    WORTH,
    Decoder,
    HalfProduct,
    OneDnnProduct,
    PlainProduct,
    ThreadedProduct,
    decoder,
)
from logpi.policies.fast.layers import FAMILIES
from logpi.policies.lora import add_lora
from logpi.policies.packing import Packed, pack
from tests.tiny import KINDS, VOCABULARY, tiny_model, tiny_tokenizer

ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}


def make(kind: str = "llama", **config) -> CausalLM:
    return CausalLM(tiny_model(kind, **config), tiny_tokenizer())


def rope(kind: str) -> dict:
    return {"rope_parameters": {"rope_theta": 10_000.0, **ROPES[kind]}}


def packed(rows: int = 3, length: int = 40) -> Packed:
    tokens = torch.randint(
        4, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(5)
    )
    tokens[1:, :7] = tokens[0, :7]
    full = torch.full((rows,), length)
    return pack(tokens, full, torch.full((rows,), 7))


def assert_same(policy: CausalLM, rows: int = 8) -> None:
    p, quick = packed(), decoder(policy, WORTH, rows)
    assert isinstance(quick, Decoder)
    with torch.no_grad():
        theirs, ours = (m.hidden(p, p.ids, p.position) for m in (policy, quick))
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
        torch.testing.assert_close(
            quick.head.logits(ours), policy.head.logits(theirs), atol=5e-5, rtol=0
        )


@pytest.mark.parametrize("kind", FAMILIES)
def test_hidden_states_are_the_modules(kind):
    policy = make(kind)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if (
                "norm" in name or "bias" in name
            ):  # as made they are 1 and 0, and would hide a mistake
                p.add_(
                    torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3
                )
    assert_same(policy)


@pytest.mark.parametrize("name", ROPES)
def test_scaled_rotary_embeddings(name):
    assert_same(make(**rope(name)))


def test_biases_and_untied_embeddings():
    policy = make(attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "bias" in name:
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
    assert_same(policy)


def test_large_matrices_are_laid_out_by_onednn(monkeypatch):
    monkeypatch.setattr("logpi.policies.fast.decoder.SMALL", 0)
    policy = make("qwen2")
    quick = decoder(policy, WORTH)
    assert isinstance(quick, Decoder)
    assert isinstance(
        quick.layers[0].qkv, OneDnnProduct if torch.backends.mkldnn.is_available() else PlainProduct
    )
    assert_same(policy)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_row_has_a_layout_of_its_own(monkeypatch, threads):
    monkeypatch.setattr("logpi.policies.fast.decoder.SMALL", 0)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    policy = make("qwen2")
    quick = decoder(policy, WORTH, rows=1)
    assert isinstance(quick, Decoder) and isinstance(quick.layers[0].qkv, ThreadedProduct)
    assert_same(policy, rows=1)


def test_adapters_are_merged():
    policy = make()
    add_lora(policy, rank=4)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    assert_same(policy)


def test_a_change_of_the_weights_is_seen():
    policy = make()
    assert_same(policy)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.mul_(1.2)
    assert_same(policy)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(FAMILIES)))
def test_other_families_decode_by_their_modules(kind):
    policy = make(kind)
    assert decoder(policy, WORTH) is policy


def test_it_steps_aside_where_it_is_not_exact_or_does_not_pay(monkeypatch):
    policy = make()
    assert decoder(policy, WORTH - 1) is policy
    monkeypatch.setattr("logpi.policies.fast.decoder._memory", lambda: 1000.0)
    assert decoder(policy, WORTH) is policy
    monkeypatch.undo()
    half = CausalLM(tiny_model().to(torch.bfloat16), tiny_tokenizer())
    assert decoder(half, WORTH) is half
    dynamic = make(rope_parameters={"rope_theta": 10_000.0, "rope_type": "dynamic", "factor": 2.0})
    assert decoder(dynamic, WORTH) is dynamic


def test_a_model_that_does_something_else_under_a_known_name_is_found_out():
    policy = make()
    layer = policy.model.model.layers[0]
    plain = layer.mlp.forward
    layer.mlp.forward = lambda x: 1.5 * plain(x)
    assert decoder(policy, WORTH) is policy
    other = make()
    other.model.model.layers[1].mlp = torch.nn.Linear(32, 32)
    assert decoder(other, WORTH) is other


def test_the_engine_samples_the_same_with_and_without(monkeypatch):
    policy = make("qwen3")
    requests = [Request([5, 6, 7, 8], n=6), Request([9], n=2, greedy=True)]

    def sample() -> list[list[int]]:
        out = Engine(policy, slots=3).generate(
            requests, Sampling(max_tokens=30), torch.Generator().manual_seed(2)
        )
        return [c.tokens.tolist() for row in out for c in row]

    quick = sample()
    monkeypatch.setattr("logpi.engine.generation.decoder", lambda policy, *sizes: policy)
    assert quick == sample()


HALF = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this CPU"
)


@HALF
@pytest.mark.parametrize("kind", FAMILIES)
def test_products_of_bfloat16_are_near_the_modules(kind: str) -> None:
    """Three digits of each product: near, and not the same."""
    policy, p = make(kind), packed()
    quick = decoder(policy, WORTH, 8, half=True)
    assert isinstance(quick, Decoder) and isinstance(quick.layers[0].down, HalfProduct)
    with torch.no_grad():
        theirs, ours = (m.hidden(p, p.ids, p.position) for m in (policy, quick))
    assert ours.dtype == torch.float32
    gap = float((ours - theirs).abs().max() / theirs.abs().max())
    assert 1e-5 < gap < 3e-2


@HALF
def test_a_product_of_bfloat16_rounds_its_factors_and_its_sum() -> None:
    """1 + 2⁻⁹ rounds to 1; 256 ones and a half sum to 256.5 in float32, which rounds to 256; the
    bias is added after that, in float32."""
    weight = torch.ones(1, 257)
    weight[0, 256] = 0.5
    bias = torch.tensor([2.0**-12])
    product = HalfProduct(weight, bias)
    x = torch.full((1, 257), 1 + 2.0**-9)
    assert product(x).item() == 256 + 2.0**-12
    assert product.onto(torch.ones(1, 1), x).item() == 257 + 2.0**-12

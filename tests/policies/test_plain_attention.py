"""A policy's model called as `transformers` documents it: its own attention, alone and in the midst
of training, and nothing of the policy's lost."""

from __future__ import annotations

import copy

import pytest
import torch

from logpi.policies.causal_lm import CausalLM
from logpi.policies.packing import ATTENTION
from tests.policies.test_causal_lm import gradients, make_batch, scalar
from tests.tiny import KINDS, tiny_model, tiny_tokenizer

PROMPT = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
GREEDY = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def loss(policy: CausalLM) -> torch.Tensor:
    now = policy.evaluate(make_batch())
    return scalar(now.logp, now.entropy, now.value)


def untouched(kind: str, **config) -> torch.Tensor:
    return tiny_model(kind, **config).generate(PROMPT, **GREEDY)


@pytest.mark.parametrize("kind", KINDS)
def test_generate_is_the_untouched_models(kind):
    policy = CausalLM(tiny_model(kind), tiny_tokenizer())
    assert policy.packed and torch.equal(policy.model.generate(PROMPT, **GREEDY), untouched(kind))
    padded = torch.cat([torch.zeros_like(PROMPT[:, :3]), PROMPT], 1)
    mask = (padded > 0).long()
    wanted = tiny_model(kind).generate(padded, attention_mask=mask, **GREEDY)
    assert torch.equal(policy.model.generate(padded, attention_mask=mask, **GREEDY), wanted)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_generate_in_the_midst_of_training_leaves_the_policy_as_it_was(checkpointing):
    policy = CausalLM(
        tiny_model(attention_dropout=0.5), tiny_tokenizer(), gradient_checkpointing=checkpointing
    )
    policy.model.train()
    before = gradients(policy, loss(policy))
    assert torch.equal(
        policy.model.generate(PROMPT, **GREEDY), untouched("llama", attention_dropout=0.5)
    )
    assert policy.model.training and policy.model.config._attn_implementation == ATTENTION
    for name, slope in gradients(policy, loss(policy)).items():
        assert torch.equal(slope, before[name]), name


def test_a_plain_call_is_the_untouched_models_also_after_an_error():
    policy = CausalLM(tiny_model("gemma2"), tiny_tokenizer())
    wanted = tiny_model("gemma2")(PROMPT).logits
    torch.testing.assert_close(policy.model(PROMPT).logits, wanted, atol=0, rtol=0)
    with pytest.raises((RuntimeError, IndexError, TypeError, ValueError)):
        policy.model(PROMPT[0, 0])
    assert policy.model.config._attn_implementation == ATTENTION
    torch.testing.assert_close(policy.model(PROMPT).logits, wanted, atol=0, rtol=0)


def test_a_copy_generates_with_its_own_weights():
    policy = CausalLM(tiny_model(), tiny_tokenizer())
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.7)
    assert torch.equal(reference.model.generate(PROMPT, **GREEDY), untouched("llama"))
    assert not torch.equal(policy.model.generate(PROMPT, **GREEDY), untouched("llama"))


def test_two_policies_on_one_model_save_its_own_attention(tmp_path):
    first = CausalLM(tiny_model(), tiny_tokenizer())
    second = CausalLM(first.model, first.tokenizer)
    batch = make_batch()
    assert torch.equal(first.evaluate(batch).logp, second.evaluate(batch).logp)
    second.save(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    assert torch.equal(CausalLM.load(tmp_path).evaluate(batch).logp, first.evaluate(batch).logp)

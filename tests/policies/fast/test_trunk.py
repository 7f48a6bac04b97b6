"""The written-out trunk against the model's own modules: hidden states, every gradient, and when it
steps aside."""

from __future__ import annotations

import pytest
import torch

from logpi.policies.causal_lm import CausalLM
from logpi.policies.fast import attention as attending
from logpi.policies.fast import trunk as module
from logpi.policies.fast.layers import FAMILIES
from logpi.policies.fast.trunk import trunk
from logpi.policies.lora import add_lora
from logpi.policies.packing import Packed, pack
from logpi.policies.small import small_policy
from tests.tiny import KINDS, VOCABULARY, tiny_model, tiny_tokenizer


def make(kind: str = "llama", **config) -> CausalLM:
    """Norms and biases as made are 1 and 0, and would hide a mistake."""
    policy = CausalLM(tiny_model(kind, **config), tiny_tokenizer())
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "norm" in name or "bias" in name:
                p.add_(
                    torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3
                )
    return policy


def packed() -> Packed:
    """Three rows that share their opening."""
    tokens = torch.randint(4, VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(5))
    tokens[1:, :7] = tokens[0, :7]
    return pack(tokens, torch.tensor([40, 31, 12]), torch.full((3,), 7))


def found(policy: CausalLM, forward) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Hidden states, and the gradient of some function of theirs by every parameter."""
    p = packed()
    policy.zero_grad(set_to_none=True)
    hidden = forward(p, p.ids, p.position)
    (
        hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    ).sum().backward()
    return hidden.detach(), {n: w.grad for n, w in policy.model.named_parameters()}


def assert_same(policy: CausalLM) -> None:
    assert trunk(policy) is not None
    (ours, our_slopes), (theirs, their_slopes) = (
        found(policy, f) for f in (policy.hidden, policy.by_modules)
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    for name, slope in their_slopes.items():
        if slope is None:
            assert our_slopes[name] is None, name
        else:
            near = 2e-5 * float(slope.abs().max())
            torch.testing.assert_close(our_slopes[name], slope, atol=near, rtol=0, msg=name)


@pytest.mark.parametrize("kind", FAMILIES)
def test_hidden_states_and_gradients_are_the_modules(kind):
    assert_same(make(kind))


def test_biases_of_attention_and_untied_embeddings():
    assert_same(make(attention_bias=True, tie_word_embeddings=False))


def test_frozen_parameters_get_no_gradient():
    policy = make()
    for name, p in policy.model.named_parameters():
        p.requires_grad_("layers.1" in name and "k_proj" not in name)
    assert_same(policy)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("short", [0, 12, 10_000])
def test_either_way_of_attention(monkeypatch, kind, short):
    """Products for short rows, the fused kernel for the others; Mistral has a window."""
    monkeypatch.setattr(attending, "SHORT", short)
    assert_same(make(kind))


def test_a_row_that_adds_nothing_to_what_it_shares():
    """A response of one token: every state that is asked for is the prompt's."""
    policy, tokens = make(), torch.full((9, 7), 5)
    p = pack(tokens, torch.tensor([7] + 8 * [3]), torch.full((9,), 3))
    ours, theirs = (forward(p, p.ids, p.position) for forward in (policy.hidden, policy.by_modules))
    slopes = [
        torch.autograd.grad(x.square().sum(), policy.model.get_input_embeddings().weight)[0]
        for x in (ours, theirs)
    ]
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    torch.testing.assert_close(*slopes, atol=2e-5 * float(slopes[1].abs().max()), rtol=0)


def test_without_onednn(monkeypatch):
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert_same(make())


def test_probing_leaves_gradients_and_learning_as_they_were():
    policy = make().requires_grad_(False)
    assert trunk(policy) is not None
    assert all(p.grad is None and not p.requires_grad for p in policy.parameters())


def test_a_mistake_is_found_and_the_modules_run(monkeypatch):
    monkeypatch.setattr(attending, "turn_", lambda heads, *rest: heads)
    assert trunk(make()) is None
    monkeypatch.undo()
    monkeypatch.setattr(module, "_by_weight", lambda ctx, number, g, x: 2 * g.t() @ x)
    assert trunk(make()) is None


@pytest.mark.parametrize(
    "policy",
    [
        CausalLM(tiny_model("llama"), tiny_tokenizer(), gradient_checkpointing=True),
        CausalLM(tiny_model("llama").double(), tiny_tokenizer()),
        make(mlp_bias=True),
        make(hidden_act="gelu"),
        *(make(kind) for kind in KINDS if kind not in FAMILIES),
    ],
)
def test_what_it_does_not_know_runs_by_the_modules(policy):
    assert trunk(policy) is None
    ours, theirs = (found(policy, f)[0] for f in (policy.hidden, policy.by_modules))
    assert torch.equal(ours, theirs)


def test_adapters_run_by_the_modules():
    policy = make()
    assert trunk(policy) is not None
    add_lora(policy, rank=2)
    assert trunk(policy) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_model_made_on_the_spot_learns_the_quick_way(seed: int) -> None:
    """A probe that took the sum of squares for its loss lost seed 0 to rounding, without a word."""
    assert trunk(small_policy("0123456789+=", seed=seed)) is not None

"""Weights in 16 bits: what is said about tokens, summed over a vocabulary or over a batch, is
float32 all the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from logpi.algorithms import algorithm
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling, draw
from logpi.policies.causal_lm import CausalLM
from logpi.policies.heads import Head, score
from logpi.types import PolicyOutput
from tests.policies.test_causal_lm import make_batch
from tests.tiny import tiny_model, tiny_tokenizer

HALF = (torch.bfloat16, torch.float16)


def layer(dtype: torch.dtype, vocabulary: int = 1000, size: int = 64) -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(size, vocabulary, bias=False)
    linear.weight.data *= 3
    return linear.to(dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("rows", [5, 100])
def test_log_probabilities_are_those_of_the_logits_in_float32(dtype, softcap, rows):
    linear = layer(dtype)
    hidden, action = torch.randn(20, 64).to(dtype).requires_grad_(), torch.randint(1000, (20, 1))
    logp, entropy = score(Head(linear, softcap, 0.7), hidden, action, 1000, rows * 1000)
    logits = linear(hidden).double()
    exact = ((softcap * torch.tanh(logits / softcap) if softcap else logits) / 0.7).log_softmax(-1)
    assert logp.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logp.double(), exact.gather(1, action), atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(
        entropy.double(), -(exact.exp() * exact).sum(-1), atol=1e-5, rtol=1e-6
    )
    (logp.sum() + entropy.sum()).backward()
    assert hidden.grad is not None and hidden.grad.dtype == dtype and hidden.grad.isfinite().all()


def slopes(dtype: torch.dtype, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of Σ Aₜ log πₜ over 1,024 tokens by the matrix and by the hidden states, rounded
    inputs."""
    linear = layer(torch.bfloat16).to(dtype)
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(1024, 64, generator=g).bfloat16().to(dtype).requires_grad_()
    action, weight = torch.randint(1000, (1024, 1), generator=g), torch.rand(1024, generator=g)
    logp, _ = score(Head(linear), hidden, action, 1000, rows * 1000)
    (logp[:, 0] * weight).sum().backward()
    assert linear.weight.grad is not None and hidden.grad is not None
    return linear.weight.grad, hidden.grad


def test_the_matrixs_gradient_does_not_get_worse_with_the_number_of_chunks():
    wanted = slopes(torch.float32, 1024)
    for rows in (1024, 128, 8):
        for got, exact in zip(slopes(torch.bfloat16, rows), wanted, strict=True):
            assert float((got.float() - exact).norm() / exact.norm()) < 0.007, (
                rows
            )  # eight bits: 0.004 rounded once


@pytest.mark.parametrize("dtype", HALF)
def test_sampling_from_a_large_vocabulary_tells_its_tokens_apart(dtype):
    """150,000 tokens, all alike: a cumulative sum in 16 bits would know some hundred of them."""
    size = 150_000
    logits = Head(nn.Linear(8, size, bias=False).to(dtype).requires_grad_(False)).logits(
        torch.zeros(64, 8, dtype=dtype)
    )
    assert logits.dtype == torch.float32
    u = torch.linspace(0, 0.9999, 64)
    token, logp = draw(logits, u, None, Sampling())
    torch.testing.assert_close(token.double(), u.double() * size, atol=2.0, rtol=0)
    torch.testing.assert_close(logp, torch.full((64,), 1 / size).log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", HALF)
def test_nothing_that_an_update_reads_has_16_bits(dtype):
    policy, batch = CausalLM(tiny_model().to(dtype), tiny_tokenizer(), critic=True), make_batch()
    assert policy.packed
    completion = Engine(policy).generate([Request([5, 6, 7])], Sampling(max_tokens=4))[0][0]
    now = policy.evaluate(batch)
    objective = algorithm("ppo").objective
    targets = objective.prepare(batch, PolicyOutput(now.logp, now.entropy, now.value), None)
    weight = objective.weight(batch.mask, batch.group)
    loss, metrics = objective.loss(batch, targets, weight, now)
    read = [
        completion.logp,
        now.logp,
        now.entropy,
        now.value,
        targets.advantage,
        targets.value_target,
        weight,
        loss,
    ]
    assert {x.dtype for x in (*read, *metrics.values()) if x is not None} == {torch.float32}
    loss.backward()
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)

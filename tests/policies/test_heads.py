"""The output layer's written-out derivative beside autograd's, in chunks and whole, for every use
of its two results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from logpi.policies.heads import Head, score


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [100, 3])
@pytest.mark.parametrize("use", ["logp", "entropy", "both"])
@pytest.mark.parametrize("actions", [1, 3])
def test_the_derivative_is_autograds(temperature: float, rows: int, use: str, actions: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 50, bias=False).double()
    hidden, action = (
        torch.randn(10, 16, dtype=torch.double, requires_grad=True),
        torch.randint(50, (10, actions)),
    )
    by_logp, by_entropy = torch.randn(10, actions).double(), torch.randn(10).double()
    head = Head(linear, None, temperature)

    def loss(logp: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
        parts = {"logp": (logp.exp() * by_logp).sum(), "entropy": (entropy**2 * by_entropy).sum()}
        return sum(parts.values()) if use == "both" else parts[use]  # type: ignore[return-value]

    whole, chunked = head.score(hidden, action), score(head, hidden, action, 50, rows * 50)
    for x, y in zip(whole, chunked, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    inputs = (hidden, linear.weight)
    for x, y in zip(
        torch.autograd.grad(loss(*whole), inputs),
        torch.autograd.grad(loss(*chunked), inputs),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


def test_what_does_not_learn_gets_no_gradient() -> None:
    linear = nn.Linear(4, 5, bias=False).requires_grad_(False)
    hidden = torch.randn(3, 4, requires_grad=True)
    score(Head(linear), hidden, torch.tensor([[0], [1], [2]]), 5, 5)[0].sum().backward()
    assert linear.weight.grad is None
    assert hidden.grad is not None


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    linear, hidden = nn.Linear(4, 5, bias=False), torch.randn(3, 4, requires_grad=True)
    logp, _ = score(Head(linear), hidden, torch.tensor([[0], [1], [2]]), 5, 100)
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(logp.sum(), hidden, create_graph=True)

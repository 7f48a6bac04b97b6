"""Surrogates without a clip against answers worked out by hand, with their gradients."""

from __future__ import annotations

import pytest
import torch

from logpi.ops.gates import BinaryKL, BinaryTV, SoftGate
from logpi.ops.surrogates import Clip
from tests.ops.test_surrogates import RATIO, SIGN, value_and_slope


def test_a_soft_gate() -> None:
    # at 1: 4/τ · ½ and Â. At 1.5: 4 σ(.5) = 4 · .62246, slope 4 · .62246 · .37754 · 1.5.
    # At .5 with τ = 1.05: 4/1.05 · σ(−.525) = 3.80952 · .37168, slope 4 · .37168 · .62832 · .5
    value, slope = value_and_slope(SoftGate(), [1.0, 1.0, 1.5, 0.5], [1, -1, 1, -1])
    assert value == pytest.approx([2, -1.90476, 2.48984, -1.41594], abs=2e-5)
    assert slope == pytest.approx([1, -1, 1.41002, -0.46707], abs=2e-5)


def test_a_soft_gate_fades_the_faster_the_larger_tau() -> None:
    slopes = [value_and_slope(SoftGate(tau, tau), [2.0], [1])[1][0] for tau in (0.1, 1, 3, 10)]
    assert slopes == sorted(slopes, reverse=True) and slopes[-1] > 0


def test_binary_total_variation() -> None:
    # old probability e⁻¹ = .368, so a ratio of 1.5 or .5 is a move of .184
    value, slope = value_and_slope(BinaryTV(0.15), RATIO, SIGN)
    assert value == [0, -1.5, 0.5, 0] and slope == [0, -1.5, 0.5, 0]
    assert value_and_slope(BinaryTV(0.19), RATIO, SIGN)[1] == [1.5, -1.5, 0.5, -0.5]
    assert value_and_slope(BinaryTV(0.15, 0.19), RATIO, SIGN)[1] == [1.5, -1.5, 0.5, 0]
    log_ratio = torch.tensor(RATIO).log()
    cut = BinaryTV(0.15).cut(log_ratio, log_ratio - 1, torch.tensor(SIGN))
    assert cut.tolist() == [True, False, False, True]


def test_a_rare_token_may_move_far_and_a_likely_one_may_not() -> None:
    """Where PPO's clip does the opposite."""
    now, old = torch.tensor([0.03, 0.95]), torch.tensor([0.01, 0.79])
    up = torch.ones(2)
    assert BinaryTV(0.15).cut((now / old).log(), now.log(), up).tolist() == [False, True]
    assert Clip(0.28).cut((now / old).log(), now.log(), up).tolist() == [True, False]


def test_binary_kl() -> None:
    # .5 ln(.5/.8) + .5 ln(.5/.2); .01 ln(.01/.02) + .99 ln(.99/.98); 1 to 1; 0 to 1 is finite
    now, old = torch.tensor([0.8, 0.02, 1.0, 1.0]), torch.tensor([0.5, 0.01, 1.0, 0.5])
    got = BinaryKL().distance(now.log(), old.log())
    assert got[:3].tolist() == pytest.approx([0.223144, 0.003119, 0], abs=1e-5)
    assert 5 < float(got[3]) < 10
    # e⁻¹ to 1.5 e⁻¹: .0703; to .5 e⁻¹: .0932
    assert value_and_slope(BinaryKL(0.05), RATIO, SIGN)[1] == [0, -1.5, 0.5, 0]
    assert value_and_slope(BinaryKL(0.08), RATIO, SIGN)[1] == [1.5, -1.5, 0.5, 0]

"""KL estimators, their controller, and the exact divergence, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from logpi.ops.divergences import ReverseKL
from logpi.ops.kl import KL, AdaptiveKL, k1, k2, k3

LOG2 = math.log(2)


def exact(logits: torch.Tensor, logits_ref: torch.Tensor) -> torch.Tensor:
    """The KL of whole distributions."""
    return ReverseKL()(logits.log_softmax(-1), logits_ref.log_softmax(-1))


def test_estimators_by_hand() -> None:
    # π = ½, π_ref = ¼ and the other way round: Δ = ±log 2
    logp, ref = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
    assert_close(k1(logp, ref), torch.tensor([LOG2, -LOG2]))
    assert_close(k2(logp, ref), torch.tensor([LOG2**2 / 2] * 2))
    assert_close(k3(logp, ref), torch.tensor([0.5 + LOG2 - 1, 2 - LOG2 - 1]))


def test_equal_policies_cost_exactly_nothing() -> None:
    logp = torch.tensor([-0.1, -3.0, -30.0])
    for k in (k1, k2, k3):
        assert not k(logp, logp.clone()).any()


def test_k3_is_accurate_where_policies_nearly_agree() -> None:
    """e^x − 1 − x at x = 1e-3 is 5e-7: the naive form has no digit left of it in float32."""
    got = k3(torch.tensor([-1.0]), torch.tensor([-1.001]))
    assert_close(got, torch.tensor([4.9983e-7]), rtol=0.2, atol=0.0)


def test_exact_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert_close(exact(p, q), torch.tensor(0.5 * LOG2 + 0.5 * math.log(2 / 3)))
    never = torch.tensor([0.0, 0.0, -torch.inf])
    assert exact(never, never) == 0
    # logits, not probabilities
    assert exact(p + 3, q - 2) == pytest.approx(float(exact(p, q)), rel=1e-5)


def test_expectations_of_the_estimators(double: None) -> None:
    """Σ π k: k1 and k3 give the divergence exactly, k2 does not."""
    logp, ref = torch.randn(5).log_softmax(0), torch.randn(5).log_softmax(0)
    kl = (logp.exp() * (logp - ref)).sum()
    assert_close((logp.exp() * k1(logp, ref)).sum(), kl)
    assert_close((logp.exp() * k3(logp, ref)).sum(), kl)
    assert abs(float((logp.exp() * k2(logp, ref)).sum() - kl)) > 1e-3
    assert (k3(logp, ref) >= 0).all() and (k2(logp, ref) >= 0).all()


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.05),
        (12.0, 0.05 * (1 + 0.2 * 0.0256)),
        (0.0, 0.05 * (1 - 0.2 * 0.0256)),
        (6.6, 0.05 * (1 + 0.1 * 0.0256)),
    ],
)
def test_adaptive_controller(kl: float, expected: float) -> None:
    """e is cut to ±0.2; 256 responses of a horizon of 10,000."""
    assert AdaptiveKL(target=6.0, horizon=10_000)(0.05, kl, 256) == pytest.approx(
        expected, rel=1e-12
    )


def test_a_batch_beyond_the_horizon_moves_the_coefficient_by_a_fifth_at_most() -> None:
    assert AdaptiveKL(6.0, horizon=10)(0.1, 0.0, 64) == pytest.approx(0.08)
    assert AdaptiveKL(6.0, horizon=10)(0.1, 99.0, 64) == pytest.approx(0.12)


def test_estimators_are_values() -> None:
    import pickle

    assert (
        pickle.loads(pickle.dumps(k1)) == k1
        and k1 != k3
        and len({k1, k2, k3, pickle.loads(pickle.dumps(k3))}) == 3
    )
    assert str(KL(0.1, k3, "loss")) == str(KL(0.1, k3, "loss")) and "k3" in repr(
        KL(0.1, k3, "loss")
    )


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match='"reward", "action" or "loss", not \'lost\''):
        KL(0.1, k1, "lost")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative"):
        KL(-0.1)
    with pytest.raises(ValueError, match="target above 0"):
        AdaptiveKL(target=0.0)

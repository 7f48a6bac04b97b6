"""Ratios and surrogates against answers worked out by hand, with their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi.ops.gates import BinaryKL, BinaryTV, SoftGate
from logpi.ops.ratios import GeometricMeanRatio, SequenceRatio, TokenRatio
from logpi.ops.surrogates import (
    Clip,
    ClippedScore,
    DecayingClip,
    DualClip,
    ScoreFunction,
    Surrogate,
    Unclipped,
)

RATIO = [1.5, 1.5, 0.5, 0.5]
SIGN = [1.0, -1.0, 1.0, -1.0]


def value_and_slope(
    surrogate: Surrogate, ratio: list[float], advantage: list[float]
) -> tuple[list, list]:
    """Values, and derivatives with respect to log π; old log-probabilities are −1."""
    log_ratio = torch.tensor(ratio).log().requires_grad_()
    out = surrogate(log_ratio, log_ratio - 1, torch.tensor(advantage))
    (slope,) = torch.autograd.grad(out.sum(), log_ratio)
    return [round(x, 5) for x in out.tolist()], [round(x, 5) for x in slope.tolist()]


def test_clip_table() -> None:
    value, slope = value_and_slope(Clip(0.2), RATIO, SIGN)
    assert value == [1.2, -1.5, 0.5, -0.8]
    # cut exactly where the clip acts; else ρ·Â
    assert slope == [0.0, -1.5, 0.5, 0.0]
    log_ratio = torch.tensor(RATIO).log()
    cut = Clip(0.2).cut(log_ratio, log_ratio - 1, torch.tensor(SIGN))
    assert cut.tolist() == [True, False, False, True]


def test_clip_bounds_are_separate() -> None:
    value, _ = value_and_slope(Clip(0.2, 0.28), [1.5, 1.25, 0.7], [1, 1, -1])
    assert value == [1.28, 1.25, -0.8]
    assert Clip(0.3) == Clip(0.3, None) and Clip(0.3).above == 0.3


def test_dual_clip() -> None:
    value, slope = value_and_slope(DualClip(0.2, c=3.0), [5.0, 2.0, 5.0, 0.5], [-1, -1, 1, -1])
    assert value == [-3, -2, 1.2, -0.8]
    assert slope == [0, -2, 0, 0]
    with pytest.raises(ValueError, match="c > 1"):
        DualClip(c=1.0)


def test_a_decaying_clip_narrows_with_the_run() -> None:
    falling = DecayingClip(0.2, 0.4)
    assert falling.at(0.0) == Clip(0.2, 0.4) and falling.at(0.5) == Clip(0.1, 0.2)
    assert falling.at(1.0) == Clip(0.0, 0.0) and Clip(0.2).at(0.5) == Clip(0.2)
    assert "falling to 0" in falling.equation


def test_dual_clip_tells_what_it_cuts() -> None:
    log_ratio = torch.tensor([5.0, 2.0, 5.0, 0.5]).log()
    got = DualClip(0.2, c=3.0).cut(log_ratio, log_ratio - 1, torch.tensor([-1.0, -1, 1, -1]))
    assert got.tolist() == [True, False, True, True]


def test_cispo_weight_is_clipped_and_constant() -> None:
    # weight min(ρ, 5), no lower bound: 5, 2, .1; the gradient is weight · Â, whatever the ratio's
    # own slope
    value, slope = value_and_slope(ClippedScore(high=4.0), [6.0, 2.0, 0.1], [1, -1, 1])
    assert slope == [5, -2, 0.1]
    logp = [math.log(6) - 1, math.log(2) - 1, math.log(0.1) - 1]
    assert value == [round(w * x, 5) for w, x in zip((5, -2, 0.1), logp, strict=True)]
    assert value_and_slope(ClippedScore(low=0.2, high=0.2), [2.0, 0.1], [1, 1])[1] == [1.2, 0.8]


def test_cispo_high_is_a_distance_from_one() -> None:
    """With the bound itself in place of the distance (a known bug), every weight would be 0.2
    here."""
    assert value_and_slope(ClippedScore(high=0.2), [1.0, 1.1], [1, 1])[1] == [1.0, 1.1]


def test_score_and_unclipped() -> None:
    assert value_and_slope(ScoreFunction(), [1.5], [2])[1] == [2]
    assert value_and_slope(Unclipped(), [1.5], [2]) == ([3], [3])
    assert not ScoreFunction.uses_ratio and Unclipped.uses_ratio


SURROGATES = [Clip(), DualClip(), Unclipped(), ClippedScore(), SoftGate(), BinaryTV(), BinaryKL()]


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("log_ratio", [100.0, 1000.0])
def test_a_ratio_beyond_floats_is_no_nan(surrogate: Surrogate, log_ratio: float) -> None:
    """Product ratios of long responses overflow exp; 0·inf must not reach the parameters."""
    x = torch.full((3,), log_ratio).requires_grad_()
    out = surrogate(x, x - 1, torch.tensor([1.0, 0.0, -1.0]))
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert out.isfinite().all() and slope.isfinite().all()
    if isinstance(surrogate, Clip | DualClip):
        assert out[0].item() == pytest.approx(1.2) and slope[0].item() == 0


# --- ratios ---


def case() -> tuple[Tensor, Tensor, Tensor]:
    logp = torch.tensor([[-1.0, -0.7, 0.0], [-2.0, 0.0, 0.0]]).requires_grad_()
    old = torch.tensor([[-1.1, -1.0, 0.0], [-2.5, 0.0, 0.0]])
    return logp, old, torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)


def test_token_ratio() -> None:
    assert_close(TokenRatio()(*case()), torch.tensor([[0.1, 0.3, 0], [0.5, 0, 0]]))


def test_sequence_ratio_mean_and_product() -> None:
    assert_close(SequenceRatio(mean=True)(*case()), torch.tensor([[0.2, 0.2, 0], [0.5, 0, 0]]))
    assert_close(SequenceRatio(mean=False)(*case()), torch.tensor([[0.4, 0.4, 0], [0.5, 0, 0]]))


def test_sequence_ratio_gradient_reaches_every_action() -> None:
    logp, old, mask = case()
    SequenceRatio(mean=True)(logp, old, mask)[0, 0].backward()
    assert logp.grad is not None
    assert_close(logp.grad, torch.tensor([[0.5, 0.5, 0], [0, 0, 0]]))


def test_geometric_mean_of_clipped_tokens() -> None:
    old = torch.tensor([[-2.0, -1.0, 0.0]]).expand(2, 3)
    logp = (old + torch.tensor([[0.6, -0.6, 0.0]])).requires_grad_()
    mask = torch.tensor([[1, 1, 0]], dtype=torch.bool).expand(2, 3)
    advantage = torch.tensor([[1.0, 1, 0], [-1, -1, 0]])
    part = GeometricMeanRatio(low=0.4, high=0.5)
    got = part.toward(logp, old, mask, advantage)
    # up: (.5 − .6) / 2, down: (.6 − .4) / 2
    assert_close(got, torch.tensor([[-0.05, -0.05, 0], [0.1, 0.1, 0]]))
    assert part.cut(logp, old, advantage).tolist() == [[True, False, False], [False, True, False]]
    got[:, 0].sum().backward()
    assert logp.grad is not None
    # a token that is cut off has none
    assert_close(logp.grad, torch.tensor([[0, 0.5, 0], [0.5, 0, 0]]))
    assert_close(part(logp, old, mask), torch.zeros(2, 3))
    assert GeometricMeanRatio(0.3).above == 0.3


def test_a_dead_row_has_ratio_one() -> None:
    _, old, mask = case()
    for mean in (True, False):
        assert not SequenceRatio(mean)(
            torch.zeros_like(old), torch.zeros_like(old), torch.zeros_like(mask)
        ).any()

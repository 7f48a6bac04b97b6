"""Factors for another sampler, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi import algorithm
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.corrections import Correction, MaskedIS, SequenceMaskedIS, TruncatedIS

# π_old / π_sampler of four actions in two rows, the last of which is none
RATIO = torch.tensor([[1.5, 0.4], [4.0, 9.0]])
MASK = torch.tensor([[True, True], [True, False]])


def factors(part: Correction, ratio: Tensor = RATIO) -> Tensor:
    old = torch.full_like(ratio, -20.0)
    return part(torch.where(MASK, old, 0.0), torch.where(MASK, old - ratio.log(), 0.0), MASK)


def test_truncated() -> None:
    assert_close(factors(TruncatedIS(2.0)), torch.tensor([[1.5, 0.4], [2, 0]]))
    assert TruncatedIS(2.0).cut(factors(TruncatedIS(2.0))).tolist() == [[0, 0], [1, 0]]


def test_masked_in_both_directions() -> None:
    part = MaskedIS(0.5, 3.0)
    assert_close(factors(part), torch.tensor([[1.5, 0.0], [0, 0]]))
    assert (part.cut(factors(part)) & MASK).tolist() == [[0, 1], [1, 0]]
    assert_close(factors(MaskedIS(0.0, 5.0)), torch.tensor([[1.5, 0.4], [4, 0]]))


def test_masked_as_a_whole() -> None:
    # 1.5 · .4 = .6 and 4
    assert_close(factors(SequenceMaskedIS()), torch.tensor([[0.6, 0.6], [0, 0]]))
    assert_close(factors(SequenceMaskedIS(0.7, 4.5)), torch.tensor([[0.0, 0.0], [4, 0]]))


@pytest.mark.parametrize("part", [MaskedIS(), SequenceMaskedIS()], ids=str)
def test_a_ratio_beyond_floats_is_left_out(part: Correction) -> None:
    far = factors(part, torch.tensor([[math.exp(80.0), 1.0], [1.0, 1.0]]))
    assert far.isfinite().all() and far[0, 0] == 0 and far[1, 0] == 1


def test_equal_numerics_are_not_corrected() -> None:
    logp = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])
    for part in (TruncatedIS(), MaskedIS(), SequenceMaskedIS()):
        assert torch.equal(part(logp, logp, MASK), MASK.float())
        assert not (part.cut(part(logp, logp, MASK)) & MASK).any()


@pytest.mark.parametrize("bounds", [(1.1, 2.0), (-0.1, 2.0), (0.5, 0.9)])
def test_bounds_that_leave_out_one_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 ≤ low ≤ 1 ≤ high"):
        MaskedIS(*bounds)


def test_a_factor_of_the_whole_row_ties_its_actions() -> None:
    def made(correction: str) -> PolicyGradient:
        o = algorithm("ppo", correction=correction).objective
        assert isinstance(o, PolicyGradient)
        return o

    assert made("MaskedIS").ties is None
    assert made("SequenceMaskedIS").ties == SequenceMaskedIS()


def test_a_cap_takes_no_other_correction_away() -> None:
    masked = algorithm("grpo", correction="MaskedIS")
    assert algorithm(masked, correction_cap=None) == masked
    with pytest.raises(ValueError, match=r"TruncatedIS's, and the correction is MaskedIS"):
        algorithm(masked, correction_cap=3.0)
    capped = algorithm("grpo", correction_cap=3.0)
    assert capped.objective.correction == TruncatedIS(3.0)  # type: ignore[attr-defined]
    assert algorithm(capped, correction_cap=None) == algorithm("grpo")

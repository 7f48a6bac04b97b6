"""Who samples for several ranks."""

from __future__ import annotations

from logpi.engine.sampler import FirstRankSampler, IndependentSampler


def test_the_other_ranks_know_what_kind_of_sampler_the_first_has() -> None:
    """Else they would sample their share themselves, while the first waits for none."""
    assert isinstance(FirstRankSampler(), IndependentSampler)
    assert FirstRankSampler().metrics() == {}

"""What makes a GPU's host wait, counted on the simulated device: `pytest tests/elsewhere_waits.py`.

A host that reads a number, or the size of a result that depends on numbers, waits until everything
asked of the GPU before is done, and meanwhile asks for nothing more.
"""

from tests import elsewhere  # first: autograd must know the device before it runs

# isort: split
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from logpi.algorithms import algorithm
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.learner import Learner, Trust
from tests.elsewhere_cases import batch, policy
from tests.engine.test_engine import endless

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "aten.equal")


@pytest.fixture
def waits(monkeypatch) -> Iterator[Counter[str]]:
    """How often the host waited, by operation."""
    found: Counter[str] = Counter()
    run, copy, tolist = elsewhere._run, elsewhere._copy_from, elsewhere.Elsewhere.tolist

    def counted(func: Any, args: tuple, kwargs: dict) -> Any:
        there = any(isinstance(x, elsewhere.Elsewhere) for x in tree_leaves((args, kwargs)))
        by_mask = func in elsewhere.INDEXING and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        home = func is elsewhere.aten._to_copy.default and str(kwargs.get("device")) == "cpu"
        if there and (by_mask or home or any(name in str(func) for name in WAITING)):
            found["to the CPU" if home else str(func)] += 1
        return run(func, args, kwargs)

    def copied(
        source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False
    ) -> torch.Tensor:
        found["to the CPU"] += not isinstance(target, elsewhere.Elsewhere)
        return copy(source, target, non_blocking)

    def listed(x: elsewhere.Elsewhere) -> Any:
        found["tolist"] += 1
        return tolist(x)

    monkeypatch.setattr(elsewhere, "_run", counted)
    monkeypatch.setattr(elsewhere, "_copy_from", copied)
    monkeypatch.setattr(elsewhere.Elsewhere, "tolist", listed)
    yield found


def test_waits_are_seen(waits):
    x = torch.arange(6.0, device=elsewhere.NAME)
    for wait in (
        lambda: float(x.sum()),
        lambda: x[x > 2],
        lambda: x.tolist(),
        lambda: x.cpu(),
        lambda: bool(x.any()),
    ):
        before = waits.total()
        wait()
        assert waits.total() > before
    before = waits.total()
    (x * x + torch.arange(6, device=elsewhere.NAME))[torch.tensor([1, 2])].sum()
    assert waits.total() == before


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_an_evaluation_and_its_gradient_wait_for_nothing(waits, kind):
    learns, rows = policy(elsewhere.NAME, kind, critic=True), batch()
    waits.clear()
    now = learns.evaluate(rows)
    assert now.value is not None
    (now.logp.sum() + now.entropy.sum() + now.value.sum()).backward()
    assert not waits


def test_a_step_of_decoding_waits_once(waits):
    """Has a row ended?"""
    totals = []
    for tokens in (10, 30):
        learns = endless(policy(elsewhere.NAME))
        waits.clear()
        Engine(learns).generate(
            [Request([5, 6, 7, 8], 4)],
            Sampling(max_tokens=tokens),
            torch.Generator().manual_seed(0),
        )
        totals.append(waits.total())
    assert totals[1] - totals[0] == 20


def test_an_update_waits_for_its_norm_and_its_numbers_however_many_micro_batches(waits):
    found = {}
    for tokens in (12, 10_000):
        objective = algorithm("grpo", beta=0.0, micro_tokens=tokens)
        learner = Learner(
            policy(elsewhere.NAME), objective, trust=Trust(sampler=True, tolerance=99.0)
        )
        waits.clear()
        learner.update(batch())
        found[tokens] = waits.copy()
    assert found[12] == found[10_000] == {"tolist": 1, "aten._local_scalar_dense.default": 1}

"""Everything with a model runs on a device that is not the CPU, and says there what it says here: `pytest tests/elsewhere_cases.py`.

The device is simulated (`elsewhere.py`), so its figures are the CPU's, up to the rounding of the paths that are the CPU's own.
`test_elsewhere.py` runs these in a process of their own.
"""

from tests import elsewhere  # first: autograd must know the device before it runs

# isort: split
from collections.abc import Callable
from typing import Any

import pytest
import torch

from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.engine import Engine, Request, Sampling
from logpi.types import Batch, Trajectory, collate
from tests.tiny import KINDS, tiny_model, tiny_tokenizer

PLACES = ("cpu", elsewhere.NAME)


def policy(place: str, kind: str = "llama", **options: Any) -> CausalLM:
    return CausalLM(tiny_model(kind).to(place), tiny_tokenizer(), **options)


def same(made: Callable[[str], Any], atol: float = 1e-5) -> Any:
    """What `made` makes on either device is the same; returns the CPU's."""
    here, there = (_plain(made(place)) for place in PLACES)
    torch.testing.assert_close(there, here, atol=atol, rtol=1e-5)
    return here


def _plain(found: Any) -> Any:
    """Tensors and numbers only, on the CPU."""
    if isinstance(found, torch.Tensor):
        return found.detach().cpu()
    if isinstance(found, dict):
        return {k: _plain(v) for k, v in found.items()}
    return [_plain(x) for x in found] if isinstance(found, list | tuple) else found


def batch() -> Batch:
    """Two groups of three rows with a tool's reply in one, on the CPU."""
    generator, rows = torch.Generator().manual_seed(1), []
    for i, (prompt, answer) in enumerate([(4, 5), (4, 3), (4, 7), (6, 2), (6, 4), (6, 6)]):
        start = 5 + torch.arange(prompt) * (1 + i // 3)
        tokens = torch.cat([start, torch.randint(5, 90, (answer,), generator=generator)])
        mask = torch.arange(len(tokens) - 1) >= prompt - 1
        mask[prompt + 1 : prompt + 2] &= i != 2
        reward = torch.zeros(len(mask))
        reward[-1] = float(i % 3)
        rows.append(Trajectory(tokens, tokens[1:], mask, reward, torch.zeros(len(mask)), i % 2 == 0, i // 3))
    return collate(rows)


def test_what_a_gpu_refuses_is_refused():
    x, index = torch.arange(6.0, device=elsewhere.NAME), torch.tensor([1, 2])
    for wrong in (
        lambda: x + torch.ones(6), lambda: x.index_select(0, index), lambda: torch.where(x > 1, x, torch.zeros(6)),
        lambda: x.masked_fill(torch.ones(6, dtype=torch.bool), 0), lambda: torch.stack([x[0], torch.tensor(1.0)]),
        lambda: x.__setitem__(index, torch.ones(2)), lambda: x.numpy(),
        lambda: torch.randn(3, device=elsewhere.NAME, generator=torch.Generator()),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"same device|subclasses|generator"):
            wrong()
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4, 5, 6] and x[index].tolist() == [1, 2] and float(x[2]) == 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_its_gradients(kind):
    def made(place):
        learns = policy(place, kind, critic=True)
        now = learns.evaluate(batch())
        assert now.logp.device.type == place and now.value is not None
        (now.logp.sum() + now.value.sum() + 0.1 * now.entropy.sum()).backward()
        grads = {k: p.grad for k, p in learns.named_parameters() if p.grad is not None}
        return [now.logp, now.entropy, now.value, grads]

    same(made, 5e-5)  # of sums over all tokens; each is good to 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_decoding(kind):
    sampling = Sampling(max_tokens=12, stop=("7", "ab"), top_k=20)
    asked = [Request([5, 6, 7], 3), Request([5, 6, 8, 9], 2, greedy=True), Request([5, 6, 7, 11], 2)]

    def made(place):
        found = Engine(policy(place, kind), slots=4).generate(asked, sampling, torch.Generator().manual_seed(3))
        assert all(c.tokens.device.type == "cpu" for one in found for c in one)
        return [[c.tokens, c.logp, torch.tensor(("eos", "stop", "length").index(c.stop))] for one in found for c in one]

    same(made)

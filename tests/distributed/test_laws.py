"""One rank, two and three: the same gradient for every row of the table, through the learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from logpi.algorithms import TABLE, Algorithm, algorithm
from logpi.distributed.world import current, is_sharded
from logpi.learner import Learner, Trust
from logpi.policies.causal_lm import CausalLM
from logpi.types import Batch
from logpi.updates.micro_batches import evaluate
from logpi.updates.sgd import SGD
from tests.distributed.several import fits, on_ranks, place
from tests.tiny import VOCABULARY, tiny_model, tiny_tokenizer

LIMIT = {torch.float32: 1e-5, torch.float64: 1e-6}  # of the largest gradient
if place() != "cpu":
    # sums of a GPU's kernels have no fixed order
    LIMIT[torch.float32] = 1e-4


def ragged_batch(groups: int = 6, size: int = 4, seed: int = 1) -> Batch:
    """Groups of very different lengths, one of them idle (equal rewards), a row without a verdict,
    and gaps where a tool replied: any mean that a rank took of its own rows is another number."""
    g = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.randint(low, high, shape, generator=g)

    rows = []
    for group in range(groups):
        prompt = draw(3, VOCABULARY, (int(draw(3, 9)),))
        for _ in range(size):
            response = draw(3, VOCABULARY, (int(draw(2, 6 + 8 * (group % 3))),))
            rows.append((group, prompt, response, 1.0 if group == 2 else float(draw(0, 2))))
    b, width = len(rows), max(len(p) + len(r) for _, p, r, _ in rows) - 1
    obs = torch.zeros(b, width + 1, dtype=torch.long)
    mask, reward = torch.zeros(b, width, dtype=torch.bool), torch.zeros(b, width)
    for i, (_, prompt, response, value) in enumerate(rows):
        tokens = torch.cat([prompt, response])
        obs[i, : len(tokens)] = tokens
        mask[i, len(prompt) - 1 : len(tokens) - 1] = True
        if len(response) > 6:
            mask[i, len(prompt) + 1 : len(prompt) + 3] = False
        reward[i, len(tokens) - 2] = value
    mask[5] = False
    return Batch(
        obs=obs,
        action=obs[:, 1:].clone(),
        mask=mask,
        reward=torch.where(mask, reward, 0.0),
        terminated=torch.rand(b, generator=g) < 0.7,
        group=torch.tensor([group for group, *_ in rows]),
        logp=torch.zeros(b, width),
        baseline=torch.rand(b, generator=g),
    )


def tiny_policy(critic: bool = False, **options) -> CausalLM:
    model = tiny_model(tie_word_embeddings=options.pop("tie", False))
    policy = CausalLM(model, tiny_tokenizer(), critic=critic, temperature=0.9, **options)
    return with_values(policy).to(place())


def with_values(policy: CausalLM) -> CausalLM:
    """With a critic that does not say 0 everywhere."""
    if policy.value_head is not None:
        with torch.no_grad():
            policy.value_head.weight.copy_(torch.linspace(-0.2, 0.2, 32)[None])
    return policy


def methods() -> dict[str, Algorithm]:
    rows = {name: algorithm(name) for name in TABLE}
    rows["distill, whole"] = algorithm("distill", kl_estimator="reverse")
    return {name: row for name, row in rows.items() if isinstance(row.update, SGD)}


def second_step(name: str, policy: CausalLM) -> tuple[Tensor, dict[str, float]]:
    """The gradient of the second pass over a batch, where ratios are no longer 1; and the metrics
    of the update."""
    update = SGD(epochs=2, micro_tokens=60, max_grad_norm=None)
    method = replace(methods()[name], update=update)
    batch = ragged_batch()
    logp = evaluate(policy, batch, None).logp
    batch = replace(batch, logp=torch.where(batch.mask, logp, 0.0))
    reference = tiny_policy().requires_grad_(False).to(logp.dtype)
    with torch.no_grad():
        for i, p in enumerate(reference.parameters()):
            p.add_(0.02 * torch.sin(torch.arange(p.numel(), device=p.device) + i).view_as(p))
    learner = Learner(
        policy,
        method,
        lambda params: torch.optim.SGD(params, lr=1e-4, foreach=False),
        reference=reference if method.objective.needs_reference else None,
        trust=Trust(tolerance=1e9),
    )
    metrics = learner.update(batch)
    grads = [p.grad for p in policy.parameters() if p.grad is not None]
    whole = [g.full_tensor() if is_sharded(g) else g for g in grads]
    return torch.cat([g.flatten() for g in whole]).cpu(), metrics


def second_steps(dtype: torch.dtype, path: str = "") -> dict[str, tuple[Tensor, dict[str, float]]]:
    """Of every row of the table that takes gradient steps; of the model at `path` in shards."""
    torch.set_default_dtype(dtype)
    out = {}
    for name, row in methods().items():
        critic = row.objective.needs_critic or name == "reward_model"
        if path:
            shard = str(current().size)
            policy = CausalLM.load(path, critic=critic, temperature=0.9, shard=shard)
            out[name] = second_step(name, with_values(policy))
        else:
            out[name] = second_step(name, tiny_policy(critic=critic).to(dtype))
    return out


def compare(expected: dict, results: list[dict], limit: float) -> None:
    worst = {}
    for of_rank in results:
        for name, (gradient, metrics) in of_rank.items():
            whole, numbers = expected[name]
            assert whole.abs().max() > 1e-4, f"{name} has no gradient to compare"
            gap = float((gradient - whole).abs().max() / whole.abs().max())
            worst[name] = max(gap, worst.get(name, 0.0))
            for key, value in numbers.items():
                assert metrics[key] == pytest.approx(value, rel=2e-4, abs=1e-5), (name, key)
    assert max(worst.values()) <= limit, worst


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_number_of_ranks_gives_the_gradient_of_one(dtype: torch.dtype, tmp_path: Path) -> None:
    expected = second_steps(dtype)
    for ranks in filter(fits, (2, 3) if dtype == torch.float32 else (2,)):
        compare(expected, on_ranks(ranks, second_steps, dtype), LIMIT[dtype])
    if dtype == torch.float32 and fits(2):
        tiny_policy().save(tmp_path)
        results = on_ranks(2, second_steps, dtype, str(tmp_path))
        compare(expected, results, LIMIT[dtype])

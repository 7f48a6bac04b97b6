"""What plain data parallelism does to a gradient, for every row of the table that takes gradient
steps; and what one global batch does.

    python benchmarks/data_parallel.py [--json FILE]

One process plays two ranks, on a tiny model and a ragged batch: groups of very different lengths,
an idle group, a row without a verdict, gaps where a tool replied; the policy has moved since
advantages and old log-probabilities were taken. Compared with the gradient of the whole batch:

    plain    each rank prepares its own groups (advantages, whitening) and weighs their actions by
             its own counts; gradients are averaged: DistributedDataParallel's default
    logpi    advantages and weights are the whole batch's; ranks take rows, gradients are summed

`error` is the largest difference over the largest element of the gradient. Left out: real ranks
(tests/distributed/test_laws.py), time, and libraries that correct some of it by other means.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import torch
from common import RESULTS
from torch import Tensor

from logpi.algorithms import TABLE, algorithm
from logpi.updates.micro_batches import evaluate
from logpi.updates.sgd import SGD
from tests.distributed.test_laws import ragged_batch, tiny_policy

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.types import Batch, Objective


def move(policy: CausalLM, size: float) -> None:
    """A smooth step of every weight."""
    with torch.no_grad():
        for i, p in enumerate(policy.parameters()):
            p.add_(size * torch.sin(torch.arange(p.numel()) + i).view_as(p))


class Case:
    """One row of the table, its policy before and after a step, and the batch.

    Attributes:
        now, batch: the batch with old log-probabilities, and what the policy says of it then.
    """

    def __init__(self, name: str) -> None:
        self.objective: Objective = algorithm(name).objective
        critic = self.objective.needs_critic or name == "reward_model"
        self.policy, self.reference = tiny_policy(critic=critic), tiny_policy()
        move(self.reference, 0.02)
        batch = ragged_batch()
        logp = evaluate(self.policy, batch, None).logp
        self.batch = replace(batch, logp=torch.where(batch.mask, logp, 0.0))
        self.before = tiny_policy(critic=critic)
        move(self.policy, 0.002)

    def targets(self, batch: Batch):
        needed = self.objective.needs_reference
        reference = evaluate(self.reference, batch, None) if needed else None
        return self.objective.prepare(batch, evaluate(self.before, batch, None), reference)

    def gradient(self, batch: Batch, targets, weight: Tensor) -> Tensor:
        self.policy.zero_grad()
        loss, _ = self.objective.loss(batch, targets, weight, self.policy.evaluate(batch))
        loss.backward()
        parameters = list(self.policy.parameters())
        return torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        )

    def whole(self) -> Tensor:
        weight = self.objective.weight(self.batch.mask, self.batch.group)
        return self.gradient(self.batch, self.targets(self.batch), weight)

    def shares(self) -> list[Tensor]:
        """Every other group for each of two ranks."""
        return [(self.batch.group % 2 == rank).nonzero().flatten() for rank in range(2)]

    def plain(self) -> Tensor:
        gradients = []
        for rows in self.shares():
            own = self.batch.rows(rows)
            weight = self.objective.weight(own.mask, own.group)
            gradients.append(self.gradient(own, self.targets(own), weight))
        return torch.stack(gradients).mean(0)

    def shared(self) -> Tensor:
        targets = self.targets(self.batch)
        weight = self.objective.weight(self.batch.mask, self.batch.group)
        gradients = []
        for rows in self.shares():
            own = self.batch.rows(rows)
            width = own.mask.shape[1]
            part = targets.rows(rows, width), weight[rows, :width]
            gradients.append(self.gradient(own, *part))
        return torch.stack(gradients).sum(0)


def measure(name: str) -> dict[str, float]:
    case = Case(name)
    whole, plain, shared = case.whole(), case.plain(), case.shared()
    largest = whole.abs().max()
    return {
        "plain_error": float((plain - whole).abs().max() / largest),
        "plain_cosine": float(torch.cosine_similarity(plain, whole, dim=0)),
        "logpi_error": float((shared - whole).abs().max() / largest),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "data_parallel.json")
    a = parser.parse_args()
    names = [name for name in TABLE if isinstance(algorithm(name).update, SGD)]
    results = {name: measure(name) for name in names}
    print("| row | plain: error | plain: cosine | logpi: error |\n|---|---|---|---|")
    for name, r in sorted(results.items(), key=lambda item: -item[1]["plain_error"]):
        plain = f"{r['plain_error']:.2f} | {r['plain_cosine']:.3f}"
        print(f"| {name} | {plain} | {r['logpi_error']:.1e} |")
    a.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

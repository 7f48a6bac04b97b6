"""The rungs of `logpi lab ladder`: REINFORCE and Chan's five fixes as compositions, and how each is
trained on the grid world with slips.

Left out: the tables and what they show (`ladder.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.algorithms import Algorithm, algorithm
from logpi.envs.control.grid_model import GridModel
from logpi.lab.episodes import ActorCritic, Runs
from logpi.lab.worlds import grid_mdp
from logpi.learner import Learner
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE
from logpi.ops.surrogates import Clip, Unclipped
from logpi.policies.tabular import States, TabularPolicy
from logpi.updates.sgd import SGD

if TYPE_CHECKING:
    from logpi.lab.mdp import MDP

SLIP, HORIZON = 0.2, 30
# episodes of a batch, and of a whole run
BATCH, BUDGET = 8, 400
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
CRITIC_RATE = 0.2
PASSES = 4
# J that counts as solved, as a share of the way from the first policy to the best one
SOLVED = 0.9


@dataclass(frozen=True)
class Rung:
    """A row of the ladder.

    Attributes:
        name: of the fix. change: the part that it exchanges. objective, passes: what results.
        oracle: the critic is V^π itself, computed from the process.
    """

    name: str
    change: str
    objective: PolicyGradient
    passes: int = 1
    oracle: bool = False


def rungs() -> tuple[Rung, ...]:
    """REINFORCE and the five fixes, each made of the one before."""
    plain, learned = (_objective(name) for name in ("reinforce", "reinforce_baseline"))
    gae = replace(learned, advantage=GAE(1.0, 0.95))
    ratio = replace(gae, surrogate=Unclipped())
    return (
        Rung("REINFORCE", "G, the return-to-go", plain),
        Rung("1 advantage", "G − V^π", replace(plain, advantage=GAE(1.0, 1.0)), oracle=True),
        Rung("2 critic", "V is learned", learned),
        Rung("3 GAE", "λ = 0.95", gae),
        Rung("4 ratio", f"ρ Â, {PASSES} passes", ratio, PASSES),
        Rung("5 clip", "ε = 0.2", replace(ratio, surrogate=Clip(0.2)), PASSES),
    )


def _objective(name: str) -> PolicyGradient:
    objective = algorithm(name).objective
    assert isinstance(objective, PolicyGradient)
    return objective


def process() -> MDP:
    """The grid world with slips and an end after 30 moves."""
    return grid_mdp(GridModel(slip=SLIP), HORIZON)


@cache
def bounds() -> tuple[float, float]:
    """J of the uniform policy, and of the best one, which may depend on the step."""
    mdp = process()
    v = torch.zeros_like(mdp.start)
    for _ in range(mdp.horizon):
        v = (mdp.transition * (mdp.reward + v)).sum(-1).amax(-1)
    uniform = torch.zeros(mdp.allowed.shape, dtype=torch.float64)
    return float(mdp.expected_return(uniform)), float(mdp.start @ v)


def goal() -> float:
    """J from which the task counts as solved."""
    first, best = bounds()
    return first + SOLVED * (best - first)


@dataclass(frozen=True)
class Training:
    """What a rung did at one learning rate.

    Attributes:
        returns: J before the first update and after each one [updates+1, C].
        ratio: the largest importance ratio in the last pass over any batch.
    """

    returns: Tensor
    ratio: float

    @property
    def episodes(self) -> list[float]:
        """Of each run until J is at the goal, in order; infinite where it never was."""
        there = self.returns >= goal()
        first = there.int().argmax(0) * BATCH
        return torch.where(there.any(0), first.double(), math.inf).sort().values.tolist()

    @property
    def solved(self) -> int:
        return sum(map(math.isfinite, self.episodes))

    @property
    def median(self) -> float:
        """Episodes of the middle run, the later of the two middle ones."""
        return self.episodes[len(self.episodes) // 2]


def train(rung: Rung, rate: float, runs: int, seed: int, budget: int = BUDGET) -> Training:
    """`budget` episodes in batches of eight, from the uniform policy and values of 0."""
    copies = Runs(process(), runs)
    policy = _policy(copies, rung)
    learner = make_learner(policy, rung, rate, runs)
    generator = torch.Generator().manual_seed(seed)
    returns, ratio = [copies.expected_return(policy.logits.detach())], 1.0
    for _ in range(budget // BATCH):
        logits = policy.logits.detach()
        if rung.oracle:
            policy.value = copies.value(logits)
        report = learner.update(copies.sample(logits, BATCH, generator))
        ratio = max(ratio, report.get("ratio/max", 1.0))
        returns.append(copies.expected_return(policy.logits.detach()))
    return Training(torch.stack(returns), ratio)


def _policy(copies: Runs, rung: Rung) -> TabularPolicy:
    logits = torch.zeros(copies.number * copies.states, 4)
    if rung.objective.value_coef:
        return ActorCritic(logits, torch.zeros(len(logits)))
    return TabularPolicy(logits, States())


def make_learner(policy: TabularPolicy, rung: Rung, rate: float, runs: int) -> Learner:
    """Plain gradient steps. The loss is a mean over the rows of all runs, hence rate times runs."""
    update = SGD(rung.passes, micro_tokens=None, max_grad_norm=None)
    parameters = _parameters(policy, rate * runs, CRITIC_RATE * runs)
    return Learner(policy, Algorithm(rung.objective, update), lambda _: torch.optim.SGD(parameters))


def _parameters(policy: TabularPolicy, rate: float, critic: float) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": [policy.logits], "lr": rate}]
    if isinstance(policy, ActorCritic):
        groups.append({"params": [policy.value], "lr": critic})
    return groups

"""`logpi lab rewards`: the reward is the task: one grid, three rewards, three behaviours.

The same cells, moves and ends, with three rewards (Chan, *REINFORCE: the world before the
gradient*, "Where rewards come from"): +5 at one corner; +1 for each step alive; −1 everywhere. For
each the best moves, exactly (value iteration), and the likeliest moves of a policy that REINFORCE
with a baseline learned from episodes. Then the cost of a step: the same post says that at −10 the
agent "refuses to move"; the best moves walk to an end at any cost.

`logpi gym --env logpi/GridWorld-v0 --env-options cost=1 terminals="(3,3):0" --gamma 0.9` trains on
such a grid, `logpi lab bellman --cost 1 --terminals "(3,3):0" --gamma 0.9` shows its values. Left
out: designs that go wrong in less obvious ways (`logpi preferences-demo` has one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.envs.control.grid_model import ARROWS, Cell, GridModel
from logpi.lab.bellman import best_moves, greedy, value_iteration
from logpi.lab.grids import draw, map_table, move_map, number
from logpi.lab.policy_values import evaluate
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import grid_mdp
from logpi.runs.plots import Panel, figure

if TYPE_CHECKING:
    from collections.abc import Mapping

GAMMA = 0.9
LIMIT = 100  # the environment's time limit
ENDS = CORNER, SIDE, PENALTY = (3, 3), (3, 1), (1, 3)
DESIGNS: dict[str, GridModel] = {
    "+5 at a corner": GridModel(cost=0.0, terminals={SIDE: 0.0, CORNER: 5.0, PENALTY: 0.0}),
    "+1 alive": GridModel(cost=1.0, terminals={SIDE: 0.0, CORNER: 0.0, PENALTY: 0.0}),
    "−1 everywhere": GridModel(cost=-1.0, terminals={SIDE: -1.0, CORNER: -1.0, PENALTY: -1.0}),
}
COSTS = (-0.01, -1.0, -3.0, -10.0)
UPDATES, EPISODES, RATE = 60, 16, 0.1


@dataclass(frozen=True)
class Design:
    """One reward, its best moves, and what was learned from it.

    Attributes:
        grid: with the reward. q: Q* [S, 4]. pi: the learned π [S, 4]. steps: of experience.
    """

    grid: GridModel
    q: Tensor
    pi: Tensor
    steps: int

    @property
    def start(self) -> int:
        return self.grid.state(self.grid.start)

    @property
    def agreement(self) -> float:
        """The probability that a move of the learned policy is one of the best, over all moves that
        it makes in an episode."""
        visits = grid_mdp(self.grid, LIMIT).occupancy(self.pi).sum(0)
        good = (self.pi * best_moves(self.q)).sum(-1)
        return float((visits * good).sum() / visits.sum())


def rewards(seed: int = 0) -> Report:
    """The report of `logpi lab rewards`; `seed` is that of the learned policies."""
    designs = {name: _design(grid, seed) for name, grid in DESIGNS.items()}
    costs = [_cost(cost) for cost in COSTS]
    return Report(
        "rewards",
        "Three rewards on the same grid world: what does the best policy do, and what does a policy"
        f" learn? The start S is {next(iter(DESIGNS.values())).start}, episodes end in the cells"
        f" {SIDE}, {CORNER} and {PENALTY} or after {LIMIT} steps; γ = {GAMMA:g}.",
        (
            _designs(designs),
            _maps(designs, "2. The best moves, exactly", lambda d: best_moves(d.q)),
            _maps(
                designs,
                f"3. The likeliest moves after {UPDATES} updates of reinforce_baseline on"
                f" {EPISODES} episodes each",
                lambda d: best_moves(d.pi),
            ),
            _learned(designs),
            _costs(costs),
        ),
        _shown(designs, costs),
        lambda: _picture(designs),
    )


def _design(grid: GridModel, seed: int) -> Design:
    pi, steps = learn(grid, seed)
    return Design(grid, value_iteration(grid, GAMMA)[-1].q, pi, steps)


def learn(grid: GridModel, seed: int) -> tuple[Tensor, int]:
    """A softmax table over cells, trained from episodes of the environment by REINFORCE with a
    learned baseline: π [S, 4], and steps of experience."""
    from logpi.algorithms import algorithm
    from logpi.envs.control.gridworld import ID, move_chances
    from logpi.envs.control.make import make_vector_environment
    from logpi.learner import Learner
    from logpi.policies.distributions import Categorical
    from logpi.policies.mlp import mlp
    from logpi.rollouts.gym import Episodes
    from logpi.updates.adamw import AdamW

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = mlp(grid.states, Categorical(4), hidden=())
    method = algorithm("reinforce_baseline", gamma=GAMMA)
    envs = make_vector_environment(ID, EPISODES, model=grid)
    rollout = Episodes(envs, policy, episodes=EPISODES, algorithm=method, seed=seed)
    learner = Learner(policy, method, AdamW(RATE), total=UPDATES, seed=seed)
    steps = 0
    for _ in range(UPDATES):
        batch = rollout().batch
        steps += int(batch.mask.sum())
        learner.update(batch)
    return torch.from_numpy(move_chances(grid, policy)).double(), steps


def walk(grid: GridModel, good: Tensor) -> tuple[str, Cell | None]:
    """The moves from the start by the first of the good moves [S, 4], without slips, and the
    terminal cell where they end; None: they come back to a cell, and so never end."""
    state, arrows, seen = grid.state(grid.start), "", set()
    while grid.cell(state) not in grid.terminals:
        if state in seen:
            return arrows, None
        seen.add(state)
        action = int(good[state].double().argmax())
        arrows += ARROWS[action]
        state = grid.neighbour(state, action)
    return arrows, grid.cell(state)


# --- the cost of a step ---


@dataclass(frozen=True)
class StepCost:
    """The best moves at one cost of a step, γ = 1.

    Attributes:
        cost: of a step. value: V* of the start. moves: from the start to an end. ends: how many
            cells' best walks end where a reward is: {reward: cells}.
    """

    cost: float
    value: float
    moves: int
    ends: Mapping[float, int]


def _cost(cost: float) -> StepCost:
    grid = GridModel(cost=cost)
    last = value_iteration(grid)[-1]
    good = best_moves(last.q)
    ends = {grid.terminals[cell]: n for cell, n in destinations(grid, good).items() if cell}
    value = float(last.value[grid.state(grid.start)])
    return StepCost(cost, value, len(walk(grid, good)[0]), ends)


def destinations(grid: GridModel, good: Tensor) -> dict[Cell | None, int]:
    """From how many cells the walk by good moves [S, 4] ends in each terminal cell, or never
    (None)."""
    ends: dict[Cell | None, int] = {**dict.fromkeys(grid.terminals, 0), None: 0}
    for cell in map(grid.cell, range(grid.states)):
        if cell not in grid.terminals:
            ends[walk(replace(grid, start=cell), good)[1]] += 1
    return ends


def _costs(costs: list[StepCost]) -> ReportTable:
    rewards = list(costs[0].ends)
    wall = GridModel(cost=COSTS[-1])
    left = torch.zeros(wall.states, 4, dtype=torch.float64)
    left[:, ARROWS.index("←")] = 1.0
    refuses = float(evaluate(wall, left, GAMMA).value[wall.state(wall.start)])
    best = float(value_iteration(wall, GAMMA)[-1].value[wall.state(wall.start)])
    return ReportTable(
        "5. The cost of a step, with the usual ends (+5, +4, −1) and γ = 1: from how many cells the"
        " best walk goes where",
        (
            "reward of a move",
            "V* of S",
            "moves from S",
            *(f"to {r:+g}".replace("-", "−") for r in rewards),
        ),
        tuple((c.cost, c.value, c.moves, *(c.ends[r] for r in rewards)) for c in costs),
        ("g", ".2f", "d", *["d"] * len(rewards)),
        f"To refuse to move (walk against the wall for ever) is worth {number(refuses)} at a cost"
        f" of 10 and γ = {GAMMA:g}, the best walk {number(best)}. Without a free move that stays, a"
        " high cost makes the agent take the nearest end, not none.",
    )


# --- tables and picture ---


def _designs(designs: dict[str, Design]) -> ReportTable:
    rows = []
    for name, d in designs.items():
        arrows, end = walk(d.grid, best_moves(d.q))
        ends = destinations(d.grid, best_moves(d.q))
        rows.append(
            (
                name,
                d.grid.cost,
                *(d.grid.terminals[c] for c in ENDS),
                float(d.q[d.start].max()),
                arrows,
                "never" if end is None else f"at {end}",
                "  ".join(f"{ends[c]:>2}" for c in (*ENDS, None)),
            )
        )
    return ReportTable(
        "1. The designs; a best walk from S (of equal moves the first); where the best walks of all"
        f" cells end: at {', '.join(map(str, ENDS))}, never",
        ("reward", "move", *map(str, ENDS), "V* of S", "walk", "ends", "all cells"),
        tuple(rows),
        ("", *["+g"] * 4, ".3f"),
        f"{PENALTY} is the cell that the post calls the penalty.",
    )


def _maps(designs: dict[str, Design], title: str, good: Any) -> ReportTable:
    maps = {name: move_map(d.grid, good(d)) for name, d in designs.items()}
    return map_table(next(iter(designs.values())).grid, title, maps, centred=True)


def _learned(designs: dict[str, Design]) -> ReportTable:
    rows = []
    for name, d in designs.items():
        own = float(evaluate(d.grid, d.pi, GAMMA).value[d.start])
        arrows, end = walk(d.grid, best_moves(d.pi))
        best = float(d.q[d.start].max())
        where = "never" if end is None else f"at {end}"
        rows.append((name, d.steps, best, own, 100 * d.agreement, arrows, where))
    return ReportTable(
        "4. The learned policies: V of S exactly, and the share of their moves that are best ones",
        ("reward", "steps", "V* of S", "V^π of S", "best, %", "likeliest walk", "ends"),
        tuple(rows),
        ("", "d", ".3f", ".3f", ".1f"),
    )


def _shown(designs: dict[str, Design], costs: list[StepCost]) -> str:
    said = []
    for name, d in designs.items():
        _, best = walk(d.grid, best_moves(d.q))
        _, own = walk(d.grid, best_moves(d.pi))
        agrees = "the learned policy too" if best == own else "the learned policy does not"
        ends = "never ends" if best is None else f"ends at {best}"
        said.append(f"{name}: the best walk {ends}, {agrees}")
    dear, hurry = costs[-1], designs["−1 everywhere"]
    into = destinations(hurry.grid, best_moves(hurry.q))[PENALTY]
    return (
        f"{'; '.join(said)}, and from {into} cells the best walk ends in the penalty. At a cost of"
        f" {-dear.cost:g} a step the agent does not refuse to move: it walks to an end in"
        f" {dear.moves} moves, for a return of {number(dear.value)}."
    )


def _picture(designs: dict[str, Design]) -> Any:
    titles = [f"{name}: V* and best moves" for name in designs]
    titles += [f"{name}: V^π and likeliest moves, learned" for name in designs]
    picture = figure([Panel(t, grid=False) for t in titles], columns=3, size=(4.2, 4.2))
    for i, d in enumerate(designs.values()):
        draw(picture.axes[i], d.grid, d.q.amax(-1), greedy(d.grid, d.q))
        value = evaluate(d.grid, d.pi, GAMMA).value
        draw(picture.axes[i + 3], d.grid, value, move_map(d.grid, best_moves(d.pi)))
    return picture

"""`logpi lab bellman`: value iteration on the grid world, sweep by sweep; V, Q and the best moves;
the effect of slips; V, Q and A of a policy that is given.

    V(s) ← max_a Σ_s' P(s'|s,a) [ R(s,a,s') + γ V(s') ]

`--cost`, `--terminals`, `--start`, `--slip`, `--width` and `--height` make another grid, `--policy`
names the policy (uniform, one move, or a run of `logpi gym`). Left out: the environment's time
limit; what rewards make an agent do (`rewards.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from logpi.envs.control.grid_model import ACTIONS, ARROWS, GridModel
from logpi.lab.grids import (
    draw,
    few_cells,
    map_table,
    move_map,
    number,
    value_map,
)
from logpi.lab.policy_values import (
    UNIFORM,
    MovePolicy,
    PolicyValues,
    evaluate,
    value_tables,
)
from logpi.lab.report import Report, ReportTable
from logpi.runs.plots import Panel, figure

SLIP = 0.2


@dataclass(frozen=True)
class Sweep:
    """One sweep of value iteration.

    Attributes:
        value: V [S] after it. q: Q [S, 4], of which V is the maximum. change: the largest of V.
    """

    value: Tensor
    q: Tensor
    change: float


def value_iteration(
    grid: GridModel, gamma: float = 1.0, tolerance: float = 1e-10, most: int = 10_000
) -> list[Sweep]:
    """Sweeps from V = 0 until no value changes by more than `tolerance`, in units of return.

    Raises:
        ValueError: it does not converge. With γ = 1 an agent may wander for ever if moves cost
            nothing, or if there is no end.
    """
    value, sweeps = torch.zeros(grid.states, dtype=torch.float64), []
    p = grid.transition
    expected = (p * grid.reward).sum(-1)
    for _ in range(most):
        q = expected + gamma * (p @ value)
        after = q.amax(-1)
        sweeps.append(Sweep(after, q, float((after - value).abs().max())))
        value = after
        if sweeps[-1].change <= tolerance:
            return sweeps
    remedy = (
        "with gamma = 1 every move must cost something, and there must be an end; or take a gamma"
        " below 1"
        if gamma == 1
        else "take a smaller gamma"
    )
    raise ValueError(f"value iteration has not settled after {most} sweeps: {remedy}")


def best_moves(q: Tensor) -> Tensor:
    """[S, 4] bool: the best moves, equal within 1e-9."""
    return q >= q.amax(-1, keepdim=True) - 1e-9


def greedy(grid: GridModel, q: Tensor) -> list[str]:
    """For each state the arrows of all best actions, or the reward of a terminal state; [S]."""
    return list(move_map(grid, best_moves(q)))


def bellman(
    grid: GridModel | None = None, gamma: float = 1.0, policy: MovePolicy | None = None
) -> Report:
    """The report of `logpi lab bellman`.

    Args:
        grid: with its slips; the same without slips is shown beside it. None: the default grid with
            slips of 0.2.
        gamma: discount.
        policy: whose values are shown, too. None: uniform.
    """
    grid = grid or GridModel(slip=SLIP)
    policy = policy or MovePolicy.named(UNIFORM, grid)
    grids = {"without slips": replace(grid, slip=0.0)}
    if grid.slip:
        grids["with slips"] = grid
    runs = {how: value_iteration(g, gamma) for how, g in grids.items()}
    values = evaluate(grid, policy.pi, gamma)
    return Report(
        "bellman",
        _question(grid, gamma),
        (
            *(_sweeps(grids[how], runs[how], i + 1) for i, how in enumerate(grids)),
            _policy(grids, runs),
            _v_and_q(grid, runs),
            *value_tables(grid, policy, values, 3 + len(grids)),
        ),
        f"{_shown(grids, runs, gamma)} {_shown_policy(grid, runs, policy, values)}",
        lambda: _picture(grids, runs, policy, values),
    )


def _question(grid: GridModel, gamma: float) -> str:
    ends = [f"{number(r, 2).rstrip('0').rstrip('.')} at {c}" for c, r in grid.terminals.items()]
    spread = "Values spread from the terminal cells by one cell in each sweep." if gamma else ""
    return (
        f"Value iteration on the grid world: the start S is {grid.start}, the reward of a move is"
        f" {number(grid.cost, 2).rstrip('0').rstrip('.')}, that of entering a terminal cell"
        f" {', '.join(ends) or 'nothing: there is none'}; γ = {gamma:g}. {spread}"
    ).strip()


# --- the closing sentence, from the numbers ---


def settled(run: list[Sweep]) -> int:
    """The sweep after which no value changes."""
    return len(run) - 1


def returns_to_a_cell(grid: GridModel, q: Tensor) -> bool:
    """Whether under the best moves (of equal ones the first) an agent can come back to a cell."""
    best = best_moves(q).double().argmax(-1)
    step = grid.transition[torch.arange(grid.states), best].clone()
    step[grid.terminal] = 0.0
    # without a way back, no path has more moves than there are cells
    return bool((torch.linalg.matrix_power(step, grid.states) > 0).any())


def _shown(grids: dict[str, GridModel], runs: dict[str, list[Sweep]], gamma: float) -> str:
    [firm, *slippery] = [(g, runs[how]) for how, g in grids.items()]
    start = firm[0].state(firm[0].start)
    first, n = float(firm[1][-1].value[start]), settled(firm[1])
    text = f"without slips values are settled after {_times(n)}, and the value of the start is"
    text = f"{text} {number(first)}"
    if slippery:
        text += "; " + _effect(first, n, *slippery[0])
    return text + ("; γ = 0 counts the next reward alone." if not gamma else ".")


def _effect(first: float, n: int, grid: GridModel, run: list[Sweep]) -> str:
    """What slips do to the value of the start, and to the number of sweeps."""
    second, m = float(run[-1].value[grid.state(grid.start)]), settled(run)
    if abs(second - first) < 1e-9:
        text = "slips leave it as it is"
    else:
        digits = next(d for d in range(2, 12) if number(first, d) != number(second, d))
        text = f"slips {'lower' if second < first else 'raise'} it to {number(second, digits)}"
    if m == n:
        return f"{text} and need as many sweeps"
    text = f"{text} and need {'' if m > n else 'only '}{_times(m)}"
    back = m > n and returns_to_a_cell(grid, run[-1].q)
    return f"{text}, because a cell's value then depends on itself" if back else text


def _times(n: int) -> str:
    return "1 sweep" if n == 1 else f"{n} sweeps"


def _shown_policy(
    grid: GridModel, runs: dict[str, list[Sweep]], policy: MovePolicy, values: PolicyValues
) -> str:
    start = grid.state(grid.start)
    best, own = float([*runs.values()][-1][-1].value[start]), float(values.value[start])
    text = f"The policy “{policy.name}” is worth {number(own)} there"
    if own == float("-inf"):
        return f"{text}: it may walk for ever."
    gap = "as much as the best one" if best - own < 5e-3 else f"the best one {number(best)}"
    return f"{text}, {gap}."


# --- tables ---


def _sweeps(grid: GridModel, run: list[Sweep], place: int) -> ReportTable:
    """V after some sweeps side by side."""
    maps = {f"sweep {k}": value_map(grid, run[k - 1].value, 1) for k in (1, 2, 3) if k < len(run)}
    maps["converged"] = value_map(grid, run[-1].value)
    how = f"with slips of {grid.slip:g}" if grid.slip else "without slips"
    return map_table(grid, f"{place}. V after each sweep, {how} (■: terminal)", maps)


def _policy(grids: dict[str, GridModel], runs: dict[str, list[Sweep]]) -> ReportTable:
    maps = {how: greedy(g, runs[how][-1].q) for how, g in grids.items()}
    title = f"{len(grids) + 1}. The greedy policy: all best moves"
    return map_table(next(iter(grids.values())), title, maps, centred=True)


def _v_and_q(grid: GridModel, runs: dict[str, list[Sweep]]) -> ReportTable:
    rows = []
    for s in few_cells(grid):
        for how, run in zip(("firm", "slippery"), runs.values(), strict=False):
            x, y = grid.cell(s)
            last = run[-1]
            rows.append((f"({x}, {y}), {how}", *last.q[s].tolist(), float(last.value[s])))
    return ReportTable(
        f"{len(runs) + 2}. Q(s, a) of a few cells: V is its maximum, and Q gives the best move"
        " without a model",
        ("cell", *(f"{n} {a}" for n, a in zip(ACTIONS, ARROWS, strict=True)), "V"),
        tuple(rows),
        ("", *[".3f"] * 5),
    )


def _picture(
    grids: dict[str, GridModel],
    runs: dict[str, list[Sweep]],
    policy: MovePolicy,
    values: PolicyValues,
) -> Any:
    titles = [f"V and greedy moves, {how}" for how in grids]
    titles.append(f"V^π of “{policy.name}” and its likeliest moves")
    picture = figure([Panel(title, grid=False) for title in titles], size=(4.5, 5.0))
    for axes, (how, grid) in zip(picture.axes, grids.items(), strict=False):
        draw(axes, grid, runs[how][-1].value, greedy(grid, runs[how][-1].q))
    grid = [*grids.values()][-1]
    draw(picture.axes[-1], grid, values.value, move_map(grid, best_moves(policy.pi)))
    return picture

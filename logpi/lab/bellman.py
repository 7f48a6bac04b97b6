"""`logpi lab bellman`: value iteration on the grid world, sweep by sweep; V and Q; the greedy
policy; the effect of slips.

    V(s) ← max_a Σ_s' P(s'|s,a) [ R(s,a,s') + γ V(s') ]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logpi.envs.control.grid_model import ACTIONS, ARROWS, Cell, GridModel
from logpi.lab.report import Report, ReportTable
from logpi.runs.plots import Panel, figure


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
        ValueError: it does not converge. With γ = 1 and moves that cost nothing an agent may wander
            for ever.
    """
    value, sweeps = torch.zeros(grid.states, dtype=torch.float64), []
    for _ in range(most):
        q = (grid.transition * (grid.reward + gamma * value)).sum(-1)
        after = q.amax(-1)
        sweeps.append(Sweep(after, q, float((after - value).abs().max())))
        value = after
        if sweeps[-1].change <= tolerance:
            return sweeps
    raise ValueError(
        f"value iteration has not settled after {most} sweeps: with gamma = 1 every move must cost"
        " something"
    )


def greedy(grid: GridModel, q: Tensor) -> list[str]:
    """For each state the arrows of all best actions (equal within 1e-9), or the reward of a
    terminal state; [S]."""
    texts = []
    for s in range(grid.states):
        if grid.cell(s) in grid.terminals:
            texts.append(f"[{grid.terminals[grid.cell(s)]:+g}]".replace("-", "−"))
        else:
            texts.append("".join(ARROWS[a] for a in range(4) if q[s, a] >= q[s].max() - 1e-9))
    return texts


def bellman(slip: float = 0.2, gamma: float = 1.0) -> Report:
    """The report of `logpi lab bellman`.

    Args:
        slip: the probability, in the second grid, that a move goes a quarter turn to the left.
        gamma: discount.
    """
    grids = [GridModel(), GridModel(slip=slip)]
    runs = [value_iteration(g, gamma) for g in grids]
    firm, slippery = runs[0][-1].value, runs[1][-1].value
    start = grids[0].state(grids[0].start)
    return Report(
        "bellman",
        "Value iteration on the grid world: the start S is (0, 0), a move costs 1, terminal cells"
        f" give +5, +4 and −1; γ = {gamma:g}. Values spread from the terminal cells by one cell in"
        " each sweep.",
        (
            _sweeps(grids[0], runs[0], 1, "without slips"),
            _sweeps(grids[1], runs[1], 2, f"with slips of {slip:g}"),
            _policy(grids, runs),
            _v_and_q(grids[0], runs),
        ),
        f"without slips values reach every cell after {len(runs[0]) - 1} sweeps, and the value of"
        f" the start is {float(firm[start]):.2f}; slips lower it to {float(slippery[start]):.2f}"
        f" and need {len(runs[1]) - 1} sweeps, because a cell's value then depends on itself.",
        lambda: _picture(grids, runs),
    )


def _rows(grid: GridModel) -> range:
    return range(grid.height - 1, -1, -1)


def _sweeps(grid: GridModel, run: list[Sweep], number: int, how: str) -> ReportTable:
    """V after some sweeps side by side, the grid's upper row first."""
    shown = [k for k in (1, 2, 3) if k < len(run)] + [len(run)]

    def line(y: int, k: int) -> str:
        digits = 2 if k == len(run) else 1
        cells = (_cell(grid, run[k - 1].value, (x, y), digits) for x in range(grid.width))
        return " ".join(cells)

    rows = [(f"y={y}", *(line(y, k) for k in shown)) for y in _rows(grid)]
    return ReportTable(
        f"{number}. V after each sweep, {how} (■: terminal)",
        ("", *(f"sweep {k}" for k in shown[:-1]), "converged"),
        tuple(rows),
    )


def _cell(grid: GridModel, value: Tensor, cell: Cell, digits: int) -> str:
    if cell in grid.terminals:
        return "■".rjust(3 + digits)
    return f"{float(value[grid.state(cell)]):{3 + digits}.{digits}f}".replace("-", "−")


def _policy(grids: list[GridModel], runs: list[list[Sweep]]) -> ReportTable:
    arrows = [greedy(g, r[-1].q) for g, r in zip(grids, runs, strict=True)]
    rows = tuple(
        (
            f"y={y}",
            *(
                " ".join(f"{a[g.state((x, y))]:^4}" for x in range(g.width))
                for g, a in zip(grids, arrows, strict=True)
            ),
        )
        for y in _rows(grids[0])
    )
    return ReportTable(
        "3. The greedy policy: all best moves", ("", "without slips", "with slips"), rows
    )


def _v_and_q(grid: GridModel, runs: list[list[Sweep]]) -> ReportTable:
    rows = []
    for cell in ((0, 0), (1, 1), (2, 1), (2, 2)):
        s = grid.state(cell)
        for how, run in zip(("firm", "slippery"), runs, strict=True):
            q, value = run[-1].q[s].tolist(), float(run[-1].value[s])
            rows.append((f"({cell[0]}, {cell[1]}), {how}", *q, value))
    return ReportTable(
        "4. Q(s, a) of a few cells: V is its maximum, and Q gives the best move without a model",
        ("cell", *(f"{n} {a}" for n, a in zip(ACTIONS, ARROWS, strict=True)), "V"),
        tuple(rows),
        ("", *[".3f"] * 5),
    )


def _picture(grids: list[GridModel], runs: list[list[Sweep]]) -> Any:
    titles = ("without slips", f"slips of {grids[1].slip:g}")
    picture = figure(
        [Panel(f"V and greedy moves, {title}", grid=False) for title in titles], size=(4.5, 5.0)
    )
    low = min(float(r[-1].value.min()) for r in runs)
    for side, grid, run in zip(picture.axes, grids, runs, strict=True):
        value = run[-1].value.clone()
        for cell, entering in grid.terminals.items():
            value[grid.state(cell)] = entering
        value = value.reshape(grid.height, grid.width)
        side.imshow(value, origin="lower", cmap="RdYlGn", vmin=min(low, -1.0), vmax=5.0, alpha=0.75)
        for s, text in enumerate(greedy(grid, run[-1].q)):
            x, y = grid.cell(s)
            if grid.cell(s) in grid.terminals:
                side.text(
                    x, y, text.strip("[]"), ha="center", va="center", fontsize=15, fontweight="bold"
                )
                continue
            side.text(x, y + 0.13, text, ha="center", va="center", fontsize=15)
            side.text(
                x, y - 0.27, f"{float(run[-1].value[s]):.2f}", ha="center", va="center", fontsize=9
            )
        side.set_xticks(range(grid.width))
        side.set_yticks(range(grid.height))
    return picture

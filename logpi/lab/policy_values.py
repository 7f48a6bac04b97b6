"""V, Q and A of a policy that is given, on the grid world: sweep by sweep, and exactly.

    V^π(s) ← Σ_a π(a|s) Q^π(s,a),   Q^π(s,a) = Σ_s' P(s'|s,a) [ R(s,a,s') + γ V^π(s') ]
    V^π = (I − γ P^π)⁻¹ r^π,   A^π = Q^π − V^π

With γ = 1 a policy may walk for ever: `right`, say, ends at a wall. Its value there is −∞ if moves
cost something (the time limit of the environment is no part of the grid). Left out: the best policy
(`bellman.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from logpi.envs.control.grid_model import ACTIONS, ARROWS, GridModel
from logpi.errors import nearest
from logpi.lab.grids import few_cells, map_table, number, value_map
from logpi.lab.report import ReportTable

UNIFORM = "uniform"


@dataclass(frozen=True)
class MovePolicy:
    """A policy of the grid world.

    Attributes:
        name: of it, for people. pi: π(a|s) [S, 4], rows add up to 1.
    """

    name: str
    pi: Tensor

    @classmethod
    def named(cls, name: str, grid: GridModel) -> MovePolicy:
        """`uniform`, or one move in every cell.

        Raises:
            ValueError: another name.

        >>> MovePolicy.named("up", GridModel()).pi[0].tolist()
        [0.0, 1.0, 0.0, 0.0]
        """
        pi = torch.zeros(grid.states, 4, dtype=torch.float64)
        if name == UNIFORM:
            return cls(name, pi + 0.25)
        if name not in ACTIONS:
            known = nearest(name, (UNIFORM, *ACTIONS))
            raise ValueError(f"no policy {name!r}, nor a run of that name; {known}")
        pi[:, ACTIONS.index(name)] = 1.0
        return cls(name, pi)


@dataclass(frozen=True)
class PolicyValues:
    """What a policy is worth, in units of return.

    Attributes:
        value: V^π [S] by the linear system; −∞ or ∞ where it walks for ever at a cost or a gain.
        q: Q^π [S, 4]. sweeps: V [S] after each sweep; they change by no more than `TOLERANCE` at
            the end, or run out of number.
    """

    value: Tensor
    q: Tensor
    sweeps: list[Tensor]

    @property
    def advantage(self) -> Tensor:
        """A^π = Q^π − V^π [S, 4]; NaN where both are infinite."""
        return self.q - self.value[:, None]


TOLERANCE = 1e-10


def evaluate(grid: GridModel, pi: Tensor, gamma: float = 1.0, most: int = 10_000) -> PolicyValues:
    """Iterative evaluation from V = 0, and the solution of the linear system beside it."""
    p, r = grid.transition, (grid.transition * grid.reward).sum(-1)
    step = torch.einsum("sa,sat->st", pi, p)
    own = (pi * r).sum(-1)
    value = _solve(grid, step, own, gamma)
    # 0 · ∞ would be NaN where a move cannot lead
    after = torch.where(p > 0, p * value, 0.0).sum(-1) if gamma else torch.zeros_like(r)
    return PolicyValues(value, r + gamma * after, _sweeps(step, own, gamma, value, most))


def endless(grid: GridModel, step: Tensor) -> tuple[Tensor, Tensor]:
    """[S] bool each: the policy never ends from here; it may come where it never ends. `step` is
    P^π [S, S]."""
    reach = (step + torch.eye(len(step), dtype=step.dtype)) > 0
    for _ in range(math.ceil(math.log2(len(step))) + 1):
        reach = (reach.double() @ reach.double()) > 0
    stuck = ~reach[:, grid.terminal].any(1)
    return stuck, reach[:, stuck].any(1)


def _solve(grid: GridModel, step: Tensor, own: Tensor, gamma: float) -> Tensor:
    """V^π [S]."""
    value = torch.zeros_like(own)
    fixed = grid.terminal
    if gamma == 1:
        stuck, lost = endless(grid, step)
        # a free walk without an end is worth 0
        forever = 0.0 if grid.cost == 0 else math.copysign(math.inf, grid.cost)
        fixed = fixed | (lost if grid.cost else stuck)
        value[lost if grid.cost else stuck] = forever
    free = ~fixed
    system = torch.eye(int(free.sum()), dtype=own.dtype) - gamma * step[free][:, free]
    value[free] = torch.linalg.solve(system, own[free])
    return value


def _sweeps(step: Tensor, own: Tensor, gamma: float, value: Tensor, most: int) -> list[Tensor]:
    """V after each sweep, until those that have a limit have settled."""
    settles, sweeps, v = value.isfinite(), [], torch.zeros_like(own)
    for _ in range(most):
        after = own + gamma * step @ v
        sweeps.append(after)
        change, v = (after - v).abs()[settles], after
        if not len(change) or float(change.max()) <= TOLERANCE:
            break
    return sweeps


# --- tables ---


def value_tables(
    grid: GridModel, policy: MovePolicy, values: PolicyValues, first: int
) -> tuple[ReportTable, ReportTable]:
    """V^π sweep by sweep, and Q^π and A^π of a few cells; `first` numbers the first table."""
    n, settles = len(values.sweeps), values.value.isfinite()
    maps = {f"sweep {k}": value_map(grid, values.sweeps[k - 1], 1) for k in (1, 2, 10) if k < n}
    maps["exact"] = value_map(grid, values.value)
    gap = (values.sweeps[-1] - values.value).abs()[settles]
    note = (
        f"exact: the solution of the linear system (I − γ P^π) V = r^π. {n} sweeps come as near to"
        f" it as {float(gap.max()):.0e}."
        if len(gap)
        else "Nothing settles: the policy walks for ever from every cell."
    )
    if len(gap) and not bool(settles.all()):
        note += " −∞ or ∞: from here the policy may walk for ever."
    how = f"slips of {grid.slip:g}" if grid.slip else "without slips"
    title = f"{first}. V^π of the policy “{policy.name}” after each sweep, {how}"
    return map_table(grid, title, maps, note=note), _cells(grid, policy, values, first + 1)


def _cells(grid: GridModel, policy: MovePolicy, values: PolicyValues, place: int) -> ReportTable:
    rows = []
    for s in few_cells(grid):
        value = number(float(values.value[s]), 3)
        for name, x, last in (
            ("π", policy.pi, ""),
            ("Q^π", values.q, value),
            ("A^π", values.advantage, ""),
        ):
            cells = ["–" if math.isnan(v) else number(v, 3) for v in x[s].tolist()]
            x_y = f"({grid.cell(s)[0]}, {grid.cell(s)[1]})"
            rows.append((f"{x_y} {name}", *(c.rjust(7) for c in cells), last.rjust(7)))
    return ReportTable(
        f"{place}. Q^π(s, a) and A^π(s, a) = Q^π − V^π of a few cells; V^π = Σ_a π(a|s) Q^π(s, a)",
        ("cell", *(f"{n} {a}" for n, a in zip(ACTIONS, ARROWS, strict=True)), "V^π"),
        tuple(rows),
        (),
        "An advantage above 0: a move that is better than what the policy does on average. Σ_a π A"
        " = 0 in every cell."
        + ("" if values.value.isfinite().all() else " –: −∞ less −∞, or ∞ less ∞."),
    )

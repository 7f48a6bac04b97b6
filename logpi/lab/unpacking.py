"""The unpacking chain of PPO's advantage, tables of `logpi lab worked`: from rewards and values to
TD errors, to n-step advantages, to their λ-average, which is GAE.

Left out: the trajectory itself (`worked.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.lab.report import ReportTable, Value
from logpi.ops.advantages import GAE, NStep, RewardToGo
from logpi.ops.time import td_error

if TYPE_CHECKING:
    from logpi.lab.worlds import World
    from logpi.types import Batch

# A critic for the ladder, V(s₀) … V(s₃) and the goal; Chan gives none.
CRITIC = (0.5, 2.0, 2.5, 4.5, 0.0)
LAM = 0.5
STEPS = (1, 2, 3, float("inf"))


def ladder(row: Batch) -> ReportTable:
    """Table 6: from rewards and values (level 4) up to GAE (level 1), at each step."""
    value = torch.tensor([CRITIC])
    steps = [NStep(n)(row, value) for n in STEPS]
    average = _weighted(row, value, LAM)
    lines: list[tuple[str, str, Tensor]] = [
        ("4", "r", row.reward),
        ("4", "V(s), the critic's", value[:, :-1]),
        ("3", "δ = r + V(s′) − V(s)", td_error(row, value, 1.0)),
    ]
    lines += [("2", f"Â⁽{_sup(n)}⁾ = {_sum(n)}", x) for n, x in zip(STEPS, steps, strict=True)]
    lines += [
        ("1", f"Σₙ (1−λ) λⁿ⁻¹ Â⁽ⁿ⁾, λ = {LAM:g}", average),
        ("1", f"GAE: δ + λ Â of the next, λ = {LAM:g}", GAE(1.0, LAM)(row, value)),
        ("1", "GAE, λ = 0.95", GAE(1.0, 0.95)(row, value)),
        ("", "G − V(s)", RewardToGo()(row) - value[:, :-1]),
    ]
    return ReportTable(
        "6. The unpacking chain on the worked trajectory (γ = 1): each line is made of those above",
        ("level", "quantity", "t = 0", "t = 1", "t = 2", "t = 3"),
        tuple((level, name, *x[0].tolist()) for level, name, x in lines),
        ("", "", *["+.4f"] * 4),
        "The critic is ours, with round numbers: Chan gives none. The values between s and"
        " the last state cancel: Â⁽²⁾ at t = 0 is δ₀ + δ₁ = +0.5 − 0.5, and r₀ + r₁ + V(s₂) −"
        " V(s₀) = −1 − 1 + 2.5 − 0.5.",
    )


def _sup(n: float) -> str:
    return {1: "¹", 2: "²", 3: "³"}.get(int(n), "⁾") if n < 9 else "∞"


def _sum(n: float) -> str:
    terms = {1: "δ", 2: "δ + δ′", 3: "δ + δ′ + δ″"}
    return terms[int(n)] if n < 9 else "δ + δ′ + … to the end"


def _weighted(row: Batch, value: Tensor, lam: float) -> Tensor:
    """(1−λ) Σ_{n<N} λⁿ⁻¹ Â⁽ⁿ⁾ + λᴺ⁻¹ Â⁽ᴺ⁾ [B, T]: from N on every Â⁽ⁿ⁾ is the same."""
    n = row.mask.shape[1]
    parts = [(1 - lam) * lam ** (k - 1) * NStep(k)(row, value) for k in range(1, n)]
    return sum(parts, lam ** (n - 1) * NStep(n)(row, value))


def average(row: Batch) -> ReportTable:
    """Table 7: the λ-average at t = 0, term by term."""
    value, n = torch.tensor([CRITIC]), row.mask.shape[1]
    rows: list[tuple[Value, ...]] = []
    for k in range(1, n + 1):
        advantage = float(NStep(k)(row, value)[0, 0])
        cells: list[Value] = []
        for lam in (0.0, LAM, 0.95, 1.0):
            weight = (1 - lam) * lam ** (k - 1) if k < n else lam ** (n - 1)
            cells += [weight * advantage] if lam in (0.0, 1.0) else [weight, weight * advantage]
        rows.append((f"{k}" if k < n else f"{k} … ∞", advantage, *cells))
    sums = [sum(float(r[i] or 0) for r in rows) for i in range(2, 8)]
    rows.append(("sum", None, *sums))
    names = ("λ = 0", f"weight, {LAM:g}", "term", "weight, 0.95", "term ", "λ = 1")
    return ReportTable(
        "7. The average at t = 0, term by term: the weights add up to 1",
        ("n", "Â⁽ⁿ⁾", *names),
        tuple(rows),
        ("", *["+.4f"] * 7),
        "From n = 4 on every Â⁽ⁿ⁾ is the whole rest of the trajectory, so the last weight is λ³."
        " λ = 0 is the TD error, λ = 1 the return minus V.",
    )


def perfect(world: World, row: Batch) -> ReportTable:
    """Table 8: δ of the exact critic is the advantage: 0 on average, not always."""
    value = world.value[torch.arange(row.obs.shape[1]), row.obs[0]][None]
    delta = td_error(row, value, 1.0)[0]
    v, q = world.mdp.values(world.pi)
    rows: list[tuple[Value, ...]] = []
    for t, (state, action) in enumerate(zip(row.obs[0, :-1], row.action[0], strict=True)):
        advantage = (q[t] - v[t][:, None])[state]
        mean = float(world.pi[state] @ advantage)
        of_action = (advantage[action], world.pi[state, action])
        own, chance = (float(x) for x in of_action)
        rows.append((t, float(value[0, t]), float(delta[t]), own, mean, chance))
    return ReportTable(
        "8. With a perfect critic, V^π of the worked policy with four moves: δ is not 0",
        ("t", "V^π(s)", "δ", "A^π(s, a)", "E[δ | s]", "π(a|s)"),
        tuple(rows),
        ("", "+.4f", "+.4f", "+.4f", ".4f", ".1f"),
        "Moves are certain here, so δ is exactly the advantage of the action that was taken. Only"
        " its mean over actions is 0.",
    )

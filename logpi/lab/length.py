"""`logpi lab length`: which aggregations prefer short right answers or long wrong ones, exactly.

In this world more thinking (x) never helps: right and wrong answers are equally likely after any
number of steps, so the policy gradient does not change lengths. Every change of length comes from
the aggregation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from logpi.lab.expectation import Setting, moments
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GroupCenter
from logpi.ops.weights import (
    FixedLength,
    GroupTokenMean,
    SequenceMean,
    SequenceSum,
    TokenMean,
    Weight,
)
from logpi.runs.plots import COLOURS, Panel, figure

LONGEST = 5
KINDS: tuple[tuple[str, str, Weight, int], ...] = (
    ("SequenceSum", "theorem, GRPO-R1", SequenceSum(), 1),
    (f"FixedLength({LONGEST})", "Dr. GRPO", FixedLength(LONGEST), 1),
    ("SequenceMean", "GRPO", SequenceMean(), 1),
    ("GroupTokenMean", "DAPO", GroupTokenMean(), 1),
    ("TokenMean", "PPO, common GRPO", TokenMean(), 1),
)


def length_world(solved: float = 0.5) -> World:
    """Think on (x, probability ½) or answer: right (r) with probability `solved` at any time, or
    wrong (w)."""
    tasks = {"q": {"x" * n + a: float(a == "r") for n in range(LONGEST) for a in "rw"}}
    world = token_world(tasks, spread=0.0)
    # characters in order: q, r, w, x
    chances = torch.tensor([0.0, solved, 1 - solved, 1.0], dtype=torch.float64)
    return world.at(chances.clamp(min=1e-300).log().expand_as(world.logits))


def length() -> Report:
    """The report of `logpi lab length`."""
    tables = [_table(length_world(p), i, p) for i, p in ((1, 0.5), (2, 0.2))]
    return Report(
        "length",
        "One expected step (Â = R − group mean, M = 4; natural gradient, scaled to the same length)"
        " with each aggregation. How do the probabilities of short and long, right and wrong"
        " responses change, and how does the mean length? More thinking never helps in this world,"
        " so the policy gradient does not change lengths.",
        tuple(tables),
        "dividing by a response's own length makes right answers shorter and wrong ones longer;"
        " token means over a group do so less; sums and a fixed constant do not change lengths.",
        lambda: _picture(length_world(0.2)),
    )


def step_effects(world: World, weight: Weight) -> tuple[Tensor, Tensor]:
    """d log P(y) [K] along the expected step, and the step [S·A]: a natural gradient of length 1
    (√(ΔᵀFΔ) = 1).

    It is natural because an ordinary step in logits favours actions that are already likely,
    whatever their value.
    """
    objective = PolicyGradient(GroupCenter(), weight=weight)
    fisher = world.mdp.fisher(world.pi)
    mean = moments(world, objective, Setting(responses=4)).mean
    step = -torch.linalg.pinv(fisher, hermitian=True) @ mean
    step = step / (step @ fisher @ step).sqrt()
    tangent = step.view_as(world.logits)
    derivative = torch.func.jvp(lambda x: world.policy_logp(x).sum(1), (world.logits,), (tangent,))
    return derivative[1], step


def _mean_length(world: World, change: Tensor, among: Tensor) -> float:
    """dE[T | among] for a change of log P [K]."""
    p = torch.where(among, world.conditional, 0.0)
    p = p / p.sum()
    t = world.lengths.double()
    return float((p * t * change).sum() - (p * t).sum() * (p * change).sum())


def _table(world: World, number: int, solved: float) -> ReportTable:
    right, t = world.returns > 0, world.lengths
    rows = []
    for name, who, weight, _ in KINDS:
        change, _ = step_effects(world, weight)
        extremes = [
            float(change[(right == r) & (t == n)][0]) for r in (True, False) for n in (1, LONGEST)
        ]
        kinds = (right, ~right, torch.ones_like(right))
        lengths = [_mean_length(world, change, kind) for kind in kinds]
        rows.append((name, who, *extremes, *lengths))
    return ReportTable(
        f"{number}. Right answers have probability {solved:g} at every length",
        (
            "aggregation",
            "who",
            "right T=1",
            f"T={LONGEST}",
            "wrong T=1",
            f"T={LONGEST} ",
            "ΔT right",
            "ΔT wrong",
            "ΔT",
        ),
        tuple(rows),
        ("", "", *[".2f"] * 7),
        "d log P of one response of that kind (T tokens), and the change of the mean length of"
        " right, wrong and all responses.",
    )


def _picture(world: World) -> Any:
    titles = ("right responses", "wrong responses")
    picture = figure(
        [
            Panel(f"{title}: change of log P in one step", "length of the response", "d log P")
            for title in titles
        ],
        size=(4.5, 3.6),
        sharey=True,
    )
    right, t = world.returns > 0, world.lengths
    for side, among in zip(picture.axes, (right, ~right), strict=True):
        side.axhline(0.0, color="#9ca3af", linewidth=0.8)
        for i, (name, _, weight, _) in enumerate(k for k in KINDS if not k[0].startswith("Fixed")):
            change, _ = step_effects(world, weight)
            style = ("-", "-", "-", ":")[i]
            side.plot(
                t[among],
                change[among],
                style,
                marker="o",
                markersize=4,
                color=COLOURS[(7, 1, 2, 3)[i]],
                label=name,
            )
        side.set_xticks(range(1, LONGEST + 1))
    return picture

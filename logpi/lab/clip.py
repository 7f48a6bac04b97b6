"""`logpi lab clip`: which gradients clipping keeps, for both signs of the advantage and both sides
of the ratio.

The number is ∂(surrogate)/∂(log π) for Â = ±1, by autograd through the library's own surrogates: by
how much the action's log-probability is pushed. Without clipping it is ρ Â.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from logpi.lab.report import Report, ReportTable
from logpi.ops.surrogates import Clip, ClippedScore, DualClip, ScoreFunction, Surrogate, Unclipped
from logpi.runs.plots import COLOURS, Panel, figure

RATIOS = (0.25, 0.5, 0.9, 1.1, 1.25, 1.5, 4.0)
KINDS: tuple[tuple[str, Surrogate], ...] = (
    ("score", ScoreFunction()),
    ("unclipped (TRPO)", Unclipped()),
    ("PPO clip 0.2", Clip(0.2)),
    ("clip-higher 0.2/0.28", Clip(0.2, 0.28)),
    ("dual clip 0.2, c = 3", DualClip(0.2, c=3.0)),
    ("CISPO 1 + ε = 1.28", ClippedScore(high=0.28)),
)


def push(surrogate: Surrogate, ratio: Tensor, advantage: Tensor) -> Tensor:
    """∂(surrogate)/∂(log π) at importance ratios [n] and advantages [n]; [n]."""
    old = torch.zeros_like(ratio)
    logp = ratio.log().requires_grad_()
    (grad,) = torch.autograd.grad(surrogate(logp - old, logp, advantage).sum(), logp)
    # −0 is 0
    return grad + 0.0


def clip() -> Report:
    """The report of `logpi lab clip`."""
    return Report(
        "clip",
        "How much does each surrogate push log π of an action, at each ratio ρ = π/π_old since the"
        " data were sampled? 0: the action has no gradient any more.",
        (
            _table("1. A good action (Â = +1): pushed up until ρ is above the bound", 1.0),
            _table("2. A bad action (Â = −1): pushed down until ρ is below the bound", -1.0),
            _quadrants(),
        ),
        "clipping stops only actions that have already moved the right way (Â > 0 and ρ high, Â < 0"
        " and ρ low); clip-higher gives good actions more room, dual clip also stops bad actions"
        " that became much likelier, and CISPO bounds the push but stops no action.",
        _picture,
    )


def _table(title: str, advantage: float) -> ReportTable:
    ratio = torch.tensor(RATIOS, dtype=torch.float64)
    rows = [
        (name, *push(s, ratio, torch.full_like(ratio, advantage)).tolist()) for name, s in KINDS
    ]
    return ReportTable(
        title,
        ("surrogate", *(f"ρ = {r:g}" for r in RATIOS)),
        tuple(rows),
        ("", *[".2f"] * len(RATIOS)),
    )


def _quadrants() -> ReportTable:
    """For each surrogate and quadrant: is there a gradient far from ρ = 1?"""
    corners = {
        "Â>0, ρ↑": (8.0, 1.0),
        "Â>0, ρ↓": (0.125, 1.0),
        "Â<0, ρ↑": (8.0, -1.0),
        "Â<0, ρ↓": (0.125, -1.0),
    }
    ratio, advantage = torch.tensor(list(corners.values())).T
    rows = []
    for name, surrogate in KINDS[1:]:
        sizes = push(surrogate, ratio, advantage).abs().tolist()
        rows.append((name, *map(_kind, sizes, ratio.tolist())))
    return ReportTable(
        "3. The four quadrants, far from ρ = 1",
        ("surrogate", *corners),
        tuple(rows),
        note=(
            "pushed: by ρ Â, as without clipping. bounded: by less, but not by 0. stopped: not at"
            " all."
        ),
    )


def _kind(size: float, ratio: float) -> str:
    if size == 0:
        return "stopped"
    return "pushed" if abs(size - ratio) < 1e-5 else "bounded"


def _picture() -> Any:
    ratio = torch.linspace(0.02, 4.0, 1200, dtype=torch.float64)
    picture = figure(
        [
            Panel(f"Push on log π, Â = {sign}1", "ratio ρ = π/π_old", "∂ surrogate / ∂ log π")
            for sign in "+−"
        ],
        size=(4.5, 3.6),
    )
    for axes, advantage in zip(picture.axes, (1.0, -1.0), strict=True):
        for i, (name, surrogate) in enumerate(KINDS[1:]):
            y = push(surrogate, ratio, torch.full_like(ratio, advantage))
            style = ("--", "-", "-", "-.", "-")[i]
            axes.plot(ratio, y, style, color=COLOURS[(7, 0, 2, 1, 4)[i]], linewidth=1.6, label=name)
        axes.axvline(1.0, color="#9ca3af", linewidth=0.8)
    return picture

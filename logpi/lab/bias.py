"""`logpi lab bias`: the direction of each method's expected step, compared with −∇J.

The tables compare the advantage alone with its closed form, the methods as they are in the table of
algorithms, and batches of growing size.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from logpi.algorithms import NAMES, Algorithm, algorithm
from logpi.lab.claims import CLAIMS, Claim, regularised
from logpi.lab.expectation import Moments, Setting, moments
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, standard, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.ratios import GeometricMeanRatio, SequenceRatio
from logpi.ops.selection import DropUniform, MixedOutcomes
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, TokenMean
from logpi.runs.plots import COLOURS, Panel, figure

# two responses each: M can be large
TINY = {
    "e": {".": 0.0, "ab": 1.0},
    "hd": {".": 1.0, "abc": 0.0},
}
GROWTH = (2, 4, 8, 16, 32, 64, 128)
# Whitening couples all prompts, so these take longer.
GROWTH_TOKENS = (2, 4, 8, 16)


def angle(a: Tensor, b: Tensor) -> float:
    """Degrees between two directions; NaN if one of them is 0."""
    size = float(a.norm() * b.norm())
    if size <= 1e-12:
        return math.nan
    return math.degrees(math.acos(max(-1.0, min(1.0, float(a @ b) / size))))


def _gap(mean: Tensor, expected: Tensor) -> float:
    return float((mean - expected).norm() / expected.norm())


def digits(gap: float) -> str:
    """A relative error as text; what is only rounding is no number."""
    return "< 1e−10" if gap < 1e-10 else f"{gap:.0e}"


def far_reference(world: World) -> Tensor:
    """Logits of a reference policy at some distance from the world's policy."""
    wave = torch.sin(torch.arange(world.logits.numel(), dtype=torch.float64)).view_as(world.logits)
    return world.logits + 0.5 * wave


def bias(responses: int = 4) -> Report:
    """The report of `logpi lab bias`.

    Args:
        responses: M, samples for each prompt (2 … 6).
    """
    world = standard()
    alone = _alone(world, responses)
    growth = _growth(token_world(TINY, seed=0))
    by_m = _by_group_size()
    p = world.solve_rate().tolist()
    return Report(
        "bias",
        "E[∇L̂] of every method, over every possible batch (no sampling), compared with −∇J. World:"
        f" two prompts (solved with probability {p[0]:.2f} and {p[1]:.2f}), 15 responses, a softmax"
        " table.",
        (alone, _shipped(world, responses), by_m, growth),
        sentence(alone, by_m, responses),
        lambda: _picture(by_m, growth),
    )


TURNED = "a different direction"


def sentence(alone: ReportTable, by_m: ReportTable, m: int) -> str:
    """The claims of the report, each read off tables 1 and 3; `m` is M of table 1."""
    verdicts = {str(row[0]): row[-1] for row in alone.rows}
    exact = {verdicts[str(row[0])] for row in alone.rows if row[1] == "−∇J"}
    scale = next(row[5] for row in alone.rows if row[0] == "dr_grpo")
    turned = [name for name, verdict in verdicts.items() if verdict == TURNED]
    binary, real = (next((row[0] for row in by_m.rows if row[k] == TURNED), None) for k in (3, 5))
    return (
        f"baselines {'do not change' if exact == {'the policy gradient'} else 'change'} the policy"
        f" gradient, Dr. GRPO scales it by (M−1)/M ({scale:.4g} at M = {m}), and at M = {m} these"
        f" turn it: {', '.join(turned)}. The reasons: a discount, lengths in the weight or in the"
        " baseline, another goal (log p, the best of two), groups left out without a baseline,"
        " statistics of several prompts that contain the row, and the group's standard deviation"
        f" (with binary rewards from M = {binary} on, with real ones from M = {real})."
    )


def _alone(world: World, m: int) -> ReportTable:
    rows = []
    for claim in (c for c in CLAIMS if c.objective.min_group <= c.drawn(m).responses):
        critic = claim.critic(world) if claim.critic is not None else None
        setting = replace(claim.drawn(m), critic=critic)
        exact = moments(world, claim.objective, setting)
        form = claim.form(world, m)
        off = digits(_gap(exact.mean, form)) if claim.exact else None
        rows.append((claim.name, claim.law, off, angle(form, -world.gradient), *_measured(exact)))
    return ReportTable(
        f"1. The advantage alone: no KL, no whitening, responses summed (N = 1, M = {m};"
        " reinforce_plus_plus N = 3, M = 1)",
        ("method", "theory: E[∇L̂]", "off by", "angle", "here", "scale", "verdict"),
        tuple(rows),
        ("", "", "", ".1f", ".1f", ".4f", ""),
        "σ = √(p(1−p)) of a prompt that is solved with probability p; q = 1 − p; σ₂ = √(q²(1−q²)),"
        " of the best of two. off by: |E[∇L̂] − theory| / |theory|, where the theory holds for"
        " every M. angle: between the theory's direction and"
        " −∇J, in degrees; here: between E[∇L̂] and −∇J. scale: in lengths of ∇J. Critics are V^π"
        " unless it says wrong V; ppo without γ has γ = 1.",
    )


def _measured(m: Moments) -> tuple[float, float, str]:
    return angle(m.mean, m.target), m.scale, m.verdict


def _shipped(world: World, m: int) -> ReportTable:
    reference = far_reference(world)
    rows = []
    # a row that learns from a teacher does not climb J: `logpi lab kl` has its gradient
    for name in (n for n in NAMES if not algorithm(n).objective.needs_teacher):
        chosen = algorithm(name)
        objective = chosen.objective
        if not isinstance(objective, PolicyGradient) or not objective.on_policy:
            continue
        if objective.min_group > m:
            continue
        beta = objective.kl.coef if objective.kl is not None else 0.0
        setting = Setting(responses=m, keep=chosen.keep, reference=reference)
        exact = moments(world, objective, setting, -regularised(world, beta, reference))
        rows.append((name, _parts(chosen), *_measured(exact)))
    return ReportTable(
        f"2. The whole method, with all its parts (N = 1, M = {m}, a reference half a nat away)",
        ("method", "besides the theorem", "angle", "scale", "verdict"),
        tuple(rows),
        ("", "", ".2f", ".4f", ""),
        "Compared with −∇(J − β KL(π‖π_ref)) at the method's own β. The methods of the GRPO family"
        " also divide by the group's std. 1/tokens: tokens of the batch, here one group.",
    )


_SHORT = {
    TokenMean: "1/tokens",
    SequenceMean: "1/length",
    GroupTokenMean: "1/group tokens",
    FixedLength: "1/constant",
    GeometricMeanRatio: "geometric mean",
    SequenceRatio: "seq. ratio",
    MixedOutcomes: "mixed groups",
    DropUniform: "mixed groups",
}


def _parts(chosen: Algorithm) -> str:
    """The parts of a method that the theorem does not have, in a few words."""
    o = chosen.objective
    assert isinstance(o, PolicyGradient)
    kinds = [type(o.weight), type(chosen.keep)]
    kinds += [type(o.ratio)] if o.surrogate.uses_ratio else []
    parts = [_SHORT[k] for k in kinds if k in _SHORT]
    parts += ["whitened"] if o.whiten else []
    parts += [f"{o.top_entropy:.0%} of tokens"] if o.top_entropy < 1 else []
    parts += [f"{o.kl.estimator} {o.kl.place}"] if o.kl is not None else []
    return ", ".join(parts) or "nothing"


def _claim(name: str) -> Claim:
    return next(c for c in CLAIMS if c.name == name)


REAL = {"eaa": 0.5, "eba": 2.0, "hdabb.": 3.0}


def _by_group_size() -> ReportTable:
    """GRPO's angle at each M, with binary and with real rewards."""
    objective = _claim("grpo_r1").objective
    rows: list[tuple[Any, ...]] = []
    for m in range(2, 7):
        binary, real = (
            moments(world, objective, Setting(responses=m))
            for world in (standard(), standard(REAL))
        )
        rows.append((m, *_measured(binary), angle(real.mean, real.target), real.verdict))
    return ReportTable(
        "3. GRPO's standard deviation turns the step from some M on (grpo_r1, the advantage alone)",
        (
            "M",
            "angle, binary",
            "scale",
            "verdict, binary rewards",
            "angle, real",
            "verdict, real rewards",
        ),
        tuple(rows),
        ("d", ".2f", ".4f", "", ".2f", ""),
        "With binary rewards and M = 2 or 3 every mixed group has the same standard deviation, so"
        " GRPO is Dr. GRPO times a number.",
    )


def _growth(world: World) -> ReportTable:
    """The distance of methods from their limits, for batches of growing size."""
    names = ("grpo_r1", "grpo", "dapo")
    limits = {n: _claim(n).form(world, 0) for n in (*names, "reinforce_plus_plus")}
    rows = []
    for m in GROWTH:
        means = {n: moments(world, _claim(n).objective, Setting(responses=m)).mean for n in names}
        turned = angle(means["grpo_r1"], -world.gradient)
        tokens = None
        if m in GROWTH_TOKENS:
            objective = _claim("reinforce_plus_plus").objective
            whole = moments(world, objective, Setting(prompts=m, responses=1)).mean
            tokens = _gap(whole, limits["reinforce_plus_plus"])
        rows.append((m, *(_gap(means[n], limits[n]) for n in names), turned, tokens))
    return ReportTable(
        "4. Limits: distance |E[∇L̂] − limit| / |limit| as M grows (reinforce_plus_plus: N prompts,"
        " M = 1), a tiny world",
        ("M (or N)", "grpo_r1", "grpo", "dapo", "angle of grpo_r1", "reinforce_plus_plus"),
        tuple(rows),
        ("d", ".4f", ".4f", ".4f", ".2f", ".4f"),
        f"The limit of grpo_r1 is {angle(limits['grpo_r1'], -world.gradient):.2f} degrees off −∇J,"
        " that of reinforce_plus_plus 0 degrees: its spread is the same for all prompts.",
    )


def _picture(by_m: ReportTable, growth: ReportTable) -> Any:
    growing = Panel("Limits of theory are reached", "M (or N)", "distance from the limit")
    turning = Panel(
        "GRPO's std turns the step from M = 4 on",
        "M, samples for each prompt",
        "angle with −∇J, degrees",
    )
    picture = figure([turning, growing], size=(4.5, 3.6))
    left, right = picture.axes
    m = [r[0] for r in by_m.rows]
    left.plot(m, [r[1] for r in by_m.rows], marker="o", color=COLOURS[0], label="binary rewards")
    left.plot(m, [r[4] for r in by_m.rows], marker="s", color=COLOURS[1], label="real rewards")
    left.set_xticks(m)
    for column, colour, marker, size in (
        (1, 0, "o", 3.5),
        (2, 1, "o", 3.5),
        (3, 2, "o", 3.5),
        (5, 3, "^", 4),
    ):
        right.plot(
            *_series(growth, column),
            marker=marker,
            markersize=size,
            color=COLOURS[colour],
            label=growth.columns[column],
        )
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    return picture


def _series(table: ReportTable, column: int) -> tuple[list[Any], list[Any]]:
    rows = [r for r in table.rows if r[column] is not None]
    return [r[0] for r in rows], [r[column] for r in rows]

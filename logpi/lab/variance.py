"""`logpi lab variance`: the noise of each method's step, exactly, and the effect of a baseline.

The tables compare baselines of the plain gradient, methods at each M, the sign of Â, and GAE's bias
and variance at each λ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from logpi.algorithms import algorithm
from logpi.lab.claims import CLAIMS
from logpi.lab.expectation import Moments, Setting, advantages, all_draws, moments
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, standard
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE, RewardToGo
from logpi.ops.weights import SequenceSum
from logpi.runs.plots import COLOURS, Panel, figure

# number of responses of the batch whose error is shown
ROWS = 16
VALUE, BY_STEP = "the state's: V(s)", "both signs for both: by step"
DISCOUNTS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)


def variance() -> Report:
    """The report of `logpi lab variance`."""
    world = standard()
    curve, by_m = _curve(world), _by_size(world)
    baselines, signs, discounts = _baselines(world), _signs(world), _discounted(world)
    return Report(
        "variance",
        "Var[∇L̂] of every method, over every possible batch. The signal-to-noise ratio ‖E‖²/tr Var"
        " does not depend on scale; at 1 a step has as much noise as signal.",
        (baselines, by_m, signs, curve, discounts),
        sentence(baselines, signs, curve),
        lambda: _picture(by_m, curve),
    )


def sentence(baselines: ReportTable, signs: ReportTable, curve: ReportTable) -> str:
    """The claims of the report, each read off tables 1, 3 and 4."""
    none, *others = baselines.rows[:6]
    kept = {row[4] for row in baselines.rows} == {none[4]}
    parts = {str(row[0]): float(row[1] or 0) / float(none[1] or 1) for row in others}
    constant, best = list(parts.values())[1], list(parts.values())[-1]
    low, high = curve.rows[0], curve.rows[-1]
    exact, wrong = (float(low[k] or 0) for k in (1, 4))
    punished = [str(row[0]) for row in signs.rows if str(row[2]).startswith("−")]
    return (
        f"a baseline removes noise and {'no' if kept else 'some'} signal: of the variance the best"
        f" constant leaves {constant:.0%}, V(s) {parts[VALUE]:.0%}, the best"
        f" state-dependent one {best:.0%}. With an exact critic λ = 0 instead of 1 takes it from"
        f" {high[2]:.4f} to {low[2]:.4f} {'without' if exact < 1e-10 else 'with'} bias; a wrong"
        f" critic is {'unbiased' if wrong < 1e-10 else 'biased'} there. Only these give steps of a"
        f" right response a negative advantage: {', '.join(punished) or 'none'}."
    )


def _baseline(world: World, b: Tensor, m: int = 1) -> Moments:
    """The plain gradient with baseline b(s) [S], return-to-go minus b, by the library's own
    GAE(1, 1)."""
    objective = PolicyGradient(GAE(1.0, 1.0), weight=SequenceSum())
    return moments(world, objective, Setting(responses=m, critic=b))


def best_constant(world: World) -> float:
    """The constant baseline of least variance. The variance is a parabola in it, so three points
    give its minimum."""
    ones = torch.ones(len(world.logits), dtype=torch.float64)
    low, middle, high = (_baseline(world, c * ones).variance for c in (0.0, 1.0, 2.0))
    curvature, slope = (low - 2 * middle + high) / 2, (4 * middle - 3 * low - high) / 2
    return -slope / (2 * curvature)


def best_state_baseline(world: World) -> Tensor:
    """The baseline of least variance for a table of softmaxes [S] (Greensmith et al. 2004); V^π
    where π is certain.

    b*(s) = E_a[‖∇log π‖² Q] / E_a[‖∇log π‖²]
    """
    pi = world.pi
    # ‖onehot(a) − π‖²
    square = (1 - 2 * pi + (pi**2).sum(-1, keepdim=True)).clamp(min=0)
    q, v = world.mdp.values(pi)[1][0], world.value
    weight = (pi * square).sum(-1)
    return torch.where(weight > 1e-12, (pi * square * q).sum(-1) / weight.clamp(min=1e-12), v)


def _baselines(world: World) -> ReportTable:
    zero = torch.zeros(len(world.logits), dtype=torch.float64)
    constant = best_constant(world)
    prompt = world.solve_rate()[world.paths.group[_first_visit(world)]]
    kinds = [
        ("none", zero),
        ("constant: J", zero + world.expected_return),
        (f"constant: the best, {constant:.3f}", zero + constant),
        ("the prompt's: p(x)", prompt),
        (VALUE, world.value),
        ("the state's: the best, b*(s)", best_state_baseline(world)),
    ]
    rows = [(name, *_noise(_baseline(world, b))) for name, b in kinds]
    one_step = PolicyGradient(GAE(1.0, 0.0), weight=SequenceSum())
    with_q = [
        ("none, but Q(s, a) for the return", algorithm("actor_critic_q").objective),
        ("V(s), and Q(s, a) for the return", one_step),
    ]
    rows += [(name, *_noise(moments(world, o, Setting(responses=1)))) for name, o in with_q]
    return ReportTable(
        "1. Baselines for one response (N = M = 1)",
        ("baseline", "tr Var", "Var along ∇J", "signal/noise", "E[∇L̂]"),
        tuple(rows),
        ("", ".4f", ".4f", ".4f", ""),
    )


def _first_visit(world: World) -> Tensor:
    """[S] a trajectory that visits each state; 0 if there is none."""
    state = world.index(world.paths)
    path = torch.zeros(len(world.logits), dtype=torch.long)
    path[state.flatten()] = torch.arange(len(state)).repeat_interleave(state.shape[1])
    return path


def _noise(m: Moments) -> tuple[float, float, float, str]:
    return m.variance, m.along, m.signal_to_noise, m.verdict


def _by_size(world: World) -> ReportTable:
    names = ("reinforce", "remax", "rloo", "dr_grpo", "grpo_r1", "grpo", "dapo", "orz", "ppo")
    sizes = (2, 3, 4, 5, 6)
    rows = []
    for name in names:
        claim = next(c for c in CLAIMS if c.name == name)
        ratios = [
            moments(world, claim.objective, Setting(responses=m)).signal_to_noise for m in sizes
        ]
        rows.append((name, *ratios, 1 / ratios[2]))
    return ReportTable(
        "2. Signal-to-noise ratio of one prompt's batch at each M (the advantage alone)",
        ("method", *(f"M = {m}" for m in sizes), "tr Var / |E|², M = 4"),
        tuple(rows),
        ("", *(".4f",) * 6),
        "Prompts are drawn too, so even with many responses the noise of the prompt remains. ppo"
        " has an exact critic here and λ = .95.",
    )


def _signs(world: World) -> ReportTable:
    rows = []
    step = replace(
        CLAIMS[0], name="ppo λ=0", objective=PolicyGradient(GAE(1.0, 0.0), weight=SequenceSum())
    )
    for claim in (*CLAIMS, step):
        skipped = claim.name in ("policy_gradient", "a2c") or "baseline" in claim.name
        if skipped or "γ" in claim.name:
            continue
        critic = claim.critic(world) if claim.critic is not None else None
        setting = claim.setting
        if setting == Setting():
            setting = Setting(responses=4, critic=critic)
        values, reward = advantages(world, claim.objective, setting, all_draws(world, setting))
        wrong, right = (values[reward == r] for r in (0.0, 1.0))
        rows.append((claim.name, _span(wrong), _span(right), _reading(wrong, right)))
    return ReportTable(
        "3. The sign of Â: its range over every token of every wrong (r = 0) and every right (r ="
        " 1) response",
        ("method", "Â where r = 0", "Â where r = 1", "result"),
        tuple(rows),
        note=(
            "Without a baseline Â of a wrong response is 0, so it is not pushed at all. Only a"
            " critic with λ < 1 distinguishes a bad step of a right response from a good one."
        ),
    )


def _span(x: Tensor) -> str:
    low, high = (
        f"{float(v):+.2f}".replace("-", "−").replace("+0.00", "0").replace("−0.00", "0")
        for v in (x.min(), x.max())
    )
    return low if low == high else f"{low} … {high}"


def _reading(wrong: Tensor, right: Tensor) -> str:
    tiny = 1e-12
    if float(wrong.min()) > -tiny and float(right.min()) > -tiny:
        return "never pushes down"
    if float(wrong.max()) < tiny and float(right.min()) > -tiny:
        return "sign of r − baseline"
    if float(right.min()) > -tiny:
        return "both signs where r = 0"
    return BY_STEP


def _curve(world: World) -> ReportTable:
    """Bias² and variance of GAE(1, λ) with an exact critic, and with one that knows only the
    mean."""
    flat = torch.full_like(world.value, world.expected_return)
    rows = []
    for lam in LAMBDAS:
        objective = PolicyGradient(GAE(1.0, lam), weight=SequenceSum())
        numbers: list[float] = []
        for critic in (world.value, flat):
            m = moments(world, objective, Setting(responses=1, critic=critic))
            bias = float((m.mean - m.target) @ (m.mean - m.target))
            numbers += [bias, m.variance, bias + m.variance / ROWS]
        rows.append((lam, *numbers))
    return ReportTable(
        "4. GAE at each λ (γ = 1): bias², variance of one response, and the mean squared error of"
        f" {ROWS} responses",
        (
            "λ",
            "exact V: bias²",
            "var",
            f"error, {ROWS}",
            "wrong V: bias²",
            "var ",
            f"error, {ROWS} ",
        ),
        tuple(rows),
        (".2f", *(".4f",) * 6),
        "wrong V: J in every state. λ = 1 is unbiased with both; with the wrong V the least error"
        " is at a λ in between.",
    )


def _discounted(world: World) -> ReportTable:
    """Bias² and variance at each γ in the estimator; J itself has no discount."""
    rows = []
    for gamma in DISCOUNTS:
        numbers: list[float] = []
        for advantage in (RewardToGo(gamma), GAE(gamma, 0.95)):
            objective = PolicyGradient(advantage, weight=SequenceSum())
            m = moments(world, objective, Setting(responses=1))
            bias = float((m.mean - m.target) @ (m.mean - m.target))
            numbers += [bias, m.variance, bias + m.variance / ROWS]
        rows.append((gamma, *numbers))
    return ReportTable(
        f"5. The discount γ in the estimator: bias², variance, and the error of {ROWS} responses",
        (
            "γ",
            "G: bias²",
            "var",
            f"error, {ROWS}",
            "GAE .95, exact V: bias²",
            "var ",
            f"error, {ROWS} ",
        ),
        tuple(rows),
        (".2f", *(".4f",) * 6),
        "G: REINFORCE. J has no discount, so γ < 1 is biased with both, an exact critic or not;"
        " what is gained is variance.",
    )


def _picture(by_m: ReportTable, curve: ReportTable) -> Any:
    signal = Panel(
        "Signal-to-noise of one prompt's batch",
        "M, samples for each prompt",
        "‖E[∇L̂]‖² / tr Var[∇L̂]",
    )
    error = Panel("GAE: λ trades bias for variance", "λ", "squared error of E[∇L̂]")
    picture = figure([signal, error], size=(4.5, 3.6))
    left, right = picture.axes
    # dr_grpo is rloo, scaled.
    for i, row in enumerate(r for r in by_m.rows if r[0] != "dr_grpo"):
        style = "--" if row[0] in ("grpo", "dapo", "grpo_r1") else "-"
        left.plot(
            range(2, 7), row[1:6], style, marker="o", markersize=3, color=COLOURS[i], label=row[0]
        )
    left.set_xticks(range(2, 7))
    left.legend(fontsize=7, frameon=False, ncols=2)
    lam = [r[0] for r in curve.rows]
    lines = [(1, 0, ":", "bias², exact V"), (3, 0, "-", f"error of {ROWS}, exact V")]
    lines += [(4, 1, ":", "bias², wrong V"), (6, 1, "-", f"error of {ROWS}, wrong V")]
    for column, colour, style, label in lines:
        right.plot(lam, [r[column] for r in curve.rows], style, color=COLOURS[colour], label=label)
    right.set_ylim(bottom=0)
    return picture

"""`logpi lab kl`: the estimators of the KL penalty as numbers and as gradients.

The first table has bias and spread of k1, k2 and k3. The others compare the expected gradient of
each, in the reward and in the loss, with the gradients of four divergences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logpi.lab.bias import angle, far_reference
from logpi.lab.expectation import Setting, moments
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import RewardToGo
from logpi.ops.divergences import Divergence, ForwardKL, ReverseKL
from logpi.ops.kl import KL, Estimator, k1, k2, k3
from logpi.ops.surrogates import ScoreFunction
from logpi.ops.weights import SequenceSum
from logpi.runs.plots import COLOURS, Panel, figure

# two tokens: some states are visited more often than others
STEPS = {"q": {x + y: 0.0 for x in "abc" for y in "abc."}}
# one token: nothing but an action
BANDIT = {"q": {x: 0.0 for x in "abcd"}}
SEED = 8
NAMES = ("∇KL(π‖ref)", "∇KL(ref‖π)", "states fixed: ∇KL(π‖ref)", "states fixed: ∇KL(ref‖π)")


def kl() -> Report:
    """The report of `logpi lab kl`."""
    world = token_world(STEPS, seed=SEED)
    bandit = token_world(BANDIT, seed=SEED)
    sweep = _sweep()
    return Report(
        "kl",
        "The KL penalty as a number and as a gradient, with Δ = log π − log π_ref at each token: k1"
        " = Δ, k2 = ½Δ², k3 = e^−Δ + Δ − 1. All rewards are 0, so the expected step comes from the"
        " penalty alone. Everything is exact and on-policy.",
        (
            _values(sweep),
            _gradients(bandit, "2. One token: −E[∇L̂] of each placement", bandit=True),
            _gradients(
                world, "3. Two tokens: the same, where visits to states depend on π", bandit=False
            ),
        ),
        "k1 in the reward has the gradient of KL(π‖π_ref); in the loss k1 has no gradient on"
        " average, k2 has that of the reverse and k3 that of the forward KL, both with the visited"
        " states fixed, so beyond one token no loss term has the gradient of a response's KL. k1 in"
        " the action's own advantage is as k2 in the loss; reverse and forward are whole"
        " distributions, which distillation compares.",
        lambda: _picture(sweep),
    )


def penalty_gradient(
    world: World, reference: Tensor, estimator: Estimator | Divergence, place: Any
) -> Tensor:
    """−E[∇L̂] [S·A] of a penalty alone (β = 1, no reward), through the library's objective."""
    penalty = KL(1.0, estimator, place)
    objective = PolicyGradient(
        RewardToGo(), surrogate=ScoreFunction(), weight=SequenceSum(), kl=penalty
    )
    return moments(world, objective, Setting(responses=1, reference=reference)).mean


def candidates(world: World, reference: Tensor) -> list[Tensor]:
    """The gradients of four divergences, in the order of `NAMES`; each [S·A]."""
    ref = world.mdp.policy(reference)
    visits = world.mdp.occupancy(world.pi).sum(0)

    def grad(f: Callable[[Tensor], Tensor]) -> Tensor:
        theta = world.logits.detach().requires_grad_()
        return torch.autograd.grad(f(world.mdp.policy(theta)), theta)[0].flatten()

    return [
        grad(lambda pi: world.mdp.divergence(pi, ref)),
        grad(lambda pi: world.mdp.divergence(ref, pi)),
        grad(lambda pi: (visits * world.mdp.state_divergence(pi, ref)).sum()),
        grad(lambda pi: (visits * world.mdp.state_divergence(ref, pi)).sum()),
    ]


def _gradients(world: World, title: str, bandit: bool) -> ReportTable:
    reference = far_reference(world)
    targets = candidates(world, reference)
    gradients = [
        (e.name, place, penalty_gradient(world, reference, e, place))
        for place in ("reward", "loss")
        for e in (k1, k2, k3)
    ]
    gradients += [
        (e.name, place, penalty_gradient(world, reference, e, place))
        for e, place in ((k1, "action"), (ReverseKL(), "loss"), (ForwardKL(), "loss"))
    ]
    shown = targets[:2] if bandit else targets
    rows = [
        (name, place, float(g.norm()), *(angle(g, x) for x in shown), _name_of(g, targets))
        for name, place, g in gradients
    ]
    heads = ("reverse", "forward", "rev., fixed", "fwd., fixed")[: len(shown)]
    note = "Angles in degrees with ∇KL(π‖π_ref), reverse, and ∇KL(π_ref‖π), forward."
    if not bandit:
        note += " fixed: at the states that π visits now, as if they did not depend on θ."
    return ReportTable(
        title,
        ("estimator", "place", "length", *heads, "it is the gradient of"),
        tuple(rows),
        ("", "", ".4f", *[".1f"] * len(shown), ""),
        note,
    )


def _name_of(g: Tensor, targets: list[Tensor]) -> str:
    if float(g.norm()) < 1e-12:
        return "nothing: 0 on average"
    names = ("KL(π‖ref)", "KL(ref‖π)", "KL(π‖ref), states fixed", "KL(ref‖π), states fixed")
    same = [n for n, x in zip(names, targets, strict=True) if float((g - x).norm()) < 1e-10]
    return same[0] if same else "neither"


def _sweep() -> list[dict[str, Any]]:
    """Mean and spread of the estimators of a response's KL, for sharper and sharper policies and a
    uniform reference."""
    rows = []
    for sharp in (0.5, 1.0, 2.0, 3.0, 4.0):
        world = token_world(STEPS, seed=SEED, spread=sharp)
        reference = torch.zeros_like(world.logits)
        ref = world.policy_logp(reference)
        truth = float(world.mdp.divergence(world.pi, world.mdp.policy(reference)))
        row: dict[str, Any] = {"kl": truth}
        for e in (k1, k2, k3):
            total = torch.where(world.paths.mask, e(world.paths.logp, ref), 0.0).sum(1)
            mean = float(world.probability @ total)
            square = float(world.probability @ (total - mean) ** 2)
            row[e.name], row[e.name + " sd"] = mean, math.sqrt(max(0.0, square))
        rows.append(row)
    return rows


def _values(sweep: list[dict[str, Any]]) -> ReportTable:
    rows = tuple(
        (r["kl"], *(x for k in ("k1", "k2", "k3") for x in (r[k] - r["kl"], r[f"{k} sd"])))
        for r in sweep
    )
    return ReportTable(
        "1. As a number: KL(π‖π_ref) of a response from one sample, for sharper and sharper π and a"
        " uniform π_ref",
        ("KL(π‖ref), nats", "k1: bias", "sd", "k2: bias", "sd ", "k3: bias", "sd  "),
        rows,
        (".5f", *(".5f",) * 6),
        "k3 is unbiased like k1, and less noisy while the policies are close; where π makes tokens"
        " rare that π_ref prefers, its spread explodes. k2 is biased.",
    )


def _picture(sweep: list[dict[str, Any]]) -> Any:
    kl = "KL(π‖π_ref) of a response, nats"
    picture = figure(
        [
            Panel("Bias of the value", kl, "E[estimate] − KL, nats"),
            Panel("Spread of the value", kl, "standard deviation, nats"),
        ],
        size=(4.5, 3.6),
    )
    left, right = picture.axes
    x = [r["kl"] for r in sweep]
    for colour, name in zip(COLOURS, ("k1", "k2", "k3"), strict=False):
        style = {"marker": "o", "markersize": 4, "color": colour, "label": name}
        left.plot(x, [r[name] - r["kl"] for r in sweep], **style)
        right.plot(x, [r[name + " sd"] for r in sweep], **style)
    right.set_yscale("log")
    return picture

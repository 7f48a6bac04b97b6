"""`logpi lab trust-region`: ordinary, natural and clipped steps on the grid world: true improvement
against KL.

Everything is exact: the gradient, the Fisher matrix, the surrogate, the new policy's return. The
bound is the performance-difference lemma with a horizon: states drift apart by at most 1 − (1−α)ᵗ
after t steps when no state's policy moved by more than α in total variation, so

    J(π′) ≥ J(π) + L(π′) − 4 α max|A| Σₜ (1 − (1−α)ᵗ)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, double, grid_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE
from logpi.ops.surrogates import Clip
from logpi.ops.weights import SequenceSum
from logpi.runs.plots import COLOURS, Panel, figure
from logpi.types import Targets

HORIZON = 6
LEVELS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SMALL = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CLIP_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLIP_RATE = 0.1


@dataclass(frozen=True)
class StepEffect:
    """What a step to new logits did; all exact.

    Attributes:
        kl: Σₜ E[KL(π_old‖π_new)] of a trajectory, nats. gain: J(new) − J(old), units of return.
        surrogate: L = Σₜ E_{s~d_old, a~π_new}[A_old]. bound: what the lemma guarantees of the gain.
    """

    kl: float
    gain: float
    surrogate: float
    bound: float


def trust_world() -> World:
    """The grid world ended after six moves, under a policy that leans right and up, so that it
    sometimes succeeds."""
    world = grid_world(horizon=HORIZON, seed=1, spread=0.4)
    lean = torch.tensor([0.8, 0.3, -0.4, -0.4], dtype=torch.float64)
    return world.at(world.logits + lean)


def measure(world: World, logits: Tensor) -> StepEffect:
    """The exact effect of moving from the world's policy to `logits` [S, A]."""
    mdp, old, new = world.mdp, world.pi, world.mdp.policy(logits)
    d, a = mdp.occupancy(old), mdp.advantage(old)
    live = ~mdp.terminal
    alpha = float(0.5 * (new - old).abs().sum(-1)[live].max())
    drift = sum(1 - (1 - alpha) ** t for t in range(mdp.horizon))
    surrogate = float(torch.einsum("ts,sa,tsa->", d, new, a))
    worst = float(a[:, live].abs().max())
    return StepEffect(
        kl=float(mdp.divergence(old, new)),
        gain=float(mdp.expected_return(logits)) - world.expected_return,
        surrogate=surrogate,
        bound=surrogate - 4 * alpha * worst * drift,
    )


def _at_kl(world: World, direction: Tensor, kl: float) -> Tensor:
    """Logits along `direction` [S, A] at this KL, by bisection (KL grows with the step)."""

    def size(scale: float) -> float:
        moved = world.mdp.policy(world.logits + scale * direction)
        return float(world.mdp.divergence(world.pi, moved))

    low, high = 0.0, 1.0
    while size(high) < kl and high < 1e6:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) < kl else (low, middle)
    return world.logits + low * direction


def directions(world: World) -> dict[str, Tensor]:
    """The ordinary and the natural gradient, [S, A] each."""
    gradient = world.gradient
    natural = torch.linalg.pinv(world.mdp.fisher(world.pi), hermitian=True, rtol=1e-10) @ gradient
    return {"ordinary": gradient.view_as(world.logits), "natural": natural.view_as(world.logits)}


def clipped_path(
    world: World, epsilon: float = 0.2, most: int = CLIP_STEPS[-1]
) -> list[tuple[int, Tensor]]:
    """PPO without noise: gradient steps on the exact clipped surrogate; (number of steps, logits)
    on the way."""
    objective = PolicyGradient(GAE(1.0, 1.0), surrogate=Clip(epsilon), weight=SequenceSum())
    policy, paths = world.policy(), world.paths
    weight = objective.weight(paths.mask, paths.group) * len(paths) * world.probability[:, None]
    targets, out = Targets(paths.logp, None, _advantages(world)), []
    for n in range(1, most + 1):
        loss, _ = objective.loss(paths, targets, weight, policy.evaluate(paths))
        (grad,) = torch.autograd.grad(loss, policy.logits)
        with torch.no_grad():
            policy.logits.sub_(CLIP_RATE * grad)
        if n in CLIP_STEPS:
            out.append((n, policy.logits.detach().clone()))
    return out


def _advantages(world: World) -> Tensor:
    """A^π(sₜ, aₜ) along every trajectory [K, T]."""
    a, state = world.mdp.advantage(world.pi), world.index(world.paths)[:, :-1]
    step = torch.arange(state.shape[1]).expand_as(state)
    return torch.where(world.paths.mask, a[step, state, world.paths.action], 0.0)


def trust() -> Report:
    """The report of `logpi lab trust-region`."""
    with double():
        world = trust_world()
        found = {
            n: [measure(world, _at_kl(world, d, kl)) for kl in LEVELS]
            for n, d in directions(world).items()
        }
        clipped = [(n, measure(world, logits)) for n, logits in clipped_path(world)]
        best = float(_optimum(world))
        natural = directions(world)["natural"]
        guaranteed = [measure(world, _at_kl(world, natural, kl)) for kl in SMALL]
        tables = (_compare(found), _clipped(clipped), _bound(guaranteed))
    return Report(
        "trust-region",
        f"One update on the grid world (at most {HORIZON} moves): true improvement of J against the"
        f" KL it spends (of a trajectory). J is {world.expected_return:.3f} now and {best:.3f} at"
        " best.".replace("-", "−"),
        tables,
        "up to about a nat of KL the natural gradient gains more than the ordinary one; the"
        " surrogate is right to first order and drifts off as the step grows; clipping slows down"
        " by itself yet bounds no KL; and improvement is guaranteed only for steps far shorter than"
        " those that pay.",
        lambda: _picture(found, clipped, guaranteed),
    )


def _optimum(world: World) -> Tensor:
    """The best J there is with this horizon (policies that may depend on the step)."""
    v = torch.zeros(len(world.logits), dtype=torch.float64)
    for _ in range(world.mdp.horizon):
        v = (world.mdp.transition * (world.mdp.reward + v)).sum(-1).amax(-1)
    return (world.mdp.start * v).sum()


def _compare(found: dict[str, list[StepEffect]]) -> ReportTable:
    rows = tuple(
        (
            kl,
            *(
                x
                for n in ("ordinary", "natural")
                for x in (found[n][i].gain, found[n][i].surrogate)
            ),
        )
        for i, kl in enumerate(LEVELS)
    )
    return ReportTable(
        "1. At the same KL: gain of J and what the surrogate promised",
        ("KL, nats", "ordinary: gain", "promised", "natural: gain", "promised "),
        rows,
        ("g", *[".4f"] * 4),
    )


def _clipped(clipped: list[tuple[int, StepEffect]]) -> ReportTable:
    rows = tuple((n, s.kl, s.gain, s.surrogate) for n, s in clipped)
    return ReportTable(
        f"2. Clipped steps (ε = 0.2, exact expected surrogate, learning rate {CLIP_RATE:g}) from"
        " the same data",
        ("gradient steps", "KL, nats", "gain", "promised"),
        rows,
        ("d", ".4f", ".4f", ".4f"),
        "Each action stops at its own ratio bound; nothing bounds the KL of all of them together.",
    )


def _bound(steps: list[StepEffect]) -> ReportTable:
    rows = [
        (f"{kl:.0e}".replace("-0", "−"), s.bound, s.gain, s.surrogate, s.bound > 0)
        for kl, s in zip(SMALL, steps, strict=True)
    ]
    return ReportTable(
        "3. The monotone-improvement bound along the natural gradient",
        ("KL, nats", "at least", "gain", "promised", "improvement guaranteed"),
        tuple(rows),
        ("", ".5f", ".5f", ".5f", ""),
    )


def _picture(
    found: dict[str, list[StepEffect]],
    clipped: list[tuple[int, StepEffect]],
    guaranteed: list[StepEffect],
) -> Any:
    kl = "KL(π_old‖π_new) of a trajectory, nats"
    picture = figure(
        [
            Panel("True improvement for the KL spent", kl, "J(new) − J(old)"),
            Panel("Gained, promised, guaranteed (natural)", kl, "units of return"),
        ],
        size=(4.5, 3.6),
    )
    left, right = picture.axes
    for i, (name, steps) in enumerate(found.items()):
        _curve(left, steps, "gain", COLOURS[i], name)
    _curve(left, [s for _, s in clipped], "gain", COLOURS[2], "clipped, 1 … 256 steps", "^-")
    steps = sorted([*guaranteed, *found["natural"]], key=lambda s: s.kl)
    sure = [s for s in steps if s.bound > 0]
    _curve(right, sure, "bound", COLOURS[7], "guaranteed")
    _curve(right, steps, "surrogate", COLOURS[3], "promised, L", "o--")
    _curve(right, steps, "gain", COLOURS[1], "gained, ΔJ")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
    return picture


def _curve(
    axes: Any, steps: list[StepEffect], name: str, colour: str, label: str, style: str = "o-"
) -> None:
    """A number of the steps against the KL that they spend."""
    kl, values = [s.kl for s in steps], [getattr(s, name) for s in steps]
    axes.plot(kl, values, style, markersize=4, color=colour, label=label)

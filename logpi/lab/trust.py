"""`logpi lab trust-region`: ordinary, natural and clipped steps on the grid world: improvement and
KL.

Everything is exact: the gradient, the Fisher matrix, the surrogate, the new policy's return. The
bound is the performance-difference lemma with a horizon. If the policy of no state changes by more
than α in total variation, the states visited after t steps differ by at most 1 − (1−α)ᵗ, so

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
    """The exact effect of a step to new logits.

    Attributes:
        kl: Σₜ E[KL(π_old‖π_new)] of a trajectory, nats. gain: J(new) − J(old), units of return.
        surrogate: L = Σₜ E_{s~d_old, a~π_new}[A_old]. bound: the least gain, by the lemma.
    """

    kl: float
    gain: float
    surrogate: float
    bound: float


def trust_world() -> World:
    """The grid world with an end after six moves, and a policy that prefers right and up, so that
    it sometimes succeeds."""
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
        after = world.mdp.policy(world.logits + scale * direction)
        return float(world.mdp.divergence(world.pi, after))

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
    """PPO without noise: gradient steps on the exact clipped surrogate. Returns (number of steps,
    logits) at the numbers of `CLIP_STEPS`."""
    objective = PolicyGradient(GAE(1.0, 1.0), surrogate=Clip(epsilon), weight=SequenceSum())
    policy, paths = world.policy(), world.paths
    weight = objective.weight(paths.mask, paths.group) * len(paths) * world.probability[:, None]
    targets, snapshots = Targets(paths.logp, None, _advantages(world)), []
    for n in range(1, most + 1):
        loss, _ = objective.loss(paths, targets, weight, policy.evaluate(paths))
        (grad,) = torch.autograd.grad(loss, policy.logits)
        with torch.no_grad():
            policy.logits.sub_(CLIP_RATE * grad)
        if n in CLIP_STEPS:
            snapshots.append((n, policy.logits.detach().clone()))
    return snapshots


def _advantages(world: World) -> Tensor:
    """A^π(sₜ, aₜ) along every trajectory [K, T]."""
    a, state = world.mdp.advantage(world.pi), world.index(world.paths)[:, :-1]
    step = torch.arange(state.shape[1]).expand_as(state)
    return torch.where(world.paths.mask, a[step, state, world.paths.action], 0.0)


def trust() -> Report:
    """The report of `logpi lab trust-region`."""
    with double():
        world = trust_world()
        steps = {
            name: [measure(world, _at_kl(world, direction, kl)) for kl in LEVELS]
            for name, direction in directions(world).items()
        }
        clipped = [(n, measure(world, logits)) for n, logits in clipped_path(world)]
        best = float(_optimum(world))
        natural = directions(world)["natural"]
        small = [measure(world, _at_kl(world, natural, kl)) for kl in SMALL]
        tables = (_compare(steps), _clipped(clipped), _bound(small))
    return Report(
        "trust-region",
        f"One update on the grid world (at most {HORIZON} moves): the true improvement of J, and"
        f" the KL of a trajectory that it takes. J is {world.expected_return:.3f} now and"
        f" {best:.3f} at best.".replace("-", "−"),
        tables,
        "up to about a nat of KL the natural gradient gains more than the ordinary one; the"
        " surrogate is right to first order and less and less right for larger steps; clipping"
        " slows down by itself but does not bound the KL; and improvement is guaranteed only for"
        " steps far smaller than the useful ones.",
        lambda: _picture(steps, clipped, small),
    )


def _optimum(world: World) -> Tensor:
    """The largest J with this horizon, of policies that may depend on the step."""
    v = torch.zeros(len(world.logits), dtype=torch.float64)
    for _ in range(world.mdp.horizon):
        v = (world.mdp.transition * (world.mdp.reward + v)).sum(-1).amax(-1)
    return (world.mdp.start * v).sum()


def _compare(steps: dict[str, list[StepEffect]]) -> ReportTable:
    rows = tuple(
        (kl, ordinary.gain, ordinary.surrogate, natural.gain, natural.surrogate)
        for kl, ordinary, natural in zip(LEVELS, steps["ordinary"], steps["natural"], strict=True)
    )
    return ReportTable(
        "1. At the same KL: the gain of J, and the surrogate's prediction",
        ("KL, nats", "ordinary: gain", "predicted", "natural: gain", "predicted "),
        rows,
        ("g", *[".4f"] * 4),
    )


def _clipped(clipped: list[tuple[int, StepEffect]]) -> ReportTable:
    rows = tuple((n, s.kl, s.gain, s.surrogate) for n, s in clipped)
    return ReportTable(
        f"2. Clipped steps (ε = 0.2, exact expected surrogate, learning rate {CLIP_RATE:g}) from"
        " the same data",
        ("gradient steps", "KL, nats", "gain", "predicted"),
        rows,
        ("d", ".4f", ".4f", ".4f"),
        "Each action stops at the bound of its own ratio; nothing bounds the KL of all actions.",
    )


def _bound(steps: list[StepEffect]) -> ReportTable:
    rows = [
        (f"{kl:.0e}".replace("-0", "−"), s.bound, s.gain, s.surrogate, s.bound > 0)
        for kl, s in zip(SMALL, steps, strict=True)
    ]
    return ReportTable(
        "3. The monotone-improvement bound along the natural gradient",
        ("KL, nats", "at least", "gain", "predicted", "improvement guaranteed"),
        tuple(rows),
        ("", ".5f", ".5f", ".5f", ""),
    )


def _picture(
    steps: dict[str, list[StepEffect]],
    clipped: list[tuple[int, StepEffect]],
    small: list[StepEffect],
) -> Any:
    kl = "KL(π_old‖π_new) of a trajectory, nats"
    picture = figure(
        [
            Panel("True improvement at each KL", kl, "J(new) − J(old)"),
            Panel("Gained, predicted, guaranteed (natural)", kl, "units of return"),
        ],
        size=(4.5, 3.6),
    )
    left, right = picture.axes
    for i, (name, effects) in enumerate(steps.items()):
        _curve(left, effects, "gain", COLOURS[i], name)
    _curve(left, [s for _, s in clipped], "gain", COLOURS[2], "clipped, 1 … 256 steps", "^-")
    natural = sorted([*small, *steps["natural"]], key=lambda s: s.kl)
    _curve(right, [s for s in natural if s.bound > 0], "bound", COLOURS[7], "guaranteed")
    _curve(right, natural, "surrogate", COLOURS[3], "predicted, L", "o--")
    _curve(right, natural, "gain", COLOURS[1], "gained, ΔJ")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
    return picture


def _curve(
    axes: Any, steps: list[StepEffect], name: str, colour: str, label: str, style: str = "o-"
) -> None:
    """One attribute of the steps over their KL."""
    kl, values = [s.kl for s in steps], [getattr(s, name) for s in steps]
    axes.plot(kl, values, style, markersize=4, color=colour, label=label)

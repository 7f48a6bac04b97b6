"""`logpi lab worked`: the worked examples of Chan's series (*REINFORCE: the world before the
gradient*, *REINFORCE: the gradient that drives training*, *PPO is REINFORCE plus five fixes*,
*GRPO: the algorithm behind reasoning models*) with every step written out.

Each number comes from the library's own parts and stands beside the one that Chan prints. The
last table has the places where Chan slips. Left out: value iteration (`bellman.py`), and
every other ratio and surrogate (`clip.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from logpi.envs.control.grid_model import ARROWS, GridModel
from logpi.lab.bias import angle, digits
from logpi.lab.clip import push
from logpi.lab.expectation import Setting, moments
from logpi.lab.report import Report, ReportTable, Value, signed
from logpi.lab.unpacking import CRITIC, average, ladder, perfect
from logpi.lab.worlds import World, double, grid_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import (
    GAE,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    RewardToGo,
    TotalReward,
)
from logpi.ops.surrogates import Clip, Unclipped
from logpi.ops.weights import SequenceSum
from logpi.policies.tabular import States, TabularPolicy
from logpi.rollouts.collate import collate
from logpi.runs.plots import COLOURS, Panel, figure
from logpi.types import Batch, Trajectory

MOVES = "→↑→→"
# π of the action that was taken, as Chan sets it; the other actions share the rest
CHANCES = (0.4, 0.3, 0.5, 0.7)
PRINTED = (("−0.92", "−1.84"), ("−1.20", "−3.60"), ("−0.69", "−2.76"), ("−0.36", "−1.80"))
REINFORCE = PolicyGradient(RewardToGo(), weight=SequenceSum())


def worked_world() -> World:
    """The grid world with an end after four moves, under the worked example's policy; uniform where
    Chan says nothing."""
    world = grid_world(horizon=len(MOVES), spread=0.0)
    pi = torch.full_like(world.logits, 0.25)
    for state, move, p in zip(_states(world), MOVES, CHANCES, strict=True):
        pi[state] = (1 - p) / 3
        pi[state, ARROWS.index(move)] = p
    return world.at(pi.log())


def trajectory(world: World) -> Batch:
    """The worked trajectory, a batch of one row."""
    return world.paths.rows(torch.tensor([world.names.index(MOVES)]))


def _states(world: World) -> list[int]:
    return trajectory(world).obs[0, :-1].tolist()


def worked() -> Report:
    """The report of `logpi lab worked`."""
    with double():
        world = worked_world()
        row = trajectory(world)
        steps = ladder(row)
        tables = (
            _terms(row),
            _surrogate(world),
            _softmax(),
            _group(),
            _clip(),
            steps,
            average(row),
            perfect(world, row),
            _slips(world),
        )
        total = _total(row)
    return Report(
        "worked",
        "The numbers of Chan's series, step by step: a trajectory on the grid world (right, up,"
        " right, right), the gradient of a softmax, a group of four, the clip, and GAE from its"
        " definition down to rewards.",
        tables,
        _sentence(tables, total),
        lambda: _picture(row, steps),
    )


def _sentence(tables: Sequence[ReportTable], total: float) -> str:
    """What the tables show; each claim is read off them."""
    terms, surrogate, steps = tables[0], tables[1], tables[5]
    returns = ", ".join(f"{r[4]:g}" for r in terms.rows[:-1])
    certain = {f"{r[2]:.0f}" for r in surrogate.rows if r[4] is None}
    averages, gae = ([*r[2:]] for r in steps.rows[7:9])
    same = all(abs(a - b) < 1e-12 for a, b in zip(averages, gae, strict=True))  # type: ignore[operator]
    fixed = {r[4] for r in surrogate.rows} <= {None, digits(0.0)}
    moving = float(surrogate.rows[0][5] or 0)
    return (
        f"Chan's arithmetic holds (returns {returns}; Σ G ln π = {signed(total, '.4f')},"
        f" which it prints as −10.0), GAE is {'' if same else 'not '}the λ-average of the n-step"
        f" ladder, and Σ G ln π is no expected return: it is {' or '.join(sorted(certain))} for the"
        " best and for the worst certain policy. Its gradient with samples held fixed is"
        f" {'∇J' if fixed else 'not ∇J'}; ascending the expectation itself would go"
        f" {moving:.0f}° away from ∇J."
    )


def _total(row: Batch) -> float:
    return float((RewardToGo()(row) * row.logp).sum())


def _terms(row: Batch) -> ReportTable:
    """Table 1: the trajectory, its returns, and each term of Σ G ln π."""
    grid, returns = GridModel(), RewardToGo()(row)
    rows: list[tuple[Value, ...]] = []
    for t, (printed_log, printed) in enumerate(PRINTED):
        x, y = grid.cell(int(row.obs[0, t]))
        g, logp = float(returns[0, t]), float(row.logp[0, t])
        reward = float(row.reward[0, t])
        rows.append(
            (
                *(t, f"({x}, {y})", MOVES[t], reward, g),
                *(CHANCES[t], logp, printed_log, g * logp, printed),
            )
        )
    rows.append((None, "sum", "", float(row.reward.sum()), *[None] * 3, "", _total(row), "−10.0"))
    return ReportTable(
        "1. The worked trajectory: G_t is the sum of rewards from t on",
        ("t", "cell", "move", "r", "G", "π(a|s)", "ln π", "printed", "G ln π", "printed "),
        tuple(rows),
        ("", "", "", "+g", "g", ".1f", ".4f", "", ".4f", ""),
        "G₀ = −1 −1 −1 +5, and each later one leaves out the rewards before it. The printed"
        " products are of rounded logarithms (5 · −0.36 = −1.80, where 5 ln 0.7 = −1.7834); their"
        " errors cancel in the sum. Each action under the whole R (TotalReward) would have"
        f" {float(TotalReward()(row)[0, 0]):g}.",
    )


def _expected_surrogate(world: World, theta: Tensor) -> Tensor:
    """E_τ[Σ G ln π] at logits θ, where the trajectories follow θ too; a scalar with gradient."""
    logp = world.policy_logp(theta)
    chance = world.luck * logp.sum(1).exp()
    return (chance * (RewardToGo()(world.paths) * logp).sum(1)).sum()


def _certain(world: World, moves: str) -> World:
    """The world under a policy that makes these moves along their path for certain (up to
    e^−30)."""
    logits = torch.zeros_like(world.logits)
    k = world.names.index(moves)
    for state, action in zip(world.paths.obs[k], world.paths.action[k], strict=False):
        logits[state, int(action)] = 30.0
    return world.at(logits)


def _surrogate(world: World) -> ReportTable:
    """Table 2: the value of E[Σ G ln π] beside J, its gradient beside ∇J."""
    kinds = (
        ("the worked example's", world),
        ("uniform", world.at(torch.zeros_like(world.logits))),
        ("certain: to the +5", _certain(world, MOVES)),
        ("certain: into the wall, for ever", _certain(world, "←←←←")),
    )
    rows: list[tuple[Value, ...]] = []
    for name, at in kinds:
        theta = at.logits.clone().requires_grad_()
        value = _expected_surrogate(at, theta)
        (moving,) = torch.autograd.grad(value, theta)
        fixed = -moments(at, REINFORCE, Setting(responses=1)).mean
        size = float(at.gradient.norm())
        certain = size < 1e-9
        off = None if certain else digits(float((fixed - at.gradient).norm()) / size)
        turned = None if certain else angle(moving.flatten(), at.gradient)
        rows.append((name, at.expected_return, float(value.detach()), size, off, turned))
    return ReportTable(
        "2. E[Σ G ln π] is not the expected return J; only its gradient, with samples held fixed,"
        " is ∇J",
        ("policy", "J", "E[Σ G ln π]", "|∇J|", "fixed: off by", "moving: angle"),
        tuple(rows),
        ("", ".4f", ".4f", ".4f", "", ".1f"),
        "Over all 256 trajectories of at most four moves. fixed: E[∇ Σ G ln π] against ∇J, over"
        " |∇J|. moving: the degrees between ∇ E[Σ G ln π], where the trajectories follow θ as the"
        " definition says, and ∇J. With π = 1 every logarithm is 0, whatever the return.",
    )


def _batch(rewards: Sequence[Sequence[float]]) -> Batch:
    """Rows of one group with these rewards; every observation and action is 0."""
    rows = [
        Trajectory(
            obs=torch.zeros(len(r) + 1, dtype=torch.long),
            action=torch.zeros(len(r), dtype=torch.long),
            mask=torch.ones(len(r), dtype=torch.bool),
            reward=torch.tensor(r),
            logp=torch.zeros(len(r)),
            terminated=True,
            group=0,
        )
        for r in rewards
    ]
    return collate(rows)


def _softmax() -> ReportTable:
    """Table 3: the gradient of −G ln p for logits (1, 0), and the step that it makes."""
    rows: list[tuple[Value, ...]] = []
    for g, printed in ((4.0, "−1.08"), (-4.0, "+1.08")):
        policy = TabularPolicy(torch.tensor([[1.0, 0.0]]), States())
        batch = _batch([[g]])
        now = policy.evaluate(batch)
        weight = REINFORCE.weight(batch.mask, batch.group)
        loss, _ = REINFORCE.loss(batch, REINFORCE.prepare(batch, now, None), weight, now)
        (grad,) = torch.autograd.grad(loss, policy.logits)
        p = policy.log_probabilities(torch.tensor([0])).exp()[0].tolist()
        after = (policy.logits.detach() - 0.1 * grad).softmax(-1)[0]
        chosen, other = grad[0].tolist()
        rows.append((g, *p, float(loss.detach()), chosen, printed, other, float(after[0])))
    return ReportTable(
        "3. The gradient of L = −G ln p(→) for the logits z = (1, 0), by autograd",
        ("G", "p(→)", "p(←)", "L", "∂L/∂z(→)", "printed", "∂L/∂z(←)", "p(→) after"),
        tuple(rows),
        ("+g", ".4f", ".4f", "+.4f", "+.4f", "", "+.4f", ".4f"),
        "∂L/∂z(→) = −G (1 − p(→)) = ∓4 · 0.2689; Chan has ∓4 · 0.27. The other logit moves"
        " by as much the other way. after: one step of gradient descent with η = 0.1.",
    )


def _group() -> ReportTable:
    """Table 4: the four rollouts of the ticket problem."""
    solved = (1.0, 0.0, 1.0, 0.0)
    batch, printed = _batch([[r] for r in solved]), ("+0.866", "−0.866", "+0.866", "−0.866")
    std, whole = GroupNorm(eps=0.0), GroupNorm(eps=0.0, ddof=0)
    kinds = (GroupCenter(), std, whole, LeaveOneOut())
    values = [[f"{float(a):+.4f}" for a in kind(batch)[:, 0]] for kind in kinds]
    centred, normed, by_g, rloo = ([v.replace("-", "−") for v in x] for x in values)
    same = [float(std(_batch([[r]] * 4)).abs().max()) for r in (0.0, 1.0)]
    rows = zip("ABCD", solved, centred, normed, printed, by_g, rloo, strict=True)
    deviation = float(torch.tensor(solved).std())
    return ReportTable(
        f"4. Maya's tickets, four rollouts: mean {sum(solved) / 4:g}, squared deviations"
        f" {sum((r - 0.5) ** 2 for r in solved):g}, std √(1/3) = {deviation:.4f}",
        ("rollout", "r", "r − mean", "÷ std (G−1)", "printed", "÷ std (G)", "leave-one-out"),
        tuple(rows),
        ("", "g"),
        f"All four wrong, or all four right: every advantage is {same[0]:g} and {same[1]:g}. ε = 0"
        " here, as in Chan's numbers.",
    )


def _clip() -> ReportTable:
    """Table 5: what the minimum takes, and what is left of the gradient."""
    rows: list[tuple[Value, ...]] = []
    cases = ((1.0, 1.5, "clipped"), (1.0, 0.5, "unclipped"))
    cases += ((-1.0, 1.5, "unclipped"), (-1.0, 0.5, "clipped"))
    for sign, r, printed in cases:
        ratio, advantage = torch.tensor([r]), torch.tensor([sign])
        log, zero = ratio.log(), torch.zeros(1)
        plain = float(Unclipped()(log, zero, advantage))
        near = float(ratio.clamp(0.8, 1.2) * advantage)
        least = float(Clip(0.2)(log, zero, advantage))
        picks = "clipped" if bool(Clip(0.2).cut(log, zero, advantage)) else "unclipped"
        left = float(push(Clip(0.2), ratio, advantage))
        rows.append((sign, r, plain, near, least, picks, printed, left))
    return ReportTable(
        "5. min(ρ Â, clip(ρ, 0.8, 1.2) Â) for Â = ±1",
        ("Â", "ρ", "ρ Â", "clip(ρ) Â", "min", "picks", "printed", "gradient"),
        tuple(rows),
        ("+g", "g", "+g", "+g", "+g", "", "", "g"),
        "gradient: ∂ min / ∂ ln π, which is ρ Â or 0. The correction that Chan calls full is"
        " scaled by ρ: an action that fell to half its probability is pulled back by half of Â.",
    )


def _slips(world: World) -> ReportTable:
    """Table 9: what Chan says, and what comes out."""
    grid, (right, up) = GridModel(), (0, 1)
    here, goal = grid.state((2, 3)), grid.path("right", "up", "right", "right")[0][-1]
    beside = grid.neighbour(here, right)
    paid = float(grid.reward[here, right, beside])
    above = grid.cell(grid.neighbour(here, up))
    fuel, entering = grid.cost, grid.terminals[goal]
    short, long, own = (
        float(RewardToGo()(_batch([[fuel] * (n - 1) + [entering]]))[0, 0]) for n in (3, 10, 4)
    )
    first = perfect(world, trajectory(world)).rows[0]
    delta, mean = float(first[2] or 0), abs(float(first[4] or 0))
    turned = float(_surrogate(world).rows[0][5] or 0)
    rows = (
        ("where the +5 is", "in a corner", f"{goal}, where its own trajectory ends"),
        (
            "from (2, 3) right to (3, 3)",
            "r = −1",
            f"r = {paid:+g}: {grid.cell(beside)} is terminal",
        ),
        ("from (2, 3) up", "(2, 4)", f"{above}: the grid has {grid.height} rows"),
        ("3 moves to the +5 net", "5 − 3 = 2", f"{signed(short)}: its own 4 moves net {own:g}"),
        ("10 moves to the +5 net", "5 − 10 = −5", signed(long)),
        (
            "δ of a perfect critic",
            "always 0",
            f"{signed(delta, '+.4f')} at t = 0; E[δ|s] = {mean:.0f}",
        ),
        (
            "the objective J(θ)",
            "E[Σ G ln π]",
            f"E[R]; ascending the former goes {turned:.0f}° away",
        ),
        (
            "clipped ratios",
            "in [0.8, 1.2]",
            "not bounded: logpi lab trust-region, logpi lab ladder",
        ),
    )
    return ReportTable(
        "9. Where Chan slips",
        ("of what", "Chan", "computed"),
        rows,
        note="The return of a path to the +5 has no fuel for its last move, as in table 1.",
    )


def _picture(row: Batch, steps: ReportTable) -> Any:
    picture = figure(
        [
            Panel("The worked trajectory: moves, rewards and G", grid=False),
            Panel("Â at t = 0: the ladder and its λ-average", "λ", "advantage"),
        ],
        size=(4.8, 4.2),
    )
    left, right = picture.axes
    _draw_grid(left, row)
    value = torch.tensor([CRITIC])
    lams = [k / 50 for k in range(51)]
    right.plot(
        lams,
        [float(GAE(1.0, lam)(row.map(_double), value)[0, 0]) for lam in lams],
        color=COLOURS[0],
        label="GAE",
    )
    first = {r[1]: r[2] for r in steps.rows if r[0] == "2"}
    for i, (name, x) in enumerate(first.items()):
        label = str(name).split(" = ", maxsplit=1)[0]
        right.axhline(x, linestyle=":", color=COLOURS[i + 1], label=label)
    return picture


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _draw_grid(axes: Any, row: Batch) -> None:
    grid, returns = GridModel(), RewardToGo()(row)[0].tolist()
    axes.set(xlim=(-0.5, 3.5), ylim=(-0.5, 3.5), aspect="equal")
    axes.set_xticks([x + 0.5 for x in range(-1, 4)], labels=[])
    axes.set_yticks([y + 0.5 for y in range(-1, 4)], labels=[])
    axes.tick_params(length=0)
    axes.grid(color="0.7")
    for (x, y), reward in grid.terminals.items():
        colour = COLOURS[2] if reward > 0 else COLOURS[1]
        axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=colour, alpha=0.18)
        text = f"{reward:+g}".replace("-", "−")
        axes.text(x, y, text, ha="center", va="center", fontsize=14, weight="bold")
    cells = [grid.cell(s) for s in row.obs[0].tolist()]
    for t, ((x, y), to) in enumerate(pairwise(cells)):
        axes.annotate(
            "",
            to,
            (x, y),
            arrowprops={"arrowstyle": "->", "color": COLOURS[0], "lw": 2, "shrinkB": 12},
        )
        reward = f"{float(row.reward[0, t]):+g}".replace("-", "−")
        axes.text(x - 0.42, y + 0.3, f"G = {returns[t]:g}", fontsize=9)
        axes.text(x - 0.42, y - 0.42, f"r = {reward}", fontsize=8, color="0.35")

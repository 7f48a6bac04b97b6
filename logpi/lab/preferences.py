"""`logpi lab preferences`: RLHF and DPO reach one policy, which is known, and how DPO goes there.

On a model whose responses can be listed, with a reward r for each and a reference π_ref:

    maximise  E_π[ r(x, y) ] − β KL(π ‖ π_ref)      at   π*(y|x) = π_ref(y|x) exp(r(x, y)/β) / Z(x)
    β log π*(y|x)/π_ref(y|x) = r(x, y) − β log Z(x)     the implicit reward: r, less a constant of x

The library's own objectives are solved: PPO with the KL in its reward (expected steps, each
response with its probability), and DPO on every pair (each order as often as Bradley and Terry
say).
Chan, *DPO: RLHF collapsed into one loss*, has the derivation in its appendix. The same post says
that the gradient is small if the reference already prefers the chosen response; table 3 says when
that is not so. Left out: samples, and pairs that nobody judged (`logpi preferences-demo`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from logpi.algorithms import algorithm
from logpi.lab.report import Report, ReportTable
from logpi.lab.worlds import World, double, responses, token_world
from logpi.runs.plots import COLOURS, Panel, figure
from logpi.types import Batch, PolicyOutput

BETA = 0.5
BETAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
PROMPTS = ("p", "q")
LEANINGS = (4.0, 1.0, 0.0, -1.0, -4.0)
MARGINS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
RLHF_STEPS, RLHF_RATE = 600, 6.0


def preference_world() -> World:
    """Two prompts with seven responses each, of one or two tokens, and rewards between 0 and 1; its
    policy is the reference."""
    strings = responses("ab", ".", 2)
    generator = torch.Generator().manual_seed(4)
    scores = torch.rand(len(PROMPTS), len(strings), generator=generator, dtype=torch.float64)
    tasks = {
        prompt: dict(zip(strings, (round(x, 2) for x in row), strict=True))
        for prompt, row in zip(PROMPTS, scores.tolist(), strict=True)
    }
    return token_world(tasks, seed=4)


def response_logp(world: World, logits: Tensor) -> Tensor:
    """log π(y|x) of every response [K]; carries gradient."""
    return world.policy_logp(logits).sum(1)


# --- the optimum ---


def log_z(world: World, beta: float) -> Tensor:
    """log Z(x) = log Σ_y π_ref(y|x) exp(r(x, y)/β) of each prompt [P]."""
    tilted = response_logp(world, world.logits) + world.returns / beta
    groups = range(len(world.start))
    return torch.stack([tilted[world.paths.group == g].logsumexp(0) for g in groups])


def optimum(world: World, beta: float) -> Tensor:
    """log π*(y|x) = log π_ref(y|x) + r/β − log Z(x) [K]."""
    tilted = response_logp(world, world.logits) + world.returns / beta
    return tilted - log_z(world, beta)[world.paths.group]


def distance(world: World, logp: Tensor, other: Tensor) -> float:
    """KL(π ‖ other) in nats, the prompts' mean, of log-probabilities [K] each."""
    return float((world.start[world.paths.group] * logp.exp() * (logp - other)).sum())


# --- DPO, on every pair ---


def every_pair(world: World) -> tuple[Batch, Tensor]:
    """Every two responses to a prompt in both orders, as groups of two rows, with the reference's
    log-probabilities; and how often each order is judged so [pairs], σ(r⁺ − r⁻) of its prompt's."""
    group = world.paths.group
    k = len(group)
    better, worse = (x.flatten() for x in torch.meshgrid(*[torch.arange(k)] * 2, indexing="ij"))
    of_one = (group[better] == group[worse]) & (better != worse)
    better, worse = better[of_one], worse[of_one]
    share = world.start[group[better]] * torch.sigmoid(world.returns[better] - world.returns[worse])
    return pairs(world, better, worse), share / share.sum()


def pairs(world: World, better: Tensor, worse: Tensor) -> Batch:
    """These responses as groups of two rows, the better one first, with the reference's
    log-probabilities."""
    rows = torch.stack([better, worse], 1).flatten()
    batch = world.paths.map(lambda x: x[rows])
    last = batch.mask.sum(1) - 1 + batch.mask.long().argmax(1)
    won = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(better))
    reward = torch.zeros_like(batch.reward).scatter(1, last[:, None], won[:, None])
    group = torch.arange(len(better)).repeat_interleave(2)
    return replace(batch, reward=reward, group=group)


def dpo_loss(batch: Batch, share: Tensor, beta: float, now: PolicyOutput) -> Tensor:
    """The loss of the library's DPO where pair p has the weight share[p]."""
    objective = algorithm("dpo", beta=beta, recorded=True).objective
    targets = objective.prepare(batch, now, None)
    weight = share.repeat_interleave(2)[:, None] * batch.mask
    return objective.loss(batch, targets, weight, now)[0]


def solve_dpo(world: World, beta: float, steps: int = 20) -> tuple[Tensor, list[float]]:
    """Logits [S, A] that minimise DPO's loss on every pair, from the reference; KL(π ‖ π*) before
    and after each step."""
    batch, share = every_pair(world)
    policy, best = world.policy(), optimum(world, beta)
    optimizer = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=10,
        tolerance_grad=1e-14,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = dpo_loss(batch, share, beta, policy.evaluate(batch))
        value.backward()
        return value

    gaps = [distance(world, response_logp(world, policy.logits.detach()), best)]
    for _ in range(steps):
        optimizer.step(closure)
        gaps.append(distance(world, response_logp(world, policy.logits.detach()), best))
    return policy.logits.detach(), gaps


# --- RLHF: PPO with the KL in its reward ---


def rlhf_gradient(world: World, logits: Tensor, beta: float) -> Tensor:
    """The expected gradient [S, A] of the library's PPO with k1 in the reward at these logits:
    every response once, weighted by its probability. With λ = 1 a critic is only a baseline, here
    0."""
    objective = algorithm("ppo", beta=beta, lam=1.0, whiten=False, value_coef=0.0).objective
    policy, batch = world.policy(logits), world.paths
    now = policy.evaluate(batch)
    blank = torch.zeros(*(n + i for i, n in enumerate(batch.mask.shape)), dtype=torch.float64)
    now = PolicyOutput(now.logp, now.entropy, blank)
    targets = objective.prepare(batch, now, world.policy().evaluate(batch))
    chance = world.start[batch.group] * response_logp(world, logits).exp()
    value, _ = objective.loss(batch, targets, chance[:, None] * batch.mask, now)
    return torch.autograd.grad(value, policy.logits)[0]


def solve_rlhf(world: World, beta: float, steps: int = RLHF_STEPS) -> tuple[Tensor, list[float]]:
    """Logits [S, A] after `steps` expected steps of PPO, from the reference; KL(π ‖ π*) before and
    after each."""
    logits, best = world.logits.clone(), optimum(world, beta)
    gaps = [distance(world, response_logp(world, logits), best)]
    for _ in range(steps):
        logits = logits - RLHF_RATE * rlhf_gradient(world, logits, beta)
        gaps.append(distance(world, response_logp(world, logits), best))
    return logits, gaps


# --- one pair ---


@dataclass(frozen=True)
class Push:
    """What DPO does to one pair.

    Attributes:
        loss: of the pair. chosen, rejected: ∂loss/∂log π of each response.
    """

    loss: float
    chosen: float
    rejected: float


def push(beta: float, ratio: float, leaning: float = 0.0) -> Push:
    """DPO on one pair of one-token responses whose log-ratio is log π/π_ref(y⁺) − log π/π_ref(y⁻) =
    `ratio`; the reference has log π_ref(y⁺) − log π_ref(y⁻) = `leaning`."""
    ref = torch.tensor([[leaning], [0.0]], dtype=torch.float64).log_softmax(0)
    logp = (ref + torch.tensor([[ratio], [0.0]], dtype=torch.float64)).requires_grad_()
    world = token_world({"x": {"a": 1.0, "b": 0.0}})
    batch = replace(pairs(world, torch.tensor([0]), torch.tensor([1])), logp=ref)
    value = dpo_loss(batch, torch.ones(1), beta, PolicyOutput(logp, torch.zeros_like(logp)))
    up, down = torch.autograd.grad(value, logp)[0].flatten().tolist()
    return Push(float(value.detach()), up, down)


# --- the report ---


@dataclass(frozen=True)
class Lane:
    """One way to the optimum: its log-probabilities [K] at the end, and KL(π ‖ π*) on the way."""

    logp: Tensor
    gaps: list[float]


def preferences() -> Report:
    """The report of `logpi lab preferences`."""
    with double():
        world = preference_world()
        lanes = {
            name: Lane(response_logp(world, logits), gaps)
            for name, (logits, gaps) in (
                ("DPO", solve_dpo(world, BETA)),
                ("PPO", solve_rlhf(world, BETA)),
            )
        }
        sweep = [_at(world, beta) for beta in BETAS]
        starts = [push(BETA, 0.0, leaning) for leaning in LEANINGS]
        return Report(
            "preferences",
            "Two prompts with seven responses each, their rewards and a reference policy that are"
            f" known. Which policy do RLHF and DPO reach at β = {BETA:g}, and what does DPO push?",
            (
                _optimum(world, lanes),
                _cancels(world, lanes["DPO"]),
                _starts(starts),
                _weights(),
                _sweep(sweep),
            ),
            _shown(world, lanes, starts),
            lambda: _picture(world, lanes, sweep),
        )


def _optimum(world: World, lanes: dict[str, Lane]) -> ReportTable:
    ref, best = response_logp(world, world.logits), optimum(world, BETA)
    z = BETA * log_z(world, BETA)[world.paths.group]
    implicit = BETA * (lanes["DPO"].logp - ref)
    each = zip(PROMPTS, (BETA * log_z(world, BETA)).tolist(), strict=True)
    constants = [f"{x:.4f} for {prompt}" for prompt, x in each]
    rows = []
    for i, name in enumerate(world.names):
        chances = (float(x[i].exp()) for x in (ref, best, lanes["DPO"].logp, lanes["PPO"].logp))
        implied = float(implicit[i])
        rows.append((name, float(world.returns[i]), *chances, implied, implied + float(z[i])))
    return ReportTable(
        "1. π* = π_ref exp(r/β) / Z, what DPO and PPO reach, and the implicit reward of DPO's"
        " policy",
        ("response", "r", "π_ref", "π*", "DPO", "PPO", "β log π/π_ref", "+ β log Z"),
        tuple(rows),
        ("", ".2f", *[".4f"] * 6),
        "The last column is r again: the policy holds the reward, up to β log Z(x), which is"
        f" {', '.join(constants)}.",
    )


def _cancels(world: World, lane: Lane) -> ReportTable:
    """Pairs of one prompt, and two responses of different prompts, for which Z does not cancel."""
    implicit = BETA * (lane.logp - response_logp(world, world.logits))
    z = BETA * log_z(world, BETA)[world.paths.group]
    group, reward = world.paths.group, world.returns
    ends = []
    for g in range(len(PROMPTS)):
        own = (group == g).nonzero().flatten()
        ends.append((int(own[reward[own].argmax()]), int(own[reward[own].argmin()])))
    rows = []
    for i, j in [*ends, (ends[0][0], ends[1][1])]:
        gap, implied, apart = (float(x[i] - x[j]) for x in (reward, implicit, z))
        names = f"{world.names[i]} over {world.names[j]}"
        rows.append((names, gap, implied, apart, _sigmoid(gap), _sigmoid(implied)))
    return ReportTable(
        "2. Z cancels in a pair: the difference of implicit rewards is that of the rewards",
        ("pair", "r⁺ − r⁻", "implicit", "β Δ log Z", "σ(r⁺ − r⁻)", "σ(implicit)"),
        tuple(rows),
        ("", *[".4f"] * 5),
        "In the last line the responses answer different prompts, and it does not.",
    )


def _starts(starts: list[Push]) -> ReportTable:
    rows = [
        (leaning, _sigmoid(leaning), p.loss, p.chosen, p.rejected)
        for leaning, p in zip(LEANINGS, starts, strict=True)
    ]
    return ReportTable(
        "3. The first step, π = π_ref, for references that prefer the chosen or the rejected"
        " response",
        ("log π_ref(y⁺)/π_ref(y⁻)", "ref's σ", "loss", "∂/∂log π(y⁺)", "∂/∂log π(y⁻)"),
        tuple(rows),
        ("+.0f", ".3f", ".4f", "+.4f", "+.4f"),
        f"log 2 = {math.log(2):.4f} and ∓β/2 = ∓{BETA / 2:g} for every reference: the loss compares"
        " π with π_ref, and they are equal.",
    )


def _weights() -> ReportTable:
    rows = []
    for margin in MARGINS:
        p = push(BETA, margin / BETA)
        how = "wrong" if margin < 0 else "right" if margin > 0 else "as π_ref"
        rows.append((margin, how, p.loss, -p.chosen / BETA, _sigmoid(-margin)))
    return ReportTable(
        "4. Later: the weight of a pair is σ(−margin), margin = β log-ratio of y⁺ − that of y⁻",
        ("margin", "relative to π_ref", "loss", "weight", "σ(−margin)"),
        tuple(rows),
        ("+.0f", "", ".4f", ".4f", ".4f"),
        "∂loss/∂log π(y⁺) = −β · weight. Pairs that π has moved far enough from π_ref count"
        " little.",
    )


@dataclass(frozen=True)
class AtBeta:
    """The optimum at one β: E[r], KL(π* ‖ π_ref) and entropy in nats, J = E[r] − β KL, β E[log Z],
    and whether DPO's policy comes within KL(π ‖ π*) < 1e-9."""

    beta: float
    reward: float
    kl: float
    objective: float
    bound: float
    arrives: bool


def _at(world: World, beta: float) -> AtBeta:
    best = optimum(world, beta)
    chance = world.start[world.paths.group] * best.exp()
    reward = float((chance * world.returns).sum())
    kl = distance(world, best, response_logp(world, world.logits))
    bound = beta * float((world.start * log_z(world, beta)).sum())
    arrives = abs(solve_dpo(world, beta)[1][-1]) < 1e-9
    return AtBeta(beta, reward, kl, reward - beta * kl, bound, arrives)


def _sweep(sweep: list[AtBeta]) -> ReportTable:
    return ReportTable(
        "5. β: how far from the reference, for which reward",
        ("β", "E[r] of π*", "KL(π*‖π_ref)", "E[r] − β KL", "β E[log Z]", "DPO arrives"),
        tuple((s.beta, s.reward, s.kl, s.objective, s.bound, s.arrives) for s in sweep),
        ("g", ".4f", ".4f", ".4f", ".4f"),
        "The optimum of the objective is β E[log Z] exactly. β → 0: the best response alone; β → ∞:"
        " the reference.",
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _shown(world: World, lanes: dict[str, Lane], starts: list[Push]) -> str:
    best = optimum(world, BETA).exp()
    gaps = [float((lane.logp.exp() - best).abs().max()) for lane in lanes.values()]
    within = 10.0 ** math.ceil(math.log10(max(gaps)))
    alike = len({(round(p.loss, 9), round(p.chosen, 9)) for p in starts}) == 1
    reach = "reach the same policy" if within < 1e-3 else "do not reach the same policy"
    whose = "whatever the reference prefers" if alike else "for the first reference"
    return (
        f"DPO on every pair and PPO with the KL in its reward {reach}, π_ref exp(r/β)/Z"
        f" (every probability to within {within:.0e}). At the first step DPO's loss is"
        f" {starts[0].loss:.4f} and its gradient ∓{-starts[0].chosen:g} {whose}: a pair counts less"
        " only after π has moved relative to π_ref."
    )


def _picture(world: World, lanes: dict[str, Lane], sweep: list[AtBeta]) -> Any:
    picture = figure(
        [
            Panel("π_ref, π* and what is reached", "", "π(y|x)"),
            Panel("On the way to π*", "step (of DPO: ten of L-BFGS)", "KL(π ‖ π*), nats"),
            Panel("The optimum for each β", "KL(π* ‖ π_ref), nats", "E[r]"),
        ],
        size=(5.0, 3.6),
    )
    bars, way, front = picture.axes
    x = torch.arange(len(world.names)).double()
    shown = {
        "π_ref": response_logp(world, world.logits),
        "π*": optimum(world, BETA),
        **{name: lane.logp for name, lane in lanes.items()},
    }
    for i, (name, logp) in enumerate(shown.items()):
        bars.bar(
            (x + 0.2 * (i - 1.5)).tolist(), logp.exp().tolist(), 0.2, color=COLOURS[i], label=name
        )
    bars.set_xticks(x.tolist(), world.names, fontsize=7)
    for colour, (name, lane) in zip(COLOURS[2:], lanes.items(), strict=False):
        way.plot([max(g, 1e-16) for g in lane.gaps], color=colour, label=name)
    way.set_yscale("log")
    front.plot([s.kl for s in sweep], [s.reward for s in sweep], marker="o", color=COLOURS[0])
    for s in sweep:
        front.annotate(
            f"β = {s.beta:g}", (s.kl, s.reward), (4, -9), textcoords="offset points", fontsize=7
        )
    return picture

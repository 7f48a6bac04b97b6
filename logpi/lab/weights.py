"""`logpi lab weights`: by how much each method weighs a prompt and a token, exactly; conclusions of
Liu, *Brief Introduction of Policy Gradient in LLM Reasoning*, as numbers.

On a world with one prompt E[∇L̂] is −∇J times a number, the weight of that prompt. It is computed
over every group at each M, beside the limit of large groups. The last table has the parts of PPO's
advantage: how much comes from the reward, and how much from the critic. Left out: directions
(`bias.py`), lengths within a group (`length.py`), noise and signs (`variance.py`).
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch

from logpi.lab.bias import digits
from logpi.lab.claims import CLAIMS, equal_lengths
from logpi.lab.expectation import Setting, moments
from logpi.lab.report import Report, ReportTable, Value, signed
from logpi.lab.worlds import World, double, token_world
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE
from logpi.ops.weights import SequenceSum
from logpi.rollouts.collate import collate
from logpi.runs.plots import COLOURS, Panel, figure
from logpi.types import Batch, Trajectory

SOLVED = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
SIZES = (4, 16, 64)
LENGTHS = (1, 2, 4, 8, 16)
# T of the last table, and the (γ, λ) that it compares
TOKENS = 100
STEPS = (0, 50, 80, 90, 95, 98, 99)
DISCOUNTS = ((1.0, 1.0), (1.0, 0.95), (0.99, 0.95))


def one_prompt(solved: float, length: int = 1) -> World:
    """One prompt, two responses of `length` tokens: right with probability `solved`, or wrong. Only
    the last token is a choice."""
    think = "x" * (length - 1)
    world = token_world({"q": {think + "r": 1.0, think + "w": 0.0}}, spread=0.0)
    logits = world.logits.clone()
    right, wrong = (sorted({*f"q{think}rw"}).index(c) for c in "rw")
    logits[:, right] += math.log(solved)
    logits[:, wrong] += math.log(1 - solved)
    return world.at(logits)


def weight_of(world: World, method: str, responses: int) -> float:
    """E[∇L̂] in lengths of −∇J."""
    objective = next(c for c in CLAIMS if c.name == method).objective
    return moments(world, objective, Setting(responses=responses)).scale


def weights() -> Report:
    """The report of `logpi lab weights`."""
    with double():
        by_p, by_length, critic = _by_difficulty(), _by_length(), _critic_share()
    return Report(
        "weights",
        "How much does a method weigh a prompt, by its difficulty and by the length of its answers,"
        " and PPO's advantage the critic, by the token's place? E[∇L̂] is −weight · ∇J of the"
        " prompt; the policy gradient has weight 1 everywhere.",
        (by_p, by_length, critic),
        sentence(by_p, by_length, critic),
        lambda: _picture(by_p, by_length, critic),
    )


def _by_difficulty() -> ReportTable:
    rows: list[tuple[Value, ...]] = []
    for p in SOLVED:
        world = one_prompt(p)
        grpo = [weight_of(world, "grpo_r1", m) for m in SIZES]
        limit, printed = 1 / math.sqrt(p * (1 - p)), 1 / (p * math.sqrt(1 - p))
        rloo, dr = (weight_of(world, name, SIZES[0]) for name in ("rloo", "dr_grpo"))
        rows.append((p, *grpo, limit, printed, rloo, dr))
    return ReportTable(
        "1. The weight of a prompt that is solved with probability p",
        (
            "p",
            *(f"GRPO, M = {m}" for m in SIZES),
            "1/√(p(1−p))",
            "1/(p√(1−p))",
            "RLOO",
            f"Dr. GRPO, M = {SIZES[0]}",
        ),
        tuple(rows),
        ("g", *[".3f"] * 7),
        "GRPO without lengths (R1's form). 1/√(p(1−p)) is the limit of large M. Liu's table has"
        " p√(1−p) in its column of expected advantages, and √(p(1−p)) in its derivation. At any M"
        " most groups of a very easy or very hard prompt are all right or all wrong and have no"
        " gradient, so the weight tends to (M−1)/√M as p → 0 or 1, where the limit has no bound.",
    )


def _by_length() -> ReportTable:
    rows: list[tuple[Value, ...]] = []
    for t in LENGTHS:
        world = one_prompt(0.5, t)
        names = ("rloo", "dr_grpo", "grpo_r1", "grpo", "dapo")
        rows.append((t, *(weight_of(world, n, 4) for n in names), 1 / t))
    first = rows[0]
    rows = [(*row, *(float(row[k] or 0) / float(first[k] or 1) for k in (3, 4, 5))) for row in rows]
    return ReportTable(
        "2. The weight of a prompt whose answers have T tokens (p = 0.5, M = 4)",
        (
            *("T", "RLOO", "Dr. GRPO", "GRPO, R1", "GRPO", "DAPO", "1/T"),
            *("R1, to T = 1", "GRPO", "DAPO "),
        ),
        tuple(rows),
        ("d", *[".4f"] * 9),
        "One prompt in a batch. All its answers have the same length, so GRPO's 1/T of a response"
        " and DAPO's 1/T̂ of a group agree; they differ within a group: logpi lab length. The last"
        " three: in parts of the weight at T = 1. DAPO's loss is a mean over the tokens of the"
        " group here, as Liu writes it.",
    )


def critic_share(gamma: float, lam: float, tokens: int = TOKENS) -> tuple[list[float], list[float]]:
    """The coefficient of the reward at the end, and the sum of those of V(s_{t+1}) …, in PPO's
    estimate of Q(sₜ, aₜ), at each t: read off the library's GAE."""
    gae = GAE(gamma, lam)
    paid, free = _ending(1.0, tokens), _ending(0.0, tokens)
    ones, zeros = torch.ones(1, tokens + 1), torch.zeros(1, tokens + 1)
    reward = gae(paid, zeros)[0].tolist()
    # Q̂ = Â + V(sₜ)
    critic = (gae(free, ones) + ones[:, :-1])[0].tolist()
    return reward, critic


def _ending(reward: float, tokens: int) -> Batch:
    """A response whose last token is paid."""
    zero = torch.zeros(tokens)
    rewards = zero.clone()
    rewards[-1] = reward
    own = torch.ones(tokens, dtype=torch.bool)
    obs = torch.zeros(tokens + 1, dtype=torch.long)
    return collate([Trajectory(obs, zero.long(), own, rewards, zero, True, 0)])


def closed_form(gamma: float, lam: float, left: int) -> float:
    """1 − (1−γ)/(1−λγ) · (1 − (λγ)^left), the factor of Q in E[Â] with V = V^π."""
    if lam * gamma == 1:
        return 1.0
    return 1 - (1 - gamma) / (1 - lam * gamma) * (1 - (lam * gamma) ** left)


def _critic_share() -> ReportTable:
    shares = [critic_share(g, lam) for g, lam in DISCOUNTS]
    rows: list[tuple[Value, ...]] = []
    for t in STEPS:
        cells: list[Value] = []
        for (gamma, lam), (reward, critic) in zip(DISCOUNTS, shares, strict=True):
            cells += [reward[t], critic[t]]
            if gamma < 1:
                cells += [reward[t] + critic[t], closed_form(gamma, lam, TOKENS - 1 - t)]
        rows.append((t, *cells))
    names = [f"{part}, {g:g} {lam:g}" for g, lam in DISCOUNTS for part in ("r", "V")]
    return ReportTable(
        f"3. PPO's estimate of Q at token t of {TOKENS}: the share of the reward r and of the"
        " critic V, at each γ λ",
        ("t", *names, "sum", "theory"),
        tuple(rows),
        ("d", *[".4f"] * 8),
        "theory: 1 − (1−γ)/(1−λγ) · (1 − (λγ)^(T−1−t)), the factor of Q in E[Â] when V is exact. On"
        f" a world of five-token answers E[∇L̂] with γ = 0.9, λ = 0.8 is off by {_gap()} from that"
        " formula. Where answers differ in length it is not exact, because then T depends on the"
        " action (logpi lab bias, ppo γ=.9). With λ = γ = 1 (ORZ) nothing comes from the critic.",
    )


def _gap() -> str:
    """The distance between enumeration and the closed form, where all answers have one length."""
    answers = ("".join(x) for x in product("ab", repeat=3))
    world = token_world({"q": {f"{x}b.": float(x[0] != x[1]) for x in answers}}, seed=1)
    objective = PolicyGradient(GAE(0.9, 0.8), weight=SequenceSum())
    mean = moments(world, objective, Setting(responses=1)).mean
    form = equal_lengths(world, 0.9, 0.8)
    return digits(float((mean - form).norm() / form.norm()))


def sentence(by_p: ReportTable, by_length: ReportTable, critic: ReportTable) -> str:
    """The claims of the report; each is read off the tables."""
    column = len(SIZES)
    middle = min(by_p.rows, key=lambda r: abs(float(r[0] or 0) - 0.5))
    ends = [
        float(r[column] or 0) / float(middle[column] or 1) for r in (by_p.rows[0], by_p.rows[-1])
    ]
    limit = float(by_p.rows[0][column + 1] or 0) / float(middle[column + 1] or 1)
    small = float(by_p.rows[0][1] or 0) / float(middle[1] or 1)
    last = by_length.rows[-1]
    far = critic.rows[0]
    return (
        f"GRPO with M = {SIZES[-1]} weighs a prompt with p = {by_p.rows[0][0]:g}"
        f" {signed(ends[0], '.1f')} times as much as one with p = 0.5 (and p ="
        f" {by_p.rows[-1][0]:g} {signed(ends[1], '.1f')} times), in the limit"
        f" {signed(limit, '.1f')} times; with M = {SIZES[0]} only {signed(small, '.1f')} times."
        f" Answers of {last[0]} tokens weigh {signed(last[-1], '.2g')} of those of one token with"
        f" DAPO and with GRPO, {signed(last[-3], '.2g')} in R1's form. With λ = 0.95 the first of"
        f" {TOKENS} tokens has {signed(far[3], '.3f')} of its Q from the reward and the rest from"
        " the critic, with λ = 1 all of it."
    )


def _picture(by_p: ReportTable, by_length: ReportTable, critic: ReportTable) -> Any:
    panels = [
        Panel("Weight of a prompt by its difficulty", "p, probability to solve it", "weight"),
        Panel("… by the length of its answers", "T, tokens", "weight, in parts of T = 1"),
        Panel("The reward's share of Q̂ (T = 100)", "token t", "share"),
    ]
    picture = figure(panels, size=(4.2, 3.6))
    left, middle, right = picture.axes
    p = [r[0] for r in by_p.rows]
    for k, name in enumerate(by_p.columns[1:5]):
        left.plot(
            p, [r[k + 1] for r in by_p.rows], "o-", markersize=3, color=COLOURS[k], label=name
        )
    left.plot(p, [r[6] for r in by_p.rows], "--", color=COLOURS[7], label="RLOO")
    for k, name in ((7, "GRPO, R1's form"), (8, "GRPO, 1/T"), (9, "DAPO, 1/T̂")):
        style = ":" if k == 9 else "-"
        middle.plot(
            [r[0] for r in by_length.rows],
            [r[k] for r in by_length.rows],
            style,
            marker="o",
            markersize=4,
            color=COLOURS[k - 7],
            label=name,
        )
    with double():
        for i, (gamma, lam) in enumerate(DISCOUNTS):
            reward, _ = critic_share(gamma, lam)
            right.plot(range(TOKENS), reward, color=COLOURS[i], label=f"γ = {gamma:g}, λ = {lam:g}")
    return picture

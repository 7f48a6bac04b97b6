"""`logpi lab ladder`: PPO as REINFORCE plus five fixes (Chan, *PPO is REINFORCE plus five fixes*),
one fix in each row, on the grid world with slips.

Each row is the row above with one part exchanged, trained by the shipped learner with plain
gradient steps. It shows the noise of one batch's gradient, the episodes until the task is solved at
each of five learning rates, and what several passes over one batch do without the clip and with it.
Left out: whitening, entropy and gradient clipping, which PPO's code has and the five fixes have
not, and tuning: every row has the same five rates.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.lab.episodes import ActorCritic, Runs
from logpi.lab.expectation import batch_gradient
from logpi.lab.report import Report, ReportTable, Value, signed
from logpi.lab.worlds import double
from logpi.ops.time import to_go
from logpi.policies.tabular import States, TabularPolicy
from logpi.runs.plots import COLOURS, Panel, figure

if TYPE_CHECKING:
    from logpi.lab.mdp import MDP
    from logpi.types import Batch
from logpi.lab.rungs import (
    BATCH,
    BUDGET,
    CRITIC_RATE,
    HORIZON,
    PASSES,
    RATES,
    SLIP,
    Rung,
    Training,
    bounds,
    goal,
    make_learner,
    process,
    rungs,
    train,
)

MANY_PASSES = (1, 2, 4, 8, 16, 32, 64)
PASSES_RATE = 0.3
# batches whose gradients are compared, and episodes that the critic of that table has seen
GRADIENTS, SEEN = 1000, 64


def ladder(seed: int = 0, runs: int = 20) -> Report:
    """The report of `logpi lab ladder`.

    Args:
        seed: of all sampling. runs: independent runs of each rung at each rate.
    """
    with double():
        noise = _noise(seed)
        trained = {r.name: {rate: train(r, rate, runs, seed) for rate in RATES} for r in rungs()}
        passes = _passes(seed, runs)
    first, best = bounds()
    return Report(
        "ladder",
        "PPO as REINFORCE plus five fixes, a fix in each row, on the grid world with slips of"
        f" {SLIP:g} (at most {HORIZON} moves). J is {signed(first, '.2f')} for the uniform policy"
        f" and {signed(best, '.2f')} at best; {signed(goal(), '.2f')} counts as solved.",
        (noise, _episodes(trained, runs), _ends(trained), passes),
        sentence(noise, trained, passes),
        lambda: _picture(trained, passes),
    )


# --- the noise of one batch ---


def halfway(mdp: MDP) -> Tensor:
    """Logits [S, 4] on the path of exact gradient ascent where J is half way to the best."""
    first, best = bounds()
    logits = torch.zeros(mdp.allowed.shape, dtype=torch.float64)
    while float(mdp.expected_return(logits)) < (first + best) / 2:
        logits = logits + 0.01 * mdp.gradient(logits)
    return logits


def seen_values(mdp: MDP, logits: Tensor, seed: int) -> Tensor:
    """A critic [S] that has seen some episodes: the mean of G over the visits of each state, which
    has the least squared error; 0 for a state that was not visited."""
    batch = Runs(mdp, 1).sample(logits, SEEN, torch.Generator().manual_seed(seed))
    state, mask = batch.obs[:, :-1][batch.mask], batch.mask
    returns = to_go(batch.reward, mask, 1.0)[mask]
    zero = torch.zeros(len(logits))
    total, visits = (zero.index_add(0, state, x) for x in (returns, torch.ones_like(returns)))
    return total / visits.clamp(min=1)


def batch_gradients(
    rung: Rung, batch: Batch, copies: Runs, logits: Tensor, value: Tensor
) -> Tensor:
    """∇L̂ of each copy's episodes alone, [C, S·A]."""
    policy = TabularPolicy(copies.repeat(logits), States(), value=value)
    grad, _ = batch_gradient(policy, rung.objective, batch, None)
    return copies.number * grad.reshape(copies.number, -1)


def _noise(seed: int) -> ReportTable:
    """Table 1: bias and variance of one batch's gradient at two policies."""
    mdp, ladder_rows = process(), rungs()
    cells: dict[str, list[Value]] = {r.name: [] for r in ladder_rows}
    for logits in (torch.zeros(mdp.allowed.shape), halfway(mdp)):
        copies, target = Runs(mdp, GRADIENTS), -mdp.gradient(logits).flatten()
        batch = copies.sample(copies.repeat(logits), BATCH, torch.Generator().manual_seed(seed))
        exact = copies.value(copies.repeat(logits))
        learned = copies.repeat(seen_values(mdp, logits, seed + 1))
        first = math.nan
        for rung in ladder_rows:
            value = exact if rung.oracle else learned
            each = batch_gradients(rung, batch, copies, logits, value)
            variance = float(each.var(0).sum())
            first = variance if math.isnan(first) else first
            size = target.norm()
            off = float((each.mean(0) - target).norm() / size)
            floor = math.sqrt(variance / GRADIENTS) / float(size)
            cells[rung.name] += [variance, variance / first, f"{off:.3f} ({floor:.3f})"]
    return ReportTable(
        f"1. The gradient of one batch of {BATCH} episodes: tr Var[∇L̂] of {GRADIENTS:,} batches",
        ("", "change", "start", "share", "off", "half way", "share ", "off "),
        tuple((r.name, r.change, *cells[r.name]) for r in ladder_rows),
        ("", "", ".2f", ".3f", "", ".2f", ".3f", ""),
        "At the uniform policy, and where exact gradient ascent is half way. off: |E[∇L̂] + ∇J| /"
        " |∇J|, and what chance alone would make of it with so many batches. The critic of fixes 2"
        f" to 5 is the mean return of each cell in {SEEN} episodes. Fixes 4 and 5 change nothing"
        " before the first step, where every ratio is 1.",
    )


# --- learning ---


def _text(episodes: float) -> str:
    return f"{episodes:.0f}" if math.isfinite(episodes) else "never"


def best_rate(trained: dict[float, Training]) -> float:
    """The rate at which most runs are solved; among equals, the one that needs fewer episodes."""
    return min(trained, key=lambda rate: (-trained[rate].solved, trained[rate].median))


def _episodes(trained: dict[str, dict[float, Training]], runs: int) -> ReportTable:
    rows = []
    for name, by_rate in trained.items():
        cells = [f"{_text(t.median)} ({t.solved})" for t in by_rate.values()]
        rate = best_rate(by_rate)
        each = by_rate[rate].episodes
        quarter = (len(each) - 1) // 4
        spread = f"{_text(each[quarter])} … {_text(each[-1 - quarter])}"
        rows.append((name, *cells, rate, spread))
    return ReportTable(
        f"2. Episodes until solved: the median run (and how many of {runs} runs were solved within"
        f" {BUDGET})",
        ("", *(f"rate {r:g}" for r in RATES), "best rate", "quartiles there"),
        tuple(rows),
        (*[""] * (len(RATES) + 1), "g"),
        f"Plain gradient steps, the critic's rate is {CRITIC_RATE:g}. Fixes 4 and 5 take"
        f" {PASSES} steps on each batch, so {PASSES} times as many for the same episodes.",
    )


def _ends(trained: dict[str, dict[float, Training]]) -> ReportTable:
    rows = []
    for name, by_rate in trained.items():
        ends = [t.returns[-1] for t in by_rate.values()]
        ratio = max(t.ratio for t in by_rate.values())
        cells = [f"{signed(e.mean(), '.1f')} / {signed(e.min(), '.1f')}" for e in ends]
        rows.append((name, *cells, ratio))
    return ReportTable(
        f"3. J after {BUDGET} episodes: mean / worst run, and the largest ratio in any update",
        ("", *(f"rate {r:g}" for r in RATES), "largest ρ"),
        tuple(rows),
        (*[""] * (len(RATES) + 1), ".1f"),
        f"−{HORIZON} is a policy that never arrives.",
    )


# --- several passes over one batch ---


def _passes(seed: int, runs: int) -> ReportTable:
    """Table 4: fix 4 alone, and with fix 5, on one batch from the policy half way."""
    mdp = process()
    copies, logits = Runs(mdp, runs), halfway(mdp)
    before = copies.repeat(logits)
    value = copies.repeat(seen_values(mdp, logits, seed + 1))
    batch = copies.sample(before, BATCH, torch.Generator().manual_seed(seed))
    rows: list[tuple[Value, ...]] = []
    for passes in MANY_PASSES:
        cells: list[Value] = []
        for rung in rungs()[-2:]:
            policy = ActorCritic(before, value)
            make_learner(policy, replace(rung, passes=passes), PASSES_RATE, runs).update(batch)
            with torch.no_grad():
                moved = (policy.evaluate(batch).logp - batch.logp)[batch.mask]
            after = policy.logits.detach()
            j, kl = copies.expected_return(after), _kl(copies, before, after)
            cells += [*(float(x) for x in (moved.max().exp(), kl.median(), j.mean(), j.min()))]
        rows.append((passes, *cells))
    names = ("largest ρ", "KL", "J", "worst")
    return ReportTable(
        f"4. Several passes over one batch (rate {PASSES_RATE:g}): fix 4 alone, then with the clip",
        ("passes", *names, *(f"{n}, clip" for n in names)),
        tuple(rows),
        ("d", ".1f", ".1f", ".2f", ".2f", ".1f", ".1f", ".2f", ".2f"),
        f"From the policy half way (J = {signed(mdp.expected_return(logits), '.2f')}), over"
        f" {runs} runs: the largest ratio of any action, the median of KL(π_old‖π) of an episode in"
        " nats, J on average and of the worst run. From the uniform policy no ratio could be above"
        " 4.",
    )


def _kl(copies: Runs, before: Tensor, after: Tensor) -> Tensor:
    """KL(π_old‖π) of an episode of each run [C], nats."""
    pairs = zip(copies.apart(before), copies.apart(after), strict=True)
    policy = copies.mdp.policy
    return torch.stack([copies.mdp.divergence(policy(a), policy(b)) for a, b in pairs])


# --- what it shows ---


def sentence(
    noise: ReportTable, trained: dict[str, dict[float, Training]], passes: ReportTable
) -> str:
    """The claims of the report; each is computed from its numbers."""
    shares = [(str(r[0])[2:], float(r[3] or 0), float(r[6] or 0)) for r in noise.rows[1:4]]
    variance = ", ".join(f"{name} to {a:.0%} and {b:.0%}" for name, a, b in shares)
    last = passes.rows[-1]
    wild, tame = (
        f"a ratio of {signed(last[i], '.1f')}, {signed(last[i + 1], '.1f')} nats of KL and J ="
        f" {signed(last[i + 2], '.1f')}"
        for i in (1, 5)
    )
    return (
        "in parts of REINFORCE's, the variance of a batch's gradient falls at the start and half"
        f" way: {variance}. Episodes until solved: {_compared(trained)}. {last[0]} passes over one"
        f" batch end at {wild}; with the clip at {tame}. {_clip_helps(trained)}."
    )


def _compared(trained: dict[str, dict[float, Training]]) -> str:
    """Medians of the rows at their best rates, and which fixes need no fewer."""
    rates = {name: best_rate(by_rate) for name, by_rate in trained.items()}
    medians = [trained[name][rate].median for name, rate in rates.items()]
    idle = [
        fix[2:]
        for fix, before, after in zip(list(rates)[1:], medians, medians[1:], strict=False)
        if not after < before
    ]
    gain = f"no fewer than the row above: {', '.join(idle)}" if idle else "each fix needs fewer"
    same = len(set(rates.values())) == 1
    at = f"at rate {next(iter(rates.values())):g}, the best of all" if same else "at the best rate"
    return f"{', '.join(map(_text, medians))} {at} ({gain})"


def _clip_helps(trained: dict[str, dict[float, Training]]) -> str:
    wild, tame = (trained[name] for name in ("4 ratio", "5 clip"))
    counts = [f"{tame[r].solved} not {wild[r].solved} at rate {r:g}" for r in RATES]
    more = [c for c, r in zip(counts, RATES, strict=True) if tame[r].solved > wild[r].solved]
    fewer = [c for c, r in zip(counts, RATES, strict=True) if tame[r].solved < wild[r].solved]
    said = [f"more runs ({', '.join(more)})"] if more else ["more runs at no rate"]
    said += [f"fewer ({', '.join(fewer)})"] if fewer else []
    return f"With the clip {' and '.join(said)} are solved"


def _picture(trained: dict[str, dict[float, Training]], passes: ReportTable) -> Any:
    panels = [
        Panel("J while learning, each at its best rate", "episodes", "J, median run"),
        Panel("Passes over one batch: the largest ratio", "passes", "ρ"),
        Panel("… and J after them", "passes", "J, mean of the runs"),
    ]
    picture = figure(panels, size=(4.2, 3.6))
    left, middle, right = picture.axes
    for i, (name, by_rate) in enumerate(trained.items()):
        returns = by_rate[best_rate(by_rate)].returns.median(1).values
        x = [BATCH * k for k in range(len(returns))]
        left.plot(x, returns, color=COLOURS[i], linewidth=1.4, label=name)
    left.axhline(goal(), color="#9ca3af", linewidth=0.8)
    n = [r[0] for r in passes.rows]
    for place, colour, label in ((1, COLOURS[4], "4 ratio"), (5, COLOURS[5], "5 clip")):
        middle.plot(n, [r[place] for r in passes.rows], "o-", color=colour, label=label)
        right.plot(n, [r[place + 2] for r in passes.rows], "o-", color=colour, label=label)
    middle.set_yscale("log")
    for axes in (middle, right):
        axes.set_xscale("log", base=2)
    return picture

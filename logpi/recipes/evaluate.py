"""`logpi eval`: pass@1, unbiased pass@k, maj@k and greedy accuracy of a model on held-out items.

With a judge (a reward model, say) also best-of-N and weighted votes by its scores, and the win rate against another model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.arguments import option, parse
from logpi.errors import UserError
from logpi.recipes.common import ModelArguments, mistakes, positive

if TYPE_CHECKING:
    from logpi.evaluation import Evaluator
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards

__all__ = ["Eval", "main"]


@dataclass(frozen=True, kw_only=True)
class Eval(ModelArguments):
    """Arguments of `logpi eval`."""

    task: str = option("addition", help="a built-in task, a file of rows, or a hub name")
    rewards: tuple[str, ...] = option((), help="the first says what is right (default: the task's own)", nargs="*")
    items: int = option(200, help="held-out items")
    samples: int = option(4, help="for each item")
    temperature: float = option(1.0, help="of sampling")
    top_p: float = option(1.0, help="sample from the likeliest tokens of this total probability")
    max_completion_length: int = option(512, help="tokens after which a completion is cut off")
    stop: tuple[str, ...] = option((), help="strings that end a completion", nargs="*")
    judge: str = option("", help="a reward whose score chooses among the samples: model:PATH, or any other")
    best_of: int = option(0, help="samples for each item, of which the judge chooses one (at 1, 2, 4, … and all)")
    against: str = option("", help="another model: how often this one's answers score higher under the judge")
    seed: int = option(0, help="of sampling")
    json: bool = option(False, help="print the numbers as JSON")
    out: Path | None = option(None, help="write every response with its verdict to this file (JSON lines)")

    def __post_init__(self) -> None:
        positive(self, "items", "samples", "max_completion_length")


def main(argv: Sequence[str]) -> int:
    a = parse(Eval, argv, "logpi eval", "Measure a model on held-out items.")
    from logpi.envs.tasks import task as make_task
    from logpi.evaluation import Evaluator
    from logpi.rewards import rewards as make_rewards
    from logpi.rollouts.engine import Engine, Sampling
    from logpi.runs.metrics import encode
    from logpi.runs.progress import Progress

    with mistakes():
        if (a.best_of or a.against) and not a.judge:
            raise UserError("--best-of and --against need a judge: --judge model:PATH, or any other reward")
        task = make_task(a.task)
        judge = make_rewards([a.judge]) if a.judge else None
        rows = list(task.rows("test")[: a.items])
        named = make_rewards(a.rewards) if a.rewards else task.reward
        judged = judge if judge is not None and not a.rewards and "answer" not in rows[0] else named
        judged.check(list(rows[0]))
        policy = a.load(temperature=a.temperature)
        other = replace(a, model=a.against).load(temperature=a.temperature) if a.against else None
        sampling = Sampling(top_p=a.top_p, max_tokens=a.max_completion_length, stop=a.stop)
        if a.out is not None and a.out.exists():
            raise UserError(f"{a.out} is there already; give another --out")
    with Progress(1) as progress:

        def measured(model: CausalLM) -> Evaluator:
            return Evaluator(
                model, Engine(model), rows, judged, sampling, a.best_of or a.samples, chat=a.template(model), seed=a.seed,
                progress=lambda done, total: progress.phase(f"sampling {done}/{total}"),
            )  # fmt: skip

        numbers, samples = measured(policy)()
        if judge is not None:
            numbers |= _chosen(judge, judged, rows, samples)
        if judge is not None and other is not None:
            numbers |= _against(judge, rows, samples, measured(other)()[1])
    if a.out is not None:
        a.out.write_bytes(b"".join(encode(s) for s in samples))
    shown = {k.removeprefix("eval/"): round(v, 4) for k, v in numbers.items()}
    print(json.dumps(shown) if a.json else "\n".join(f"{k:<18}{v:>10.4g}" for k, v in shown.items()), file=sys.stdout)
    return 0


def _scores(judge: Rewards, rows: Sequence[Mapping], samples: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """The judge's score of every sampled answer; one without a verdict is never chosen."""
    sampled = [s["completions"] for s in samples if s["kind"] == "sampled"]
    flat = [(row, text) for row, texts in zip(rows, sampled, strict=True) for text in texts]
    names = sorted({name for row in rows for name in row} - {"prompt", "completion"})
    found = iter(judge.score(
        [r["prompt"] for r, _ in flat], [t for _, t in flat], columns={n: [r.get(n) for r, _ in flat] for n in names}
    ))  # fmt: skip
    totals = [[next(found).total for _ in texts] for texts in sampled]
    return [[float("-inf") if t is None else t for t in row] for row in totals]


def _chosen(
    judge: Rewards, judged: Rewards, rows: Sequence[Mapping], samples: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Best-of-N by the judge: how often the chosen answer is right, and its score; and the weighted vote."""
    from logpi.pooling import best_of, vote

    scores = _scores(judge, rows, samples)
    right = [s["right"] for s in samples if s["kind"] == "sampled"]
    n = len(scores[0])
    out = {}
    for k in sorted({*(2**i for i in range(n.bit_length())), n}):
        if judged is not judge:
            out[f"eval/best_of@{k}"] = fmean(best_of(s, r, k) for s, r in zip(scores, right, strict=True))
        out[f"eval/judge_best@{k}"] = fmean(best_of(s, s, k) for s in scores)
    find = judged.find_answer
    if find is not None:
        texts = [s["completions"] for s in samples if s["kind"] == "sampled"]
        votes = zip(texts, scores, right, strict=True)
        out[f"eval/weighted_maj@{n}"] = fmean(vote([find(t) for t in ts], s, r) for ts, s, r in votes)
    return out


def _against(judge: Rewards, rows: Sequence[Mapping], ours: Sequence, theirs: Sequence) -> dict[str, float]:
    """Win rate under the judge, ties one half, with a 95 % interval over items."""
    from logpi.comparisons import win_rate

    rate, low, high = win_rate(_scores(judge, rows, ours), _scores(judge, rows, theirs))
    return {"eval/win_rate": rate, "eval/win_rate_low": low, "eval/win_rate_high": high}

"""`logpi eval`: pass@1, unbiased pass@k, maj@k and greedy accuracy of a model on held-out items."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from logpi.arguments import option, parse
from logpi.errors import UserError
from logpi.recipes.common import ModelArguments, mistakes

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
    seed: int = option(0, help="of sampling")
    json: bool = option(False, help="print the numbers as JSON")
    out: Path | None = option(None, help="write every response with its verdict to this file (JSON lines)")


def main(argv: Sequence[str]) -> int:
    a = parse(Eval, argv, "logpi eval", "Measure a model on held-out items.")
    from logpi.envs.tasks import task as make_task
    from logpi.evaluation import Evaluator
    from logpi.rewards import rewards as make_rewards
    from logpi.rollouts.engine import Engine, Sampling
    from logpi.runs.metrics import encode
    from logpi.runs.progress import Progress

    with mistakes():
        task = make_task(a.task)
        judged = make_rewards(a.rewards) if a.rewards else task.reward
        rows = list(task.rows("test")[: a.items])
        judged.check(list(rows[0]))
        policy = a.load(temperature=a.temperature)
        sampling = Sampling(top_p=a.top_p, max_tokens=a.max_completion_length, stop=a.stop)
        if a.out is not None and a.out.exists():
            raise UserError(f"{a.out} is there already; give another --out")
    with Progress(1) as progress:
        evaluator = Evaluator(
            policy, Engine(policy), rows, judged, sampling, a.samples, chat=a.template(policy), seed=a.seed,
            progress=lambda done, total: progress.phase(f"sampling {done}/{total}"),
        )  # fmt: skip
        numbers, samples = evaluator()
    if a.out is not None:
        a.out.write_bytes(b"".join(encode(s) for s in samples))
    shown = {k.removeprefix("eval/"): round(v, 4) for k, v in numbers.items()}
    print(json.dumps(shown) if a.json else "\n".join(f"{k:<18}{v:>10.4g}" for k, v in shown.items()), file=sys.stdout)
    return 0

"""`logpi compute`: accuracy against tokens spent at test time, of one model or of two (trained and
untrained) side by side.

    greedy                    one response
    maj, best_of, weighted    k = 1, 2, 4, … samples pooled; `pass` is what a perfect verifier would
                              choose among them
    beam                      step-scored search, a width each

Tokens are all that were sampled for an item, on average. A run's directory holds every response and
every search, and is resumed after a kill; `compute.json`, `compute.txt` and `compute.png` hold
the curves. Left out: prompt tokens and the scorer's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import as_user_errors
from logpi.jobs.common import opened, settle_threads
from logpi.jobs.compute_report import Point, curve, picture, point, table
from logpi.jobs.options.fields import option
from logpi.jobs.options.items import ItemArguments, evaluator_of, gathered, items_of, judge_of
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.sampling import SamplingArguments

if TYPE_CHECKING:
    from logpi.evaluation.beam_search import BeamSearchResult
    from logpi.evaluation.evaluator import Evaluator
    from logpi.rewards import RewardScore


@dataclass(frozen=True, kw_only=True)
class Compute(ModelArguments, ItemArguments, SamplingArguments, RunArguments):
    """Arguments of `logpi compute`."""

    HEADING: ClassVar[str] = "measuring"
    FIRST: ClassVar[str] = "model task samples against scorer out"

    against: str = option(
        "", help="another model to draw beside it, e.g. the one that training began with"
    )
    samples: int = option(
        32, help="for each item; pooled at 1, 2, 4, … and all", least=1, most=2**16
    )
    scorer: str = option(
        "logp",
        help=(
            "chooses among samples and steers the search: logp, self_certainty, model:PATH, any"
            " reward"
        ),
    )
    beams: tuple[int, ...] = option(
        (4, 8, 16),
        help="widths of the search: candidates for each item and step",
        nargs="*",
        least=1,
        most=2**12,
    )
    branch: int = option(
        4,
        help="continuations of each beginning; a width of 8 keeps the best 2",
        least=1,
        most=2**12,
    )
    step: str = option("\\n", help="what ends a step")
    save_every: int = option(32, help="items between saves of the responses", least=1)

    def __post_init__(self) -> None:
        if self.beams and not self.step:
            raise ValueError(
                "--beams go step by step: --step must say what ends one, such as a comma"
            )


def main(argv: Sequence[str]) -> int:
    a = read(Compute, argv, "compute", "Accuracy against tokens spent at test time.")
    available(a)
    settle_threads(a)
    from logpi.runs.progress import Progress

    with as_user_errors():
        items, judge = items_of(a, device=a.device), judge_of(a.scorer, a.device)
        models = (a.model, a.against) if a.against else (a.model,)
        evaluators = {}
        for path, name in zip(models, _names(*models), strict=True):
            policy = replace(a, model=path).load(temperature=a.temperature)
            evaluators[name] = evaluator_of(a, items, policy, judge, a.samples)
    with opened(a, "compute") as home, Progress(1) as progress:
        points = [
            p for n, e in evaluators.items() for p in _points(a, n, e, home.path, progress.phase)
        ]
        text = table(points)
        (home.path / "compute.json").write_text(json.dumps([asdict(p) for p in points], indent=1))
        (home.path / "compute.txt").write_text(text + "\n")
        image = picture(points, home.path / "compute.png", f"{a.task}, scored by {a.scorer}")
    print(text)
    print(f"picture {image}   every response and search: {home.path}", file=sys.stderr)
    return 0


def _names(*models: str) -> list[str]:
    """What tells paths of models apart: `runs/sft/model` and `runs/rl/model` are sft and rl."""
    parts = [[x for x in Path(p).parts if x != "model"] or [p] for p in models]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"--against is the same model: {models[0]}")


def _points(
    a: Compute, name: str, evaluator: Evaluator, out: Path, tell: Callable[[str], None]
) -> list[Point]:
    """All of one model's points: pooled samples, then searches."""
    slug = name.replace("/", "-")
    records = gathered(
        evaluator, out / f"{slug}.jsonl", a.save_every, lambda t: tell(f"{name} {t}")
    )
    points = curve(name, records)
    for width in a.beams:
        searches = _searched(a, evaluator, width, out / f"{slug}-beam-{width}.jsonl", tell)
        spent, right = zip(*((r["spent"], float(r["right"][0])) for r in searches), strict=True)
        points.append(point(name, "beam", width, spent, right))
    return points


def _searched(
    a: Compute, evaluator: Evaluator, width: int, path: Path, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A record of each item's search, those of a stopped run read from `path`; a shard's seed is
    its first item's number."""
    import torch

    from logpi.evaluation.beam_search import BeamSearch
    from logpi.evaluation.records import saved
    from logpi.evaluation.scorers import verdicts

    assert evaluator.scorer is not None
    search = BeamSearch(
        evaluator.policy,
        evaluator.sampler,
        evaluator.scorer,
        width,
        max(1, width // a.branch),
        a.step.replace("\\n", "\n"),
        evaluator.sampling.stop,
        a.max_completion_length,
        chat=evaluator.chat,
    )

    def shards(first: int) -> Iterator[list[dict[str, Any]]]:
        for begin in range(first, len(evaluator.rows), a.save_every):
            tell(f"search of width {width}: {begin}/{len(evaluator.rows)} items")
            rows = evaluator.rows[begin : begin + a.save_every]
            results = search(rows, torch.Generator().manual_seed(a.seed + 1_000_003 * (begin + 1)))
            scores = verdicts(evaluator.rewards, [r.best for r in results])
            yield [
                _record(begin + i, r, s)
                for i, (r, s) in enumerate(zip(results, scores, strict=True))
            ]

    return saved(path, shards, len(evaluator.rows), a.save_every)


def _record(item: int, result: BeamSearchResult, score: RewardScore) -> dict[str, Any]:
    return {
        "kind": "beam",
        "item": item,
        "prompt": result.best.row["prompt"],
        "answer": result.best.row.get("answer"),
        "completions": [result.best.text],
        "right": [(next(iter(score.parts.values())) or 0.0) >= 1.0],
        "scores": [result.score],
        "stop": [result.best.stop],
        "tokens": [len(result.best.tokens)],
        "spent": result.tokens,
        "steps": result.steps,
        "others": [p.text for p in result.beams if p is not result.best],
    }

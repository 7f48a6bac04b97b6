"""`logpi eval`: pass@1, unbiased pass@k, maj@k, greedy, strict and lenient accuracy of a model on
held-out items.

With a judge (a reward model, say) also best-of-N and weighted votes by its scores, and the win rate
against another model. The run's directory holds every response (`responses.jsonl`; a stopped
evaluation resumes from it), and the numbers with their intervals, for each level (`results.json`,
`results.txt`). Left out: sampling and judging (`evaluation/`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.distributed.world import current
from logpi.errors import as_user_errors, errors_in_keywords, shell
from logpi.jobs.common import opened, settle_threads
from logpi.jobs.job import job
from logpi.jobs.options.fields import option
from logpi.jobs.options.items import (
    ItemArguments,
    Items,
    evaluator_of,
    gathered,
    items_of,
    judge_of,
)
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.sampling import SamplingArguments
from logpi.jobs.options.turns import TurnArguments


@job
class Evaluate(ModelArguments, ItemArguments, SamplingArguments, TurnArguments, RunArguments):
    """A model measured on held-out items: `logpi eval`.

    >>> import logpi
    >>> logpi.Evaluate(model="my-model", task=[{"prompt": "1+1=", "answer": "2"}]).samples
    4
    """

    if TYPE_CHECKING:

        def __init__(self, **options: Any) -> None: ...

    COMMAND: ClassVar[str] = "eval"
    HEADING: ClassVar[str] = "measuring"
    FIRST: ClassVar[str] = "model task rewards items samples out"

    pass_at: tuple[int, ...] = option(
        (), help="the k of pass@k and maj@k (default: 1, 2, 4, … and all)", nargs="*", least=1
    )
    judge: str | Any = option(
        "",
        objects=True,
        help=(
            "what scores the samples to choose among them: model:PATH, any reward, logp,"
            " self_certainty"
        ),
    )
    best_of: int = option(
        0,
        help="samples for each item, of which the judge chooses one (at 1, 2, 4, … and all)",
        least=0,
        most=2**16,
    )
    against: str | Any = option(
        "",
        objects=True,
        help="another model: how often this one's answers score higher under the judge",
    )
    save_every: int = option(32, help="items between saves of the responses", least=1)
    json: bool = option(False, help="print the numbers as JSON", changeable=True)

    def __post_init__(self) -> None:
        if (self.best_of or self.against) and not self.judge:
            raise ValueError(
                "--best-of and --against need a judge: --judge model:PATH, or any other reward"
            )
        if max(self.pass_at, default=1) > (self.best_of or self.samples):
            raise ValueError(
                f"pass@{max(self.pass_at)} needs at least as many samples for each item: --samples"
                f" {max(self.pass_at)}"
            )

    @errors_in_keywords()
    def run(self) -> Evaluation:
        """Measure; every response and the numbers are in the run's directory.

        Raises:
            UserError: a mistake in the options, or in what they name.
        """
        from logpi.rewards import Rewards
        from logpi.runs.progress import Progress

        world = current()
        world.by_first(lambda: available(self))
        settle_threads(self)
        with as_user_errors():
            judge = judge_of(self.judge, self.device)
            items = items_of(self, judge if isinstance(judge, Rewards) else None, self.device)
            policy = self.load(temperature=self.temperature)
            rival = None
            if self.against:
                other = replace(self, model=self.against, tokenizer=None)
                rival = other.load(temperature=self.temperature)
            samples = self.best_of or self.samples
            evaluator = evaluator_of(self, items, policy, judge, samples, self.pass_at)
        with opened(self, self.COMMAND) as run, Progress(1) as progress:
            file = run.path / "responses.jsonl"
            records = gathered(evaluator, file, self.save_every, progress.phase)
            extra = {k.removeprefix("eval/"): v for k, v in evaluator.numbers(records).items()}
            if rival is not None:
                opponent = evaluator_of(self, items, rival, judge, samples, self.pass_at)
                opponent.greedy, file = False, run.path / "against.jsonl"
                others = gathered(opponent, file, self.save_every, progress.phase)
                extra |= _against(records, others)
            results = _results(records, items, extra, self.pass_at)
            text = _table(results)

            def write() -> None:
                (run.path / "results.json").write_text(json.dumps(results, indent=1, default=str))
                (run.path / "results.txt").write_text(text + "\n")

            world.by_first(write)
        return Evaluation(run.path, _flat(results), results, text)


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        path: the run's directory, with every response.
        numbers: each measure's mean, with `_low` and `_high` of its 95 % interval.
        results: the same with levels, counts, and what was left out.
        table: for people.
    """

    path: Path
    numbers: Mapping[str, float]
    results: Mapping[str, Any] = field(repr=False)
    table: str = field(repr=False)

    def __str__(self) -> str:
        return self.table


@shell()
def main(argv: Sequence[str]) -> int:
    arguments = read(Evaluate, argv, "eval", "Measure a model on held-out items.")
    evaluation = arguments.run()
    print(json.dumps(evaluation.numbers) if arguments.json else evaluation.table, file=sys.stdout)
    files = f"every response: {evaluation.path / 'responses.jsonl'}"
    print(f"{files}   numbers: {evaluation.path / 'results.json'}", file=sys.stderr)
    return 0


def _results(
    records: Sequence[dict[str, Any]], items: Items, extra: Mapping[str, float], ks: Sequence[int]
) -> dict[str, Any]:
    """Every number: measures with intervals, the same for each level, what has none, and what was
    left out."""
    from logpi.evaluation.measures import by_level, estimates, measures

    def estimated(records: Sequence[Any]) -> dict[str, Any]:
        return {k: asdict(v) for k, v in estimates(measures(records, ks)).items()}

    numbers = estimated(records)
    known = {f"{name}{end}" for name in numbers for end in ("", "_low", "_high")}
    rest = {k: v for k, v in extra.items() if k not in known}
    levels = {level: estimated(some) for level, some in by_level(records).items()}
    samples = len(next(r for r in records if r["kind"] == "sampled")["right"])
    return {
        "numbers": numbers,
        "levels": levels,
        "rest": rest,
        "samples": samples,
        "items": sum(r["kind"] == "sampled" for r in records),
        **items.report,
    }


def _flat(results: Mapping[str, Any]) -> dict[str, float]:
    out = {}
    for name, e in results["numbers"].items():
        out |= {name: e["mean"], f"{name}_low": e["low"], f"{name}_high": e["high"]}
    return {k: round(v, 4) for k, v in (out | results["rest"]).items()}


def _table(results: Mapping[str, Any]) -> str:
    """Measures down, all items and each level or category across."""
    levels = {f"level {k}" if k.isdigit() else k: v for k, v in results["levels"].items()}
    head = f"{results['items']} items".ljust(20) + f"{'mean':>8}{'95 % interval':>18}"
    lines = [head + "".join(f"{k:>{max(12, len(k) + 2)}}" for k in levels)]
    for name, e in results["numbers"].items():
        label = f"pass@1 = avg@{results['samples']}" if name == "pass@1" else name
        # A reward may not apply to a level.
        means = {k: f"{v[name]['mean']:.4f}" if name in v else "–" for k, v in levels.items()}
        cells = "".join(f"{mean:>{max(12, len(k) + 2)}}" for k, mean in means.items())
        lines.append(f"{label:<20}{e['mean']:>8.4f}{e['low']:>10.4f}–{e['high']:.4f}{cells}")
    return "\n".join(lines + [f"{k:<20}{v:>8.4g}" for k, v in results["rest"].items()])


def _against(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> dict[str, float]:
    """Win rate under the judge, ties one half, with a 95 % interval over items."""
    from logpi.evaluation.held_out_pairs import win_rate

    mine, other = (
        [[float(x) for x in r["scores"]] for r in rs if r["kind"] == "sampled"]
        for rs in (ours, theirs)
    )
    rate, low, high = win_rate(mine, other)
    return {"win_rate": rate, "win_rate_low": low, "win_rate_high": high}

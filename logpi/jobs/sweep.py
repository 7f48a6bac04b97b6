"""`logpi sweep`: one job with several values of its options, a run each, and a table of results.

    logpi sweep rl --lr 1e-5 3e-5 --beta 0 0.04 --seeds 3 -- --model M --task rows.jsonl
    logpi sweep gym --lr 1e-4..1e-2:log --gae-lambda 0.9..0.99 --trials 20 -- --env CartPole-v1

    what varies stands in front of `--`, each option with its values; behind it the job's own words
    1e-4..1e-2        a range, in which Optuna looks for the best (extra `sweep`); `:log`: in powers

    RUN/arguments.json  RUN/sweep.json  RUN/000-lr=1e-5-beta=0/seed-0 …

`logpi sweep --resume RUN` resumes the runs that were stopped, and starts the others. Left out:
ending bad trials early, and what a job does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.distributed import cores
from logpi.errors import UserError
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.options.fields import option
from logpi.jobs.options.run import read
from logpi.jobs.options.saved import from_json, to_json
from logpi.jobs.processes import side_by_side
from logpi.jobs.seeds import one_each
from logpi.jobs.sweep_cells import Cell, Space, Trials, grid
from logpi.jobs.sweep_table import SweepTable

if TYPE_CHECKING:
    from logpi.runs.directory import Run

# job -> (its module, its class)
JOBS = {
    "rl": ("rl", "RL"),
    "sft": ("sft", "SFT"),
    "prefer": ("prefer", "Prefer"),
    "reward-model": ("reward_model", "TrainRewardModel"),
    "gym": ("gym", "Gym"),
}


@dataclass(frozen=True, kw_only=True)
class JobSweep:
    """Arguments of `logpi sweep`."""

    FIRST: ClassVar[str] = "vary words trials seeds measure"

    job: str = option("", help="which job", choices=("", *JOBS), positional=True)
    vary: Mapping[str, Any] = option(
        {}, help="options and their values, written --lr 1e-5 3e-5", nargs="*"
    )
    words: tuple[str, ...] = option((), help="the job's own options, written behind --", nargs="*")
    trials: int = option(
        0, help="runs in which Optuna looks for the best values; 0: every combination", least=0
    )
    seeds: int = option(1, help="runs of each combination, with consecutive seeds", least=1)
    measure: str = option(
        "", help="what is to be best, e.g. eval/pass@1 (default: the first of the last evaluation)"
    )
    minimise: bool = option(False, help="the least is best; so it is of a loss and of perplexity")
    at_once: int = option(1, help="runs at the same time; 0: as many as cores", least=0)
    out: Path | None = option(None, help="directory (default: runs/sweep-1, -2, …)")
    resume: Path | None = option(None, help="resume this sweep", saved=False)


def main(argv: Sequence[str]) -> int:
    a = arguments(argv)
    jobs = _Jobs(a)
    cells = jobs.planned()
    with _home(a) as home:
        table = SweepTable(home.path, a.measure, a.minimise)
        if a.trials:
            _search(jobs, table)
        else:
            jobs.carry_out(cells, table)
    print(table.text())
    print(f"every run: {home.path}", file=sys.stderr)
    if all(math.isnan(table.mean(cell)) for cell in table.cells()):
        raise UserError("every run failed; the table and the logs beside the runs say why")
    return 0


def arguments(argv: Sequence[str]) -> JobSweep:
    """The sweep that the words say, or that a run is.

    Raises:
        UserError: it is no run of a sweep. SystemExit: after a line on a mistake, or `--help`.
    """
    line = CommandLine(JobSweep, "logpi sweep", (__doc__ or "").partition("\n\n")[2])
    end = argv.index("--") if "--" in argv else len(argv)
    own, vary = _parted(line, argv[:end])
    words = line.options(own)
    if "resume" in words:
        from logpi.runs.directory import read_arguments

        _, saved = read_arguments(words["resume"], "sweep")
        return replace(from_json(JobSweep, saved), resume=words["resume"])
    vary = {**words.pop("vary", {}), **vary}
    if not words.get("job"):
        line.error(f"JOB must be given: {', '.join(JOBS)}")
    if not vary:
        line.error("say what varies, e.g. --lr 1e-5 3e-5, and behind -- the job's own options")
    fixed = tuple(argv[end + 1 :])
    for name in ("out", "resume", "repeat", "seeds"):
        if name in vary or f"--{name}" in [word.partition("=")[0] for word in fixed]:
            raise UserError(f"a sweep's own --{name} stands in front of --")
    return line.build({**words, "vary": vary, "words": fixed})


def _parted(line: CommandLine, argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The sweep's own words, and the options that vary with their values.

    >>> _parted(CommandLine(JobSweep, ""), ["rl", "--trials", "3", "--lr", "1", "2"])
    (['rl', '--trials', '3'], {'lr': ['1', '2']})
    """
    own_flags = {"-h", "--help", *(w for f in line.fields for w in f.words), "--no-minimise"}
    own: list[str] = []
    vary: dict[str, list[str]] = {}
    values = own
    for word in argv:
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if flag in own_flags or not flag.startswith("--"):
            values = own if flag in own_flags else values
            values.append(word)
        else:
            values = vary.setdefault(flag[2:].replace("-", "_"), [])
            values.extend([value] if equals else [])
    return own, vary


class _Jobs:
    """The jobs of a sweep: a cell's words become one, or one for each seed.

    Attributes:
        space: what varies.
    """

    def __init__(self, a: JobSweep) -> None:
        module, name = JOBS[a.job]
        self.a = a
        self.cls = getattr(import_module(f"logpi.jobs.{module}"), name)
        self.space = Space.of(CommandLine(self.cls, f"logpi {a.job}"), a.vary, a.words)

    def planned(self) -> list[Cell]:
        """Every combination; none where Optuna chooses. What is wrong is said before anything is
        trained: raises UserError or SystemExit."""
        cells = [] if self.a.trials else grid(self.space)
        for cell in cells:
            self.of(cell, Path())
        if self.a.trials:
            self.of(Trials(self.space).ask(minimise=False), Path())
        return cells

    def of(self, cell: Cell, path: Path) -> list[Any]:
        """The jobs of a cell in a sweep's directory. Raises UserError or SystemExit if a value
        cannot be."""
        job = read(self.cls, [*self.a.words, *cell.words], self.a.job, "")
        home = path / cell.name
        if self.a.seeds == 1:
            return [replace(job, out=home)]
        return one_each(replace(job, seeds=self.a.seeds), home)

    def carry_out(self, cells: Sequence[Cell], table: SweepTable) -> None:
        """Run every job of these cells; those that have begun are resumed."""
        jobs = [(cell, job) for cell in cells for job in self.of(cell, table.path)]
        done = side_by_side([job for _, job in jobs], self.a.at_once or cores())
        for i, ((cell, _), (job, failure)) in enumerate(zip(jobs, done, strict=True), 1):
            table.add(cell, job.out, failure)
            print(f"[{i}/{len(jobs)}] {cell.label}: {table.said(job.out)}", file=sys.stderr)
        for cell in cells:
            table.end(cell)


def _search(one: _Jobs, table: SweepTable) -> None:
    """One cell after another where Optuna looks next."""
    for cell in table.cells(done=False):
        one.carry_out([cell], table)
    trials = Trials(one.space)
    for cell in table.cells():
        trials.tell(cell, table.mean(cell))
    for _ in range(len(table.cells()), one.a.trials):
        cell = trials.ask(table.minimise)
        table.begin(cell)
        one.carry_out([cell], table)
        trials.tell(cell, table.mean(cell))


def _home(a: JobSweep) -> Run:
    """The directory of the sweep: a new one, or the one to resume."""
    from logpi.runs.directory import Run, next_path

    if a.resume is not None:
        return Run.open(a.resume)
    return Run.create(a.out or next_path("sweep"), "sweep", to_json(a))

"""The command of a job that trains: one run, or a run for each of several seeds with a common table
and curve.

    RUN/arguments.json     the job, with the number of its seeds
    RUN/seed-0 seed-0.log  a run each, with a log beside it
    RUN/seeds.json RUN/curves.png

`logpi rl --resume RUN` resumes every seed that was stopped, and starts those that had not started.
Left out: the training itself (each job), and the statistics (`seed_report.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from logpi.distributed import cores, ranks
from logpi.errors import UserError, shell
from logpi.jobs.common import opened
from logpi.jobs.job import Job
from logpi.jobs.options.run import available, read
from logpi.jobs.processes import side_by_side
from logpi.jobs.seed_report import last_numbers, report


def command(cls: type[Job], description: str, argv: Sequence[str]) -> int:
    """A job's command: read its options and run it. Errors as of `start`."""
    start(read(cls, argv, cls.COMMAND, description))
    return 0


@shell()
def start(job: Any, title: str = "") -> None:
    """Run a job, or each of its seeds. Arguments and errors as of `run_seeds`."""
    if job.seeds > 1 and ranks() > 1:
        raise UserError(
            f"--seeds starts a process for each seed, and {ranks()} ranks were started for one run:"
            " leave --seeds out and launch each --seed by itself, or leave the launcher out"
        )
    if job.seeds > 1:
        run_seeds(job, title)
    else:
        job.run()


def run_seeds(a: Any, title: str = "") -> None:
    """Train every seed of a job, then print the table of all seeds.

    Args:
        a: the job. title: of the table and the curve (default: the command).
    Raises:
        UserError: a seed failed. Stopped: a signal ended the runs, after they had saved.
    """
    available(a)
    out = _home(a)
    jobs = one_each(a, out)
    at_once = a.at_once or cores()
    print(
        f"{a.seeds} seeds, {min(at_once, a.seeds)} at a time; each writes to {out}/seed-N.log",
        file=sys.stderr,
    )
    for job, failure in side_by_side(jobs, at_once):
        if failure:
            raise UserError(f"seed {job.seed}: {failure} (the whole of it: {job.out}.log)")
        shown = [f"{k} {v:.4g}" for k, v in list(last_numbers(job.out).items())[:1]]
        print(f"seed {job.seed}: {' '.join(shown)}", file=sys.stderr)
    print(report(out, [job.out for job in jobs], title or a.COMMAND), file=sys.stderr)


def one_each(a: Any, out: Path) -> list[Any]:
    """One job for each seed, each with a directory of its own."""
    seeds = range(a.seed, a.seed + a.seeds)
    return [replace(a, seeds=1, seed=s, out=out / f"seed-{s}", resume=None) for s in seeds]


def _home(a: Any) -> Path:
    """The directory of the seeds' runs: a new one, or the one to resume."""
    from logpi.runs.directory import next_path

    out = a.out or next_path(f"{a.COMMAND}-seeds")
    with opened(replace(a, out=out), a.COMMAND):
        return out

"""Several seeds of one `logpi gym` side by side on the cores, and what they say together: a table
and a curve with its interval.

    RUN/seed-0  RUN/seed-1 …     a run each, with a log beside it        RUN/arguments.json  RUN/seeds.json  RUN/curves.png

`logpi gym --resume RUN` goes on with every seed that was stopped, and begins those that had not
begun. Leaves out the training itself (`jobs/gym.py`).
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from logpi.errors import Stopped, UserError, as_user_errors
from logpi.jobs.options.saved import to_json
from logpi.runs.directory import Run, next_path
from logpi.runs.metrics import read_metrics

if TYPE_CHECKING:
    from logpi.jobs.gym import Gym

_T95 = (
    12.71,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
)  # Student's t, 1 … 9 degrees of freedom


def _t95(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; beyond the table by its expansion around the normal's z
    (to 0.003)."""
    z = 1.959964
    return (
        _T95[freedom - 1]
        if freedom <= len(_T95)
        else z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t over seeds; NaN for one seed).

    >>> interval([1.0, 2.0, 3.0])[0]
    2.0
    """
    n = len(values)
    if n < 2:
        return fmean(values), math.nan
    return fmean(values), _t95(n - 1) * stdev(values) / math.sqrt(n)


def run_seeds(a: Gym) -> int:
    """Train every seed, as many at a time as there are cores; then the table and the picture."""
    from logpi.jobs.gym_parts import build

    with as_user_errors():
        build(a)  # what is wrong is said now, once
    out = _home(a)
    jobs = [
        _job(replace(a, seeds=1, seed=a.seed + i, out=out / f"seed-{a.seed + i}", resume=None))
        for i in range(a.seeds)
    ]
    cores = min(
        len(jobs), len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    )
    print(f"{a.seeds} seeds, {cores} at a time; each writes to {out}/seed-N.log", file=sys.stderr)
    alone = getattr(
        os, "setpgrp", None
    )  # Ctrl-C comes to this process, which asks each seed once to save and stop
    with (
        _interrupted_by_termination(),
        multiprocessing.get_context("spawn").Pool(cores, alone, maxtasksperchild=1) as pool,
    ):
        for job, score in zip(jobs, pool.imap(_one, jobs, chunksize=1), strict=True):
            print(f"seed {job.seed}: {score:.2f}", file=sys.stderr)
    print(report(out, [j.out for j in jobs if j.out is not None], a), file=sys.stderr)
    return 0


@contextlib.contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """A termination signal ends this too as Ctrl-C does: no seed is left running by itself."""

    def handle(number: int, frame: object) -> None:
        raise Stopped("stopped; what was saved can be gone on with: --resume RUN", number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _home(a: Gym) -> Path:
    """A directory that says what its seeds were asked for: a new one, or the one to go on with."""
    if a.resume is not None:
        with Run.open(a.resume, arguments=to_json(a)):
            return a.resume
    out = a.out or next_path("gym-seeds")
    if out.exists() and any(out.iterdir()):
        raise UserError(
            f"{out} is not empty; give another --out, or --resume {out} to go on with its seeds"
        )
    with Run.create(out, "gym", to_json(replace(a, out=out))):
        return out


def _job(one: Gym) -> Gym:
    """One seed's arguments; if it has begun, to go on with."""
    assert one.out is not None
    return replace(one, resume=one.out) if (one.out / "arguments.json").exists() else one


def _one(job: Gym) -> float:

    with open(f"{job.out}.log", "a") as log, contextlib.redirect_stderr(log):
        outcome = job.run().outcome
    return outcome.last.get("eval/reward", math.nan)


def report(out: Path, runs: Sequence[Path], a: Gym) -> str:
    """The last evaluation of every seed, with mean and interval; also written to `seeds.json`, and
    drawn."""
    last = [
        next((r["eval/reward"] for r in reversed(read_metrics(p)) if "eval/reward" in r), math.nan)
        for p in runs
    ]
    mean, half = interval(last)
    record = {
        "env": a.env,
        "algorithm": a.algorithm,
        "final": last,
        "mean": mean,
        "interval95": half,
    }
    (out / "seeds.json").write_text(json.dumps(record, indent=2))
    path = picture({a.algorithm: runs}, out / "curves.png", a.env)
    where = path or "no curve: a seed saw no episode end"
    return f"{a.env}, {a.algorithm}: {mean:.2f} ± {half:.2f} (95 % over {len(runs)} seeds), {where}"


def _returns(run: Path) -> list[tuple[float, float]]:
    """(environment steps, mean return of the last 100 training episodes) as it went."""
    return [(r["num_tokens_seen"], r["reward_100"]) for r in read_metrics(run) if "reward_100" in r]


def picture(runs: dict[str, Sequence[Path]], path: Path, title: str = "") -> Path | None:
    """Mean training return of each label's seeds against environment steps, with its 95 % interval
    as a band and the seeds as thin lines. None if a seed's training saw no episode end: there is no
    return to draw."""
    import numpy as np
    from matplotlib.ticker import EngFormatter

    from logpi.runs.plots import Panel, figure, save

    every = {label: [_returns(p) for p in seeds] for label, seeds in runs.items()}
    if not all(line for series in every.values() for line in series):
        return None
    panel = Panel(title, "environment steps", "return, last 100 episodes")
    drawing = figure([panel], size=(6, 3.6))
    [axes] = drawing.axes
    for label, series in every.items():
        grid = np.linspace(max(s[0][0] for s in series), min(s[-1][0] for s in series), 200)
        lines = np.stack([np.interp(grid, [x for x, _ in s], [y for _, y in s]) for s in series])
        mean, half = np.transpose([interval(column.tolist()) for column in lines.T])
        line = axes.plot(grid, mean, label=f"{label} ({len(series)} seeds)")[0]
        axes.fill_between(
            grid, mean - half, mean + half, alpha=0.2, color=line.get_color(), linewidth=0
        )
        axes.plot(grid, lines.T, color=line.get_color(), alpha=0.35, linewidth=0.6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(fontsize=8, frameon=False)
    return save(drawing, path)

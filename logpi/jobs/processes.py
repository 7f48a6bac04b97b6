"""Several jobs side by side, each in a process of its own with a log beside its run.

    for job, failure in side_by_side(jobs, at_once=2): ...

Ctrl-C and a termination signal come to this process, which asks each job once to save and stop; all
of them can be resumed. Left out: which jobs (`seeds.py`, `sweep.py`), and their common report
(`seed_report.py`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from logpi.distributed.threads import shared
from logpi.errors import Stopped, UserError, one_line, shell


def side_by_side(jobs: Sequence[Any], at_once: int) -> Iterator[tuple[Any, str]]:
    """Run jobs, `at_once` at a time; yields (the job, why it failed or "") in their order.

    Args:
        jobs: each has a directory `out`. One that has begun is resumed.
    Raises:
        Stopped: a signal ended them, after they had saved.
    """
    resumable = [
        replace(j, resume=j.out) if (j.out / "arguments.json").exists() else j for j in jobs
    ]
    alone = getattr(os, "setpgrp", None)
    context = multiprocessing.get_context("spawn")
    together = min(at_once, len(jobs)) or 1
    with (
        _interrupted_by_termination(),
        _environment(shared(together)),
        context.Pool(together, alone, maxtasksperchild=1) as pool,
    ):
        done = pool.imap(_logged, resumable, chunksize=1)
        yield from zip(jobs, done, strict=True)


def _logged(job: Any) -> str:
    """Run a job in its own process; its stderr goes into a log beside the run. Returns why the job
    failed, or ""."""
    Path(job.out).parent.mkdir(parents=True, exist_ok=True)
    with open(f"{job.out}.log", "a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            with shell():
                job.run()
        except Stopped:
            raise
        except (UserError, FloatingPointError) as error:
            print(f"logpi: {one_line(error)}", file=sys.stderr)
            return one_line(error)
    return ""


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started meanwhile have these variables."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name)
        os.environ.update({k: v for k, v in before.items() if k in values})


@contextlib.contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """A termination signal ends this process as Ctrl-C does, so no job is left running."""

    def handle(number: int, frame: object) -> None:
        raise Stopped("stopped; what was saved can be resumed: --resume RUN", number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

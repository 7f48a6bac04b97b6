"""How every job begins and ends its run.

Left out: what a job does (each job's `run`), its options (`options/`), and the run's directory
(`runs/`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.distributed import cores, threads
from logpi.distributed.world import current
from logpi.errors import Stopped, UserError
from logpi.jobs.options.fields import changeable
from logpi.jobs.options.fingerprint import shown
from logpi.jobs.options.run import RunArguments
from logpi.jobs.options.saved import to_json
from logpi.runs.versions import began_with

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.envs.task import Row
    from logpi.learner import Learner
    from logpi.rewards import Rewards
    from logpi.runs.directory import Run
    from logpi.runs.ranks import JointRun
    from logpi.train import Outcome

# environment variables that torchrun and `logpi launch` set
LAUNCHED = {"TORCHELASTIC_RUN_ID", "LOGPI_LAUNCH"}


def to_resume(arguments: RunArguments) -> Path | None:
    """The run to resume, if any: the one asked for, or, when a launcher starts a command again,
    the run in its --out."""
    started = arguments.out is not None and (arguments.out / "arguments.json").exists()
    return arguments.resume or (arguments.out if started and LAUNCHED & set(os.environ) else None)


def settle_threads(arguments: RunArguments) -> None:
    """Compute with as many threads as were asked for, or else as the run to resume began with: with
    others its numbers would not be the same bits. Says what was chosen. Every rank calls it."""
    resumed = to_resume(arguments)
    began = 0 if resumed is None or threads.own_number() else began_with(resumed)
    threads.settle(arguments.threads or began)
    if line := threads.chosen():
        _say(line)
    fit = threads.fitting() or cores()
    if began > fit and not arguments.threads:
        _say(
            f"this run began with {began} threads and goes on with them, for the same bits; {fit}"
            f" would suit this machine now: --threads {fit} (the same up to rounding)"
        )


@cache
def _say(line: str) -> None:
    """Print a line, once in a process."""
    print(line, file=sys.stderr)


def opened(arguments: RunArguments, command: str) -> Run | JointRun:
    """A new run, or the one to resume, which has these arguments from now on."""
    from logpi.runs.directory import Run, next_path
    from logpi.runs.ranks import joint_run

    def make() -> Run:
        if (resumed := to_resume(arguments)) is not None:
            free = ("out", *changeable(type(arguments)))
            check_alike(resumed, command, to_json(arguments), free)
            return Run.open(resumed, arguments.trackers, to_json(arguments))
        path = arguments.out or next_path(command)
        return Run.create(path, command, to_json(arguments), arguments.trackers)

    return joint_run(make)


def check_alike(
    path: Path, command: str, arguments: Mapping[str, Any], free: Collection[str]
) -> None:
    """Raises UserError if the run to resume is of another command, or was begun with other
    arguments; those in `free` may differ."""
    from logpi.runs.directory import read_arguments

    _, before = read_arguments(path, command)
    for name, value in arguments.items():
        if name not in free and value != before.get(name, value):
            raise UserError(
                f"{path} was begun with {name} {shown(before[name])}, not {shown(value)}: a run"
                " keeps its own options"
            )


def settle(run: Run | JointRun, outcome: Outcome) -> None:
    """Check that training ended and changed the policy.

    Raises:
        Stopped: a signal ended it; it can be resumed. UserError: no step changed the policy.
    """
    if outcome.stopped:
        text = (
            f"stopped after step {outcome.step}; resume with: logpi {run.command} --resume"
            f" {run.path}"
        )
        raise Stopped(text, outcome.stopped)
    if outcome.step and outcome.skipped >= outcome.step:
        raise UserError(
            f"no gradient was finite in any of the {outcome.step} steps of {run.path}, so nothing"
            " was learned and there is no model: begin anew with a lower learning rate, and look"
            " at the losses in its metrics.jsonl"
        )


def finish(
    run: Run | JointRun,
    save: Callable[[Path], object],
    learner: Learner,
    outcome: Outcome,
    names: Sequence[Any],
) -> None:
    """Save the model, draw the curves, and print where everything is. Raises as `settle`.

    After a collapse the best checkpoint is the model.
    """
    from logpi.distributed.sharding import mesh_of

    settle(run, outcome)
    best = run.best(mesh_of(learner.policy)) if outcome.collapsed else None
    if best is not None:
        learner.load_state_dict(best[1]["learner"])
        print(
            f"the policy collapsed; {run.model} holds the best one, of step {best[0]}",
            file=sys.stderr,
        )
    run.save_model(save)
    if not current().first:
        return
    print(f"model   {run.model}\n{drawn(run, names)}\nrun     {run.path}", file=sys.stderr)


def drawn(run: Run | JointRun, names: Sequence[Any]) -> str:
    """Draw a run's curves. Returns a line that says where they are, or why there are none: the
    model is worth more than its picture, so a failure is no error."""
    from logpi.runs.plots import curves

    try:
        curves(run.path, names, run.path / "curves.png")
        return f"curves  {run.path / 'curves.png'}"
    except UserError as error:
        return f"curves  none: {error}"


def prompts_and_judge(a: Any) -> tuple[list[Row], Rewards]:
    """The first training rows of the job's task, as many as `a.prompts`, and what judges responses
    to them, checked against each other."""
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import rewards

    task = make_task(a.task)
    judge = rewards(a.rewards, a.device) if a.rewards else task.reward
    rows = list(task.rows("train", a.seed)[: a.prompts])
    judge.check(list(rows[0]), rows)
    return rows, judge


def whole_groups(algorithm: Algorithm, groups: int, option: str) -> None:
    """Raises UserError if minibatches would split rows that the objective scores together."""
    minibatches = getattr(algorithm.update, "minibatches", 1)
    if algorithm.objective.whole_groups and minibatches > groups:
        raise UserError(
            f"{algorithm.name} scores a group's rows together: {minibatches} minibatches of"
            f" {option} {groups} would part them; at most {groups}"
        )

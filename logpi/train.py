"""The loop: rollout, update, log, evaluate, checkpoint; and going on after a stop exactly where it
was.

    train(rollout, learner, run, steps=100)

It holds no algorithm, no model and no environment. A step is all or nothing: a kill loses the step
under way, and the resumed run repeats it bit for bit. What is in a run's directory is `logpi.runs`'
business.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.errors import RunError
from logpi.runs.collapse import Collapse
from logpi.runs.metrics import read_metrics
from logpi.runs.progress import Progress
from logpi.runs.rng import load_rng_state, rng_state

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.learner import Learner
    from logpi.runs.directory import Run
    from logpi.types import Collected, Rollout

__all__ = ["Evaluate", "Outcome", "train"]

Evaluate = Callable[[int], tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]]
"""Called with the step; returns numbers (`eval/...`, the first of which says which policy is best)
and rows for people."""

notices = logging.getLogger("logpi")
SHOWN = ("reward", "loss", "entropy", "kl", "completions/mean_length", "grad_norm")


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        step: steps done in all. stopped: the signal (Ctrl-C, a termination) that ended it after
            saving, or 0.
        collapsed: the reward went away and did not come back. best_step: of the best evaluation, or
            None.
        first, last: the evaluations before training and after it.
        skipped: steps that changed nothing, for no gradient was finite.
    """

    step: int
    stopped: int
    collapsed: bool
    best_step: int | None
    first: Mapping[str, float]
    last: Mapping[str, float]
    skipped: int = 0


class _Loop:
    """Everything that changes outside learner and rollout."""

    def __init__(self) -> None:
        self.watch = Collapse()
        self.best, self.best_step = float("-inf"), -1
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.tokens = 0.0
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "watch": self.watch.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.watch.load_state_dict(state["watch"])
        self.__dict__.update(
            {k: state[k] for k in (state.keys() & self.__dict__.keys()) - {"watch"}}
        )


def train(
    rollout: Rollout,
    learner: Learner,
    run: Run,
    *,
    steps: int,
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    save_every: int = 10,
    shown: Sequence[str] = SHOWN,
    progress: Progress | None = None,
) -> Outcome:
    """Train for `steps` updates in all, going on from the run's latest checkpoint if there is one.

    Args:
        evaluate: measured before the first step, every `eval_every` steps (0: only then) and after
            the last; the policy with the highest first number is kept as the best checkpoint.
        save_every: steps between checkpoints. One is written at the end, and on Ctrl-C, in any
            case.
        shown: names of the numbers on the progress line.
    Raises:
        RunError: the disk failed; the last good checkpoint is intact. Or the run's checkpoints
            cannot be gone on from, or have more steps.
    """
    loop = _Loop()
    start = _resume(run, rollout, learner, loop, steps)
    with progress or Progress(steps) as shower, _stop_on_signal(shower.note) as stopping:
        if (
            start == 0 and evaluate is not None and not loop.first
        ):  # else it was measured before the run was stopped
            _evaluate(evaluate, 0, run, loop, shower)
            _save(run, 0, rollout, learner, loop, best=True)
        step = start
        shower.begin(step)
        while step < steps and not stopping:
            step += 1
            metrics = _step(step, rollout, learner, run, loop)
            shower.step(
                step,
                {k: metrics[k] for k in shown if k in metrics},
                int(metrics.get("num_tokens", 0)),
            )
            if metrics.get("skipped"):
                shower.note(
                    f"step {step}: a gradient was not finite; its optimiser step was left out (a"
                    " lower learning rate helps)"
                )
            alarm = loop.watch(step, metrics)
            if alarm:
                shower.note(alarm)
            due = step == steps or (eval_every > 0 and step % eval_every == 0)
            best = evaluate is not None and due and _evaluate(evaluate, step, run, loop, shower)
            if best or step == steps or stopping or step % save_every == 0:
                _save(run, step, rollout, learner, loop, best)
    stopped = stopping[0] if stopping and step < steps else 0
    best_step = loop.best_step if evaluate is not None else None
    return Outcome(step, stopped, loop.watch.warned, best_step, loop.first, loop.last, loop.skipped)


def _step(step: int, rollout: Rollout, learner: Learner, run: Run, loop: _Loop) -> dict[str, float]:
    begin = time.perf_counter()
    collected = rollout()
    between = time.perf_counter()
    metrics = {**collected.metrics, **learner.update(collected.batch)}
    learner.release()
    end = time.perf_counter()
    loop.skipped += metrics.get("skipped", 0.0) == 1.0
    loop.tokens += collected.metrics.get("num_tokens", 0.0)
    metrics |= {
        "num_tokens_seen": loop.tokens,
        "time/rollout": between - begin,
        "time/update": end - between,
    }
    metrics["step_time"] = end - begin
    run.log(step, metrics)
    if collected.samples:
        run.samples(step, _taught(collected, learner.advantage))
    return metrics


def _taught(collected: Collected, advantage: Tensor | None) -> Sequence[Mapping[str, Any]]:
    """The samples with the advantage of each own token; one number where all are equal, none where
    a row was not trained on."""
    mask = collected.batch.mask
    if advantage is None or len(collected.samples) != len(mask):
        return collected.samples
    given = [
        [round(x, 5) for x in row[own].tolist()]
        for row, own in zip(advantage.cpu(), mask.cpu(), strict=True)
    ]
    one = [None if not g else g[0] if min(g) == max(g) else g for g in given]
    return [{**s, "advantage": a} for s, a in zip(collected.samples, one, strict=True)]


def _evaluate(evaluate: Evaluate, step: int, run: Run, loop: _Loop, shower: Progress) -> bool:
    """Measure, log and show; True if this is the best so far."""
    numbers, rows = evaluate(step)
    numbers = {k: float(v) for k, v in numbers.items()}
    run.log(step, numbers)
    if rows:
        run.samples(step, rows, kind="eval")
    shower.note(
        f"evaluation at step {step}: "
        + ", ".join(
            f"{k.removeprefix('eval/')} {v:.3g}"
            for k, v in numbers.items()
            if not k.startswith("time/")
        )
    )
    loop.first, loop.last = loop.first or numbers, numbers
    score = next(iter(numbers.values()))
    better = score > loop.best
    if better:
        loop.best, loop.best_step = score, step
    return better


def _save(run: Run, step: int, rollout: Rollout, learner: Learner, loop: _Loop, best: bool) -> None:
    run.checkpoint(step, _state(rollout, learner, loop), best=best)


def _state(rollout: Rollout, learner: Learner, loop: _Loop) -> dict[str, Any]:
    return {
        "learner": learner.state_dict(),
        "rollout": rollout.state_dict(),
        "rng": rng_state(),
        "loop": loop.state_dict(),
    }


def _resume(run: Run, rollout: Rollout, learner: Learner, loop: _Loop, steps: int) -> int:
    """Put everything back to the latest checkpoint; the number of steps done."""
    found = run.latest()
    if found is None:
        again = max((r["step"] for r in read_metrics(run.path)), default=0)
        if again:
            notices.warning(
                "%s was ended before its first checkpoint: its %d steps are done again",
                run.path,
                again,
            )
        run.rewind(-1)
        return 0
    step, state = found
    if step > steps:
        raise RunError(
            f"{run.path} has {step} updates, more than the {steps} that it shall have: ask for"
            " more, or leave it as it is"
        )
    try:
        _check_alike(_state(rollout, learner, loop), state)
        learner.load_state_dict(state["learner"])
        rollout.load_state_dict(state["rollout"])
        loop.load_state_dict(state["loop"])
        load_rng_state(state["rng"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"the checkpoint of step {step} in {run.path} is of another model or version: "
            f"{type(error).__name__}: {error}"
        ) from error
    lost = sorted(set(range(1, step + 1)) - {r["step"] for r in read_metrics(run.path)})
    if lost:
        notices.warning(
            "%s has lost %d of %d steps, the first of them step %d; the run goes on without their"
            " numbers",
            run.path / "metrics.jsonl",
            len(lost),
            step,
            lost[0],
        )
    run.rewind(step)
    return step


def _check_alike(mine: Any, saved: Any) -> None:
    """Where a state has a number or a dict now, a checkpoint must have one too.

    Raises:
        TypeError, ValueError, AttributeError: it has not.
    """
    if isinstance(mine, dict):
        for key in mine.keys() & saved.keys():
            _check_alike(mine[key], saved[key])
    elif type(mine) in (int, float) and not isinstance(
        saved, int if type(mine) is int else int | float
    ):
        raise TypeError(f"{saved!r} is not a number like {mine!r}")
    elif type(mine) is int and abs(mine) < 2**63 <= abs(saved):
        raise ValueError(f"{saved} where there was {mine}")


@contextmanager
def _stop_on_signal(note: Callable[[str], None]) -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM) lets the step end and be saved; the second interrupts at once.

    Gives a list of the signals that came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        came.append(number)
        with suppress(RuntimeError):  # it came while a line was being written
            note("stopping when this step is done and saved; Ctrl-C again stops at once")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for s, old in before.items():
            signal.signal(s, old)

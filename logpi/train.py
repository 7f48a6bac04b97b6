"""The loop, as a generator of steps: rollout, update, log, evaluate, checkpoint; and going on after
a stop exactly where it was.

    for step in train(rollout, learner, "runs/mine", steps=100):
        print(step.number, step.metrics["reward"])        # leaving the loop saves and stops

    outcome = complete(train(rollout, learner, run, steps=100))

It holds no algorithm, no model and no environment. A step is all or nothing: a kill loses the step
under way, and the resumed run repeats it bit for bit. What is in a run's directory is the business
of `logpi.runs`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from logpi.errors import RunError
from logpi.runs.collapse import Collapse
from logpi.runs.directory import Run
from logpi.runs.metrics import read_metrics
from logpi.runs.progress import Progress
from logpi.runs.rng import load_rng_state, rng_state
from logpi.runs.signals import StopSignals

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.learner import Learner
    from logpi.types import Collected, Rollout

__all__ = ["Evaluate", "Outcome", "TrainingStep", "complete", "train"]

Evaluate = Callable[[int], tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]]
"""Called with the step; returns numbers (`eval/...`, the first of which says which policy is best)
and rows for people."""

notices = logging.getLogger("logpi")
SHOWN = ("reward", "loss", "entropy", "kl", "completions/mean_length", "grad_norm")


@dataclass(frozen=True)
class TrainingStep:
    """One update that was made.

    Attributes:
        number: of the step, from 1.
        metrics: of the rollout and the update, as they are logged.
        samples: rows for people: prompts, completions, rewards, advantages.
        evaluation: numbers of the evaluation after this step, or None if there was none.
        so_far: what the outcome would be if training ended here.
    """

    number: int
    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, float] | None
    so_far: Outcome


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
        step: steps done in all.
        stopped: the signal (Ctrl-C, a termination) that ended it after saving, or 0.
        collapsed: the reward went away and did not come back.
        best_step: of the best evaluation, or None.
        first, best, last: the evaluations before training, of the best policy, and after training.
        skipped: steps that changed nothing, for no gradient was finite.
    """

    step: int
    stopped: int
    collapsed: bool
    best_step: int | None
    first: Mapping[str, float]
    last: Mapping[str, float]
    skipped: int = 0
    best: Mapping[str, float] | None = None


class _Loop:
    """Everything that changes outside learner and rollout."""

    def __init__(self) -> None:
        self.collapse = Collapse()
        self.best, self.best_step = float("-inf"), -1
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.best_numbers: dict[str, float] = {}
        self.tokens = 0.0
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "collapse": self.collapse.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collapse.load_state_dict(state["collapse"])
        known = (state.keys() & self.__dict__.keys()) - {"collapse"}
        self.__dict__.update({k: state[k] for k in known})

    def outcome(self, step: int, stopped: int, measured: bool) -> Outcome:
        best = (self.best_step, self.best_numbers) if measured else (None, None)
        return Outcome(
            step,
            stopped,
            self.collapse.warned,
            best[0],
            self.first,
            self.last,
            self.skipped,
            best[1],
        )


class _Unrecorded:
    """In place of a run's directory: nothing is written."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def samples(self, step: int, rows: Any, kind: str = "step") -> None: ...
    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None: ...


def complete(steps: Generator[TrainingStep, None, Outcome]) -> Outcome:
    """Take every step of `train`."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def train(  # noqa: PLR0913 (settings, all keywords)
    rollout: Rollout,
    learner: Learner,
    run: Run | str | Path | None = None,
    *,
    steps: int,
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    save_every: int = 10,
    shown: Sequence[str] = SHOWN,
    progress: Progress | None = None,
    alone: bool = False,
) -> Generator[TrainingStep, None, Outcome]:
    """Train for `steps` updates in all, going on from the run's latest checkpoint if there is one.

    Yields each step after it was logged, evaluated and saved. A caller that leaves the loop stops
    training: the last step is saved first. The generator's value is the `Outcome` (`complete`).
    Ctrl-C and SIGTERM let a step end and be saved; between steps they are the caller's.

    Args:
        run: where metrics, samples and checkpoints go; a path is made a run, or gone on with. None:
            nothing is written.
        evaluate: measured before the first step, every `eval_every` steps (0: only then) and after
            the last; the policy with the highest first number is kept as the best checkpoint.
        save_every: steps between checkpoints. One is written at the end, on Ctrl-C and when the
            caller leaves, in any case.
        shown: names of the numbers on the progress line.
        alone: no other code runs between steps, so signals are held there too.
    Raises:
        RunError: the disk failed; the last good checkpoint is intact. Or the run's checkpoints
            cannot be gone on from, or have more steps.
    """
    if isinstance(run, str | Path):
        started = (Path(run) / "arguments.json").exists()
        with Run.open(run) if started else Run.create(run, "train", {}) as opened:
            return (yield from train(
                rollout, learner, opened, steps=steps, evaluate=evaluate, eval_every=eval_every,
                save_every=save_every, shown=shown, progress=progress, alone=alone,
            ))  # fmt: skip
    loop, record = _Loop(), run or _Unrecorded()
    step = saved = 0 if run is None else _resume(run, rollout, learner, loop, steps)
    with progress or Progress(steps) as shower, ExitStack() as whole:
        stopping = StopSignals(shower.note)
        if alone:
            whole.enter_context(stopping.caught())

        def save(best: bool = False) -> None:
            record.checkpoint(step, _state(rollout, learner, loop), best=best)

        with stopping.caught():
            # Not again if it was measured before the run was stopped.
            if step == 0 and evaluate is not None and not loop.first:
                _evaluate(evaluate, 0, record, loop, shower)
                save(best=True)
        shower.begin(step)
        while step < steps and not stopping.came:
            step += 1
            with stopping.caught():
                metrics, samples = _step(step, rollout, learner, record, loop)
                _show(step, metrics, shown, loop, shower)
                due = step == steps or (eval_every > 0 and step % eval_every == 0)
                measure = evaluate if due else None
                best = measure is not None and _evaluate(measure, step, record, loop, shower)
                if best or step == steps or stopping.came or step % save_every == 0:
                    save(best)
                    saved = step
            try:
                so_far = loop.outcome(step, 0, evaluate is not None)
                numbers = loop.last if measure else None
                yield TrainingStep(step, metrics, samples, numbers, so_far)
            except GeneratorExit:
                if saved < step:
                    save()
                raise
    return loop.outcome(step, stopping.came if step < steps else 0, evaluate is not None)


def _show(
    step: int, metrics: Mapping[str, float], shown: Sequence[str], loop: _Loop, shower: Progress
) -> None:
    """The step's numbers, and what is wrong with them."""
    values = {k: metrics[k] for k in shown if k in metrics}
    shower.step(step, values, int(metrics.get("num_tokens", 0)))
    if metrics.get("skipped"):
        shower.note(
            f"step {step}: a gradient was not finite; its optimiser step was left out (a lower"
            " learning rate helps)"
        )
    if alarm := loop.collapse(step, metrics):
        shower.note(alarm)


def _step(
    step: int, rollout: Rollout, learner: Learner, run: Run | _Unrecorded, loop: _Loop
) -> tuple[dict[str, float], Sequence[Mapping[str, Any]]]:
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
    samples = _with_advantages(collected, learner.advantage)
    if samples:
        run.samples(step, samples)
    return metrics, samples


def _with_advantages(collected: Collected, advantage: Tensor | None) -> Sequence[Mapping[str, Any]]:
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


def _evaluate(
    evaluate: Evaluate, step: int, run: Run | _Unrecorded, loop: _Loop, shower: Progress
) -> bool:
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
        loop.best, loop.best_step, loop.best_numbers = score, step, numbers
    return better


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


class _Callable(ModuleType):
    """`logpi.train` is this module and its function."""

    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable

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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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


class _Unrecorded:
    """In place of a run's directory: nothing is written, and there is nothing to go on from."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def samples(self, step: int, rows: Any, kind: str = "step") -> None: ...
    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None: ...


@contextmanager
def _opened(run: Run | str | Path | None) -> Iterator[Run | _Unrecorded]:
    """The run, which its caller closes; or the run at a path, made or gone on with."""
    if not isinstance(run, str | Path):
        yield run or _Unrecorded()
        return
    started = (Path(run) / "arguments.json").exists()
    with Run.open(run) if started else Run.create(run, "train", {}) as opened:
        yield opened


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

    Yields each step when it is logged, measured and saved. A caller that leaves the loop stops
    training, and the last step is saved. The generator's value is the `Outcome` (`complete`).

    Args:
        run: where everything is written; a path is made a run, or gone on with; None: nowhere.
        evaluate: measured before the first step, every `eval_every` steps (0: only then) and after
            the last; the policy with the highest first number is the best checkpoint.
        save_every: steps between checkpoints; at the end there is one in any case.
        shown: numbers of the progress line. alone: signals between steps are held too.
    Raises:
        RunError: the disk failed, or the run's checkpoints cannot be gone on from.
    """
    with _opened(run) as record, progress or Progress(steps) as shower, ExitStack() as whole:
        loop, stopping = _Loop(rollout, learner, record, evaluate), StopSignals(shower.note)
        if alone:
            whole.enter_context(stopping.caught())
        step = loop.resume(steps)
        with stopping.caught():
            loop.begin(step, shower)
        while step < steps and not stopping.came:
            step += 1
            with stopping.caught():
                due = step == steps or (eval_every > 0 and step % eval_every == 0)
                taken = loop.take(step, due, shown, shower)
                if step == steps or stopping.came or step % save_every == 0:
                    loop.save(step)
            try:
                yield taken
            except GeneratorExit:
                loop.save(step)
                raise
        # A signal may come when the step's own time to be saved is over.
        if stopped := stopping.came if step < steps else 0:
            loop.save(step)
        return loop.outcome(step, stopped)


class _Loop:
    """What the steps of one call share, and everything that changes outside learner and rollout."""

    def __init__(
        self,
        rollout: Rollout,
        learner: Learner,
        run: Run | _Unrecorded,
        evaluate: Evaluate | None,
    ) -> None:
        self.rollout, self.learner, self.run, self.evaluate = rollout, learner, run, evaluate
        self.saved = -1
        self.progress = _SoFar()

    def resume(self, steps: int) -> int:
        """Put everything back to the run's latest checkpoint; the number of steps done."""
        if isinstance(self.run, _Unrecorded):
            return 0
        self.saved = _resume(self.run, self, steps)
        return max(0, self.saved)

    def begin(self, step: int, shower: Progress) -> None:
        """Measure the policy as it is, but not again if that was done before a stop."""
        if step == 0 and self.evaluate is not None and not self.progress.first:
            self._measure(0, shower)
        shower.begin(step)

    def take(
        self, step: int, measure: bool, shown: Sequence[str], shower: Progress
    ) -> TrainingStep:
        """One step: sampled, learned, logged, shown, and measured where that is due."""
        metrics, samples = self._update(step)
        values = {k: metrics[k] for k in shown if k in metrics}
        shower.step(step, values, int(metrics.get("num_tokens", 0)))
        if metrics.get("skipped"):
            shower.note(
                f"step {step}: a gradient was not finite; its optimiser step was left out (a lower"
                " learning rate helps)"
            )
        if alarm := self.progress.collapse(step, metrics):
            shower.note(alarm)
        measure = measure and self.evaluate is not None
        if measure:
            self._measure(step, shower)
        numbers = self.progress.last if measure else None
        return TrainingStep(step, metrics, samples, numbers, self.outcome(step, 0))

    def save(self, step: int, best: bool = False) -> None:
        """Write a checkpoint, once for each step."""
        if self.saved < step or best:
            self.run.checkpoint(step, self.state_dict(), best=best)
            self.saved = step

    def outcome(self, step: int, stopped: int) -> Outcome:
        done, measured = self.progress, self.evaluate is not None
        best = (done.best_step, done.best_numbers) if measured else (None, None)
        ends = (best[0], done.first, done.last, done.skipped, best[1])
        return Outcome(step, stopped, done.collapse.warned, *ends)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "rollout": self.rollout.state_dict(),
            "rng": rng_state(),
            "loop": self.progress.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.rollout.load_state_dict(state["rollout"])
        self.progress.load_state_dict(state["loop"])
        load_rng_state(state["rng"])

    def _update(self, step: int) -> tuple[dict[str, float], Sequence[Mapping[str, Any]]]:
        begin = time.perf_counter()
        collected = self.rollout()
        between = time.perf_counter()
        metrics = {**collected.metrics, **self.learner.update(collected.batch)}
        self.learner.release()
        end = time.perf_counter()
        self.progress.skipped += metrics.get("skipped", 0.0) == 1.0
        self.progress.tokens += collected.metrics.get("num_tokens", 0.0)
        metrics |= {
            "num_tokens_seen": self.progress.tokens,
            "time/rollout": between - begin,
            "time/update": end - between,
        }
        metrics["step_time"] = end - begin
        self.run.log(step, metrics)
        samples = _with_advantages(collected, self.learner.advantage)
        if samples:
            self.run.samples(step, samples)
        return metrics, samples

    def _measure(self, step: int, shower: Progress) -> None:
        """Measure, log and show; save the best policy so far."""
        assert self.evaluate is not None
        numbers, rows = self.evaluate(step)
        numbers = {k: float(v) for k, v in numbers.items()}
        self.run.log(step, numbers)
        if rows:
            self.run.samples(step, rows, kind="eval")
        said = (
            f"{k.removeprefix('eval/')} {v:.3g}"
            for k, v in numbers.items()
            if not k.startswith("time/")
        )
        shower.note(f"evaluation at step {step}: {', '.join(said)}")
        if self.progress.measured(step, numbers):
            self.save(step, best=True)


class _SoFar:
    """What a run has come to; part of its checkpoints."""

    def __init__(self) -> None:
        self.collapse = Collapse()
        self.best, self.best_step = float("-inf"), -1
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.best_numbers: dict[str, float] = {}
        self.tokens = 0.0
        self.skipped = 0

    def measured(self, step: int, numbers: dict[str, float]) -> bool:
        """Keep an evaluation's numbers; whether it is the best so far."""
        self.first, self.last = self.first or numbers, numbers
        score = next(iter(numbers.values()))
        better = score > self.best
        if better:
            self.best, self.best_step, self.best_numbers = score, step, numbers
        return better

    def state_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "collapse": self.collapse.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collapse.load_state_dict(state["collapse"])
        known = (state.keys() & self.__dict__.keys()) - {"collapse"}
        self.__dict__.update({k: state[k] for k in known})


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


def _resume(run: Run, loop: _Loop, steps: int) -> int:
    """Load the latest checkpoint; its step, or -1 where there is none."""
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
        return -1
    step, state = found
    if step > steps:
        raise RunError(
            f"{run.path} has {step} updates, more than the {steps} that it shall have: ask for"
            " more, or leave it as it is"
        )
    try:
        _check_alike(loop.state_dict(), state)
        loop.load_state_dict(state)
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

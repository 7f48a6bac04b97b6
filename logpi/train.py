"""The training loop, as a generator of steps: rollout, update, log, evaluate, checkpoint. A run
that was stopped is resumed exactly where it was.

    for step in train(rollout, learner, "runs/mine", steps=100):
        print(step.number, step.metrics["reward"])        # leaving the loop saves and stops

    outcome = complete(train(rollout, learner, run, steps=100))

It holds no algorithm, no model and no environment. A step is all or nothing: a kill loses the step
under way, and the resumed run repeats it bit for bit. It leaves out how a run's directory is
written and read (`logpi.runs`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from logpi.distributed.sharding import mesh_of
from logpi.errors import SamplerLost
from logpi.runs.collapse import Collapse
from logpi.runs.contention import Contention
from logpi.runs.directory import Run
from logpi.runs.progress import Progress
from logpi.runs.ranks import JointRun, joint_run
from logpi.runs.resume import resume
from logpi.runs.rng import load_rng_state, rng_state
from logpi.runs.signals import StopSignals

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.learner import Learner
    from logpi.types import Collected, Rollout

__all__ = ["Evaluate", "Outcome", "TrainingStep", "complete", "train"]

Evaluate = Callable[[int], tuple[Mapping[str, float], Sequence[Mapping[str, Any]]]]
"""Called with the step. Returns numbers (`eval/...`; the first one decides which policy is best)
and samples for people to read."""

SHOWN = ("reward", "loss", "entropy", "kl", "completions/mean_length", "grad_norm")


@dataclass(frozen=True)
class TrainingStep:
    """One step of training, after its update.

    Attributes:
        number: of the step, from 1.
        metrics: of the rollout and the update, as they are logged.
        samples: for people to read: prompts, completions, rewards, advantages.
        evaluation: numbers of the evaluation after this step, or None if there was none.
        so_far: the outcome if training ended here.
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
        step: number of steps in all.
        stopped: the signal (Ctrl-C, a termination) that ended it after saving, or 0.
        collapsed: the reward fell and did not recover.
        best_step: of the best evaluation, or None.
        first, best, last: the evaluations before training, of the best policy, and after training.
        skipped: number of steps that changed nothing, because no gradient was finite.
    """

    step: int
    stopped: int
    collapsed: bool
    best_step: int | None
    first: Mapping[str, float]
    last: Mapping[str, float]
    skipped: int = 0
    best: Mapping[str, float] | None = None


class _NoRun:
    """Stands for a run's directory where there is none: nothing is written."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def samples(self, step: int, rows: Any, kind: str = "step") -> None: ...
    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None: ...


@contextmanager
def _open(run: Run | JointRun | str | Path | None) -> Iterator[Run | JointRun | _NoRun]:
    """An open run stays open; a run at a path is created or resumed, and closed afterwards."""
    if not isinstance(run, str | Path):
        yield run or _NoRun()
        return

    def make() -> Run:
        started = (Path(run) / "arguments.json").exists()
        return Run.open(run) if started else Run.create(run, "train", {})

    with joint_run(make) as at_path:
        yield at_path


def complete(steps: Generator[TrainingStep, None, Outcome]) -> Outcome:
    """Take every step of `train`; its outcome."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def train(  # noqa: PLR0913 (settings, all keywords)
    rollout: Rollout,
    learner: Learner,
    run: Run | JointRun | str | Path | None = None,
    *,
    steps: int,
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    save_every: int = 10,
    shown: Sequence[str] = SHOWN,
    progress: Progress | None = None,
    alone: bool = False,
) -> Generator[TrainingStep, None, Outcome]:
    """Train for `steps` updates in all, from the run's latest checkpoint if there is one.

    Yields each step after it was logged, evaluated and saved. The last step is always saved, even
    if the caller leaves the loop. The generator's value is the `Outcome` (`complete`).

    Args:
        run: where to write. The run at a path is created or resumed; None: nowhere.
        evaluate: called before the first step, every `eval_every` steps (0: not in between) and
            after the last; the policy with the highest first number is the best checkpoint.
        save_every: steps between checkpoints. shown: numbers of the progress line.
        alone: signals between steps stop training too.
    Raises:
        RunError: the disk failed, or a checkpoint is bad. SamplerLost: none is left; all is saved.
    """
    with _open(run) as record, progress or Progress(steps) as display, ExitStack() as whole:
        loop, stop = _Loop(rollout, learner, record, evaluate, display), StopSignals(display.note)
        if alone:
            whole.enter_context(stop.caught())
        step = loop.resume(steps)
        with stop.caught(), loop.saved_if_lost():
            loop.begin(step)
        while step < steps and not stop.agreed():
            step += 1
            with stop.caught(), loop.saved_if_lost():
                due = step == steps or (eval_every > 0 and step % eval_every == 0)
                taken = loop.take(step, due, shown)
                if step == steps or step % save_every == 0 or stop.agreed():
                    loop.save(step)
            try:
                yield taken
            except GeneratorExit:
                loop.save(step)
                raise
        if stopped := stop.came if step < steps else 0:
            loop.save(step)  # it may have come after the step's own save
        return loop.outcome(step, stopped)


class _Loop:
    """What the steps of one call share."""

    def __init__(
        self,
        rollout: Rollout,
        learner: Learner,
        run: Run | JointRun | _NoRun,
        evaluate: Evaluate | None,
        display: Progress,
    ) -> None:
        self.rollout, self.learner, self.run, self.evaluate = rollout, learner, run, evaluate
        self.display = display
        self.saved, self.done = -1, 0
        self.history, self.contention = _SoFar(), Contention()

    def resume(self, steps: int) -> int:
        """Load the run's latest checkpoint; the number of its steps."""
        if isinstance(self.run, _NoRun):
            return 0
        self.saved = resume(self.run, self, steps, mesh_of(self.learner.policy))
        self.done = max(0, self.saved)
        return self.done

    def begin(self, step: int) -> None:
        """Evaluate the policy before training, unless that was done before a stop."""
        if step == 0 and self.evaluate is not None and not self.history.first:
            self._evaluate(self.evaluate, 0)
        self.display.begin(step)

    def take(self, step: int, evaluation_due: bool, shown: Sequence[str]) -> TrainingStep:
        """One step: sample, learn, log, show, and evaluate if that is due."""
        self.contention.start()
        metrics, samples = self._update(step)
        values = {k: metrics[k] for k in shown if k in metrics}
        self.display.step(step, values, int(metrics.get("num_tokens", 0)))
        if metrics.get("skipped"):
            self.display.note(
                f"step {step}: a gradient was not finite; its optimiser step was left out (a lower"
                " learning rate helps)"
            )
        for alarm in (self.history.collapse(step, metrics), self.contention(step)):
            if alarm:
                self.display.note(alarm)
        numbers = None
        if evaluation_due and self.evaluate is not None:
            numbers = self._evaluate(self.evaluate, step)
        return TrainingStep(step, metrics, samples, numbers, self.outcome(step, 0))

    def save(self, step: int, best: bool = False) -> None:
        """Write a checkpoint, once for each step."""
        if self.saved < step or best:
            self.run.checkpoint(step, self.state_dict(), best=best)
            self.saved = step

    @contextmanager
    def saved_if_lost(self) -> Iterator[None]:
        """When nobody samples any more, the steps that are done are saved first."""
        try:
            yield
        except SamplerLost as error:
            self.save(self.done)
            path = self.run.path if isinstance(self.run, Run | JointRun) else "RUN"
            raise SamplerLost(
                f"{error}. Step {self.done} is saved; resume with --resume {path}"
            ) from error

    def outcome(self, step: int, stopped: int) -> Outcome:
        history, evaluated = self.history, self.evaluate is not None
        return Outcome(
            step,
            stopped,
            history.collapse.warned,
            history.best_step if evaluated else None,
            history.first,
            history.last,
            history.skipped,
            history.best_numbers if evaluated else None,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "rollout": self.rollout.state_dict(),
            "rng": rng_state(),
            "loop": self.history.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.rollout.load_state_dict(state["rollout"])
        self.history.load_state_dict(state["loop"])
        load_rng_state(state["rng"])

    def _update(self, step: int) -> tuple[dict[str, float], Sequence[Mapping[str, Any]]]:
        begin = time.perf_counter()
        collected = self.rollout()
        between = time.perf_counter()
        metrics = {**collected.metrics, **self.learner.update(collected.batch)}
        self.learner.release()
        self.done = step
        end = time.perf_counter()
        self.history.skipped += metrics.get("skipped", 0.0) == 1.0
        self.history.tokens += collected.metrics.get("num_tokens", 0.0)
        metrics |= {
            "num_tokens_seen": self.history.tokens,
            "time/rollout": between - begin,
            "time/update": end - between,
            "step_time": end - begin,
        }
        self.run.log(step, metrics)
        samples = _with_tokens(collected, self.learner)
        if samples:
            self.run.samples(step, samples)
        return metrics, samples

    def _evaluate(self, evaluate: Evaluate, step: int) -> dict[str, float]:
        """Evaluate, log and show; save the policy if it is the best so far."""
        values, rows = evaluate(step)
        numbers = {k: float(v) for k, v in values.items()}
        self.run.log(step, numbers)
        if rows:
            self.run.samples(step, rows, kind="eval")
        shown = (
            f"{k.removeprefix('eval/')} {v:.3g}"
            for k, v in numbers.items()
            if not k.startswith("time/")
        )
        self.display.note(f"evaluation at step {step}: {', '.join(shown)}")
        if self.history.add_evaluation(step, numbers):
            self.save(step, best=True)
        return numbers


class _SoFar:
    """What happened in a run so far; part of its checkpoints."""

    def __init__(self) -> None:
        self.collapse = Collapse()
        self.best, self.best_step = float("-inf"), -1
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.best_numbers: dict[str, float] = {}
        self.tokens = 0.0
        self.skipped = 0

    def add_evaluation(self, step: int, numbers: dict[str, float]) -> bool:
        """Keep an evaluation's numbers. Returns whether it is the best so far."""
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


def _with_tokens(collected: Collected, learner: Learner) -> Sequence[Mapping[str, Any]]:
    """The samples with the numbers of each own token: the advantage (one number if all are equal),
    the sampler's log-probability, and where the learner evaluated the policy anyway the entropy,
    and its ratio to a sampler of other numerics. None: the row was not learned from."""
    batch, mask, now = collected.batch, collected.batch.mask.cpu(), learner.evaluated
    if learner.advantage is None or len(collected.samples) != len(mask):
        return collected.samples
    columns = {"advantage": _by_token(learner.advantage, mask, 5)}
    columns["logp"] = _by_token(batch.logp, mask, 4)
    if now is not None:
        columns["entropy"] = _by_token(now.entropy, mask, 4)
    if now is not None and not learner.trust.sampler:
        columns["ratio"] = _by_token((now.logp - batch.logp).exp(), mask, 4)
    every = columns["advantage"]
    columns["advantage"] = [x[0] if x and min(x) == max(x) else x for x in every]
    return [
        {**sample, **{name: rows[i] for name, rows in columns.items()}}
        for i, sample in enumerate(collected.samples)
    ]


def _by_token(values: Tensor, mask: Tensor, digits: int) -> list[Any]:
    """Values [B, T] as rounded lists, one for each row, of its own tokens; None: it has none."""
    rows = zip(values.cpu(), mask, strict=True)
    return [[round(x, digits) + 0.0 for x in row[own].tolist()] or None for row, own in rows]


class _Callable(ModuleType):
    """`logpi.train` is this module and its function."""

    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable

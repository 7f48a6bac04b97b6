"""The base class of every job that trains: it sets the job up, trains whole or step by step, and
leaves a run.

    job = logpi.RL(model=model, task=rows, rewards=[score], steps=200)
    result = job.run()                      # whole
    for step in job: ...                    # or step by step; leaving the loop saves and stops

A job is a frozen dataclass of its options; training changes `job.learner`, `job.policy` and
`job.rollout`. Left out: what a job trains (each job's `setup`), and the loop (`logpi.train`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from logpi.distributed import quiet_ranks
from logpi.distributed.world import current
from logpi.errors import UserError, as_user_errors, errors_in_keywords
from logpi.jobs.common import finish, opened, settle_threads, to_resume
from logpi.jobs.options.fields import option
from logpi.jobs.options.fingerprint import shown
from logpi.jobs.options.keywords import from_keywords
from logpi.jobs.options.run import RunArguments, available
from logpi.jobs.options.saved import to_json
from logpi.jobs.options.shown import documentation, signature, text

if TYPE_CHECKING:
    from logpi.learner import Learner
    from logpi.runs.progress import Progress
    from logpi.runs.reading import Metrics
    from logpi.train import Evaluate, Outcome, TrainingStep
    from logpi.types import Rollout

C = TypeVar("C", bound=type)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def job(cls: C) -> C:
    """A class decorator: the class becomes a frozen dataclass that takes words or objects by
    keyword."""
    result: Any = dataclass(frozen=True, kw_only=True, repr=False)(cls)
    set_fields = result.__init__

    def __init__(self: Any, **keywords: Any) -> None:
        with errors_in_keywords(), as_user_errors():
            set_fields(self, **from_keywords(type(self), keywords))

    __init__.__doc__, __init__.__qualname__ = documentation(result), f"{cls.__qualname__}.__init__"
    result.__init__, result.__repr__, result.__signature__ = __init__, text, signature(result)
    return result


def _nothing(*_: Any) -> None:
    """The default of `Setup.begin`, `Setup.end` and `Setup.close`."""


@dataclass(frozen=True)
class Setup:
    """Everything that a job trains with, chosen and loaded.

    Attributes:
        policy: what the result gives. save: writes it as a model into a directory.
        evaluate, eval_every, save_every, shown, progress: as of `train`.
        curves: the panels of the run's picture.
        begin: called when the run's directory exists.
        files: are kept in it from its beginning, by their names.
        end: called with the run after training; it may add files and print a report.
        close: called at the very end, however it came.
        settled: the job with every option known (`options/model_size.py`); None: it was.
    """

    rollout: Rollout
    learner: Learner
    policy: Any
    save: Callable[[Path], object]
    steps: int
    evaluate: Evaluate | None = None
    eval_every: int = 0
    save_every: int = 20
    shown: Sequence[str] | None = None
    curves: Sequence[Any] = ()
    progress: Progress | None = None
    begin: Callable[[], object] = _nothing
    files: Mapping[str, bytes] = field(default_factory=dict)
    end: Callable[[Any, Outcome], object] = _nothing
    close: Callable[[], object] = _nothing
    settled: Any = None


@dataclass(frozen=True)
class Result:
    """The result of a job.

    Attributes:
        path: the run's directory; `logpi.open_run(path)` reads it.
        policy: the policy after training.
        outcome: how training ended; with `first`, `best` and `last` evaluation.
    """

    path: Path
    policy: Any = field(repr=False)
    outcome: Outcome = field(repr=False)

    @property
    def first(self) -> dict[str, float]:
        """Numbers of the evaluation before training."""
        return dict(self.outcome.first)

    @property
    def best(self) -> dict[str, float]:
        """Numbers of the best evaluation."""
        return dict(self.outcome.best or {})

    @property
    def last(self) -> dict[str, float]:
        """Numbers of the last evaluation: after training, unless the caller left the loop."""
        return dict(self.outcome.last)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Upload the model with its card; returns its address (`logpi.policies.cards`)."""
        from logpi.policies.cards import push_to_hub

        return push_to_hub(self.path / "model", repo, **options)

    @property
    def metrics(self) -> Metrics:
        """Every logged number by name: arrays of steps and of values."""
        from logpi.jobs.open_run import open_run

        return open_run(self.path).metrics

    def _repr_html_(self) -> str:
        """In a notebook: the run, and the last value of each metric."""
        from logpi.jobs.open_run import open_run

        return open_run(self.path)._repr_html_()


@dataclass(frozen=True, kw_only=True, repr=False)
class Job(RunArguments):
    """A job that trains. Its options are its fields; see the module."""

    COMMAND: ClassVar[str]
    # whether several ranks can share its work
    RANKS: ClassVar[bool] = False
    HEADING: ClassVar[str] = "several seeds"

    seeds: int = option(
        1, help="runs with consecutive seeds, and a table of them all", least=1, most=1000
    )
    at_once: int = option(
        1, help="of these at the same time; 0: as many as cores", least=0, changeable=True
    )

    if TYPE_CHECKING:

        def __init__(self, **options: Any) -> None: ...

    def setup(self) -> Setup:
        """Choose and load everything. Raises ValueError or UserError before any work is lost."""
        raise NotImplementedError

    def run(self) -> Result:
        """Train to the end.

        Raises:
            UserError: a mistake in the options. Stopped: a signal ended it, after it had saved.
        """
        for _ in self._steps(alone=True):
            pass
        return self.result

    def __iter__(self) -> Iterator[TrainingStep]:
        """Train step by step. Leaving the loop saves a checkpoint and the model, and stops."""
        return self._steps()

    # --- while it trains, and after ---

    @property
    def learner(self) -> Learner:
        return self._live("setup").learner

    @property
    def policy(self) -> Any:
        return self._live("setup").policy

    @property
    def rollout(self) -> Rollout:
        return self._live("setup").rollout

    @property
    def result(self) -> Result:
        return self._live("result")

    def _live(self, name: str) -> Any:
        if name not in self.__dict__.get("_state", ()):
            when = "has not begun" if name == "setup" else "has not ended"
            raise UserError(f"this job {when}: use job.run(), or `for step in job:`")
        return self.__dict__["_state"][name]

    def _save(self, setup: Setup, outcome: Outcome, directory: Path) -> None:
        """Write the model, and beside a language model its card."""
        setup.save(directory)
        words = to_json(self)
        if "model" not in words or not current().first:
            return
        from logpi.algorithms import describe
        from logpi.policies.cards import Card, write_card

        method = setup.learner.algorithm
        card = Card(
            title=f"{self.COMMAND} model",
            base_model=shown(words["model"]).strip("'"),
            data=[shown(words.get("task") or words.get("data")).strip("'")],
            algorithm=method.name,
            description=str(describe(method)),
            metrics=outcome.best or outcome.last,
        )
        write_card(directory, card, "PATH")

    def _steps(self, alone: bool = False) -> Iterator[TrainingStep]:
        with errors_in_keywords():
            yield from self._train(alone)

    def _train(self, alone: bool) -> Generator[TrainingStep, None, None]:
        from logpi.train import SHOWN, train

        if getattr(self, "seeds", 1) > 1:
            raise UserError("a job from Python has one seed: make one for each, with seed=0, 1, …")
        world = current()
        if world.size > 1 and not self.RANKS:
            raise UserError(
                f"logpi {self.COMMAND} works in one process, and {world.size} were started: start"
                " it without torchrun"
            )
        world.by_first(lambda: to_resume(self) or available(self))
        settle_threads(self)
        with quiet_ranks():
            setup = world.together(as_user_errors()(self.setup))
        state: dict[str, Any] = {"setup": setup}
        self.__dict__["_state"] = state
        outcome: Outcome | None = None
        with ExitStack() as stack:
            stack.callback(setup.close)
            run = stack.enter_context(opened(known := setup.settled or self, self.COMMAND))
            setup.begin()
            run.keep(setup.files)
            steps = train(
                setup.rollout,
                setup.learner,
                run,
                steps=setup.steps,
                evaluate=setup.evaluate,
                eval_every=setup.eval_every,
                save_every=setup.save_every,
                shown=setup.shown or SHOWN,
                progress=setup.progress,
                alone=alone,
            )
            try:
                while True:
                    step = next(steps)
                    outcome = step.so_far
                    yield step
            except StopIteration as end:
                outcome = end.value
            except GeneratorExit:
                steps.close()
            if outcome is not None:
                save = partial(known._save, setup, outcome)
                with quiet_ranks():
                    finish(run, save, setup.learner, outcome, setup.curves)
                    setup.end(run, outcome)
                state["result"] = Result(run.path, setup.policy, outcome)

"""What recipes share: groups of arguments, loading with kind errors, and a run's beginning and end.

Left out: what a job does (each recipe's `run`), and the run's directory itself (`runs/`).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from logpi.errors import Stopped, UserError
from logpi.jobs.options.parser import changeable, from_json, given, option, parse, to_json

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.learner import Learner
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.runs.directory import Run
    from logpi.train import Outcome

A = TypeVar("A", bound="RunArguments")
DEVICES = "where models run: cpu, cuda, cuda:1, …; auto: a CUDA GPU if there is one"


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """Which model, and how its prompts are made."""

    model: str = option(help="directory, hub name or .gguf file of a causal language model")
    dtype: str = option(
        "float32",
        help=(
            "of the weights; what learns in bfloat16 keeps float32 masters, and float16 is for"
            " inference"
        ),
        choices=("float32", "bfloat16", "float16"),
    )
    device: str = option("auto", help=DEVICES, changeable=True)
    gradient_checkpointing: bool = option(
        False, help="less memory, a third more time", changeable=True
    )
    chat: bool | None = option(
        None,
        help=(
            "put plain prompts through the chat template as a user's message (default: if the model"
            " has one)"
        ),
    )
    system: str = option("", help="system message in front of each prompt")
    prompt_template: str = option(
        "",
        help=(
            "for base models: text around plain prompts, with {prompt}; r1-zero: the published one"
        ),
    )

    template_options: tuple[str, ...] = option(
        (),
        help=(
            "variables of the chat template, e.g. enable_thinking=false (a row's"
            " chat_template_kwargs win)"
        ),
        nargs="*",
    )
    end_token: str = option(
        "",
        help=(
            "the token that ends an answer (default: the one with which the chat template ends a"
            " turn)"
        ),
    )

    def load(self, **options: Any) -> CausalLM:
        from logpi.policies.causal_lm import CausalLM

        with mistakes():
            policy = CausalLM.load(self.model, **self.loading(), **self.ending(), **options)
            _ = policy.template  # an --end-token that is none is said now
        return policy

    def ending(self) -> dict[str, Any]:
        """What the chat template is applied with, and what ends an answer."""
        return {"template_options": settings(self.template_options), "end_token": self.end_token}

    def loading(self) -> dict[str, Any]:
        """What every model of the job is loaded with."""
        return {
            "dtype": self.dtype,
            "device": self.device,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def template(self, policy: CausalLM) -> Chat:
        from logpi.rollouts.chat import Chat
        from logpi.rollouts.prompt_templates import named

        has = policy.tokenizer.chat_template is not None
        if self.chat and not has:
            raise UserError(
                f"{self.model} has no chat template: leave --chat out, or choose an instruct model"
            )
        if not self.prompt_template:
            return Chat(wrap=has if self.chat is None else self.chat, system=self.system)
        if self.chat:
            raise UserError(
                "--prompt-template is for models without a chat template: leave it or --chat out"
            )
        return Chat(system=self.system, around=named(self.prompt_template))


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    out: Path | None = option(None, help="the run's directory (default: runs/COMMAND-1, -2, …)")
    seed: int = option(0, help="of data, sampling and shuffling", least=0)
    save_every: int = option(20, help="steps between checkpoints", least=1, changeable=True)
    trackers: tuple[str, ...] = option(
        (),
        help="besides JSON lines and TensorBoard: wandb, trackio, mlflow",
        nargs="*",
        changeable=True,
    )
    resume: Path | None = option(
        None,
        help="go on with this run, exactly where it was; --save-every, --trackers, … may change",
        saved=False,
    )
    repeat: Path | None = option(
        None, help="begin anew with this run's arguments (`logpi repeat`)", saved=False
    )
    trust: bool = option(
        False, help="with either: run the code that a stranger's run names", saved=False
    )


@contextmanager
def mistakes() -> Iterator[None]:
    """While a job is set up, a ValueError or a file that cannot be had is a user's mistake: one
    line, no traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def read(cls: type[A], argv: Sequence[str], command: str, description: str) -> A:
    """The arguments; with --resume or --repeat those of a run, with what may change and is given
    anew.

    Raises:
        UserError: it is no run of `command`, something else is given, or it is a stranger's and
            names code.
    """
    words = given(cls, argv, f"logpi {command}", description)
    source = words.get(
        "resume", words.get("repeat")
    )  # with both, the second is one that cannot change
    if source is None:
        return parse(cls, argv, prog=f"logpi {command}", description=description)
    kind = "resume" if "resume" in words else "repeat"
    changes = {k: v for k, v in words.items() if k not in (kind, "trust")}
    may = changeable(cls) if kind == "resume" else {"out": "--out", "device": "--device"}
    fixed = [f"--{k.replace('_', '-')}" for k in changes if k not in may]
    if fixed:
        raise UserError(
            f"a run keeps its own arguments: {', '.join(fixed)} cannot change. --{kind} "
            f"takes nothing else but {', '.join([*may.values(), '--trust'])}"
        )
    if "device" in changes:
        placed(changes["device"])
    home = {"resume": source} if kind == "resume" else {"out": None}
    with mistakes():
        return replace(_saved(cls, source, command, words.get("trust", False)), **home | changes)


def _saved(cls: type[A], path: Path, command: str, trust: bool) -> A:
    """A run's own arguments. Those older than `--device` were on the CPU."""
    from logpi.runs.directory import allow, read_arguments

    made, saved = read_arguments(path)
    if made != command:
        raise UserError(f"{path} is a run of `logpi {made}`: logpi {made} --resume {path}")
    arguments = from_json(
        cls, ({"device": "cpu"} if "device" in cls.__dataclass_fields__ else {}) | saved
    )
    allow(path, trust)
    return arguments


def placed(device: str) -> str:
    """The same, if there is such a device here. Raises UserError if not."""
    from logpi.policies.loading import place

    with mistakes():
        place(device)
    return device


def available(arguments: RunArguments) -> None:
    """Refuse an --out that is taken or cannot be made, and trackers that are not there, before
    anything is loaded."""
    from logpi.runs.directory import refuse_taken
    from logpi.runs.trackers import check

    check(arguments.trackers)
    if arguments.resume is None and arguments.out is not None:
        refuse_taken(arguments.out)


def home(arguments: Any, command: str, free: Sequence[str] = ()) -> Run:
    """The directory of a chain of jobs, say a demonstration's: a new one, or the one that was
    stopped, to go on with.

    Args:
        free: arguments that may be others than it was begun with, besides the device.

    Raises:
        RunError: it holds another run or other files, cannot be made, or is in use.
        UserError: it was begun with other arguments.
    """
    from logpi.runs.directory import Run, next_path, read_arguments
    from logpi.runs.disk import refuse_unwritable

    saved = to_json(arguments)
    out = arguments.out or next_path(command)
    refuse_unwritable(out, "give another --out")
    if not (out / "arguments.json").exists():
        return Run.create(out, command, saved)
    begun, before = read_arguments(out)
    if begun != command:
        raise UserError(f"{out} already holds a run of `logpi {begun}`; give another --out")
    for name, value in saved.items():
        if name not in ("out", "device", *free) and value != before.get(name, value):
            raise UserError(
                f"{out} was begun with {name} {before[name]}, not {value}; give another --out"
            )
    return Run.open(out)


def opened(arguments: RunArguments, command: str) -> Run:
    """A new run, or the one to go on with, by these arguments from then on."""
    from logpi.runs.directory import Run, next_path

    if arguments.resume is not None:
        return Run.open(arguments.resume, arguments.trackers, to_json(arguments))
    path = arguments.out or next_path(command)
    return Run.create(path, command, to_json(arguments), arguments.trackers)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["high=0.3", "whiten=true"]` as a dictionary; values are JSON (numbers are finite) where
    they parse as such, else plain text.

    >>> settings(["high=0.3", "whiten=true", "kl_estimator=k2"])
    {'high': 0.3, 'whiten': True, 'kl_estimator': 'k2'}
    """
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"an option is NAME=VALUE, not {pair!r}")
        try:
            out[name.replace("-", "_")] = json.loads(
                value, parse_float=_finite, parse_constant=_finite
            )
        except (ValueError, RecursionError):
            out[name.replace("-", "_")] = value
    return out


def settle(run: Run, outcome: Outcome) -> None:
    """What stands between a run's last step and its model.

    Raises:
        Stopped: a signal ended it, which can be gone on with. UserError: no step changed anything.
    """
    if outcome.stopped:
        text = (
            f"stopped after step {outcome.step}; go on with: logpi {run.command} --resume"
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
    run: Run, policy: CausalLM, learner: Learner, outcome: Outcome, names: Sequence[Any]
) -> None:
    """Save the model, draw the curves, say where everything is. Raises as `settle`.

    After a collapse the best checkpoint is the model.
    """
    settle(run, outcome)
    best = run.best() if outcome.collapsed else None
    if best is not None:
        learner.load_state_dict(best[1]["learner"])
        print(
            f"the policy collapsed; {run.model} holds the best one, of step {best[0]}",
            file=sys.stderr,
        )
    run.save_model(policy.save)
    print(f"model   {run.model}\n{drawn(run, names)}\nrun     {run.path}", file=sys.stderr)


def drawn(run: Run, names: Sequence[Any]) -> str:
    """Draw a run's curves; a line that says where they are, or why there are none.

    It never fails: the model is worth more than its picture.
    """
    from logpi.runs.plots import curves

    try:
        curves(run.path, names, run.path / "curves.png")
        return f"curves  {run.path / 'curves.png'}"
    except UserError as error:
        return f"curves  none: {error}"


def whole_groups(algorithm: Algorithm, groups: int, option: str) -> None:
    """Refuse minibatches that would part what is scored together. Raises UserError."""
    minibatches = getattr(algorithm.update, "minibatches", 1)
    if algorithm.objective.whole_groups and minibatches > groups:
        raise UserError(
            f"{algorithm.name} scores a group's rows together: {minibatches} minibatches of"
            f" {option} {groups} would part them; at most {groups}"
        )


def base_model(path: Path, make: Callable[[], CausalLM]) -> Path:
    """The directory of an untrained model, made once; after a kill it is there whole or not at
    all."""
    from logpi.runs.disk import replaced

    if not path.exists():
        with replaced(path) as partial:
            make().save(partial)
    return path


def stage(run: Callable[[Any], None], arguments: Any) -> tuple[Path, float]:
    """Run a job as part of a chain, unless it is done already; go on with it if it was stopped.

    Returns its model, and the seconds it took.

    Raises:
        Stopped: a signal ended it, and so ends the chain.
    """
    model, start = arguments.out / "model", time.perf_counter()
    if not (model / "config.json").exists():
        begun = (arguments.out / "arguments.json").exists()
        run(replace(arguments, resume=arguments.out) if begun else arguments)
    return model, time.perf_counter() - start

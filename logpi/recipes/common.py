"""What recipes share: groups of arguments, loading with kind errors, and a run's beginning and end.

Left out: what a job does (each recipe's `run`), and the run's directory itself (`runs/`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from logpi.arguments import from_json, option, parse, to_json
from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.learner import Learner
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.runs.directory import Run
    from logpi.train import Outcome

__all__ = [
    "DEVICES",
    "ModelArguments",
    "RunArguments",
    "available",
    "base_model",
    "finish",
    "mistakes",
    "opened",
    "placed",
    "read",
    "settings",
    "stage",
    "whole_groups",
]

A = TypeVar("A", bound="RunArguments")
DEVICES = "where models run: cpu, cuda, cuda:1, …; auto: a CUDA GPU if there is one"


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """Which model, and how its prompts are made."""

    model: str = option(help="directory, hub name or .gguf file of a causal language model")
    dtype: str = option(
        "float32",
        help="of the weights; what learns in bfloat16 keeps float32 masters, and float16 is for inference",
        choices=("float32", "bfloat16", "float16"),
    )
    device: str = option("auto", help=DEVICES)
    gradient_checkpointing: bool = option(False, help="less memory, a third more time")
    chat: bool | None = option(
        None, help="put plain prompts through the chat template as a user's message (default: if the model has one)"
    )
    system: str = option("", help="system message in front of each prompt")
    prompt_template: str = option(
        "", help="for base models: text around plain prompts, with {prompt}; r1-zero: the published one"
    )

    template_options: tuple[str, ...] = option(
        (), help="variables of the chat template, e.g. enable_thinking=false (a row's chat_template_kwargs win)", nargs="*"
    )
    end_token: str = option("", help="the token that ends an answer (default: the one with which the chat template ends a turn)")

    def load(self, **options: Any) -> CausalLM:
        from logpi.policies.causal_lm import CausalLM

        return CausalLM.load(self.model, **self.loading(), **self.ending(), **options)

    def ending(self) -> dict[str, Any]:
        """What the chat template is applied with, and what ends an answer."""
        return {"template_options": settings(self.template_options), "end_token": self.end_token}

    def loading(self) -> dict[str, Any]:
        """What every model of the job is loaded with."""
        return {"dtype": self.dtype, "device": self.device, "gradient_checkpointing": self.gradient_checkpointing}

    def template(self, policy: CausalLM) -> Chat:
        from logpi.rollouts.chat import Chat
        from logpi.rollouts.templates import named

        has = policy.tokenizer.chat_template is not None
        if self.chat and not has:
            raise UserError(f"{self.model} has no chat template: leave --chat out, or choose an instruct model")
        if not self.prompt_template:
            return Chat(wrap=has if self.chat is None else self.chat, system=self.system)
        if self.chat:
            raise UserError("--prompt-template is for models without a chat template: leave it or --chat out")
        return Chat(system=self.system, around=named(self.prompt_template))


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    out: Path | None = option(None, help="the run's directory (default: runs/COMMAND-1, -2, …)")
    seed: int = option(0, help="of data, sampling and shuffling")
    save_every: int = option(20, help="steps between checkpoints", least=1)
    trackers: tuple[str, ...] = option((), help="besides JSON lines and TensorBoard: wandb, trackio, mlflow", nargs="*")
    resume: Path | None = option(
        None, help="go on with this run, exactly where it was; give nothing else (but another --device)"
    )


@contextmanager
def mistakes() -> Iterator[None]:
    """While a job is set up, a ValueError is a user's mistake: one line, no traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError, NotADirectoryError) as error:
        raise UserError(str(error)) from error


def read(cls: type[A], argv: Sequence[str], command: str, description: str) -> A:
    """The arguments; with --resume those that the run was started with, on another --device if one is given."""
    if not any(word.startswith("--resume") for word in argv):
        return parse(cls, argv, prog=f"logpi {command}", description=description)
    words = [w for word in argv for w in (word.split("=", 1) if word.startswith("--") else [word])]
    given = dict(zip(words[::2], words[1::2], strict=False))
    movable = "device" in cls.__dataclass_fields__
    if len(words) != 2 * len(given) or not given.keys() <= {"--resume", *(["--device"] if movable else [])}:
        other = " but --device" if movable else ""
        raise UserError(
            f"--resume goes on with a run's own arguments: logpi {command} --resume RUN, and nothing else{other}"
        )
    from logpi.runs.directory import keep_argument, read_arguments

    path = Path(given["--resume"])
    saved_command, saved = read_arguments(path)
    if saved_command != command:
        raise UserError(f"{path} is a run of `logpi {saved_command}`: logpi {saved_command} --resume {path}")
    if movable:  # runs older than that option were on the CPU
        saved.setdefault("device", "cpu")
    if "--device" in given:
        saved["device"] = placed(given["--device"])
        keep_argument(path, "device", saved["device"])
    return from_json(cls, saved | {"resume": str(path)})


def placed(device: str) -> str:
    """The same, if there is such a device here. Raises UserError if not."""
    from logpi.policies.loading import place

    with mistakes():
        place(device)
    return device


def available(arguments: RunArguments) -> None:
    """Refuse an --out that is taken, before anything is loaded."""
    from logpi.runs.directory import refuse_taken

    if arguments.resume is None and arguments.out is not None:
        refuse_taken(arguments.out)


def opened(arguments: RunArguments, command: str) -> Run:
    """A new run, or the one to go on with."""
    from logpi.runs.directory import Run

    if arguments.resume is not None:
        return Run.open(arguments.resume, arguments.trackers)
    path = arguments.out or next(p for i in range(1, 10**6) if not (p := Path(f"runs/{command}-{i}")).exists())
    return Run.create(path, command, to_json(arguments) | {"resume": None}, arguments.trackers)


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["high=0.3", "whiten=true"]` as a dictionary; values are JSON where they parse as such, else plain text.

    >>> settings(["high=0.3", "whiten=true", "kl_estimator=k2"])
    {'high': 0.3, 'whiten': True, 'kl_estimator': 'k2'}
    """
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"an option is NAME=VALUE, not {pair!r}")
        try:
            out[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            out[name.replace("-", "_")] = value
    return out


def finish(run: Run, policy: CausalLM, learner: Learner, outcome: Outcome, names: Sequence[Any]) -> None:
    """Save the model, draw the curves, say where everything is. After a collapse the best checkpoint is the model."""
    from logpi.runs.plots import curves

    if outcome.stopped:
        print(
            f"stopped after step {outcome.step}; go on with: logpi {run.command} --resume {run.path}", file=sys.stderr
        )
        return
    best = run.best() if outcome.collapsed else None
    if best is not None:
        learner.load_state_dict(best[1]["learner"])
        print(f"the policy collapsed; {run.model} holds the best one, of step {best[0]}", file=sys.stderr)
    run.save_model(policy.save)
    curves(run.path, names, run.path / "curves.png")
    print(f"model   {run.model}\ncurves  {run.path / 'curves.png'}\nrun     {run.path}", file=sys.stderr)


def whole_groups(algorithm: Algorithm, groups: int, option: str) -> None:
    """Refuse minibatches that would part what is scored together. Raises UserError."""
    minibatches = getattr(algorithm.update, "minibatches", 1)
    if algorithm.objective.whole_groups and minibatches > groups:
        raise UserError(f"{algorithm.name} scores a group's rows together: {minibatches} minibatches of {option} {groups} would "
                        f"part them; at most {groups}")  # fmt: skip


def base_model(path: Path, make: Callable[[], CausalLM]) -> Path:
    """The directory of an untrained model, made once; after a kill it is there whole or not at all."""
    from logpi.runs.disk import replaced

    if not path.exists():
        with replaced(path) as partial:
            make().save(partial)
    return path


def stage(run: Callable[[Any], None], arguments: Any) -> tuple[Path, float]:
    """Run a job as part of a chain, unless it is done already; go on with it if it was stopped. Its model, and the seconds it took."""
    model, start = arguments.out / "model", time.perf_counter()
    if not (model / "config.json").exists():
        begun = (arguments.out / "arguments.json").exists()
        run(replace(arguments, resume=arguments.out) if begun else arguments)
    if not (model / "config.json").exists():  # Ctrl-C: what to do was said
        raise SystemExit(130)
    return model, time.perf_counter() - start

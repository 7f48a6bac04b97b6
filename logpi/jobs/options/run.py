"""Where a run goes and how it is resumed: the options that every job shares, and the reader of a
job's options from a command line, a file, or an older run.

Left out: the run's directory itself (`runs/`), and its beginning and end (`jobs/common.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from logpi.distributed.threads import MOST, own_number
from logpi.errors import UserError, as_user_errors
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.options.config import from_file, merged
from logpi.jobs.options.fields import changeable, option
from logpi.jobs.options.model import placed
from logpi.jobs.options.saved import from_json
from logpi.runs.versions import began_with

A = TypeVar("A", bound="RunArguments")


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Where the run goes."""

    HEADING: ClassVar[str] = "run"

    out: Path | None = option(None, help="the run's directory (default: runs/COMMAND-1, -2, …)")
    seed: int = option(0, help="of data, sampling and shuffling", least=0)
    threads: int | None = option(
        None,
        help=(
            "of PyTorch on the CPU (default: by the cores that are free; resumed or repeated: as"
            " it began)"
        ),
        least=1,
        most=MOST,
        changeable=True,
    )
    save_every: int = option(20, help="steps between checkpoints", least=1, changeable=True)
    trackers: tuple[str | Any, ...] = option(
        (),
        objects=True,
        help="besides JSON lines (and TensorBoard, where installed): wandb, trackio, mlflow",
        nargs="*",
        changeable=True,
    )
    config: Path | None = option(
        None,
        help="options from a file: YAML, JSON, or the arguments.json of a run; the words here win",
        saved=False,
    )
    resume: Path | None = option(
        None,
        help="resume this run, exactly where it was; --save-every, --trackers, … may change",
        saved=False,
    )
    repeat: Path | None = option(
        None, help="begin anew with this run's arguments (`logpi repeat`)", saved=False
    )
    trust: bool = option(
        False,
        help="with --config, --resume, --repeat: run the code that a stranger's run names",
        saved=False,
    )


def read(cls: type[A], argv: Sequence[str], command: str, description: str) -> A:
    """A job's options from its command line; with --config also those of a file, with --resume or
    --repeat those of a run.

    Raises:
        UserError: the run is of another command, an option may not change, or the run is a
            stranger's and names code.
    """
    line = CommandLine(cls, f"logpi {command}", description)
    options = line.peek(argv)
    trust = options.get("trust", False)
    # with both, the second is one that cannot change
    source = options.get("resume", options.get("repeat"))
    if source is None:
        file = options.get("config")
        base = from_file(line, file, command, trust) if file is not None else {}
        words = merged(line, base, line.options(argv, base))
        return line.build({k: v for k, v in words.items() if k != "config"})
    return _again(line, argv, command, source)


def _again(line: CommandLine, argv: Sequence[str], command: str, source: Path) -> Any:
    """The options of a run, with the changes on the command line."""
    words = line.options(argv)
    kind = "resume" if "resume" in words else "repeat"
    changes = {k: v for k, v in words.items() if k not in (kind, "trust")}
    may = changeable(line.cls) if kind == "resume" else {"out": "--out", "device": "--device"}
    fixed = [flag for name in changes if name not in may for flag in _flags(line, name, words)]
    if fixed:
        raise UserError(
            f"a run keeps its own arguments: {', '.join(fixed)} cannot change. --{kind} "
            f"takes nothing else but {', '.join([*may.values(), '--trust'])}"
        )
    if "device" in changes:
        placed(changes["device"])
    home = {"resume": source} if kind == "resume" else {"out": None}
    with as_user_errors():
        own = _saved(line.cls, source, command, words.get("trust", False))
        if kind == "repeat" and own.threads is None and not own_number():
            # another number of threads would not give the same bits
            changes["threads"] = began_with(source) or None
        return replace(own, **home | changes)


def _flags(line: CommandLine, name: str, words: Mapping[str, Any]) -> list[str]:
    """The flags by which the user gave an option: each setting of a mapping has its own."""
    field = next(f for f in line.fields if f.name == name)
    names = words[name] if field.flags else [name]
    return ["--" + n.replace("_", "-") for n in names]


def _saved(cls: type[A], path: Path, command: str, trust: bool) -> A:
    """The options of a run. Runs older than `--device` were on the CPU."""
    from logpi.runs.directory import allow, read_arguments

    _, saved = read_arguments(path, command)
    known = cls.__dataclass_fields__
    arguments = from_json(cls, ({"device": "cpu"} if "device" in known else {}) | saved)
    allow(path, trust)
    return arguments


def available(arguments: RunArguments) -> None:
    """Raises UserError before anything is loaded: --out is taken or cannot be made, or a tracker is
    missing."""
    from logpi.runs.directory import refuse_taken
    from logpi.runs.trackers import check

    check(arguments.trackers)
    if arguments.resume is None and arguments.out is not None:
        refuse_taken(arguments.out)

"""`logpi repeat RUN`: run the command of a run again, with the same arguments.

Left out: resuming a run that was stopped (`--resume`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from logpi.errors import UserError
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option


@dataclass(frozen=True)
class RepeatRun:
    """Arguments of `logpi repeat`."""

    run: Path = option(help="a run's directory", positional=True)
    out: Path | None = option(None, help="the new run's directory (default: runs/COMMAND-1, -2, …)")
    device: str | None = option(None, help="cpu, cuda, cuda:1, … (default: that of the run)")
    trust: bool = option(False, help="run the code that a stranger's run names")


def main(argv: Sequence[str]) -> int:
    a = parse(
        RepeatRun, argv, "logpi repeat", "Run a saved run's command again with its own arguments."
    )
    from logpi.commands import COMMANDS
    from logpi.runs.directory import read_arguments

    command, _ = read_arguments(a.run)
    if command not in COMMANDS:
        raise UserError(f"{a.run} was made by {command!r}, which this version does not have")
    options = {"repeat": a.run, "out": a.out, "device": a.device}
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return COMMANDS[command].load().main([*words, *["--trust"] * a.trust])

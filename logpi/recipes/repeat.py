"""`logpi repeat RUN`: run a saved run's command again, with the very arguments it had.

Left out: going on with a run that was stopped (`--resume`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from logpi.arguments import option, parse
from logpi.errors import UserError

__all__ = ["main", "words_of"]


@dataclass(frozen=True)
class Repeat:
    """Arguments of `logpi repeat`."""

    run: Path = option(help="a run's directory", positional=True)
    out: Path | None = option(None, help="the new run's directory (default: runs/COMMAND-1, -2, …)")
    device: str | None = option(None, help="cpu, cuda, cuda:1, … (default: that of the run)")


def main(argv: Sequence[str]) -> int:
    a = parse(Repeat, argv, "logpi repeat", "Run a saved run's command again with its own arguments.")
    from logpi.cli import COMMANDS
    from logpi.runs.directory import read_arguments

    command, saved = read_arguments(a.run)
    if command not in COMMANDS:
        raise UserError(f"{a.run} was made by {command!r}, which this version does not have")
    if a.device is not None:
        saved["device"] = a.device
    words = words_of({k: v for k, v in saved.items() if k not in ("out", "resume")})
    if a.out is not None:
        words += ["--out", str(a.out)]
    return import_module(f"logpi.recipes.{COMMANDS[command][0]}").main(words)


def words_of(saved: Mapping[str, Any]) -> list[str]:
    """Saved arguments (`to_json`) as the words of a command line."""
    return [w for name, value in saved.items() for w in _words(name, value)]


def _words(name: str, value: object) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]

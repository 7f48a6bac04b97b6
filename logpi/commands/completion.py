"""`logpi completion SHELL`: a script by which a shell completes commands, options and their values.

    eval "$(logpi completion bash)"        # in ~/.bashrc; zsh and tcsh likewise

The script is made by `shtab` from the commands' own declarations. Left out: which settings an
algorithm has: those of every algorithm are offered.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from logpi.commands import COMMANDS
from logpi.jobs.options.command_line import CommandLine, parse
from logpi.jobs.options.fields import OptionField, option

SHELLS = ("bash", "zsh", "tcsh")


@dataclass(frozen=True)
class ShellCompletion:
    """Arguments of `logpi completion`."""

    shell: str = option(help="whose script", choices=SHELLS, positional=True)


def main(argv: Sequence[str]) -> int:
    a = parse(
        ShellCompletion, argv, "logpi completion", "A script that completes options in a shell."
    )
    import shtab

    print(shtab.complete(whole_parser(), a.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Every command and option in one parser."""
    parser = argparse.ArgumentParser("logpi")
    commands = parser.add_subparsers(dest="command")
    for name, entry in COMMANDS.items():
        one = commands.add_parser(name, help=entry.summary)
        declaration = entry.declaration()
        if not isinstance(declaration, Mapping):
            _fill(one, declaration, f"logpi {name}")
            continue
        inner = one.add_subparsers(dest="name")
        for sub, command in declaration.items():
            _fill(
                inner.add_parser(sub, help=command.help), command.arguments, f"logpi {name} {sub}"
            )
    return parser


def _fill(parser: argparse.ArgumentParser, cls: type, prog: str) -> None:
    """Give a parser a command's options under their own names, and what can stand behind them."""
    import shtab

    line = CommandLine(cls, prog)
    line.fields = [replace(f, aliases=()) for f in line.fields]
    settings = list(_settings(line))
    line.fill(parser, settings)
    fields = {f.name: f for f in line.fields} | {f"{m}.{s.name}": s for m, s in settings}
    for action in parser._actions:
        field = fields.get(action.dest)
        allowed = None if field is None else _allowed(field)
        if allowed:
            action.choices = allowed
        elif field is not None and field.kind.item is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def _settings(line: CommandLine) -> Iterator[tuple[str, OptionField]]:
    """Those of every algorithm, each once."""
    from logpi.algorithms import TABLE

    seen: set[str] = set()
    for name in TABLE if any(f.flags for f in line.fields) else ():
        known: dict[str, Any] = dict.fromkeys(("algorithm", "name"), name)
        for mapping, setting in line.settings(known):
            if setting.name not in seen:
                seen.add(setting.name)
                yield mapping, replace(setting, aliases=())


def _allowed(field: OptionField) -> list[str] | None:
    from logpi.algorithms import TABLE

    if field.name == "algorithm":
        return list(TABLE)
    allowed = field.allowed()
    return None if allowed is None else [str(a) for a in allowed if str(a)]

"""The command line of a job: words in, a dataclass of options out (`fields.py`).

    arguments = parse(Train, sys.argv[1:], prog="logpi train", description="Train a model.")

Dashes and underscores are the same. A mistake is one line on stderr and exit code 2, with the
nearest known spelling. Left out: sub-commands (`logpi.commands` is a table of names). Imports
nothing heavy; a command's `--help` is instant.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from logpi.errors import UserError, did_you_mean, one_line
from logpi.jobs.options.fields import READERS, OptionField, option_fields

T = TypeVar("T")


def _add(parser: argparse.ArgumentParser, field: OptionField) -> None:
    # Defaults, and what must be given, stay with the dataclass: the parser returns only what
    # was given.
    common: dict[str, Any] = {"help": field.shown(), "default": argparse.SUPPRESS}
    if field.kind.item is bool and not field.kind.many:
        parser.add_argument(
            field.flag, dest=field.name, action=argparse.BooleanOptionalAction, **common
        )
        return
    nargs = field.nargs or ("*" if field.kind.many else None)
    metavar = field.name.upper() if field.positional else READERS[field.kind.item][2]
    common |= {"type": _argparse_type(field), "nargs": nargs, "metavar": metavar}
    if field.positional:
        common["nargs"] = nargs or "?"
        parser.add_argument(field.name, **common)
    else:
        parser.add_argument(field.flag, dest=field.name, **common)


def _argparse_type(option: OptionField) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if (
            text is argparse.SUPPRESS
        ):  # argparse asks for the type of a default too, where a positional is left out
            return text
        try:
            return option.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


class _Parser(argparse.ArgumentParser):
    """argparse, with every mistake on one line and negative numbers in any notation taken as
    values."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._negative_number_matcher = re.compile(
            r"-(\d|\.\d|inf)"
        )  # argparse's own does not know -1e-3

    def error(self, message: str) -> NoReturn:
        line = one_line(message.removeprefix("argument "))
        print(f"{self.prog}: {line} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=110)


def _dashed(argv: Sequence[str]) -> list[str]:
    """`--max_steps=x_y` -> `--max-steps=x_y`; what follows a bare `--` is left alone."""
    end = argv.index("--") if "--" in argv else len(argv)
    out = []
    for word in argv[:end]:
        name, equals, value = word.partition("=")
        out.append(name.replace("_", "-") + equals + value if name.startswith("--") else word)
    return out + list(argv[end:])


def _unknown(words: Sequence[str], options: Sequence[OptionField]) -> str:
    """What to say of words that argparse could not place."""
    word = next((w.partition("=")[0] for w in words if w.startswith("-")), None)
    if word is None:
        return f"unexpected argument {words[0]!r}; every option needs its name in front"
    known = [o.flag for o in options if not o.positional]
    known += ["--no-" + o.flag[2:] for o in options if o.kind.item is bool]
    return f"unknown option {word}{did_you_mean('--' + word.lstrip('-'), known)}"


def parse(cls: type[T], argv: Sequence[str], prog: str, description: str = "") -> T:
    """Read `argv` (without the program's name) into the dataclass `cls`.

    Raises:
        SystemExit: code 2 after one line on stderr for a mistake; code 0 after `--help`.
        TypeError: a field has a type that no option can have (the programmer's mistake).
    """
    parser, options = (
        _Parser(prog=prog, description=description, formatter_class=_formatter),
        option_fields(cls),
    )
    words = _given(parser, options, argv)
    missing = [
        o.name.upper() if o.positional else o.flag
        for o in options
        if o.required and words.get(o.name, "") == ""
    ]
    if missing:
        parser.error(f"{' and '.join(missing)} must be given")
    try:
        return cls(**words)
    except (UserError, ValueError) as error:  # from the dataclass's own checks
        parser.error(str(error))


def given(cls: type, argv: Sequence[str], prog: str, description: str = "") -> dict[str, Any]:
    """What `argv` says of the dataclass `cls`, by name; nothing is filled in, nothing is missing.

    Raises:
        SystemExit: as `parse`.
    """
    return _given(
        _Parser(prog=prog, description=description, formatter_class=_formatter),
        option_fields(cls),
        argv,
    )


def _given(parser: _Parser, options: Sequence[OptionField], argv: Sequence[str]) -> dict[str, Any]:
    for each in options:
        _add(parser, each)
    found, rest = parser.parse_known_args(_dashed(argv))
    if rest:  # before what is missing: a misspelt option is often the missing one
        parser.error(_unknown(rest, options))
    return {name: _tupled(value) for name, value in vars(found).items()}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

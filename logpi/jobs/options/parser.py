"""Arguments of a command: a frozen dataclass is the whole declaration, and the command line is read
from it.

    @dataclass(frozen=True)
    class Train:
        model: str = option(help="directory or hub name")                      # no default: must be given
        lr: float = option(1e-5, help="peak learning rate")
        rewards: tuple[str, ...] = option(("exact",), help="what to reward")    # --rewards exact format
        resume: bool = False                                                    # --resume, --no-resume

    arguments = parse(Train, sys.argv[1:], prog="logpi train", description="Train a model.")

Field types: `str`, `int`, `float`, `bool`, `Path`, `tuple[T, ...]` of those, and any of them `|
None`. Dashes and underscores are the same. A mistake is one line on stderr and exit code 2, with
the nearest known spelling.

Left out on purpose: sub-commands (the command line is a table of names), nested dataclasses,
configuration files (a saved run *is* one: `to_json`, `from_json`). Imports nothing heavy; a
command's `--help` is instant.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union

from logpi.errors import UserError, did_you_mean, one_line

T = TypeVar("T")
LARGEST = 2**31 - 1  # of whole numbers: what torch, NumPy and Gymnasium all take, as a seed say
Choices = Sequence[str] | Callable[[], Sequence[str]]


def option(
    default: Any = MISSING,
    help: str = "",
    choices: Choices | None = None,
    nargs: str | int | None = None,
    positional: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    changeable: bool = False,
    saved: bool = True,
) -> Any:
    """A dataclass field with what the command line says about it. Every number of a command needs
    `least` or `above`.

    Args:
        default: as for a field; left out, the option must be given.
        help: one line; the default is added to it.
        choices: allowed values, or a function that returns them (called only when a value is read,
            or for `--help`).
        nargs: argparse's, for tuples: "*" (the usual), "+" (at least one), or a number.
        positional: given without its name (`logpi describe NAME`).
        least, above: lower bounds of a number, the first included, the second not.
        most: upper bound, included. Left out beside a lower one: `LARGEST` for a whole number, else
            any that is finite.
        changeable: a run that is gone on with may be given another value (`changeable`).
        saved: part of what a run is (`to_json`); False: of one call alone, such as `--resume`.
    """
    metadata = dict(help=help, choices=choices, nargs=nargs, positional=positional, least=least)
    metadata |= dict(above=above, most=most, changeable=changeable, saved=saved)
    return dataclasses.field(default=default, metadata=metadata)


# --------------------------------------------------------------------------- the type of a field


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # 1e6 is how people write a million
        if not number.is_integer():
            raise ValueError from None
        return int(number)


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError
    return number


def _text(text: str) -> str:
    text.encode()  # bytes of the command line that are no UTF-8 are halves of characters, which no tokenizer takes
    return text


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


# type -> (how its text is read, what it is called in a mistake, and in `--help`)
_READ: dict[type, tuple[Callable[[str], Any], str, str]] = {
    str: (_text, "UTF-8 text", "TEXT"),
    int: (_integer, "a whole number", "N"),
    float: (_number, "a number", "X"),
    bool: (_boolean, "true or false", "BOOL"),
    Path: (Path, "a path", "PATH"),
}


@dataclass(frozen=True)
class _Kind:
    """A field's type, taken apart: `tuple[int, ...] | None` is item=int, many, optional."""

    item: type
    many: bool = False
    optional: bool = False

    @classmethod
    def of(cls, hint: Any, where: str) -> _Kind:
        members = (
            typing.get_args(hint)
            if typing.get_origin(hint) in (Union, types.UnionType)
            else (hint,)
        )
        rest = [m for m in members if m is not type(None)]
        many = typing.get_origin(rest[0]) is tuple
        item = typing.get_args(rest[0])[0] if many else rest[0]
        if len(rest) != 1 or item not in _READ:
            raise TypeError(f"{where}: an option cannot have the type {hint}")
        return cls(item, many, len(rest) < len(members))

    def read(self, text: str) -> Any:
        """One item from its text. Raises ValueError, saying what was expected."""
        if self.optional and not self.many and text.lower() == "none":
            return None
        read, expected, _ = _READ[self.item]
        try:
            return read(text)
        except (ValueError, KeyError, OverflowError):
            raise ValueError(f"{text[:60]!r} is not {expected}") from None


@dataclass(frozen=True)
class _Option:
    """One field as the command line sees it."""

    name: str
    kind: _Kind
    default: Any
    help: str
    choices: Choices | None
    nargs: str | int | None
    positional: bool
    least: float | None
    above: float | None
    most: float | None
    changeable: bool
    saved: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def allowed(self) -> Sequence[str] | None:
        return self.choices() if callable(self.choices) else self.choices

    def read(self, text: str) -> Any:
        value, allowed = self.kind.read(text), self.allowed()
        if allowed is not None and value is not None and value not in allowed:
            hint = (
                did_you_mean(text, map(str, allowed)) or f"; one of: {', '.join(map(str, allowed))}"
            )
            raise ValueError(f"unknown value {text[:60]!r}{hint}")
        if isinstance(value, int | float) and (self.least is not None or self.above is not None):
            self._check_range(value, text[:60])
        return value

    def _check_range(self, value: float, text: str) -> None:
        most = LARGEST if self.most is None and isinstance(value, int) else self.most
        if self.above is not None and value <= self.above:
            raise ValueError(f"must be above {self.above:g}, not {text}")
        if self.least is not None and value < self.least:
            raise ValueError(f"must be at least {self.least:g}, not {text}")
        if most is not None and value > most:
            raise ValueError(f"must be at most {most:.10g}, not {text}")
        if most is None and math.isinf(value):
            raise ValueError(f"must be finite, not {text}")

    def shown(self) -> str:
        """The help text: what it does, what it may be, what it is when left out. A `%` is
        argparse's own."""
        notes, allowed = [], self.allowed()
        if allowed is not None:
            notes.append("one of: " + ", ".join(map(str, allowed)))
        if self.required:
            notes.append("" if self.positional else "must be given")
        elif self.default not in (None, ()):
            notes.append(f"default: {_spelt(self.default)}")
        text = "; ".join(n for n in notes if n)
        return (
            f"{self.help} ({text})".strip().replace("%", "%%")
            if text
            else self.help.replace("%", "%%")
        )

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        # Defaults, and what must be given, stay with the dataclass: the parser returns only what
        # was given.
        common: dict[str, Any] = {"help": self.shown(), "default": argparse.SUPPRESS}
        if self.kind.item is bool and not self.kind.many:
            parser.add_argument(
                self.flag, dest=self.name, action=argparse.BooleanOptionalAction, **common
            )
            return
        nargs = self.nargs or ("*" if self.kind.many else None)
        metavar = self.name.upper() if self.positional else _READ[self.kind.item][2]
        common |= {"type": _argparse_type(self), "nargs": nargs, "metavar": metavar}
        if self.positional:
            common["nargs"] = nargs or "?"
            parser.add_argument(self.name, **common)
        else:
            parser.add_argument(self.flag, dest=self.name, **common)


def _argparse_type(option: _Option) -> Callable[[str], Any]:
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


def _spelt(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _options(cls: type) -> list[_Option]:
    hints, found = typing.get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        kind = _Kind.of(hints[field.name], f"{cls.__name__}.{field.name}")
        found.append(_Option(field.name, kind, default, **(field.metadata or option().metadata)))
    return found


# --------------------------------------------------------------------------- the command line


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


def _unknown(words: Sequence[str], options: Sequence[_Option]) -> str:
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
        _options(cls),
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
        _Parser(prog=prog, description=description, formatter_class=_formatter), _options(cls), argv
    )


def _given(parser: _Parser, options: Sequence[_Option], argv: Sequence[str]) -> dict[str, Any]:
    for each in options:
        each.add_to(parser)
    found, rest = parser.parse_known_args(_dashed(argv))
    if rest:  # before what is missing: a misspelt option is often the missing one
        parser.error(_unknown(rest, options))
    return {name: _tupled(value) for name, value in vars(found).items()}


def changeable(cls: type) -> dict[str, str]:
    """Name and flag of every option that a run may be given anew when it is gone on with."""
    return {o.name: o.flag for o in _options(cls) if o.changeable}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# --------------------------------------------------------------------------- saved arguments


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return str(value) if isinstance(value, Path) else value


def to_json(arguments: Any) -> dict[str, Any]:
    """The arguments as plain JSON values, complete: a run can be repeated from them after defaults
    have changed."""
    return {
        o.name: _plain(getattr(arguments, o.name)) for o in _options(type(arguments)) if o.saved
    }


def from_json(cls: type[T], saved: Mapping[str, Any]) -> T:
    """The arguments that `to_json` saved. What is missing (an older version's run) takes its
    default.

    Raises:
        UserError: an unknown name, a value of the wrong type, a required one missing, or values
            that do not go together.
    """
    options = {o.name: o for o in _options(cls)}
    for name in saved:
        if name not in options:
            raise UserError(
                f"saved arguments have an unknown option {name!r}{did_you_mean(name, options)}"
            )
    for o in options.values():
        if o.required and o.name not in saved:
            raise UserError(f"saved arguments lack {o.name!r}")
    values = {
        name: _restored(options[name], value)
        for name, value in saved.items()
        if options[name].saved
    }
    try:
        return cls(**values)
    except ValueError as error:  # from the dataclass's own checks
        raise UserError(f"saved arguments: {error}") from None


def restored(cls: type, name: str, value: Any) -> Any:
    """One saved argument, by its name. Raises UserError as `from_json`."""
    return _restored(next(o for o in _options(cls) if o.name == name), value)


def _restored(option: _Option, value: Any) -> Any:
    try:
        if value is None and option.kind.optional:
            return None
        if option.kind.many:
            if not isinstance(value, list):
                raise ValueError(f"{value!r} is not a list")
            value = [_scalar(v) for v in value]
            return tuple(option.read(str(v)) for v in value)
        return option.read(str(_scalar(value)))
    except ValueError as error:
        raise UserError(f"saved arguments: {option.name}: {error}") from None


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a text or a number")
    return value

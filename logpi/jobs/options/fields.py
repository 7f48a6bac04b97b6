"""An option is a field of a frozen dataclass, with its type, its bounds, its help and the reader of
its text.

    @dataclass(frozen=True)
    class Train:
        HEADING: ClassVar[str] = "training"                              # above them in --help
        FIRST: ClassVar[str] = "model lr"                                # what people set first
        model: str = option(help="directory or hub name")                # no default: must be given
        lr: float = option(1e-5, help="peak learning rate", aliases=("learning_rate",))
        rewards: tuple[str, ...] = option(("exact",), help="rewards")    # --rewards exact format
        options: Mapping[str, Any] = option({}, help="settings")         # --options beta=0 high=0.3
        resume: bool = False                                             # --resume, --no-resume

Field types: `str`, `int`, `float`, `bool`, `Path`, `tuple[T, ...]` of those, any of them `| None`,
and `Mapping[str, Any]`, which is written NAME=VALUE.

Left out: the command line (`command_line.py`), saved values (`saved.py`), nested dataclasses.
Imports nothing heavy; a command's `--help` is instant.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Union

from logpi.algorithms import names
from logpi.errors import did_you_mean

# The largest whole number that torch, NumPy and Gymnasium all take, as a seed say.
LARGEST = 2**31 - 1
Choices = Sequence[str] | Callable[[], Sequence[str]]
Flags = Callable[[Mapping[str, Any]], "Sequence[OptionField]"]


def option(  # noqa: PLR0913 (a declaration, all keywords)
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
    objects: bool = False,
    hidden: bool = False,
    aliases: tuple[str, ...] | None = None,
    flags: Flags | None = None,
) -> Any:
    """A dataclass field with what the command line needs. Every number of a command needs `least`
    or `above`.

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
        changeable: a resumed run may get another value (`changeable`).
        saved: part of what a run is (`to_json`); False: of one call alone, such as `--resume`.
        objects: from Python, an object may stand in place of the word.
        hidden: from Python alone: an object that no word names.
        aliases: what other libraries call the same thing (default: as in `algorithms.names`).
        flags: of a mapping: from the values of the other options, the fields whose flags fill it.
    """
    metadata = {k: v for k, v in locals().items() if k != "default"}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def changed(group: type, name: str, default: Any, **said: Any) -> Any:
    """An option of an inherited group, with another default or other help."""
    field = next(f for f in dataclasses.fields(group) if f.name == name)
    return option(default, **{**field.metadata, **said})


# --- settings, written NAME=VALUE ---


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def setting(pair: str) -> tuple[str, Any]:
    """A name and its value, which is JSON (a number is finite) where it parses as such, else text.

    Raises ValueError if the word is no pair.

    >>> setting("high=0.3"), setting("kl-estimator=k2")
    (('high', 0.3), ('kl_estimator', 'k2'))
    """
    name, equals, text = pair.partition("=")
    if not equals:
        raise ValueError(f"an option is NAME=VALUE, not {pair[:60]!r}")
    return name.replace("-", "_"), value(text)


def pairs(given: Any) -> dict[str, Any]:
    """Settings as a mapping: of a mapping, or of words NAME=VALUE. Raises ValueError for others."""
    if isinstance(given, Mapping):
        return {str(k).replace("-", "_"): v for k, v in given.items()}
    if isinstance(given, list | tuple) and all(isinstance(word, str) for word in given):
        return dict(setting(word) for word in given)
    raise ValueError(f"{given!r} is not a list of NAME=VALUE, nor a mapping")


def value(text: str) -> Any:
    """What a text stands for: `0.3`, `true` and `[64,64]` are JSON, everything else is itself."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return text


# --- the type of a field ---


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        # 1e6 is how people write a million
        number = float(text)
        if not number.is_integer():
            raise ValueError from None
        return int(number)


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError
    return number


def _text(text: str) -> str:
    # Bytes of the command line that are not UTF-8 fail here: no tokenizer takes them.
    text.encode()
    return text


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


# type -> (how its text is read, what it is called in a mistake, and in `--help`)
READERS: dict[type, tuple[Callable[[str], Any], str, str]] = {
    str: (_text, "UTF-8 text", "TEXT"),
    int: (_integer, "a whole number", "N"),
    float: (_number, "a number", "X"),
    bool: (_boolean, "true or false", "BOOL"),
    Path: (Path, "a path", "PATH"),
}


@dataclass(frozen=True)
class FieldType:
    """A field's type, taken apart: `tuple[int, ...] | None` is item=int, many, optional; a mapping
    is many named items."""

    item: type
    many: bool = False
    optional: bool = False
    named: bool = False

    @classmethod
    def of(cls, hint: Any, where: str) -> FieldType:
        """Raises TypeError if no option can have this type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        members = arguments if origin in (Union, types.UnionType) else (hint,)
        # What only Python gives is `Any`, beside the type that a word has: `str | Any`.
        rest = [m for m in members if m not in (type(None), Any)]
        if len(rest) == 1 and typing.get_origin(rest[0]) is Mapping:
            return cls(str, many=True, named=True)
        many = typing.get_origin(rest[0]) is tuple
        item = typing.get_args(rest[0])[0] if many else rest[0]
        if typing.get_origin(item) in (Union, types.UnionType):
            item = next(m for m in typing.get_args(item) if m is not Any)
        if len(rest) != 1 or item not in READERS:
            raise TypeError(f"{where}: an option cannot have the type {hint}")
        return cls(item, many, len(rest) < len(members))

    @property
    def expected(self) -> str:
        """What a value is, for people."""
        return READERS[self.item][1]

    def read(self, text: str) -> Any:
        """One item from its text; of a mapping (name, value). Raises ValueError, saying what was
        expected."""
        if self.named:
            return setting(text)
        if self.optional and not self.many and text.lower() == "none":
            return None
        read = READERS[self.item][0]
        try:
            return read(text)
        except (ValueError, KeyError, OverflowError):
            raise ValueError(f"{text[:60]!r} is not {self.expected}") from None

    def collected(self, items: Iterable[Any]) -> Any:
        """Many items as the field's value."""
        return dict(items) if self.named else tuple(items)

    @property
    def metavar(self) -> str:
        """What `--help` calls a value."""
        return "NAME=VALUE" if self.named else READERS[self.item][2]


# --- an option ---


@dataclass(frozen=True)
class OptionField:
    """One field as the command line sees it: the arguments of `option`, with name, type and the
    heading of its group."""

    name: str
    kind: FieldType
    default: Any = None
    heading: str = ""
    help: str = ""
    choices: Choices | None = None
    nargs: str | int | None = None
    positional: bool = False
    least: float | None = None
    above: float | None = None
    most: float | None = None
    changeable: bool = False
    saved: bool = True
    objects: bool = False
    hidden: bool = False
    aliases: tuple[str, ...] = ()
    flags: Flags | None = None

    @property
    def flag(self) -> str:
        return self.words[0]

    @property
    def words(self) -> list[str]:
        """Its flag and those of its aliases; `for_`, which Python cannot spell, is --for."""
        return ["--" + n.rstrip("_").replace("_", "-") for n in (self.name, *self.aliases)]

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def allowed(self) -> Sequence[str] | None:
        return self.choices() if callable(self.choices) else self.choices

    def read(self, text: str) -> Any:
        """One item from its text. Raises ValueError, saying what it may be."""
        value, allowed = self.kind.read(text), self.allowed()
        if allowed is not None and value is not None and value not in allowed:
            known = [str(a) for a in allowed]
            hint = did_you_mean(text, known) or f"; one of: {', '.join(known)}"
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
        """The help text: what it does, what it may be, what it is when left out."""
        notes, allowed = [], self.allowed()
        if allowed is not None:
            notes.append("one of: " + ", ".join(str(a) for a in allowed if a != ""))
        if self.required and not self.positional:
            notes.append("must be given")
        # where no value stands for one that the job finds, the help says which
        found = "default:" in self.help
        if not self.required and not found and self.default not in (None, "", (), {}):
            notes.append(f"default: {_spelt(self.default)}")
        return f"{self.help} ({'; '.join(notes)})".strip() if notes else self.help


def _spelt(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def option_fields(cls: type) -> list[OptionField]:
    """Every option of a dataclass, in the order of its fields."""
    hints, options = typing.get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        kind = FieldType.of(hints[field.name], f"{cls.__name__}.{field.name}")
        # The group that declares an option first; a job may declare it again, with another default.
        owners = (c for c in reversed(cls.__mro__) if field.name in inspect.get_annotations(c))
        heading = heading_of(next(owners))
        own = field.metadata.get("aliases")
        aliases = aliases_of(field.name, names.JOB_NAMES) if own is None else own
        said = {**field.metadata, "aliases": aliases}
        options.append(OptionField(field.name, kind, default, heading, **said))
    return options


def aliases_of(name: str, *tables: Mapping[str, str]) -> tuple[str, ...]:
    """What other libraries call an option, by tables of their names."""
    return tuple(k for table in tables for k, v in table.items() if v == name != k)


def heading_of(cls: type) -> str:
    """What `--help` puts above the options that a class declares."""
    return vars(cls).get("HEADING", "options")


def changeable(cls: type) -> dict[str, str]:
    """Name and flag of every option that a resumed run may change."""
    return {o.name: o.flag for o in option_fields(cls) if o.changeable}

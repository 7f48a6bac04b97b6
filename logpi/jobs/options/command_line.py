"""The command line of a job: words in, a dataclass of options out (`fields.py`).

    arguments = parse(Train, sys.argv[1:], prog="logpi train", description="Train a model.")

    --model m --beta 0 --hihg 1
      1. the dataclass's own options are read; `--beta 0 --hihg 1` is left over
      2. what is left over asks for the flags of a mapping: here those of the default algorithm
      3. all is read again; `--beta 0` becomes options={"beta": 0.0}
      4. `--hihg` is still left over: unknown option --hihg; did you mean --high?

So the table of algorithms is loaded only for a command line that names one of its settings, and a
command's `--help` is instant. Dashes and underscores are the same. A mistake is one line on stderr
and exit code 2. Left out: sub-commands (`logpi.commands` is a table of names), files (`config.py`).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from functools import partial
from typing import Any, NoReturn, TypeVar

from logpi.algorithms import names
from logpi.errors import UserError, did_you_mean, one_line, shell
from logpi.jobs.options.algorithm import no_such_part
from logpi.jobs.options.fields import OptionField, heading_of, option_fields

T = TypeVar("T")
HELP = ("-h", "--help")
MOST_USED = "most used"
OTHER_NAMES = (
    "The names that TRL, verl, Stable-Baselines3, CleanRL and OpenRLHF have for these are"
    " understood."
)


class _Parser(argparse.ArgumentParser):
    """An argparse parser that prints a mistake on one line, and reads negative numbers in any
    notation as values."""

    def __init__(self, prog: str, description: str = "") -> None:
        super().__init__(
            prog,
            f"{prog} [OPTIONS]",
            description,
            formatter_class=partial(_Formatter, max_help_position=36, width=110),
            add_help=False,
            allow_abbrev=False,
        )
        # argparse's own does not know -1e-3
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf)")

    def error(self, message: str) -> NoReturn:
        # argparse names an option by all its flags: argument --lr/--learning-rate: …
        line = re.sub(r"^argument ([^/\s]+?)(/-[^\s:]+)?: ", r"\1: ", one_line(message))
        print(f"{self.prog}: {line} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


class _LenientParser(_Parser):
    """A parser that raises ValueError for a mistake."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option by its own name; names of other libraries stand in its text."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.metavar is None:
            return ", ".join(action.option_strings[:2]) or str(action.metavar)
        return f"{action.option_strings[0]} {self._format_args(action, str(action.metavar))}"


# --- flags ---


def _add(to: Any, field: OptionField, words: Sequence[str], dest: str) -> None:
    """Add an option to a parser or a group. The parser returns only the options that the user gave:
    the dataclass has the defaults, and `build` checks the required ones."""
    text = field.shown().replace("%", "%%")
    common: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
    if field.kind.item is bool and not field.kind.many:
        to.add_argument(*words, dest=dest, action=argparse.BooleanOptionalAction, **common)
        return
    nargs = field.nargs or ("*" if field.kind.many else None)
    common |= {"type": _argparse_type(field), "metavar": field.kind.metavar, "nargs": nargs}
    if field.kind.named:
        common["action"] = "extend"
    if field.positional:
        common |= {"metavar": field.name.upper(), "nargs": nargs or "?"}
        to.add_argument(dest, **common)
    else:
        to.add_argument(*words, dest=dest, **common)


def _argparse_type(field: OptionField) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        # argparse converts the default too, where a positional is left out
        if text is argparse.SUPPRESS:
            return text
        try:
            return field.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def negated(fields: Iterable[OptionField]) -> list[str]:
    """The flags that turn something off: --no-shuffle."""
    return [f"--no-{w[2:]}" for f in fields if f.kind.item is bool for w in f.words]


def _dashed(argv: Sequence[str]) -> list[str]:
    """`--max_steps=x_y` -> `--max-steps=x_y`; what follows a bare `--` is left alone."""
    end = argv.index("--") if "--" in argv else len(argv)
    out = []
    for word in argv[:end]:
        name, equals, value = word.partition("=")
        out.append(name.replace("_", "-") + equals + value if name.startswith("--") else word)
    return out + list(argv[end:])


# --- one command ---


class CommandLine:
    """The command line of one dataclass of options.

    Attributes:
        fields: its options. prog: how it is called. description: what it does.
    """

    def __init__(self, cls: type, prog: str, description: str = "") -> None:
        self.cls, self.prog, self.description = cls, prog, description
        self.fields = [f for f in option_fields(cls) if not f.hidden]

    def options(self, argv: Sequence[str], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The options in `argv` by name, without defaults.

        Args:
            base: options of a file; with those in `argv` they decide which settings exist.
        Raises:
            SystemExit: code 2 after one line on stderr for a mistake; code 0 after `--help`.
        """
        words, base = _dashed(argv), base or {}
        if set(HELP) & set(words):
            options = self.peek(argv)
            known = {**self._recipe(options), **base, **options}
            self.parser(self.settings(known)).print_help()
            raise SystemExit(0)
        options, rest = self._read(_Parser(self.prog), words, [])
        settings: list[tuple[str, OptionField]] = []
        if any(word.startswith("--") for word in rest):
            defaults = {f.name: f.default for f in self.fields if f.default is not MISSING}
            settings = self.settings({**defaults, **self._recipe(options), **base, **options})
            options, rest = self._read(_Parser(self.prog), words, settings)
        if rest:  # before missing options: a misspelt option is often the missing one
            self.error(self._unknown(rest, [f for _, f in settings]))
        return options

    def _recipe(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options of the recipe that is named, for a job that has recipes."""
        return getattr(self.cls, "RECIPES", {}).get(options.get("recipe"), {})

    def peek(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options in `argv`; {} if it has a mistake."""
        words = [w for w in _dashed(argv) if w not in HELP]
        try:
            return self._read(_LenientParser(self.prog), words, [])[0]
        except ValueError:
            return {}

    def build(self, words: Mapping[str, Any]) -> Any:
        """The dataclass of these values. Raises SystemExit if one is missing, or if they contradict
        each other."""
        missing = [
            f.name.upper() if f.positional else f.flag
            for f in self.fields
            if f.required and words.get(f.name, "") == ""
        ]
        if missing:
            self.error(f"{' and '.join(missing)} must be given")
        try:
            with shell():
                return self.cls(**words)
        except (UserError, ValueError) as error:  # from the dataclass's own checks
            self.error(str(error))

    def settings(self, known: Mapping[str, Any]) -> list[tuple[str, OptionField]]:
        """(the mapping's name, a field) of each setting that has a flag; the other options decide
        which."""
        try:
            return [(f.name, s) for f in self.fields if f.flags for s in f.flags(known)]
        except (UserError, ValueError) as error:
            self.error(str(error))

    def parser(self, settings: Sequence[tuple[str, OptionField]] = ()) -> argparse.ArgumentParser:
        """All options in their groups, for `--help`."""
        parser = _Parser(self.prog, self.description)
        if any(f.aliases for f in self.fields):
            parser.epilog = OTHER_NAMES
        self.fill(parser, settings)
        return parser

    def fill(
        self, parser: argparse.ArgumentParser, settings: Sequence[tuple[str, OptionField]] = ()
    ) -> None:
        """Give a parser all options in their groups."""
        groups: dict[str, Any] = {}
        order = _headings(self.cls)
        ordered = sorted(self.fields, key=lambda f: order.index(f.heading))
        first = [f.name for f in ordered if f.positional] + getattr(self.cls, "FIRST", "").split()
        ordered.sort(key=lambda f: first.index(f.name) if f.name in first else len(first))
        for words, dest, field in _placed(ordered, settings):
            heading = MOST_USED if dest in first else field.heading
            group = groups.get(heading) or parser.add_argument_group(heading)
            groups[heading] = group
            _add(group, field, words, dest)

    def error(self, message: str) -> NoReturn:
        """End with a line on stderr."""
        _Parser(self.prog).error(message)

    def _read(
        self,
        parser: _Parser,
        words: Sequence[str],
        settings: Sequence[tuple[str, OptionField]],
    ) -> tuple[dict[str, Any], list[str]]:
        """The options in the words by name, and the words that belong to no option."""
        kinds = {}
        for flags, dest, field in _placed(self.fields, settings):
            kinds[dest] = field.kind
            _add(parser, field, flags, dest)
        namespace, rest = parser.parse_known_args(words)
        values: dict[str, Any] = {}
        for dest, value in vars(namespace).items():
            mapping, dot, name = dest.rpartition(".")
            value = kinds[dest].collected(value) if kinds[dest].many else value
            if dot:
                values[mapping] = {**values.get(mapping, {}), name: value}
            elif kinds[dest].named:
                # a setting's own flag wins over `--options NAME=VALUE`
                values[dest] = {**value, **values.get(dest, {})}
            else:
                values[dest] = value
        return values, rest

    def _unknown(self, words: Sequence[str], settings: Sequence[OptionField]) -> str:
        """The message about words that belong to no option."""
        word = next((w.partition("=")[0] for w in words if w.startswith("-")), None)
        if word is None:
            return f"unexpected argument {words[0]!r}; every option needs its name in front"
        fields = [f for f in [*self.fields, *settings] if not f.positional]
        known = [w for f in fields for w in f.words] + negated(fields)
        elsewhere = names.ELSEWHERE.get(word.lstrip("-").replace("-", "_"))
        if elsewhere:
            return f"unknown option {word}: {elsewhere}"
        if lacking := no_such_part(word, settings):
            return f"unknown option {word}: {lacking}"
        return f"unknown option {word}{did_you_mean('--' + word.lstrip('-'), known)}"


def _headings(cls: type) -> list[str]:
    """The job's own options first, then its groups in the order of inheritance; seeds and the run
    last."""
    headings = dict.fromkeys(heading_of(c) for c in cls.__mro__)
    return sorted(headings, key=lambda heading: heading in ("several seeds", "run"))


def _placed(
    fields: Sequence[OptionField], settings: Sequence[tuple[str, OptionField]]
) -> list[tuple[list[str], str, OptionField]]:
    """(flags, destination, field) of everything. A job's own option keeps its name; a setting of
    the same name is left to `--options`, or to its alias."""
    triples = [(f.words, f.name, f) for f in fields]
    used = {w for words, _, _ in triples for w in words} | set(negated(fields))
    for mapping, field in settings:
        words = [w for w in field.words if w not in used]
        used |= set(words)
        if words:
            triples.append((words, f"{mapping}.{field.name}", field))
    return triples


def parse(cls: type[T], argv: Sequence[str], prog: str, description: str = "") -> T:
    """Read `argv` (without the program's name) into the dataclass `cls`.

    Raises:
        SystemExit: code 2 after one line on stderr for a mistake; code 0 after `--help`.
        TypeError: a field has a type that no option can have (the programmer's mistake).
    """
    line = CommandLine(cls, prog, description)
    return line.build(line.options(argv))

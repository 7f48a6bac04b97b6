"""`logpi describe NAME`: the exact objective as mathematics, from the composition itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.errors import as_user_errors
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.algorithms import Option


@dataclass(frozen=True)
class Describe:
    """Arguments of `logpi describe`."""

    name: str = option(help="a row of `logpi algorithms`", positional=True)
    options: Mapping[str, Any] = option(
        {},
        help="settings, e.g. beta=0.04 high=0.3",
        nargs="*",
        flags=lambda known: flags_of_algorithm({"algorithm": known.get("name")}),
    )


def options_text(algorithm: str) -> str:
    """The options of an algorithm that a command line can give, a line each; the names of those
    that are parts, and of those that only Python can give."""
    from logpi.algorithms import options

    known = options(algorithm)
    rows = [(f"{o.name}={_spelt(o.default)}", o) for o in known if o.is_word and not o.axis]
    width = max((len(text) for text, _ in rows), default=0)
    lines = [f"            {text:<{width}}  {_help(o)}" for text, o in rows]
    head = [f"  options   {lines[0].strip()}", *lines[1:]] if lines else []
    parts, objects = [o.name for o in known if o.axis], [o.name for o in known if not o.is_word]
    head += [f"  parts     {', '.join(parts)}: a word each, `logpi algorithms --parts`"]
    return "\n".join(head + ([f"  in Python {', '.join(objects)}"] if objects else []))


def _spelt(value: object) -> str:
    """A default as the command line takes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _help(option: Option) -> str:
    """What an option does, and its names elsewhere."""
    return f"{option.help} ({', '.join(option.aliases)})" if option.aliases else option.help


def main(argv: Sequence[str]) -> int:
    a = parse(
        Describe,
        argv,
        "logpi describe",
        "An algorithm as mathematics, with its sources and where it differs.",
    )
    from logpi.algorithms import describe

    with as_user_errors():
        print(describe(a.name, **a.options))
        print(f"\n{options_text(a.name)}")
    return 0

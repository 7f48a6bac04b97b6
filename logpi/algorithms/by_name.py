"""Algorithms by name: `algorithm("dapo", high=0.3)` makes one, `describe("dapo")` prints it.

A name and options become a value, and a mistake becomes one line. Left out: the compositions
themselves (THE TABLE, `table.py`) and the options of each (`option_list.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from logpi.algorithms import names
from logpi.algorithms.description import Description
from logpi.algorithms.option_list import Method, Option, find_method, make, options_of, own_name
from logpi.errors import did_you_mean

if TYPE_CHECKING:
    from logpi.algorithms.composition import Algorithm

__all__ = ["algorithm", "describe"]


def algorithm(which: str | Algorithm, **chosen: Any) -> Algorithm:
    """An algorithm, as a value.

    Args:
        which: a row of the table (also in upper case, with dashes, or by another library's name);
            `FILE.py:NAME` of an `Algorithm` or of a function that returns one; or an `Algorithm`.
        chosen: options of `options(which)`, also by the names of TRL, verl, Stable-Baselines3,
            CleanRL and OpenRLHF (`algorithms.names`).
    Raises:
        ValueError: unknown name or option, with the nearest known one; a value of the wrong kind.
        UserError: the user's file cannot be run, or has no algorithm of this name.

    >>> algorithm("dapo", high=0.3).objective.surrogate
    Clip(low=0.2, high=0.3)
    """
    method = find_method(which)
    known = options_of(method)
    chosen = {k: known[k].read(v) for k, v in _translate(method, chosen, known).items()}
    a = make(method, {p.name: chosen[p.name] for p in method.own if p.name in chosen})
    for option in known.values():
        if option.name in chosen and option.change is not None:
            a = option.change(a, chosen[option.name])
    return _with_name(method, a)


def _translate(
    method: Method, chosen: Mapping[str, Any], known: Mapping[str, Option]
) -> dict[str, Any]:
    """Options by logpi's names.

    Raises:
        ValueError: an unknown option, or one option under two names.
    """
    values: dict[str, Any] = {}
    for theirs, value in chosen.items():
        line = names.ELSEWHERE_OF_ROW.get((method.name, theirs))
        ours = own_name(method.name, theirs, set(known))
        if line or ours not in known:
            raise ValueError(
                f"{method.name} has no option {theirs!r}{line_of(theirs, line, known)}"
            )
        if ours in values:
            raise ValueError(f"{theirs} is {ours}, which is given too")
        values[ours] = value
    return values


def line_of(option: str, line: str | None, known: Mapping[str, Option]) -> str:
    """The end of an error line: what to use instead of an option that an algorithm does not
    have."""
    if line := line or names.ELSEWHERE.get(option):
        return f": {line}"
    if option in names.JOB_NAMES:
        return f": it is a setting of the job, {names.JOB_NAMES[option]}"
    return did_you_mean(option, known) or f"; known: {', '.join(known)}"


def _with_name(method: Method, a: Algorithm) -> Algorithm:
    """With the row's name, and source and divergences from the docstring of its function."""
    if not method.doc:
        return replace(a, name=method.name)
    source, _, rest = method.doc.partition("\n\n")
    differs = tuple(" ".join(x.split()) for x in ("\n" + rest).split("\n- ")[1:])
    return replace(a, name=method.name, source=source.replace("\n", " "), differs=differs)


def describe(which: str | Algorithm, **chosen: Any) -> Description:
    """The objective as mathematics, from the composition itself, with sources and divergences. It
    is a text, which a notebook shows as mathematics.

    >>> print(describe("sft").splitlines()[2])
      maximise  Σₜ wₜ log π(aₜ|sₜ) Âₜ
    """
    return Description(algorithm(which, **chosen))

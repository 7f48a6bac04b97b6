"""Algorithms by name: `algorithm("dapo", high=0.3)` makes one, `describe("dapo")` prints it.

A name and options become a value, and a mistake becomes one line. Left out: the compositions
themselves (THE TABLE, `table.py`) and the options of each (`option_list.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from logpi.algorithms import names
from logpi.algorithms.composition import Difference
from logpi.algorithms.description import Description
from logpi.algorithms.option_list import (
    Method,
    Option,
    find_method,
    make,
    options_of,
    own_name,
    set_at,
    values_of,
)
from logpi.algorithms.parts import part_at, settings_of
from logpi.errors import did_you_mean
from logpi.objectives.policy_gradient import PolicyGradient

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
    own = {p.name: chosen[p.name] for p in method.own if p.name in chosen}
    changes = [o for o in known.values() if o.name in chosen and o.change is not None]
    parts = [o for o in changes if o.axis is not None]
    a = _with_parts(method, own, {o: chosen[o.name] for o in parts})
    for option in changes:
        if option.change is not None and option not in parts:
            a = option.change(a, chosen[option.name])
    _check_critic(a, {o.name for o in parts})
    return _with_name(method, a)


def _check_critic(a: Algorithm, parts: set[str]) -> None:
    """Raises ValueError: an advantage was chosen that reads a critic, and nothing fits one."""
    o = a.objective
    if (
        "advantage" in parts
        and isinstance(o, PolicyGradient)
        and o.needs_critic
        and not o.value_coef
    ):
        raise ValueError(
            f"{type(o.advantage).__name__} needs a critic, and nothing trains one here: give"
            " value_coef too, say 0.5"
        )


def _with_parts(method: Method, own: Mapping[str, Any], parts: Mapping[Option, Any]) -> Algorithm:
    """The row's algorithm with whole parts exchanged. The row's own parameters hold for the new
    parts too: of `ppo(gamma=0.9)` with `RewardToGo()` they make `RewardToGo(gamma=0.9)`.

    Raises:
        ValueError: a parameter would be lost, because the new part has nothing like it.
    """
    a, row, objective = make(method, dict(own)), make(method, {}), {}
    for option, part in parts.items():
        assert option.axis is not None and option.change is not None
        old = part_at(row, option.axis)
        for name, value in own.items():
            if {name in settings_of(x) for x in (old, part)} == {True}:
                part = set_at((name,), part, value)
            elif part_at(make(method, {name: value}), option.axis) != old:
                raise ValueError(
                    f"{name} is a setting of {type(old).__name__}, in whose place"
                    f" {option.name} puts {part}: leave one of them out"
                )
        if option.axis.path[0] == "objective":
            objective[option.axis.name] = part
        else:
            a = option.change(a, part)
    # together: a new ratio, say, may not fit the row's surrogate, and fit the new one
    return set_at(("objective",), a, replace(a.objective, **objective))  # type: ignore[type-var]


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
    lines = [" ".join(x.split()) for x in ("\n" + rest).split("\n- ")[1:]]
    row = values_of(_as_written(method)) if any(_ABOUT.match(x) for x in lines) else {}
    differs = tuple(_difference(line, row) for line in lines)
    return replace(a, name=method.name, source=source.replace("\n", " "), differs=differs)


def _as_written(method: Method) -> Algorithm:
    """What a row's docstring speaks of: the row, with its penalty where it may have one."""
    a = make(method, {})
    penalised = any(p.name == "beta" for p in method.own)
    return make(method, {"beta": 1.0}) if penalised and "kl_place" not in values_of(a) else a


# "[weight, low] A line." is about the row's weight and its clip.
_ABOUT = re.compile(r"\[([a-z_]+(?:, [a-z_]+)*)\] (.+)")


def _difference(line: str, row: Mapping[str, Any]) -> str | Difference:
    about = _ABOUT.fullmatch(line)
    if about is None or not set(about[1].split(", ")) <= set(row):
        return line
    return Difference(about[2], tuple((name, row[name]) for name in about[1].split(", ")))


def describe(which: str | Algorithm, **chosen: Any) -> Description:
    """The objective as mathematics, from the composition itself, with sources and divergences. It
    is a text, which a notebook shows as mathematics.

    >>> print(describe("sft").splitlines()[2])
      maximise  Σₜ wₜ log π(aₜ|sₜ) Âₜ
    """
    return Description(algorithm(which, **chosen))

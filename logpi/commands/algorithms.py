"""`logpi algorithms`: the table, read off the compositions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from logpi.jobs.memory import aligned
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

HEAD = ("", "advantage", "ratio", "surrogate", "KL", "weight", "update")


def _situations() -> list[str]:
    from logpi.algorithms.choosing import SITUATIONS

    return list(SITUATIONS)


@dataclass(frozen=True)
class AlgorithmList:
    """Arguments of `logpi algorithms`."""

    markdown: bool = option(False, help="as a Markdown table")
    for_: str = option(
        "",
        help="what you have or lack: the row that we would take, why, and others",
        choices=_situations,
        aliases=("situation",),
    )
    parts: bool = option(False, help="the parts of each axis instead, as their words are written")


# fields that are left out where they have their class's default
DULL = ("gamma", "eps", "ddof")


def _short(part: Any) -> str:
    """`GAE(gamma=1.0, lam=0.95)` as `GAE(lam=0.95)`: without dull defaults and what is None."""
    from logpi.ops.kl import KL

    if isinstance(part, KL):
        return f"{part.coef:g} {part.estimator} in {part.place}"
    if not is_dataclass(part):
        return str(part or "–")
    settings = [
        (x.name, getattr(part, x.name))
        for x in fields(part)
        if x.name not in DULL or getattr(part, x.name) != x.default
    ]
    text = ", ".join(f"{name}={value!r}" for name, value in settings if value is not None)
    return type(part).__name__ + (f"({text})" if text else "")


def cells(name: str) -> tuple[str, ...]:
    """One row: name, advantage, ratio, surrogate, KL, weight, update."""
    from logpi.algorithms import algorithm

    a = algorithm(name)
    advantage, *others = (_short(part) for part in a.objective.explain().parts.values())
    advantage += " + critic" if a.objective.needs_critic else ""
    advantage += ", whiten" if getattr(a.objective, "whiten", False) else ""
    update = type(a.update).__name__
    if a.update.gradient_steps is a.update and a.update.gradient_steps.epochs > 1:
        update += f", {a.update.gradient_steps.epochs} passes"
    update += f", {type(a.keep).__name__}" if a.keep.refill else ""
    return (name, advantage, *others, update)


def parts_text() -> str:
    """Every part of every axis: its word with its settings, and what it is."""
    from logpi.algorithms.parts import AXES

    lines = []
    for axis in AXES.values():
        lines += ["", f"--{axis.name}  {axis.help}"]
        lines += [f"  {word}\n      {text}" for word, text in axis.lines()]
    example = '--advantage "GroupNorm(ddof=0)" --weight TokenMean, or your own: mine.py:Mine(k=2)'
    return "\n".join([f"Parts of an algorithm by word: {example}", *lines])


def main(argv: Sequence[str]) -> int:
    a = parse(
        AlgorithmList,
        argv,
        "logpi algorithms",
        "The table of algorithms: each is a composition of independent choices.",
    )
    if a.for_:
        from logpi.algorithms.choosing import SITUATIONS

        print(SITUATIONS[a.for_].text())
        return 0
    if a.parts:
        print(parts_text())
        return 0
    from logpi.algorithms import TABLE

    rows = [HEAD, *(cells(name) for name in TABLE)]
    if a.markdown:
        lines = ["| " + " | ".join(r) + " |" for r in rows]
        lines.insert(1, "|" + "---|" * len(HEAD))
    else:
        lines = aligned(rows, "<" * len(HEAD))
    print("\n".join(lines))
    return 0

"""`logpi algorithms`: the table, read off the compositions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

HEAD = ("", "advantage", "ratio", "surrogate", "KL", "weight", "update")


@dataclass(frozen=True)
class AlgorithmList:
    """Arguments of `logpi algorithms`."""

    markdown: bool = option(False, help="as a Markdown table")


DULL = ("gamma", "eps", "ddof")  # fields that are left out where they have their class's default


def _short(part: Any) -> str:
    """`GAE(gamma=1.0, lam=0.95)` as `GAE(lam=0.95)`: without dull defaults and what is None."""
    if part is None:
        return "–"
    if not is_dataclass(part):
        return str(part).removesuffix("()")
    known = [
        (x.name, getattr(part, x.name))
        for x in fields(part)
        if x.name not in DULL or getattr(part, x.name) != x.default
    ]
    said = ", ".join(f"{name}={value!r}" for name, value in known if value is not None)
    return type(part).__name__ + (f"({said})" if said else "")


def cells(name: str) -> tuple[str, ...]:
    """One row: name, advantage, ratio, surrogate, KL, weight, update."""
    from logpi.algorithms import algorithm
    from logpi.objectives.policy_gradient import PolicyGradient
    from logpi.updates.sgd import SGD

    a = algorithm(name)
    o: Any = a.objective
    if not isinstance(o, PolicyGradient):
        return (
            name,
            *(_short(part) for part in o.explain().parts.values()),
            type(a.update).__name__,
        )
    advantage = (
        _short(o.advantage)
        + (" + critic" if o.needs_critic else "")
        + (", whiten" if o.whiten else "")
    )
    kl = "–" if o.kl is None else f"{o.kl.coef:g} {o.kl.estimator} in {o.kl.place}"
    ratio = _short(o.ratio) if o.surrogate.uses_ratio else "–"
    update = type(a.update).__name__
    if isinstance(a.update, SGD) and a.update.epochs > 1:
        update += f", {a.update.epochs} passes"
    keep = f", {type(a.keep).__name__}" if a.keep.refill else ""
    return (name, advantage, ratio, _short(o.surrogate), kl, _short(o.weight), update + keep)


def main(argv: Sequence[str]) -> int:
    a = parse(
        AlgorithmList,
        argv,
        "logpi algorithms",
        "The table of algorithms: each is a composition of independent choices.",
    )
    from logpi.algorithms import TABLE

    rows = [HEAD, *(cells(name) for name in TABLE)]
    if a.markdown:
        lines = ["| " + " | ".join(r) + " |" for r in rows]
        lines.insert(1, "|" + "---|" * len(HEAD))
    else:
        widths = [max(len(r[i]) for r in rows) for i in range(len(HEAD))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
        ]
    print("\n".join(lines))
    return 0

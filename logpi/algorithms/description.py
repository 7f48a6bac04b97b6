"""An algorithm as mathematics, for people: as text, and as Markdown with LaTeX in a notebook.

Everything is read from the composition itself (`Objective.explain`), and a row's divergences are
printed as long as it has what they are about. Left out: the equations (`ops`, `objectives`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from logpi.algorithms.composition import Algorithm, Difference
from logpi.algorithms.option_list import values_of
from logpi.algorithms.table import TABLE
from logpi.algorithms.texts import sections

__all__ = ["Description", "changes", "choices", "divergences", "latex"]


class Description(str):
    """The text that `logpi describe NAME` prints; a notebook shows it as mathematics."""

    algorithm: Algorithm

    def __new__(cls, algorithm: Algorithm) -> Description:
        self = super().__new__(cls, _text(algorithm))
        self.algorithm = algorithm
        return self

    def _repr_markdown_(self) -> str:
        a, e = self.algorithm, self.algorithm.objective.explain()
        where = [f"- ${latex(x)}$" for x in e.where]
        table = [f"| {axis} | `{choice}` |" for axis, choice in choices(a).items()]
        differs = [f"- {x}" for x in divergences(a)]
        parts = (
            f"**{a.name}**: {a.source}",
            *(f"*But with* `{x}`" for x in changes(a)),
            *(f"**Warning**: {x}" for x in e.warnings),
            f"$${latex(e.goal)}$$",
            "\n".join(["where", "", *where]) if where else "",
            "\n".join(["| | |", "|---|---|", *table]),
            f"*Sources*: {_sources(a)}",
            f"*Texts*: {sections(a.name)}" if sections(a.name) else "",
            "\n".join(["*Differs*", "", *differs]) if differs else "",
        )
        return "\n\n".join(part for part in parts if part)

    def _repr_latex_(self) -> str:
        return f"$${latex(self.algorithm.objective.explain().goal)}$$"


def choices(a: Algorithm) -> dict[str, str]:
    """The choice on each axis."""
    parts = {k: str(v or "–") for k, v in a.objective.explain().parts.items()}
    more = {"update": a.update, "keep": a.keep, "truncation": a.truncation}
    return parts | {k: str(v) for k, v in more.items()}


def _sources(a: Algorithm) -> str:
    return "; ".join(dict.fromkeys(a.objective.explain().sources))


def divergences(a: Algorithm) -> tuple[str, ...]:
    """What the algorithm does otherwise than its source: the row's lines that hold for it, and
    those of its parts."""
    about = [d for d in a.differs if isinstance(d, Difference)]
    now = values_of(a) if about else {}
    row = [str(d) for d in a.differs if d not in about or d.holds(now)]
    return (*row, *a.objective.explain().differs)


def changes(a: Algorithm) -> Iterator[str]:
    """What is not as in the row of this name, as it is written on a command line."""
    if a.name not in TABLE:
        return
    row = TABLE[a.name]()
    yield from _changes(row.objective, a.objective)
    if type(a.update) is type(row.update):
        yield from _changes(row.update, a.update)
        rest = ("keep", "truncation")
    else:
        rest = ("update", "keep", "truncation")
    for name in rest:
        if getattr(a, name) != getattr(row, name):
            yield f"{name}={getattr(a, name)}"


def _changes(row: Any, now: Any) -> Iterator[str]:
    """Fields with another value than the row's; all of them on an objective of another class."""
    for f in fields(now) if type(row) is type(now) else ():
        if getattr(now, f.name) != getattr(row, f.name):
            yield f"{f.name}={getattr(now, f.name)}"


def _text(a: Algorithm) -> str:
    e = a.objective.explain()
    lines = [f"{a.name}: {a.source}"]
    lines += _listed("but with", changes(a))
    lines += ["", f"  {e.goal}", *(f"  where     {x}" for x in e.where)]
    lines += ["", *(f"  {k:<11}{v}" for k, v in choices(a).items())]
    lines += ["", f"  sources   {_sources(a)}"]
    lines += _listed("texts", filter(None, [sections(a.name)]))
    lines += [*_listed("differs", divergences(a)), *_listed("warning", e.warnings)]
    return "\n".join(lines)


def _listed(head: str, lines: Iterable[str]) -> list[str]:
    """Lines under each other, behind a word."""
    return [f"  {'' if i else head:<8}  {line}" for i, line in enumerate(lines)]


# --- Unicode mathematics as LaTeX ---

_CHARACTERS = {
    **{"Σ": r"\sum", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon"},
    **{
        "λ": r"\lambda",
        "π": r"\pi",
        "ρ": r"\rho",
        "σ": r"\sigma",
        "τ": r"\tau",
        "ℓ": r"\ell",
        "θ": r"\theta",
    },
    **{"·": r"\cdot", "±": r"\pm", "←": r"\leftarrow", "≤": r"\le", "≥": r"\ge", "≠": r"\ne"},
    **{"½": r"\tfrac12", "−": "-", "–": "-", "Â": r"\hat A", "ŷ": r"\hat y"},
    **{"_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "∇": r"\nabla", "…": r"\dots"},
}
_SCRIPTS = str.maketrans("ₜₖ₀₁₂₊₋⁺⁻²", "tk012+-+-2")
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?e[+-]?\d+)"
    r"|(?P<function>\b(?:log|min|max)\b|\b(?:clip|std|mean|stopgrad)(?=[(_]))"
    r"|(?P<name>_[a-z]{2,})|(?P<sub>_(?=\{)|[ₜₖ₀₁₂₊₋]+)|(?P<power>\^\([^()]*\))|(?P<sup>[⁺⁻²]+)"
    r"|(?P<text>[A-Za-z]{2,}'?s?(?:,? +[A-Za-z]{2,}'?s?)*)"
    r"|(?P<hat>.\u0302)|(?P<other>.)"
)


def latex(text: str) -> str:
    r"""An equation as `explain` writes it, in LaTeX.

    >>> latex("Âₜ = (R − mean_group(R)) / 2, over all")
    '\\hat A _{t} = (R - \\operatorname{mean}_{\\text{group}}(R)) / 2, \\text{ over all }'
    """
    return re.sub(r" +", " ", "".join(_symbol(m) for m in _TOKEN.finditer(text))).strip()


def _symbol(token: re.Match[str]) -> str:
    word = token[0]
    match token.lastgroup:
        case "number":
            digits, _, power = word.partition("e")
            return rf"{digits}\cdot 10^{{{int(power)}}}"
        case "function":
            known = word in ("log", "min", "max")
            return rf"\{word} " if known else rf"\operatorname{{{word}}}"
        case "name":
            return rf"_{{\text{{{word[1:]}}}}}"
        case "sub":
            return word if word == "_" else f"_{{{word.translate(_SCRIPTS)}}}"
        case "power":
            return f"^{{{latex(word[2:-1])}}}"
        case "sup":
            return f"^{{{word.translate(_SCRIPTS)}}}"
        case "text":
            return rf"\text{{ {word} }}"
        case "hat":
            return rf"\hat {word[0]}"
    symbol = _CHARACTERS.get(word, word)
    return (
        symbol + " " if symbol[0] == "\\" and symbol[-1].isalpha() and len(symbol) > 2 else symbol
    )

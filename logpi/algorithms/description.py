"""An algorithm as mathematics, for people: as text, and as Markdown with LaTeX in a notebook.

Everything is read from the composition itself (`Objective.explain`). Left out: the equations
(`ops`, `objectives`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logpi.algorithms.composition import Algorithm

__all__ = ["Description", "choices", "latex"]


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
        differs = [f"- {x}" for x in a.differs]
        parts = (
            f"**{a.name}**: {a.source}",
            f"$${latex(e.goal)}$$",
            "\n".join(["where", "", *where]) if where else "",
            "\n".join(["| | |", "|---|---|", *table]),
            f"*Sources*: {_sources(a)}",
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


def _text(a: Algorithm) -> str:
    e = a.objective.explain()
    lines = [f"{a.name}: {a.source}", "", f"  {e.goal}", *(f"  where     {x}" for x in e.where)]
    lines += ["", *(f"  {k:<11}{v}" for k, v in choices(a).items())]
    lines += ["", f"  sources   {_sources(a)}"]
    if a.differs:
        lines += ["  differs   " + a.differs[0], *(f"            {x}" for x in a.differs[1:])]
    return "\n".join(lines)


# --- Unicode mathematics as LaTeX ---

_CHARACTERS = {
    **{"Σ": r"\sum", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon"},
    **{"λ": r"\lambda", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "ℓ": r"\ell", "θ": r"\theta"},
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

"""The names that the parser of expressions knows: Greek letters, functions, and the method for each
command.

Left out: the parser (`expressions.py`).
"""

from __future__ import annotations

GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi"
    " rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi"
    " Omega ell hbar star".split()
)
FUNCTIONS = set(
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc ln log"
    " lg exp gcd lcm max min".split()
)
OTHER_NAMES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "arctg": "arctan",
    "tg": "tan",
    "ctg": "cot",
}
INVERSE = {f: "arc" + f for f in ("sin", "cos", "tan", "cot", "sec", "csc")}
ACCENTS = set(
    "vec hat bar overline tilde overrightarrow widehat widetilde dot overarc underline".split()
)
WORDS = {*FUNCTIONS, *OTHER_NAMES, "sqrt", "pi", "infinity", "inf", "oo", "binom"}
# command -> the method `read_…` of `Expressions` that reads it
READERS = {
    "frac": "frac",
    "binom": "binom",
    "sqrt": "root",
    "surd": "root",
    "mathbb": "set",
    "emptyset": "set",
    "varnothing": "set",
    "text": "text",
    "operatorname": "text",
    "sum": "series",
    "prod": "series",
    **dict.fromkeys(("pi", "infty", "infinity", "inf", "oo"), "constant"),
    **dict.fromkeys(("{", "lbrace", "langle", "lfloor", "lceil", "lvert", "vert"), "brackets"),
    **dict.fromkeys(ACCENTS, "accent"),
    **dict.fromkeys(("angle", "triangle", "odot"), "angle"),
    **dict.fromkeys(("dots", "ldots", "cdots"), "dots"),
    "begin": "matrix",
}

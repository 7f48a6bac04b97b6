r"""Brings the notations of an answer to one spelling: digits and signs of all scripts, LaTeX's
spacing and short forms.

A replacement never changes the meaning. It drops no brace, exponent, sign or bracket, so answers
with equal `plain` texts are equal. It takes linear time. Left out: the meaning of an answer
(`expressions.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

# the end of a matrix's row: the rules for commands would match `\\\\`
ROW = "\ue000"
# replaces a dollar sign that means dollars: `$` alone is LaTeX's
CURRENCY = "\u00a4"
_SAME = {
    "-": "\u2212\u2013\u2012\u2010\u2011\ufe63",
    "+": "\ufe62",
    "/": "\u2215\u2044\u00f7",
    ":": "\u2236",
    "'": "\u2032\u2019",
    ",": "\u3001\u066c",
    ".": "\u066b\u3002",
    "%": "\u066a",
    " ": "\u00a0\u2009\u202f\u2007\u2005\u200a\u3000\u2063",
    "": "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff",
    "<": "\ufe64",
    ">": "\ufe65",
    "\\times ": "×✕✖⨯",
    "\\cdot ": "·⋅∙•",
    "\\surd ": "√",
    "\\infty ": "∞",
    "\\le ": "≤≦⩽",
    "\\ge ": "≥≧⩾",
    "\\ne ": "≠",
    "\\approx ": "≈",
    "\\in ": "∈",
    "\\cup ": "∪",
    "\\cap ": "∩",
    "\\emptyset ": "∅",
    "\\mathbb{R}": "ℝ",
    "\\pm ": "±",
    "\\mp ": "∓",
    "^\\circ ": "°º",
    "\\setminus ": "∖",
    "\\langle ": "⟨〈",
    "\\rangle ": "⟩〉",
    "\\ldots ": "…",
    "\\pi ": "π",
    "\\alpha ": "α",
    "\\beta ": "β",
    "\\gamma ": "γ",
    "\\delta ": "δ",
    "\\varepsilon ": "ε",
    "\\theta ": "θ",
    "\\lambda ": "λ",
    "\\mu ": "μµ",
    "\\rho ": "ρ",
    "\\sigma ": "σ",
    "\\tau ": "τ",
    "\\varphi ": "φ",
    "\\omega ": "ω",
    "\\Delta ": "Δ",
    "\\lfloor ": "⌊",
    "\\rfloor ": "⌋",
    "\\lceil ": "⌈",
    "\\rceil ": "⌉",
    "\\sum ": "∑",
}
_SCRIPTS = {"^": "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "_": "₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢₓ"}


class _Fold(dict[int, str]):
    """The spelling of each character, computed at its first use."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        new, digit = char, unicodedata.decimal(char, None)
        if digit is not None:
            new = str(digit)
        # full width
        elif 0xFF01 <= code <= 0xFF5E:
            new = chr(code - 0xFEE0)
        # 𝑥
        elif 0x1D400 <= code <= 0x1D7FF:
            new = unicodedata.normalize("NFKC", char).translate(self)
        # ½
        elif unicodedata.decomposition(char).startswith("<fraction>") and unicodedata.numeric(
            char, None
        ):
            top, _, bottom = unicodedata.normalize("NFKC", char).partition("\u2044")
            new = f"\\frac{{{top}}}{{{bottom}}}" if bottom else char
        self[code] = new
        return new


_FOLD = _Fold({ord(old): new for new, olds in _SAME.items() for old in olds})
_SUPER, _SUB = (re.compile(f"[{chars}]+") for chars in _SCRIPTS.values())
_DOTTED = re.compile("(?:[0-9]\u0305)+")


def _script(mark: str) -> Callable[[re.Match[str]], str]:
    return lambda m: f"{mark}{{{unicodedata.normalize('NFKC', m[0]).translate(_FOLD)}}}"


def fold(text: str) -> str:
    """`text` with the digits and signs of all scripts as ASCII or LaTeX.

    >>> fold("٤٢"), fold("−３"), fold("x² ≤ ½")
    ('42', '-3', 'x^{2} \\\\le  \\\\frac{1}{2}')
    """
    if text.isascii():
        return text
    text = _DOTTED.sub(lambda m: "\\overline{" + m[0].replace("\u0305", "") + "}", text)
    return _SUB.sub(_script("_"), _SUPER.sub(_script("^"), text)).translate(_FOLD)


_TEXTS = r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|mathrm|mbox|mathit|mathsf|hbox)"
# in this order
_STEPS = [
    (
        re.compile(
            r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?)(?![A-Za-z])\s?\.?"
        ),
        "",
    ),
    (re.compile(r"\\(?:[dtcs]|nice)frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(rf"{ROW}\s*\[[0-9.]+(?:pt|em|ex|mm|cm)\]"), ROW),
    (re.compile(r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{([^{}]+)\\over(?![A-Za-z])([^{}]+)\}"), r"\\frac{\1}{\2}"),
    (
        re.compile(r"(?<![\w)\]}])(?:\{\})?[_^]\{?([0-9]+)\}?C_\{?([0-9]+)\}?(?![0-9])"),
        r"\\binom{\1}{\2}",
    ),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:mathbf|boldsymbol|bm|mathcal|mathscr|mathnormal|boxed|fbox)(?=\s*\{)"), ""),
    (re.compile(r"(?<=\{)\s*\\(?:bf|rm|it)\s+|\\bf\b"), ""),
    (
        re.compile(
            r"\\(?:text)?color\s*\{[^{}]*\}"
            r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])\s?"
        ),
        "",
    ),
    (re.compile(_TEXTS + r"\s*(?=\{)"), r"\\text"),
    # 1{,}000 is 1000
    (
        re.compile(r"(?<=[0-9])(?:\{,\}|,\s?\\!\s?|\\[,!:;]\s?|~)(?=[0-9]{3}(?![0-9]))"),
        "",
    ),
    # 3{,}5 is 3.5
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9])"), "."),
    (re.compile(r"\\[,;:! ]|\\q?quad|~|\\\n"), " "),
    (re.compile(r"\\[()\[\]]|\\(?:hline|nobreak|allowbreak)(?![A-Za-z])"), " "),
    (re.compile(r"\\(dot|bar|overline)\s*([0-9])"), r"\\\1{\2}"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), CURRENCY),
    (re.compile(r"(?<=[0-9])\s*(?:x|X|\*)\s*(?=10\s*(?:\^|\*\*))"), r"\\times "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\<>])(?:<=)"), r"\\le "),
    (re.compile(r"(?<![\\<>])(?:>=)"), r"\\ge "),
    (re.compile(r"(?<=\s)!="), r"\\ne "),
]
_STATED = re.compile(
    r"\s*(?:\\text\{)?(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:(?:final|correct)\s+)?"
    r"answer\s*(?:is|:|=)\s*:?\s*\}?\s*",
    re.I,
)
# x = 1, y = 2, one below the other
_SYSTEM = re.compile(r"\\begin\s*\{cases\}([^&]*)\\end\s*\{cases\}")
_WHOLE = re.compile(r"\\text\{([^{}]*)\}")


@lru_cache(1 << 16)
def tidy(text: str) -> str:
    r"""`text` after `fold`, without LaTeX's delimiters, sizes and spacing, and with one form of
    `\frac`, `\text` and thousands.

    >>> tidy(r"$\dfrac12\,\mathrm{cm}$"), tidy(r"\$1{,}250")
    ('\\frac12 \\text{cm}', '¤1250')
    """
    text = fold(text.strip())
    # Markdown
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        text = text[2:-2]
    if any(sign in text for sign in ("\\", "C_", "*", "=", "~", "{,}", " x ")):
        if "\\begin" in text:
            text = text.replace("\\\\", ROW)
        else:
            text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
        text = _SYSTEM.sub(
            lambda m: re.sub(rf",?\s*{ROW}\s*", ", ", m[1].strip().removesuffix(ROW)), text
        )
        for pattern, new in _STEPS:
            text = pattern.sub(new, text)
    if "$" in text:
        text = text.replace(
            "$",
            CURRENCY
            if text.count("$") % 2 and re.search(r"\$\s?-?[.0-9]|[0-9]\s?\$", text)
            else "",
        )
    stated = _STATED.match(text)
    text = (text[stated.end() :] if stated else text).strip()
    text = text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text
    whole = _WHOLE.fullmatch(text)
    return whole[1].strip().removesuffix(".") if whole else text


def ungroup(text: str) -> str:
    r"""European intervals in round brackets: `]1,2[` is `(1,2)`.

    >>> ungroup(r"]-\infty,3]\cup]4;5["), ungroup("[1,2]")
    ('(-\\infty,3]\\cup(4;5)', '[1,2]')
    """
    brackets = re.findall(r"[\[\]]", text)
    if not brackets or (brackets[0] == "[" and brackets[-1] == "]"):
        return text
    ends = {("]", "["): "()", ("]", "]"): "(]", ("[", "["): "[)"}

    def turn(m: re.Match[str]) -> str:
        kind = ends.get((m[1], m[3]), "[]")
        return kind[0] + m[2] + kind[1]

    return re.sub(r"([\[\]])([^\[\],;]+[,;][^\[\],;]+)([\[\]])", turn, text)


@lru_cache(1 << 16)
def plain(text: str) -> str:
    r"""`text` for a comparison as text: tidy, with white space between words or numbers only.

    Braces stay, except around a single character after `^` or `_`: x^{2} is x^2, and 2^{n+1} is not
    2^n+1.

    >>> plain(r"\left( 1,\; x^{2} \right)"), plain("2^{n+1}"), plain(r"\text{June } 20.")
    ('(1,x^2)', '2^{n+1}', 'June 20')
    """
    text = re.sub(r"(?<![\^_])\\text\{([^{}]*)\}(?!\s*[\^_])", r" \1 ", tidy(text))
    text = re.sub(r"(\\[A-Za-z]+)\s*\{([0-9A-Za-z])\}(?![0-9A-Za-z{])", r"\1 \2", text)
    text = re.sub(r"(\\[A-Za-z]+)(?=[0-9])", r"\1 ", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", "", text)
    return re.sub(r"([\^_])\{([0-9A-Za-z])\}(?![0-9A-Za-z])", r"\1\2", text)

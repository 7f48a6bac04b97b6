r"""Reads numbers as exact values.

    1,234.50   0.1(6)   0.\overline{3}   0.333...   5e-3   1\frac12   1 1/2

Left out: signs, units, and numbers in words.
"""

from __future__ import annotations

import re
from fractions import Fraction

from logpi.rewards.trees import Expression, Unreadable, number

MAX_DIGITS = 2_000
_DIGITS = (
    r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])|[0-9]{1,3}(?: [0-9]{3})+(?!\s*[/0-9])|[0-9]+)"
)
# (1,234) is a pair
_IN_BRACKETS = _DIGITS.replace("[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])|", "")
_REST = (
    r"(?:\.(?P<fixed>[0-9]*)(?:\\(?:overline|bar|dot)\s*\{(?P<line>[0-9]+)\}"
    r"(?:(?P<middle>[0-9]*)\\dot\s*\{(?P<dot>[0-9])\})?"
    r"|\((?P<round>[0-9]+)\)|(?P<more>\.\.\.|\\l?dots(?![A-Za-z])))?)?"
    r"(?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?![\w^]))?"
)
_NUMBER = re.compile(f"(?P<whole>{_DIGITS}|(?=\\.[0-9])){_REST}")
_NUMBER_INSIDE = re.compile(f"(?P<whole>{_IN_BRACKETS}|(?=\\.[0-9])){_REST}")
_PART = re.compile(
    r"\s*\\frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
    r"|\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9/])"
)
_REPEATED = re.compile(r"([0-9]*?)([0-9]+?)\2\2+")


def numeral(text: str, at: int, inside: bool) -> tuple[Expression, int]:
    """The number at `at`, and its end. Raises Unreadable.

    Args:
        inside: the number is in brackets, where (1,234) is a pair.
    """
    match = (_NUMBER_INSIDE if inside else _NUMBER).match(text, at)
    if not match or match.end() - at > MAX_DIGITS:
        raise Unreadable("no number")
    literal, whole = match[0], re.sub("[ ,]", "", match["whole"])
    part = _PART.match(text, match.end()) if literal.replace(" ", "").isdigit() else None
    # 1\frac12, 1 1/2
    if part:
        top, bottom = int(part[1] or part[2] or part[5]), int(part[3] or part[4] or part[6])
        if not 0 < top < bottom:
            raise Unreadable("no mixed number")
        return number(int(whole) + Fraction(top, bottom)), part.end()
    kept = "." in literal and literal.strip(".").isascii()
    return number(_decimal(whole, match), literal if kept else ""), match.end()


def _repeating(whole: str, fixed: str, block: str) -> Fraction:
    """0.1(6) = 1/10 + 6/90."""
    scale = 10 ** len(fixed)
    return Fraction(int(whole + fixed or "0"), scale) + Fraction(
        int(block), scale * (10 ** len(block) - 1)
    )


def _decimal(whole: str, match: re.Match[str]) -> Fraction:
    fixed, block = match["fixed"] or "", match["line"] or match["round"]
    # 0.333...
    if match["more"]:
        again = _REPEATED.fullmatch(fixed)
        if not again:
            raise Unreadable("digits that go on")
        value = _repeating(whole, again[1], again[2])
    elif block:
        value = _repeating(whole, fixed, block + (match["middle"] or "") + (match["dot"] or ""))
    else:
        value = Fraction(int(whole + fixed), 10 ** len(fixed))
    return value * Fraction(10) ** int(match["exponent"] or 0)

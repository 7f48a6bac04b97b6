r"""An answer as an exact rational number, however it is written: the tier of the math verifier that needs no algebra.

    18   1,250.50   -3/4   1 1/2   \frac12   2\dfrac{3}{4}   25%   1.5\times 10^{-3}   2^{10}   \$72   x = 5
    72\text{ cm}^2   90^\circ   18 dollars   5 million

Total and linear in the text; exponents and lengths are bounded, so nothing here can hang. Left out: roots, constants, sums,
letters (`2x` is no number), and everything else that `math.py` hands on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from logpi.rewards.text import as_number

__all__ = ["Rational", "rational", "tidy"]

MAX_LENGTH, MAX_EXPONENT = 400, 1_000
_SIMPLE = re.compile(r"[-+]?[0-9]{1,30}")
_NOISE = re.compile(
    r"\\left|\\right|\\displaystyle|\\boldsymbol|\\mathbf|\\bf|\\[!,;:]|\\ |~|\\[()\[\]]|(?<!\\)\$|\\(?=\$)|\u200b"
)
_SHORT_FRAC = re.compile(r"\\frac\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))\s*(?:\{\s*(-?[0-9]+)\s*\}|([0-9]))")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|mathit)\s*\{([^{}]*)\}")
_ASSIGNED = re.compile(r"[A-Za-z](?:_\{?\w\}?)?\s*=\s*")
_POWER = re.compile(r"\s*\^\s*(?:\{\s*([-+]?[0-9]{1,4})\s*\}|\(\s*([-+]?[0-9]{1,4})\s*\)|([-+]?[0-9]{1,4}))")
_TIMES_TEN = re.compile(r"(.+?)\s*(?:\\times|\\cdot|×|\*|x)\s*10" + _POWER.pattern)
_UNIT_POWER = r"(?:\s*\^\s*\{?[23]\}?|[²³])?"
_MARK = "\u2063"  # invisible: LaTeX said that what follows is text
_UNIT = re.compile(
    rf"(?:\^\s*\{{?\s*\\circ\s*\}}?|°|\\degree)?(?:[\s{_MARK}]*(?P<scale>hundred|thousand|million|billion|trillion|dozen)\b)?"
    rf"(?P<percent>[\s{_MARK}]*(?:%|percent\b))?(?:(?:\s*{_MARK}\s*[A-Za-z]+|\s+[A-Za-z]{{2,}})\.?(?:[ /-][A-Za-z]+)*"
    + _UNIT_POWER + r")?\.?\s*"
)  # fmt: skip
_NOT_UNITS = {"pi", "sqrt", "or", "and", "mod", "in", "times", "over", "to", "log", "ln", "sin", "cos", "tan", "exp"}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


@dataclass(frozen=True)
class Rational:
    """A number, and whether a percent sign followed it: 25% is taken for 25 and for 1/4, as people mean either."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Rational) -> bool:
        """
        >>> rational("25%").equals(rational("0.25")), rational("25%").equals(rational("25")), rational("25").equals(rational("0.25"))
        (True, True, False)
        """
        if self.value == other.value:
            return True
        if self.percent == other.percent:
            return False
        return self.value / 100 == other.value if self.percent else self.value == other.value / 100


def tidy(text: str) -> str:
    r"""`text` without LaTeX spacing, delimiters and short forms: one `\frac{a}{b}`, one minus, plain words.

    >>> tidy(r"$\dfrac12\,\text{ cm}$")
    '\\frac{1}{2}\u2063 cm'
    """
    plain = text.replace("\u2212", "-").replace("{,}", ",").replace("\\%", "%")
    if "\\" in plain or "$" in plain or "~" in plain:
        plain = re.sub(r"\\[dtc]frac", r"\\frac", plain)
        plain = _WRAPPED.sub(_MARK + "\\1", plain)
        plain = _NOISE.sub("", plain)
        plain = _SHORT_FRAC.sub(lambda m: f"\\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", plain)
    return plain.strip()


@lru_cache(1 << 16)
def rational(text: str) -> Rational | None:
    """The number that `text` is, or None.

    >>> rational("1 1/2").value, rational("-2.5\\\\times 10^{3}").value, rational("2x")
    (Fraction(3, 2), Fraction(-2500, 1), None)
    """
    if _SIMPLE.fullmatch(text):
        return Rational(Fraction(int(text)))
    if len(text) > MAX_LENGTH:
        return None
    plain = tidy(text).strip("€£¥$ ")
    assigned = _ASSIGNED.match(plain)
    plain = (plain[assigned.end() :] if assigned else plain).strip().removesuffix(".").strip(_MARK + " ")
    for cut in _cuts(plain):
        value = _bare(plain[:cut].strip())
        unit = _UNIT.fullmatch(plain, cut)
        if value is not None and unit and not _NOT_UNITS & set(re.findall("[a-z]+", unit[0].lower())):
            scale = _SCALES[unit["scale"]] if unit["scale"] else 1
            return Rational(value * scale, percent=bool(unit["percent"]))
    return None


_UNIT_START = re.compile(rf"\s*(?:{_MARK}|%|°|\^\s*\{{?\s*\\circ|\\degree|(?<![A-Za-z\\])[A-Za-z]{{2,}})")


def _cuts(plain: str) -> list[int]:
    """Where the number may end and the unit begin: at the end, or before the first sign of a unit."""
    first = _UNIT_START.search(plain)
    return [len(plain)] if first is None else [len(plain), first.start()]


def _bare(plain: str) -> Fraction | None:
    """A number without a unit."""
    sign = -1 if plain.startswith("-") else 1
    body = plain.lstrip("+-").strip() if plain[:1] in ("+", "-") else plain
    value = _unsigned(body.lstrip("$€£ "))
    return None if value is None else sign * value


def _unsigned(body: str) -> Fraction | None:
    if "%" in body:
        return None
    if body.startswith("(") and body.endswith(")"):
        body = body[1:-1]
    number = as_number(body)
    if number is not None:
        return number
    mixed = re.fullmatch(
        r"([0-9]{1,30})\s*(?:\\frac\{([0-9]{1,30})\}\{([0-9]{1,30})\}|\s([0-9]{1,30})/([0-9]{1,30}))", body
    )
    if mixed:
        top, bottom = int(mixed[2] or mixed[4]), int(mixed[3] or mixed[5])
        return Fraction(int(mixed[1])) + Fraction(top, bottom) if 0 < top < bottom else None
    ten = _TIMES_TEN.fullmatch(body)
    if ten:
        factor = as_number(ten[1])
        return None if factor is None else _times_power(factor, 10, ten.groups()[1:])
    base, caret, _ = body.partition("^")
    power = _POWER.fullmatch(body, len(base)) if caret and re.fullmatch(r"[0-9]{1,6}\s*", base) else None
    return _times_power(Fraction(1), int(base), power.groups()) if power else None


def _times_power(factor: Fraction, base: int, groups: tuple[str | None, ...]) -> Fraction | None:
    exponent = int(next(g for g in groups if g))
    if abs(exponent) > MAX_EXPONENT or (base == 0 and exponent < 0):
        return None
    return factor * Fraction(base) ** exponent

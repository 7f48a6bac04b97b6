"""Decides by numbers whether two expressions are equal.

    no letters   compares their values by the rule of `values.py`; a long decimal equals an
                 irrational number that rounds to it
    letters      compares their values at ten points with fractions for letters; at whole numbers if
                 there are no values elsewhere

Left out: lists, units, relations (`equality.py`).
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from logpi.rewards.trees import Expression, has, letters
from logpi.rewards.values import MAX_PEAK, Calculator, NeedsDigits, Undefined, close, numeric

POINTS, WHOLE_POINTS, ENOUGH = 10, 12, 3
# a decimal of so many significant digits may equal an irrational number
LONG_DECIMAL = 7
# the first precision in bits, and the peak up to which it suffices
BITS, LOW_PEAK = 300, 20


class Agreement:
    """Equality of expressions.

    Args:
        exact: compute rational values alone, in bounded time; raise NeedsDigits if they do not
            decide.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact

    def values(self, a: Expression, b: Expression) -> bool:
        """Whether two expressions are equal. A `log` without a base is natural in both, or decimal
        in both."""
        if a == b:
            return True
        if has(a, "call", "log") or has(b, "call", "log"):
            return any(self.agree(a, b, ten=ten) for ten in (False, True))
        return self.agree(a, b)

    def agree(self, a: Expression, b: Expression, ten: bool = False) -> bool:
        """Whether two expressions have equal values at all points, and lack values at the same
        positive points."""
        names = letters(a, b)
        for points in (_fractions(names), _wholes(names)) if names else ([{}],):
            common, alone = 0, False
            for k, point in enumerate(points):
                pair = self.at(point, a, b, ten)
                if isinstance(pair, tuple):
                    common += 1
                    if not close(*pair):
                        return not names and self.rounded(a, b, pair)
                # the first points are positive
                alone |= k < POINTS // 2 and pair == "one"
            if common and (common >= ENOUGH or not names):
                return not alone
        return False

    def proportion(self, a: Expression, b: Expression) -> int:
        """The sign of a/b if the ratio is the same at all points, else 0."""
        results = [self.at(point, a, b) for point in _fractions(letters(a, b))]
        pairs = [r for r in results if isinstance(r, tuple)]
        return _ratio(pairs) if len(pairs) >= ENOUGH else 0

    def at(
        self, point: dict[str, Fraction], a: Expression, b: Expression, ten: bool = False
    ) -> tuple[Any, Any, int] | str | None:
        """Both values and the peak; "one" if only one has a value; None if neither has."""
        imaginary = has(a, "constant", "i") or has(b, "constant", "i")
        if self.exact and (point or imaginary):
            raise NeedsDigits

        def results(bits: int) -> tuple[list[Any], int]:
            values, peak = [], 0
            for tree in (a, b):
                calculator = Calculator(point, bits, imaginary=imaginary, ten=ten, exact=self.exact)
                with contextlib.suppress(Undefined):
                    values.append(calculator.value(tree))
                peak = max(peak, calculator.peak)
            return values, peak

        values, peak = results(BITS)
        rational = all(isinstance(v, Fraction) for v in values)
        if len(values) == 2 and not (self.exact or rational or peak < LOW_PEAK):
            if peak > MAX_PEAK:
                return None
            # large intermediate values need more digits
            values, peak = results(BITS + 4 * peak)
        if len(values) < 2:
            return "one" if values else None
        return (*values, peak)

    @staticmethod
    def rounded(a: Expression, b: Expression, values: tuple[Any, Any, int]) -> bool:
        """Whether one is a decimal of seven digits or more to which the other, an irrational
        number, rounds."""
        for tree, own, other in ((a, values[0], values[1]), (b, values[1], values[0])):
            places = len(tree.name.partition(".")[2]) if tree.kind == "number" else 0
            digits = re.sub(r"[^0-9]", "", tree.name).lstrip("0")
            if (
                places
                and len(digits) >= LONG_DECIMAL
                and tree.name.replace(".", "").isdigit()
                and not isinstance(other, Fraction)
            ):
                return (
                    not getattr(other, "imag", 0) and abs(other - numeric(own)) * 10**places <= 0.5
                )
        return False

    def compare(self, a: Expression, b: Expression) -> int:
        """-1, 0 or 1. Raises Undefined if one has no real value."""
        values = self.at({}, a, b) if not letters(a, b) else None
        if not isinstance(values, tuple):
            raise Undefined("no order")
        x, y, peak = values
        return 0 if close(x, y, peak) else -1 if numeric(x) < numeric(y) else 1


def _fractions(names: list[str]) -> Iterator[dict[str, Fraction]]:
    """Ten points: five with positive values from 1/2 to 3, five with both signs.

    The values are 64ths, which lie at the edge of no domain by chance. They differ, as a - b is 0
    at equal values.
    """
    for k in range(POINTS):
        rng = random.Random(f"{k}")
        values = rng.sample(range(16, 95 + len(names)), len(names))
        signs = rng.choices((1, -1) if k >= 5 else (1,), k=len(names))
        yield {
            n: Fraction(s * (2 * v + 1), 64) for n, v, s in zip(names, values, signs, strict=True)
        }


def _wholes(names: list[str]) -> Iterator[dict[str, Fraction]]:
    for k in range(WHOLE_POINTS):
        rng = random.Random(f"whole {k}")
        yield {n: Fraction(rng.randint(1, 4 + k)) for n in names}


def _ratio(pairs: list[tuple[Any, Any, int]]) -> int:
    """The sign of a/b if the ratio is the same at all points, else 0."""
    (a, b, peak), *others = pairs
    if close(a, Fraction(0), peak) or close(b, Fraction(0), peak):
        return 0
    a, b = numeric(a), numeric(b)
    steady = all(
        close(a * numeric(y), b * numeric(x), max(peak, p)) and not close(x, Fraction(0), p)
        for x, y, p in others
    )
    return 0 if not steady else 1 if (a / b).real > 0 else -1

"""Computes the value of an expression: an exact one if all its parts are rational, else one with
enough digits to distinguish values.

    rule    two real values are equal if they differ by less than 2^-(2L + 150) of the larger. They
            are computed to 4L + 300 bits, where 2^L and 2^-L bound all intermediate values: 2^2024
            and 2^2024 - 1, or 1/2004! and 1/2006!, stay different

Over the real numbers, even roots and logarithms of negative numbers and divisions by 0 are
undefined; odd roots are real. If one of two expressions has an `i`, both are complex. Irrational
values beyond 2^5000 and rational ones beyond 2^130000 are not computed. Left out: infinite sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from logpi.rewards.trees import Expression

MAX_BITS, MAX_PEAK, MAX_TERMS = 130_000, 5_000, 2_000


class Undefined(ArithmeticError):
    """An expression has no value: a division by 0, a logarithm of a negative number, or a number
    that is too large."""


class NeedsDigits(Exception):
    """A value is not rational, or is large; `Calculator(exact=True)` computes no others."""


@cache
def _context() -> Any:
    # import on first use: most answers are rational
    from mpmath import MPContext

    return MPContext()


class Calculator:
    """Computes the values of trees at one point.

    Args:
        letters: the values of the letters.
        bits: the precision.
        imaginary: values are complex.
        ten: `log` is decimal, else natural.
        exact: compute rational values alone; raise NeedsDigits for others.

    Attributes:
        peak: the largest exponent of 2, up or down, of an intermediate value.
    """

    def __init__(
        self,
        letters: dict[str, Fraction],
        bits: int = 300,
        *,
        imaginary=False,
        ten=False,
        exact=False,
    ) -> None:
        self.letters, self.imaginary, self.exact = letters, imaginary, exact
        self.log_base = 10 if ten else None
        self.peak = 0
        if not exact:
            self.mp = _context()
            self.mp.prec = bits

    def value(self, tree: Expression) -> Any:
        """The value as a Fraction or as a number of mpmath. Raises Undefined."""
        try:
            value = getattr(self, "_" + tree.kind)(tree)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, AttributeError) as error:
            raise Undefined(str(error)) from None
        return self._kept(value)

    def _kept(self, value: Any) -> Any:
        """`value`, and its effect on the peak. Raises Undefined if it is too large."""
        if isinstance(value, Fraction):
            top, bottom = value.numerator.bit_length(), value.denominator.bit_length()
            self._fits(max(top, bottom))
            if value and not self.exact:
                self.peak = max(self.peak, abs(top - bottom))
            return value
        if self.mp.isnan(value):
            raise Undefined("not a number")
        if value and not self.mp.isinf(value):
            self.peak = max(self.peak, abs(int(self.mp.mag(value))))
            if self.peak > MAX_PEAK:
                raise Undefined("too large")
        return value

    def _fits(self, size: int) -> None:
        """Raise Undefined for a rational number of too many bits."""
        if size > (10_000 if self.exact else MAX_BITS):
            raise NeedsDigits if self.exact else Undefined("too large")

    def _real(self, value: Any) -> Any:
        """`value` as a number of mpmath."""
        if self.exact:
            raise NeedsDigits
        return numeric(value)

    def _both(self, tree: Expression) -> tuple[Any, Any]:
        """The values of both parts: two Fractions, or two numbers of mpmath."""
        a, b = self.value(tree.parts[0]), self.value(tree.parts[1])
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a, b
        a, b = self._real(a), self._real(b)
        if self.mp.isinf(a) or self.mp.isinf(b):
            raise Undefined("infinite")
        return a, b

    def bounded(self, n: Fraction) -> None:
        """Raise Undefined for the factorial of a negative or a very large number."""
        if n < 0 or n > 20_000:
            raise Undefined("too large")
        if self.exact and n > 500:
            raise NeedsDigits

    def _number(self, tree: Expression) -> Fraction:
        assert tree.value is not None
        return tree.value

    def _letter(self, tree: Expression) -> Fraction:
        if self.exact:
            raise NeedsDigits
        return self.letters[tree.name]

    def _constant(self, tree: Expression) -> Any:
        if self.exact:
            raise NeedsDigits
        return {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.mpc(0, 1), "inf": self.mp.inf}[
            tree.name
        ]

    def _sum(self, tree: Expression) -> Any:
        a, b = self._both(tree)
        return a + b

    def _product(self, tree: Expression) -> Any:
        if tree.parts[0].value == -1 and tree.parts[1] == Expression("constant", name="inf"):
            return -self._constant(tree.parts[1])
        a, b = self._both(tree)
        return a * b

    def _quotient(self, tree: Expression) -> Any:
        a, b = self._both(tree)
        return a / b

    def _percent(self, tree: Expression) -> Any:
        return self.value(tree.parts[0]) / 100

    def _degree(self, tree: Expression) -> Any:
        return self._real(self.value(tree.parts[0])) * self.mp.pi / 180

    def _unit(self, tree: Expression) -> Any:
        return self.value(tree.parts[0])

    def _power(self, tree: Expression) -> Any:
        return self._raised(*map(self.value, tree.parts))

    def _raised(self, base: Any, exponent: Any) -> Any:
        """`base` to the power `exponent`."""
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            n = exponent.numerator
            if not isinstance(base, Fraction):
                self._check_power(base, n)
            elif abs(base) != 1:
                size = max(base.numerator.bit_length(), base.denominator.bit_length())
                self._fits(size * abs(n))
            return base**n
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            root = self._root_of(base, exponent.denominator)
            if root is not None:
                return self._raised(root, Fraction(exponent.numerator))
        base, negative = self._real(base), False
        if not self.imaginary and base < 0:
            if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
                raise Undefined("a root of a negative number")
            base, negative = -base, exponent.numerator % 2 == 1
        exponent = self._real(exponent)
        self._check_power(base, exponent)
        return -(base**exponent) if negative else base**exponent

    def _check_power(self, base: Any, exponent: Any) -> None:
        """Raise Undefined for a power that is too large, before it is computed."""
        if self.mp.isinf(base) or self.mp.isinf(exponent):
            raise Undefined("infinite")
        if base and abs(exponent) * max(1, abs(self.mp.mag(base))) > MAX_PEAK * 4:
            raise Undefined("too large")

    def _root_of(self, value: Fraction, degree: int) -> Fraction | None:
        """The root of a rational number if it is rational, else None.

        A negative number has odd roots only, and only over the reals.
        """
        if value < 0:
            root = None if self.imaginary or degree % 2 == 0 else self._root_of(-value, degree)
            return None if root is None else -root
        parts = []
        for n in (value.numerator, value.denominator):
            root = math.isqrt(n) if degree == 2 else _integer_root(n, degree)
            if root**degree != n:
                return None
            parts.append(root)
        return Fraction(*parts)

    def _series(self, tree: Expression) -> Any:
        if self.exact:
            raise NeedsDigits
        low, high, body = tree.parts
        name, letter = tree.name.split()
        first, last = self.value(low), self.value(high)
        if (
            not isinstance(first, Fraction)
            or not isinstance(last, Fraction)
            or {first.denominator, last.denominator} != {1}
        ):
            raise Undefined("a sum whose limits are not whole numbers")
        if last - first > MAX_TERMS:
            raise Undefined("a long sum")
        total: Any = Fraction(name == "prod")
        outer = self.letters
        for k in range(int(first), int(last) + 1):
            self.letters = outer | {letter: Fraction(k)}
            term = self.value(body)
            if not (isinstance(total, Fraction) and isinstance(term, Fraction)):
                total, term = self._real(total), self._real(term)
            total = self._kept(total * term if name == "prod" else total + term)
        self.letters = outer
        return total

    def _call(self, tree: Expression) -> Any:
        values = [self.value(p) for p in tree.parts]
        rational = _RATIONAL.get(tree.name)
        if rational and all(isinstance(v, Fraction) for v in values):
            result = rational(self, *values)
            if result is not None:
                return result
        return self._transcendental(tree.name, *map(self._real, values))

    def _transcendental(self, name: str, x: Any, *more: Any) -> Any:
        mp = self.mp
        if mp.isinf(x):
            raise Undefined("infinite")
        if name == "root":
            return self._raised(x, 1 / self._whole(more[0]))
        if name in ("ln", "log", "lg"):
            if not self.imaginary and x <= 0:
                raise Undefined("a logarithm of a negative number")
            usual = {"lg": 10, "log": self.log_base}.get(name)
            base = more[0] if more else usual
            return mp.log(x) / mp.log(base) if base else mp.log(x)
        if name == "exp":
            return self._raised(+mp.e, x)
        if name == "factorial":
            if abs(x) > 1_000:
                raise Undefined("too large")
            return mp.gamma(x + 1)
        if name == "binom":
            if max(abs(x), abs(more[0])) > 1_000:
                raise Undefined("too large")
            return mp.binomial(x, more[0])
        if name in ("max", "min"):
            return {"max": max, "min": min}[name](x, *more)
        # mpmath's names: asin, fabs
        result = getattr(mp, {"abs": "fabs"}.get(name, name.replace("arc", "a")))(x)
        if not self.imaginary and mp.im(result):
            raise Undefined("not real")
        # mathematicians take arccot between 0 and pi
        if name == "arccot" and not self.imaginary and x < 0:
            result += mp.pi
        return result

    @staticmethod
    def _whole(degree: Any) -> Fraction:
        if degree != int(degree) or not 0 < degree < 1_000:
            raise Undefined("a root whose degree is not a whole number")
        return Fraction(int(degree))


def _integer_root(n: int, degree: int) -> int:
    """The largest whole number whose `degree`-th power is at most n."""
    if n < 2 or degree >= n.bit_length():
        return min(n, 1)
    low, high = 1, 1 << -(-n.bit_length() // degree)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= n else (low, middle - 1)
    return low


def _factorial(self: Calculator, n: Fraction) -> Fraction | None:
    if n.denominator != 1:
        return None
    self.bounded(n)
    return Fraction(math.factorial(int(n)))


def _binomial(self: Calculator, n: Fraction, k: Fraction) -> Fraction | None:
    if {n.denominator, k.denominator} != {1} or n < 0:
        return None
    self.bounded(n)
    return Fraction(math.comb(int(n), int(k))) if k >= 0 else Fraction(0)


def _whole_function(function: Callable[..., int]) -> Callable[..., Fraction | None]:
    return lambda _, *values: (
        Fraction(function(*map(int, values))) if all(v.denominator == 1 for v in values) else None
    )


_RATIONAL: dict[str, Callable[..., Fraction | None]] = {
    "factorial": _factorial,
    "binom": _binomial,
    "root": lambda self, value, degree: self._root_of(value, int(self._whole(degree))),
    "abs": lambda _, x: abs(x),
    "floor": lambda _, x: Fraction(math.floor(x)),
    "ceil": lambda _, x: Fraction(math.ceil(x)),
    "max": lambda _, *x: max(x),
    "min": lambda _, *x: min(x),
    "gcd": _whole_function(math.gcd),
    "lcm": _whole_function(math.lcm),
}


def numeric(value: Any) -> Any:
    """A value as a number of mpmath."""
    if isinstance(value, Fraction):
        return _context().mpf(value.numerator) / value.denominator
    return value


def close(a: Any, b: Any, peak: int) -> bool:
    """Whether two values are equal by the rule in this module's docstring."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b, mp = numeric(a), numeric(b), _context()
    if mp.isinf(a) or mp.isinf(b):
        return bool(a == b)
    small, larger = mp.mpf(2) ** -(2 * peak + 150), max(abs(a), abs(b))
    return abs(a - b) <= small * larger or larger <= small

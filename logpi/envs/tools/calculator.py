"""A calculator: exact arithmetic on integers and decimals with + - * / and parentheses. It runs no
code.

Left out: powers, roots, functions (`python.py` has them, in a sandbox).
"""

from __future__ import annotations

import re
from fractions import Fraction

from logpi.envs.tools.tool import ToolError
from logpi.rewards.arithmetic import ExpressionError, evaluate

_DECIMAL = re.compile(r"(?<![\w.])(\d{0,12})\.(\d{1,12})(?![\w.])")


def calculator(expression: str) -> str:
    """Evaluates an arithmetic expression with + - * / and parentheses, exactly.

    Args:
        expression: for example (3 + 4.5) * 2 / 7

    >>> calculator("(3 + 4.5) * 2"), calculator("2 / 7")
    ('15', '2/7 ≈ 0.2857142857')
    """
    plain = _DECIMAL.sub(
        lambda m: f"({m[1]}{m[2]}/1{'0' * len(m[2])})", expression.replace(",", "").replace("$", "")
    )
    try:
        value, _ = evaluate(plain)
    except ExpressionError as error:
        raise ToolError(
            f"cannot calculate {expression[:80]!r}: {error}; use numbers, + - * / and parentheses"
        ) from None
    return _shown(value)


def _shown(value: Fraction) -> str:
    """An integer or a short decimal as it is, else the fraction and ten digits of it."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    digits = f"{float(value):.10g}" if abs(value) < 10**15 else str(value)
    return digits if rest == 1 and Fraction(digits) == value else f"{value} ≈ {digits}"

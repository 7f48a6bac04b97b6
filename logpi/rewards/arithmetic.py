"""Computes arithmetic expressions exactly, and the countdown reward, which needs it.

A recursive-descent parser reads integers, + - * / and parentheses, with limits on length and depth.
Values are `Fraction`s. It never calls `eval`, as policies do find `__import__('os')` and `9**9**9`.
Left out: powers, decimals, names, functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from logpi.rewards.text import after, text_of

MAX_LENGTH, MAX_DEPTH, MAX_DIGITS = 256, 32, 12
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-"})


class ExpressionError(ValueError):
    """The text is not an arithmetic expression within the limits, or divides by zero."""


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    tokens, at, text = [], 0, text.translate(_SIGNS).rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(match[1]) > MAX_DIGITS:
            raise ExpressionError(f"cannot read {text[at : at + 10]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


@dataclass
class _ArithmeticParser:
    """expression = term {(+|-) term};  term = factor {(*|/) factor};  factor = -factor | integer |
    (expression)."""

    tokens: list[str]
    numbers: list[int]
    at: int = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expression(self, depth: int = 0) -> Fraction:
        value = self.term(depth)
        while self.peek() in ("+", "-"):
            value = value + self.term(depth) if self.take() == "+" else value - self.term(depth)
        return value

    def term(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while self.peek() in ("*", "/"):
            if self.take() == "*":
                value *= self.factor(depth)
                continue
            divisor = self.factor(depth)
            if divisor == 0:
                raise ExpressionError("division by zero")
            value /= divisor
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
        token = self.take()
        if token == "-":
            return -self.factor(depth + 1)
        if token == "(":
            value = self.expression(depth + 1)
            if self.take() != ")":
                raise ExpressionError("a parenthesis is not closed")
            return value
        if not token.isdigit():
            raise ExpressionError(f"expected a number, found {token or 'the end'!r}")
        self.numbers.append(int(token))
        return Fraction(int(token))


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression and the integers it uses, in order.

    Raises:
        ExpressionError: (a ValueError) not an expression, too long or deep, or a division by zero.

    >>> evaluate("(3 + 5) / 6")
    (Fraction(4, 3), [3, 5, 6])
    """
    parser = _ArithmeticParser(_tokens(text), [])
    value = parser.expression()
    if parser.at < len(parser.tokens):
        raise ExpressionError(f"cannot read on at {parser.peek()!r}")
    return value, parser.numbers


@dataclass(frozen=True)
class CountdownReward:
    """1 if the expression after the last `marker` makes `target` from the row's `numbers`, exactly.

    Attributes:
        marker: precedes the expression; "" takes the whole completion.
        use_all: use each number as often as the row has it; otherwise at most as often.

    >>> said = "3+7=10,10*4=40#(3+7)*4"
    >>> CountdownReward()(prompts=["?"], completions=[said], numbers=[[3, 4, 7]], target=[40])
    [1.0]
    """

    marker: str = "#"
    use_all: bool = True
    name: str = "countdown"
    needs: ClassVar[tuple[str, ...]] = ("numbers", "target")

    def __call__(
        self,
        prompts,
        completions,
        completion_ids=None,
        *,
        numbers: Sequence[Any],
        target: Sequence[Any],
        **columns,
    ) -> list[float | None]:
        rows = zip(completions, numbers, target, strict=True)
        return [float(self._right(text_of(c), Counter(map(int, n)), int(t))) for c, n, t in rows]

    def _right(self, text: str, given: Counter[int], target: int) -> bool:
        try:
            value, used = evaluate(after(text, self.marker) or "")
        except ExpressionError:
            return False
        return value == target and (
            Counter(used) == given if self.use_all else Counter(used) <= given
        )

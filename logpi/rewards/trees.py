r"""Trees of expressions and answers, and small operations on them.

A normal form: there is no difference, only a sum with a negative, and a negative is a product with
-1 (or a negative number); no unary plus, no brackets.

    x^2 - \frac12 x   sum(power(x, 2), product(-1, product(quotient(1, 2), x)))
    3x - 5            sum(product(3, x), -5)
    2\sqrt3           product(2, call root(3, 2))
    1 \pm 2           either +(1, 2)
    x = 5             relation =(x, 5)

Left out: reading trees (`expressions.py`, `answers.py`), and comparing them (`equality.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction


class Unreadable(ValueError):
    """The text is not an expression, or has two readings."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A node of a tree. Equal trees are the same expression.

    Attributes:
        kind: number, letter, constant, sum, product, quotient, power, call, series, either (±),
            percent, degree; in answers also list, set, group, matrix, relation, unit, ratio, clock,
            word, union, intersection, without.
        parts: the nodes below it.
        name: the name of a letter, constant, function or relation; the text of a decimal number.
        value: the value of a number.
    """

    kind: str
    parts: tuple[Expression, ...] = ()
    name: str = ""
    value: Fraction | None = None


def number(value: int | Fraction, literal: str = "") -> Expression:
    return Expression("number", value=Fraction(value), name=literal)


def negative(tree: Expression) -> Expression:
    if tree.kind == "number" and tree.value is not None:
        return number(-tree.value, tree.name)
    return Expression("product", (number(-1), tree))


def walk(tree: Expression) -> Iterator[Expression]:
    """A tree and all nodes below it."""
    yield tree
    for part in tree.parts:
        yield from walk(part)


def letters(*trees: Expression) -> list[str]:
    """The names of all letters, sorted."""
    return sorted({t.name for tree in trees for t in walk(tree) if t.kind == "letter"})


def has(tree: Expression, kind: str, name: str | None = None) -> bool:
    return any(t.kind == kind and name in (None, t.name) for t in walk(tree))


def replaced(tree: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """`tree` with each node replaced for which `change` gives a new one."""
    new = change(tree)
    return new or Expression(
        tree.kind, tuple(replaced(p, change) for p in tree.parts), tree.name, tree.value
    )


def both_signs(tree: Expression) -> list[Expression]:
    r"""1 \pm 2 as 1 + 2 and 1 - 2. All signs of one answer change together."""
    if not has(tree, "either"):
        return [tree]

    def turned(upper: bool) -> Callable[[Expression], Expression | None]:
        def change(t: Expression) -> Expression | None:
            if t.kind != "either":
                return None
            a, b = (replaced(p, change) for p in t.parts)
            return Expression("sum", (a, b if (t.name == "+") == upper else negative(b)))

        return change

    return [replaced(tree, turned(True)), replaced(tree, turned(False))]

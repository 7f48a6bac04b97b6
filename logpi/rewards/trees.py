"""Trees of expressions and answers, and what is asked of them everywhere. Left out: reading them,
and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction


class Unreadable(ValueError):
    """The text is no expression, or one with two readings."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A node: what it is, of what, and its name or its literal text. Equal trees are the same
    expression."""

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
    """A tree and all below it."""
    yield tree
    for part in tree.parts:
        yield from walk(part)


def letters(*trees: Expression) -> list[str]:
    """The names of all letters, in order."""
    return sorted({t.name for tree in trees for t in walk(tree) if t.kind == "letter"})


def has(tree: Expression, kind: str, name: str | None = None) -> bool:
    return any(t.kind == kind and name in (None, t.name) for t in walk(tree))


def replaced(tree: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """`tree` with each node for which `change` gives another replaced by that."""
    new = change(tree)
    return new or Expression(
        tree.kind, tuple(replaced(p, change) for p in tree.parts), tree.name, tree.value
    )


def both_signs(tree: Expression) -> list[Expression]:
    r"""1 \pm 2 as 1 + 2 and 1 - 2; all signs of one answer turn together."""
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

"""Trees of expressions and answers, and what is asked of them everywhere. Left out: reading them,
and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction


class Unreadable(ValueError):
    """The text is no expression, or one with two readings."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A node: what it is, of what, and its name or its literal text. Equal trees are the same
    expression."""

    kind: str
    parts: tuple[Tree, ...] = ()
    name: str = ""
    value: Fraction | None = None


def number(value: int | Fraction, literal: str = "") -> Tree:
    return Tree("number", value=Fraction(value), name=literal)


def negative(tree: Tree) -> Tree:
    if tree.kind == "number" and tree.value is not None:
        return number(-tree.value, tree.name)
    return Tree("product", (number(-1), tree))


def walk(tree: Tree) -> Iterator[Tree]:
    """A tree and all below it."""
    yield tree
    for part in tree.parts:
        yield from walk(part)


def letters(*trees: Tree) -> list[str]:
    """The names of all letters, in order."""
    return sorted({t.name for tree in trees for t in walk(tree) if t.kind == "letter"})


def has(tree: Tree, kind: str, name: str | None = None) -> bool:
    return any(t.kind == kind and name in (None, t.name) for t in walk(tree))


def replaced(tree: Tree, change: Callable[[Tree], Tree | None]) -> Tree:
    """`tree` with each node for which `change` gives another replaced by that."""
    new = change(tree)
    return new or Tree(
        tree.kind, tuple(replaced(p, change) for p in tree.parts), tree.name, tree.value
    )


def both_signs(tree: Tree) -> list[Tree]:
    r"""1 \pm 2 as 1 + 2 and 1 - 2; all signs of one answer turn together."""
    if not has(tree, "either"):
        return [tree]

    def turned(upper: bool) -> Callable[[Tree], Tree | None]:
        def change(t: Tree) -> Tree | None:
            if t.kind != "either":
                return None
            a, b = (replaced(p, change) for p in t.parts)
            return Tree("sum", (a, b if (t.name == "+") == upper else negative(b)))

        return change

    return [replaced(tree, turned(True)), replaced(tree, turned(False))]

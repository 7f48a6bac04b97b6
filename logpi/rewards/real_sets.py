r"""Reads sets of real numbers as pieces: (low, whether low belongs, high, whether high belongs).

The ends of a piece are trees.

    (1, 2]   1 < x \le 2   x > 3   [0, 1) \cup \{5\}   \mathbb{R} \setminus \{0\}   x \ne 0
    x < 1 \text{ or } x > 2   x > 1 \text{ and } x < 2   |x - 1| < 3

Left out: sets with letters in their ends, and intersections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cmp_to_key

from logpi.rewards.trees import Expression, both_signs, letters, negative, number

Piece = tuple[Expression, bool, Expression, bool]
Compare = Callable[[Expression, Expression], int]
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_INFINITE = Expression("constant", name="inf")
_ALL: Piece = (negative(_INFINITE), False, _INFINITE, False)
_SETS = {"union", "intersection", "without"}
_REALS = Expression("letter", name="\\mathbb{R}")


def turned(tree: Expression) -> Expression:
    """`a > x` as `x < a`, if x is a single letter or a distance, |x|."""
    if tree.kind != "relation" or len(tree.parts) != 2 or tree.name not in FLIPPED:
        return tree
    a, b = tree.parts
    alone, other = (t.kind == "letter" or _distance(t) is not None for t in (b, a))
    return Expression("relation", (b, a), FLIPPED[tree.name]) if alone and not other else tree


def solved(tree: Expression) -> bool:
    """Whether a relation gives the value of a letter: x = 2."""
    return tree.parts[0].kind == "letter" and not letters(*tree.parts[1:])


def is_real_set(tree: Expression) -> bool:
    """Whether a tree must be a set of real numbers: x > 1 must; (1, 2) may be a point."""
    if tree.kind == "list":
        return bool(tree.name) and all(
            p.kind == "relation" and set(p.name.split()) <= {*"<>", "<=", ">=", "!="}
            for p in tree.parts
        )
    if tree.kind == "relation":
        return (tree.name == "in" and is_real_set(tree.parts[1])) or _interval(tree) is not None
    return tree.kind in _SETS or tree == _REALS


def _interval(tree: Expression) -> Piece | None:
    """The piece that an inequality about one letter describes: 1 < x <= 2, x > 3, |x - 1| < 3."""
    tree = turned(tree)
    signs, parts = tree.name.split(), tree.parts
    # 2 >= x > 1 as 1 < x <= 2, and x > 3 as 3 < x
    if set(signs) <= {">", ">="}:
        signs, parts = [FLIPPED[s] for s in reversed(signs)], parts[::-1]
    if len(parts) not in (2, 3) or not set(signs) <= {"<", "<="}:
        return None
    first, last, closed = parts[0], parts[-1], ["=" in s for s in signs]
    if len(parts) == 3:
        middle = parts[1].kind == "letter" and not letters(first, last)
        return (first, closed[0], last, closed[1]) if middle else None
    if first.kind == "letter" and not letters(last):
        return negative(_INFINITE), False, last, closed[0]
    if last.kind == "letter" and not letters(first):
        return first, closed[0], _INFINITE, False
    centre = None if letters(last) else _distance(first)
    if centre is None:
        return None
    low, high = (Expression("sum", (centre, end)) for end in (negative(last), last))
    return low, closed[0], high, closed[0]


def _distance(tree: Expression) -> Expression | None:
    """The centre of a distance: 1 of |x - 1|, 0 of |x|; None for any other tree."""
    if tree.kind != "call" or tree.name != "abs":
        return None
    inner = tree.parts[0]
    if inner.kind == "letter":
        return number(0)
    if inner.kind == "sum" and inner.parts[0].kind == "letter" and not letters(inner.parts[1]):
        return negative(inner.parts[1])
    return None


def pieces_of(tree: Expression, compare: Compare) -> list[Piece] | None:
    """The pieces of a set of real numbers, or None."""
    if tree == _REALS:
        return [_ALL]
    if tree.kind == "relation" and tree.name == "in":
        return pieces_of(tree.parts[1], compare)
    if tree.kind == "relation":
        piece = _interval(tree)
        if piece is None and tree.name == "!=" and solved(tree):
            return _cut([_ALL], [tree.parts[1]], compare)
        # |x| > 1 is the complement of |x| <= 1
        if piece is None and tree.name in (">", ">="):
            inner = _interval(
                Expression("relation", tree.parts, "<" if tree.name == ">=" else "<=")
            )
            inner = inner if inner and compare(inner[0], inner[2]) < 0 else None
            return inner and [
                (_ALL[0], False, inner[0], not inner[1]),
                (inner[2], not inner[3], _ALL[2], False),
            ]
        return [piece] if piece else None
    if tree.kind == "group" and len(tree.parts) == 2 and not letters(tree):
        # (3, 1) is a point, not an empty interval
        if compare(*tree.parts) > 0:
            return None
        return [(tree.parts[0], tree.name[0] == "[", tree.parts[1], tree.name[1] == "]")]
    if tree.kind == "set" and not letters(tree):
        return [(p, True, p, True) for part in tree.parts for p in both_signs(part)]
    # x > 1 and y < 2 is not a set of numbers
    if tree.kind == "list" and tree.name in ("and", "or") and len(letters(tree)) > 1:
        return None
    if tree.kind == "union" or (tree.kind == "list" and tree.name == "or"):
        pieces = [pieces_of(p, compare) for p in tree.parts]
        return None if any(p is None for p in pieces) else [q for p in pieces for q in p or ()]
    if tree.kind == "list" and tree.name == "and":
        return _common([pieces_of(p, compare) for p in tree.parts], compare)
    if tree.kind == "without" and tree.parts[1].kind == "set":
        whole = pieces_of(tree.parts[0], compare)
        points = [p for part in tree.parts[1].parts for p in both_signs(part)]
        return None if whole is None or letters(tree.parts[1]) else _cut(whole, points, compare)
    return None


def _common(sets: Sequence[list[Piece] | None], compare: Compare) -> list[Piece] | None:
    """The intersection of sets; None if one has no pieces."""
    common: list[Piece] = [_ALL]
    for pieces in sets:
        if pieces is None:
            return None
        common = [_overlap(p, q, compare) for p in common for q in pieces]
    return common


def _overlap(p: Piece, q: Piece, compare: Compare) -> Piece:
    """The intersection of two pieces. If it is empty, its low end exceeds its high end."""
    low, high = compare(p[0], q[0]), compare(p[2], q[2])
    below = p[:2] if low > 0 else q[:2] if low < 0 else (p[0], p[1] and q[1])
    above = p[2:] if high < 0 else q[2:] if high > 0 else (p[2], p[3] and q[3])
    return (*below, *above)


def _cut(pieces: list[Piece], points: Sequence[Expression], compare: Compare) -> list[Piece]:
    """The pieces without some points."""
    for point in points:
        cut: list[Piece] = []
        for low, left, high, right in pieces:
            at_low, at_high = compare(low, point), compare(point, high)
            if at_low > 0 or at_high > 0:
                cut.append((low, left, high, right))
            elif at_low == 0 or at_high == 0:
                cut.append((low, left and at_low != 0, high, right and at_high != 0))
            else:
                cut += [(low, left, point, False), (point, False, high, right)]
        pieces = cut
    return pieces


def merged(pieces: list[Piece], compare: Compare) -> list[Piece]:
    """The pieces in order, without empty ones; pieces that touch become one.

    >>> from logpi.rewards.trees import number
    >>> one, two, three = map(number, (1, 2, 3))
    >>> order = lambda a, b: (a.value > b.value) - (a.value < b.value)
    >>> pieces = [(two, True, three, False), (one, True, two, False)]
    >>> merged(pieces, order) == [(one, True, three, False)]
    True
    """
    kept = [p for p in pieces if compare(p[0], p[2]) < (1 if p[1] and p[3] else 0)]
    kept.sort(key=cmp_to_key(lambda p, q: compare(p[0], q[0]) or int(q[1]) - int(p[1])))
    whole: list[Piece] = []
    for low, left, high, right in kept:
        before = whole[-1] if whole else None
        gap = compare(before[2], low) if before else -1
        if before is None or gap < 0 or (gap == 0 and not before[3] and not left):
            whole.append((low, left, high, right))
            continue
        end = compare(before[2], high)
        if end < 0:
            whole[-1] = (before[0], before[1], high, right)
        elif end == 0:
            whole[-1] = (before[0], before[1], high, right or before[3])
    return whole

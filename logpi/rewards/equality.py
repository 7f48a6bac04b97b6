r"""Whether two answers are the same, as trees: the rules of docs/verifiers.md, one method each.

    expressions  equal values; with letters, at ten points with fractions for letters, or at whole numbers where they have values only there
    relations    equations whose sides differ by a constant factor, inequalities by a positive one; `x = 5` is 5
    sets         the same real numbers, intervals merged; lists without brackets and finite sets in any order, ± as two
    groups       part by part, with the same brackets

Left out: what cannot be read, which `math.py` compares as text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

from logpi.rewards.expressions import Tree, negative, number
from logpi.rewards.units import unit
from logpi.rewards.values import MAX_PEAK, Evaluator, NeedsDigits, Undefined, close, numeric

__all__ = ["Equality"]

POINTS, WHOLE_POINTS, ENOUGH = 10, 12, 3
LONG_DECIMAL = 7  # significant digits with which a decimal may stand for an irrational number
MAX_MEMBERS = 60
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_INFINITE = Tree("constant", name="inf")
_SETS = {"union", "intersection", "without"}
_REALS = Tree("letter", name="\\mathbb{R}")


def _walk(tree: Tree) -> Iterator[Tree]:
    yield tree
    for part in tree.parts:
        yield from _walk(part)


def _letters(*trees: Tree) -> list[str]:
    return sorted({t.name for tree in trees for t in _walk(tree) if t.kind == "letter"})


def _has(tree: Tree, kind: str, name: str | None = None) -> bool:
    return any(t.kind == kind and name in (None, t.name) for t in _walk(tree))


def _replaced(tree: Tree, change: Callable[[Tree], Tree | None]) -> Tree:
    new = change(tree)
    return new or Tree(tree.kind, tuple(_replaced(p, change) for p in tree.parts), tree.name, tree.value)


def _without_either(tree: Tree) -> list[Tree]:
    r"""1 \pm 2 as 1 + 2 and 1 - 2; all signs of one answer turn together."""
    if not _has(tree, "either"):
        return [tree]

    def turned(upper: bool) -> Callable[[Tree], Tree | None]:
        def change(t: Tree) -> Tree | None:
            if t.kind != "either":
                return None
            a, b = (_replaced(p, change) for p in t.parts)
            return Tree("sum", (a, b if (t.name == "+") == upper else negative(b)))

        return change

    return [_replaced(tree, turned(True)), _replaced(tree, turned(False))]


def _is_name(tree: Tree) -> bool:
    """x, x_1, f(x), AB, |AB|, (x, y), AB/CD, AB:CD: what an answer may be called."""
    if tree.kind in ("group", "quotient", "ratio") or (tree.kind == "call" and tree.name == "abs"):
        return all(map(_is_name, tree.parts))
    return tree.kind == "letter"


def _is_wordy(tree: Tree) -> bool:
    """Area, \\text{max}: a name in words, which says no more than no name."""
    return tree.name.startswith("\\text{")


class Equality:
    """Equality of two answers.

    Args:
        exact: work out rational values alone, in bounded time; raises NeedsDigits where that does not decide.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact

    def same(self, gold: Tree, said: Tree) -> bool:
        """Whether `said` is as good an answer as `gold`."""
        if gold == said:
            return True
        if gold.kind == "relation" or said.kind == "relation":
            return self.relations(gold, said)
        if gold.kind in ("word", "clock") or said.kind == "clock" or said.kind == "word":
            return self.texts(gold, said)
        if self.is_set(gold) or self.is_set(said):
            return self.sets(gold, said)
        if {gold.kind, said.kind} & {"list", "set", "either"} or _has(gold, "either") or _has(said, "either"):
            return self.collections(gold, said)
        if {gold.kind, said.kind} & {"group", "matrix"}:
            return self.groups(gold, said)
        if gold.kind == "ratio" or said.kind == "ratio":
            return self.ratios(gold, said)
        return self.measures(gold, said)

    def texts(self, gold: Tree, said: Tree) -> bool:
        if gold.kind == "word" or said.kind == "word":
            return False  # not the same text, says the tier before
        if gold.kind == said.kind:
            a, b = gold.name, said.name
            return a.rstrip("ap") == b.rstrip("ap") and (a == b or not {a[-1], b[-1]} <= {"a", "p"})
        if said.kind == "clock" and gold.kind != "clock":  # 10:15 may be a ratio where a ratio is asked for
            hours, minutes = re.findall("[0-9]+", said.name)
            return not said.name[-1].isalpha() and self.same(
                gold, Tree("ratio", (number(int(hours)), number(int(minutes))))
            )
        return False

    # Values.

    def measures(self, gold: Tree, said: Tree) -> bool:
        """Values with or without a unit, a percent sign, a degree sign."""
        if gold.kind == "unit" and said.kind == "unit":
            a, b = unit(gold.name), unit(said.name)
            if a and b:
                scaled = [Tree("product", (number(u[1]), t.parts[0])) for u, t in ((a, gold), (b, said))]
                return a[0] == b[0] and self.values(*scaled)
        if (gold.kind == "unit") != (said.kind == "unit"):
            measured, other = (gold, said) if gold.kind == "unit" else (said, gold)
            letter = measured.name
            if re.fullmatch("[a-zA-Z]", letter) and self.values(
                Tree("product", (measured.parts[0], Tree("letter", name=letter))), other
            ):
                return True  # 5 m
        gold, said = (t.parts[0] if t.kind == "unit" else t for t in (gold, said))
        if gold.kind == said.kind and gold.kind in ("percent", "degree"):
            return self.values(gold.parts[0], said.parts[0])
        bare = [t.parts[0] for t in (gold, said) if t.kind in ("percent", "degree")]
        if len(bare) == 1:
            other = said if gold.kind in ("percent", "degree") else gold
            return self.values(bare[0], other) or self.values(gold, said)
        return self.values(gold, said)

    def values(self, a: Tree, b: Tree) -> bool:
        if a == b:
            return True
        if _has(a, "call", "log") or _has(b, "call", "log"):
            return any(self.agree(a, b, ten=ten) for ten in (False, True))
        return self.agree(a, b)

    def agree(self, a: Tree, b: Tree, ten: bool = False) -> bool:
        """Whether two expressions have equal values wherever both have some, and have some at the same positive points."""
        letters = _letters(a, b)
        for points in (_fractions(letters), _wholes(letters)) if letters else ([{}],):
            found, alone = 0, False
            for k, point in enumerate(points):
                pair = self.at(point, a, b, ten)
                if isinstance(pair, tuple):
                    found += 1
                    if not close(*pair):
                        return not letters and self.rounded(a, b, pair)
                alone |= k < POINTS // 2 and pair == "one"
            if found and (found >= ENOUGH or not letters):
                return not alone
        return False

    def proportion(self, a: Tree, b: Tree) -> int:
        """The sign of a/b if that is the same number wherever both have values, else 0."""
        pairs = [p for p in (self.at(point, a, b) for point in _fractions(_letters(a, b))) if isinstance(p, tuple)]
        return _ratio(pairs) if len(pairs) >= ENOUGH else 0

    def at(self, point: dict[str, Fraction], a: Tree, b: Tree, ten: bool = False) -> tuple[Any, Any, int] | str | None:
        """Both values and the peak; "one" if one alone has a value; None if neither has."""
        bits, imaginary = 300, _has(a, "constant", "i") or _has(b, "constant", "i")
        if self.exact and (point or imaginary):
            raise NeedsDigits
        for _ in range(2):
            values, peak = [], 0
            for tree in (a, b):
                evaluator = Evaluator(point, bits, imaginary=imaginary, ten=ten, exact=self.exact)
                try:
                    values.append(evaluator.value(tree))
                except Undefined:
                    pass
                peak = max(peak, evaluator.peak)
            if len(values) < 2:
                return "one" if values else None
            if self.exact or all(isinstance(v, Fraction) for v in values) or bits > 300 or peak < 20:
                break
            if peak > MAX_PEAK:
                return None
            bits = 300 + 4 * peak
        return (*values, peak)

    @staticmethod
    def rounded(a: Tree, b: Tree, found: tuple[Any, Any, int]) -> bool:
        """A decimal of at least seven digits for an irrational number, rounded right."""
        for tree, own, other in ((a, found[0], found[1]), (b, found[1], found[0])):
            places = len(tree.name.partition(".")[2]) if tree.kind == "number" else 0
            digits = re.sub(r"[^0-9]", "", tree.name).lstrip("0")
            if (
                places
                and len(digits) >= LONG_DECIMAL
                and tree.name.replace(".", "").isdigit()
                and not isinstance(other, Fraction)
            ):
                return not getattr(other, "imag", 0) and abs(other - numeric(own)) * 10**places <= 0.5
        return False

    # Relations.

    def relations(self, gold: Tree, said: Tree) -> bool:
        gold, said = _chained(gold), _chained(said)
        if self.is_set(gold) or self.is_set(said):
            if self.exact:
                raise NeedsDigits
            one, other = (_real_set(t) for t in (gold, said))
            if one is not None and other is not None:
                return self.sets(gold, said)
        if gold.kind != "relation" or said.kind != "relation":
            return self.stated(gold, said)
        if "in" in (gold.name, said.name):
            return gold.name == said.name and self.same(gold.parts[1], said.parts[1]) and gold.parts[0] == said.parts[0]
        names = [t.parts[0] for t in (gold, said)]
        if all(map(_is_name, names)) and set(gold.name.split()) == set(said.name.split()) == {"="}:
            if names[0] == names[1] or any(map(_is_wordy, names)):
                return all(self.same(g, s) for g in gold.parts[1:] for s in said.parts[1:])
        if " " in gold.name or " " in said.name:  # a < x < b with letters
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        if _has(gold, "either") or _has(said, "either"):
            return self.collections(gold, said)
        return self.balanced(gold, said)

    def balanced(self, gold: Tree, said: Tree) -> bool:
        """2x + 2y = 4 is x + y = 2, and -x > -1 is x < 1; but 2x = 4 is not x = 2, its solution."""
        if any(len(_letters(t)) == 1 and _solved(t) for t in (gold, said)) and not (_solved(gold) and _solved(said)):
            if gold.name == "=":
                return False
        plain = ("number", "letter", "constant", "sum", "product", "quotient", "power", "call", "series")
        if not all(t.kind in plain for side in (gold, said) for p in side.parts for t in _walk(p)):
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        a, b = (Tree("sum", (t.parts[0], negative(t.parts[1]))) for t in (gold, said))
        if not _letters(a) or not _letters(b):
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        sign = self.proportion(a, b)
        wanted = said.name if sign > 0 else _FLIPPED.get(said.name)
        return bool(sign) and gold.name == wanted

    def stated(self, gold: Tree, said: Tree) -> bool:
        """One of the two is named, `x = 5`, the other is the bare value, 5."""
        relation, value = (gold, said) if gold.kind == "relation" else (said, gold)
        names, *values = relation.parts
        if relation.name == "in" and _is_name(names):
            return self.same(values[0], value) if relation is gold else self.same(value, values[0])
        if set(relation.name.split()) != {"="} or value.kind == "word":
            return False
        if not _is_name(names) and (relation is gold or _has(names, "number") or not _letters(names)):
            return self.all_equal([names, *values], relation, value)
        return all(self.same(v, value) if relation is gold else self.same(value, v) for v in values)

    def all_equal(self, parts: Sequence[Tree], relation: Tree, value: Tree) -> bool:
        r"""2\sqrt3 = \sqrt{12}: what is without letters, and true throughout."""
        return not _letters(*parts) and not _letters(value) and all(self.same(value, p) for p in parts)

    # Collections.

    def members(self, tree: Tree) -> list[Tree]:
        parts = tree.parts if tree.kind in ("list", "set") else (tree,)
        found = []
        for part in parts:
            if part.kind == "set" and tree.kind == "list":
                return [tree]
            if part.kind == "relation" and part.name == "=" and part.parts[1].kind == "list":
                found += [Tree("relation", (part.parts[0], p), "=") for p in part.parts[1].parts]
            else:
                found += _without_either(part)
        return found

    def collections(self, gold: Tree, said: Tree) -> bool:
        """Members in any order; in the given order if they are letters or words, go on with dots, or repeat themselves."""
        if {gold.kind, said.kind} == {"group", "list"}:
            group, bare = (gold, said) if gold.kind == "group" else (said, gold)
            return (
                group.name == "()" and not bare.name and self.one_by_one(_unnamed(bare.parts, sort=True), group.parts)
            )
        if {gold.name, said.name} & {"or"} and gold.name != said.name and all(map(_is_text, gold.parts + said.parts)):
            return False  # A or B is not A and B, where x = 1 or 2 is x = 1, 2
        wanted, given = self.members(gold), self.members(said)
        wanted, given = _renamed(wanted), _renamed(given)
        if any(w.kind == "relation" for w in wanted) != any(g.kind == "relation" for g in given):
            wanted, given = _unnamed(wanted), _unnamed(given)
        if max(len(wanted), len(given)) > MAX_MEMBERS:
            return len(wanted) == len(given) and self.one_by_one(wanted, given)
        if any(source.kind == "list" and _in_order(m) for source, m in ((gold, wanted), (said, given))):
            return len(wanted) == len(given) and self.one_by_one(wanted, given)
        wanted, given = self.distinct(wanted, gold), self.distinct(given, said)
        if len(wanted) != len(given) or wanted == [gold] and given == [said]:
            return False
        left = list(given)
        for w in wanted:
            match = next((i for i, g in enumerate(left) if self.same(w, g)), None)
            if match is None:
                return False
            del left[match]
        return True

    def distinct(self, members: list[Tree], source: Tree) -> list[Tree]:
        """Of a set, each member once; a list that repeats itself stays as it is."""
        if source.kind == "list":
            return members
        kept: list[Tree] = []
        for member in members:
            if not any(self.same(member, k) for k in kept):
                kept.append(member)
        return kept

    def one_by_one(self, wanted: Sequence[Tree], given: Sequence[Tree]) -> bool:
        return len(wanted) == len(given) and all(map(self.same, wanted, given))

    def groups(self, gold: Tree, said: Tree) -> bool:
        """Points, intervals and matrices; a column is a point too, and [[1,2],[3,4]] a matrix."""
        gold, said = _as_matrix(gold, said), _as_matrix(said, gold)
        if gold.kind != said.kind or gold.name != said.name:
            return False
        if gold.kind not in ("group", "matrix"):
            return self.same(gold, said)
        return self.one_by_one(gold.parts, said.parts)

    def ratios(self, gold: Tree, said: Tree) -> bool:
        """1:2:3 is 2:4:6; 3:4 is 3/4."""
        a, b = (list(t.parts) if t.kind == "ratio" else [t, number(1)] for t in (gold, said))
        if len(a) != len(b) or (len(a) > 2 and gold.kind != said.kind):
            return False
        products = [(Tree("product", (a[i], b[0])), Tree("product", (a[0], b[i]))) for i in range(1, len(a))]
        return all(self.values(x, y) for x, y in products)

    # Sets of real numbers.

    def is_set(self, tree: Tree) -> bool:
        if tree.kind == "list":
            return bool(tree.name) and all(
                p.kind == "relation" and set(p.name.split()) <= {*"<>", "<=", ">=", "!="} for p in tree.parts
            )
        if tree.kind == "relation":
            return tree.name == "in" and self.is_set(tree.parts[1]) or _interval(tree) is not None
        return tree.kind in _SETS or tree == _REALS

    def sets(self, gold: Tree, said: Tree) -> bool:
        if self.exact:
            raise NeedsDigits
        a, b = _real_set(gold), _real_set(said)
        if a is None or b is None:
            if gold.kind == said.kind and len(gold.parts) == len(said.parts):
                return self.one_by_one(gold.parts, said.parts)
            return False
        try:
            a, b = self.merged(a), self.merged(b)
        except Undefined:
            return False
        ends = [(self.compare(p[i], q[i]) == 0) for p, q in zip(a, b, strict=False) for i in (0, 2)]
        return len(a) == len(b) and all(ends) and all((p[1], p[3]) == (q[1], q[3]) for p, q in zip(a, b, strict=True))

    def compare(self, a: Tree, b: Tree) -> int:
        """-1, 0 or 1. Raises Undefined where one has no real value."""
        found = self.at({}, a, b) if not _letters(a, b) else None
        if not isinstance(found, tuple):
            raise Undefined("no order")
        x, y, peak = found
        return 0 if close(x, y, peak) else -1 if numeric(x) < numeric(y) else 1

    def merged(self, pieces: list[tuple]) -> list[tuple]:
        """Pieces (low, closed, high, closed) in order, without those that are empty, touching ones made one."""
        kept = []
        for piece in pieces:
            order = self.compare(piece[0], piece[2])
            if order < 0 or (order == 0 and piece[1] and piece[3]):
                kept.append(piece)
        kept.sort(key=cmp_to_key(lambda p, q: self.compare(p[0], q[0]) or int(q[1]) - int(p[1])))
        merged: list[tuple] = []
        for piece in kept:
            last = merged[-1] if merged else None
            gap = self.compare(last[2], piece[0]) if last else -1
            if last is None or gap < 0 or (gap == 0 and not last[3] and not piece[1]):
                merged.append(piece)
                continue
            end = self.compare(last[2], piece[2])
            high = (
                (last[2], last[3] or piece[3]) if end == 0 else (last[2], last[3]) if end > 0 else (piece[2], piece[3])
            )
            merged[-1] = (last[0], last[1], *high)
        return merged


def _fractions(letters: list[str]) -> Iterator[dict[str, Fraction]]:
    """Ten points: five with positive values between 1/2 and 3, five with both signs; 64ths, so that they are in no domain by chance."""
    for k in range(POINTS):
        rng = random.Random(f"{k}")
        yield {n: Fraction(2 * rng.randint(16, 95) + 1, 64) * (rng.choice((1, -1)) if k >= 5 else 1) for n in letters}


def _wholes(letters: list[str]) -> Iterator[dict[str, Fraction]]:
    for k in range(WHOLE_POINTS):
        rng = random.Random(f"whole {k}")
        yield {n: Fraction(rng.randint(1, 4 + k)) for n in letters}


def _ratio(pairs: list[tuple[Any, Any, int]]) -> int:
    """The sign of a/b if it is the same number at all points, else 0."""
    (a, b, peak), *others = pairs
    if close(a, Fraction(0), peak) or close(b, Fraction(0), peak):
        return 0
    a, b = numeric(a), numeric(b)
    steady = all(
        close(a * numeric(y), b * numeric(x), max(peak, p)) and not close(x, Fraction(0), p) for x, y, p in others
    )
    return 0 if not steady else 1 if (a / b).real > 0 else -1


def _chained(tree: Tree) -> Tree:
    """`a > x` as `x < a`, where x is a letter alone."""
    if tree.kind != "relation" or len(tree.parts) != 2 or tree.name not in _FLIPPED:
        return tree
    a, b = tree.parts
    return Tree("relation", (b, a), _FLIPPED[tree.name]) if b.kind == "letter" and a.kind != "letter" else tree


def _solved(tree: Tree) -> bool:
    """x = 2."""
    return tree.parts[0].kind == "letter" and not _letters(*tree.parts[1:])


def _unnamed(members: Sequence[Tree], sort: bool = False) -> list[Tree]:
    """The values of x = 1, y = 2, or the members as they are."""
    if not all(m.kind == "relation" and m.name == "=" and len(m.parts) == 2 and _is_name(m.parts[0]) for m in members):
        return list(members)
    if not sort and len({m.parts[0] for m in members}) > 1:
        return list(members)  # x = 1, y = 2 are no two values of one thing
    members = sorted(members, key=lambda m: m.parts[0].name) if sort else members
    return [m.parts[1] for m in members]


def _renamed(members: list[Tree]) -> list[Tree]:
    """n = 1, 2, 3 as n = 1, n = 2, n = 3; so also x \\in \\{1, 2\\} by its members."""
    if len(members) == 1 and members[0].kind == "relation" and members[0].name in ("in", "="):
        name, value = members[0].parts[0], members[0].parts[-1]
        inner = value.parts if value.kind == "set" else [value]
        values = [v for part in inner for v in _without_either(part)]
        return [Tree("relation", (name, v), "=") for v in values] if _is_name(name) else members
    first = members[0] if members else None
    if first is None or first.kind != "relation" or first.name != "=" or any(m.kind == "relation" for m in members[1:]):
        return members
    return [first, *(Tree("relation", (first.parts[0], m), "=") for m in members[1:])]


def _is_text(tree: Tree) -> bool:
    return tree.kind in ("word", "letter")


def _in_order(members: Sequence[Tree]) -> bool:
    return len(members) > 1 and (
        all(map(_is_text, members)) or Tree("letter", name="…") in members or len(set(members)) < len(members)
    )


def _as_matrix(tree: Tree, other: Tree) -> Tree:
    if tree.kind == "matrix" and other.kind == "group":
        rows = tree.parts
        if len(rows) == 1 or all(len(r.parts) == 1 for r in rows):
            cells = tuple(c for r in rows for c in r.parts)
            if not any(p.kind == "group" for p in other.parts):
                return Tree("group", cells, other.name if other.name in ("()", "[]") else "()")
        return Tree("group", rows, "[]")
    return tree


def _interval(tree: Tree) -> tuple | None:
    """The piece of real numbers that 1 < x <= 2, x > 3 describe, with a letter alone in its middle."""
    tree = _chained(tree)
    signs, parts = tree.name.split(), tree.parts
    less, more = {"<", "<="}, {">", ">="}
    if len(parts) == 3 and parts[1].kind == "letter" and not _letters(parts[0], parts[2]):
        if set(signs) <= less:
            return parts[0], "=" in signs[0], parts[2], "=" in signs[1]
        if set(signs) <= more:
            return parts[2], "=" in signs[1], parts[0], "=" in signs[0]
    if len(parts) == 2 and parts[0].kind == "letter" and not _letters(parts[1]):
        if signs[0] in less:
            return negative(_INFINITE), False, parts[1], "=" in signs[0]
        if signs[0] in more:
            return parts[1], "=" in signs[0], _INFINITE, False
    return None


def _real_set(tree: Tree) -> list[tuple] | None:
    """The pieces of a set of real numbers, or None."""
    if tree == _REALS:
        return [(negative(_INFINITE), False, _INFINITE, False)]
    if tree.kind == "relation" and tree.name == "in":
        return _real_set(tree.parts[1])
    if tree.kind == "relation":
        piece = _interval(tree)
        if piece is None and tree.name == "!=" and _solved(tree):
            return _cut([(negative(_INFINITE), False, _INFINITE, False)], [tree.parts[1]])
        return [piece] if piece else None
    if tree.kind == "group" and len(tree.parts) == 2 and not _letters(tree):
        return [(tree.parts[0], tree.name[0] == "[", tree.parts[1], tree.name[1] == "]")]
    if tree.kind == "set" and not _letters(tree):
        return [(p, True, p, True) for part in tree.parts for p in _without_either(part)]
    if tree.kind == "union" or (tree.kind == "list" and tree.name == "or"):
        pieces = [_real_set(p) for p in tree.parts]
        return None if any(p is None for p in pieces) else [q for p in pieces for q in p or ()]
    if tree.kind == "without" and tree.parts[1].kind == "set":
        whole = _real_set(tree.parts[0])
        points = [p for part in tree.parts[1].parts for p in _without_either(part)]
        return None if whole is None or _letters(tree.parts[1]) else _cut(whole, points)
    return None


def _cut(pieces: list[tuple], points: Sequence[Tree]) -> list[tuple]:
    """The pieces without some points of them."""
    order = Equality()
    for point in points:
        cut = []
        for low, left, high, right in pieces:
            at_low, at_high = order.compare(low, point), order.compare(point, high)
            if at_low > 0 or at_high > 0:
                cut.append((low, left, high, right))
            elif at_low == 0 or at_high == 0:
                cut.append((low, left and at_low != 0, high, right and at_high != 0))
            else:
                cut += [(low, left, point, False), (point, False, high, right)]
        pieces = cut
    return pieces

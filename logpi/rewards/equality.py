r"""Decides whether two answers are equal, from their trees: the rules of docs/verifiers.md, one
method each.

    expressions  equal values (`agreement.py`)
    relations    equations that differ by a constant factor, inequalities by a positive one;
                 `x = 5` is 5
    sets         the same real numbers (`real_sets.py`); lists without brackets and finite sets in
                 any order, ± as two members
    groups       equal parts and equal brackets

Left out: unreadable answers, which `math.py` compares as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from logpi.rewards.agreement import Agreement
from logpi.rewards.real_sets import FLIPPED, Piece, is_real_set, merged, pieces_of, solved, turned
from logpi.rewards.trees import Expression, both_signs, has, letters, negative, number, walk
from logpi.rewards.units import unit
from logpi.rewards.values import NeedsDigits, Undefined

MAX_MEMBERS = 60
_PLAIN = {"number", "letter", "constant", "sum", "product", "quotient", "power", "call", "series"}


def _is_name(tree: Expression) -> bool:
    """Whether a tree may be the name of an answer: x, x_1, f(x), AB, |AB|, (x, y), AB/CD, AB:CD."""
    if tree.kind in ("group", "quotient", "ratio") or (tree.kind == "call" and tree.name == "abs"):
        return all(map(_is_name, tree.parts))
    return tree.kind == "letter"


def _is_wordy(tree: Expression) -> bool:
    """Whether a name is in words, as Area or \\text{max}; then it does not matter."""
    return tree.name.startswith("\\text{")


class Equality(Agreement):
    """Equality of two answers; `exact` as in `Agreement`.

    In every method `gold` is the right answer and `said` the completion's.
    """

    def same(self, gold: Expression, said: Expression) -> bool:
        """Whether `said` equals `gold`."""
        kinds = {gold.kind, said.kind}
        if gold == said:
            return True
        if "relation" in kinds:
            return self.relations(gold, said)
        if kinds & {"word", "clock"}:
            return self.texts(gold, said)
        if is_real_set(gold) or is_real_set(said):
            return self.sets(gold, said)
        if kinds & {"list", "set"} or has(gold, "either") or has(said, "either"):
            return self.collections(gold, said)
        if kinds & {"group", "matrix"}:
            return self.groups(gold, said)
        if "ratio" in kinds:
            return self.ratios(gold, said)
        return self.measures(gold, said)

    def texts(self, gold: Expression, said: Expression) -> bool:
        """Words and times. Tier 1 of `math.py` decides equal words, so two words differ here."""
        if gold.kind == said.kind == "clock":
            a, b = gold.name, said.name
            return a.rstrip("ap") == b.rstrip("ap") and (a == b or not {a[-1], b[-1]} <= {"a", "p"})
        # 10:15 is a ratio if the gold answer is one
        if said.kind == "clock" and gold.kind != "word":
            hours, minutes = re.findall("[0-9]+", said.name)
            return not said.name[-1].isalpha() and self.same(
                gold, Expression("ratio", (number(int(hours)), number(int(minutes))))
            )
        return False

    # --- values ---

    def measures(self, gold: Expression, said: Expression) -> bool:
        """Values with or without a unit, a percent sign or a degree sign."""
        if gold.kind == "unit" and said.kind == "unit":
            a, b = unit(gold.name), unit(said.name)
            if a and b:
                scaled = [
                    Expression("product", (number(u[1]), _measured(t)))
                    for u, t in ((a, gold), (b, said))
                ]
                return a[0] == b[0] and self.values(*scaled)
        if (gold.kind == "unit") != (said.kind == "unit"):
            measured, other = (gold, said) if gold.kind == "unit" else (said, gold)
            letter = Expression("letter", name=measured.name)
            # 5 m may be the product 5·m
            if re.fullmatch("[a-zA-Z]", measured.name) and self.values(
                Expression("product", (measured.parts[0], letter)), other
            ):
                return True
            known = unit(measured.name) if other.kind in ("percent", "degree") else None
            # 60 mph is not 60°
            if known and not {"celsius", "fahrenheit"} & set(known[0]):
                return False
        gold, said = (t.parts[0] if t.kind == "unit" else t for t in (gold, said))
        if gold.kind == said.kind and gold.kind in ("percent", "degree"):
            return self.values(gold.parts[0], said.parts[0])
        bare = [t.parts[0] for t in (gold, said) if t.kind in ("percent", "degree")]
        if len(bare) == 1:
            other = said if gold.kind in ("percent", "degree") else gold
            return self.values(bare[0], other) or self.values(gold, said)
        return self.values(gold, said)

    # --- relations ---

    def relations(self, gold: Expression, said: Expression) -> bool:
        gold, said = turned(gold), turned(said)
        if is_real_set(gold) or is_real_set(said):
            if self.exact:
                raise NeedsDigits
            if self.pieces(gold) is not None and self.pieces(said) is not None:
                return self.sets(gold, said)
        if gold.kind != "relation" or said.kind != "relation":
            return self.stated(gold, said)
        if "in" in (gold.name, said.name):
            return (
                gold.name == said.name
                and self.same(gold.parts[1], said.parts[1])
                and gold.parts[0] == said.parts[0]
            )
        names = [t.parts[0] for t in (gold, said)]
        equations = set(gold.name.split()) == set(said.name.split()) == {"="}
        named = equations and all(map(_is_name, names))
        if named and (names[0] == names[1] or any(map(_is_wordy, names))):
            return all(self.same(g, s) for g in gold.parts[1:] for s in said.parts[1:])
        # a < x < b with letters in its ends
        if " " in gold.name or " " in said.name:
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        if has(gold, "either") or has(said, "either"):
            return self.collections(gold, said)
        return self.balanced(gold, said)

    def balanced(self, gold: Expression, said: Expression) -> bool:
        """Relations of one form: 2x + 2y = 4 is x + y = 2, and -x > -1 is x < 1.

        2x = 4 is not x = 2, its solution.
        """
        one_letter = any(len(letters(t)) == 1 and solved(t) for t in (gold, said))
        if one_letter and not (solved(gold) and solved(said)) and gold.name == "=":
            return False
        plain = all(t.kind in _PLAIN for side in (gold, said) for p in side.parts for t in walk(p))
        if not plain or not letters(gold) or not letters(said):
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        a, b = (Expression("sum", (t.parts[0], negative(t.parts[1]))) for t in (gold, said))
        sign = self.proportion(a, b)
        wanted = said.name if sign > 0 else FLIPPED.get(said.name)
        return bool(sign) and gold.name == wanted

    def stated(self, gold: Expression, said: Expression) -> bool:
        """A named answer, `x = 5`, and a bare value, 5."""
        relation, value = (gold, said) if gold.kind == "relation" else (said, gold)
        names, *values = relation.parts
        if relation.name == "in" and _is_name(names):
            return self.same(values[0], value) if relation is gold else self.same(value, values[0])
        if set(relation.name.split()) != {"="} or value.kind == "word":
            return False
        # 2\sqrt3 = \sqrt{12}, without letters: both sides must equal the value
        if not _is_name(names) and (relation is gold or has(names, "number") or not letters(names)):
            sides = relation.parts
            return not letters(*sides, value) and all(self.same(value, side) for side in sides)
        return all(self.same(v, value) if relation is gold else self.same(value, v) for v in values)

    # --- collections ---

    def members(self, tree: Expression) -> list[Expression]:
        """The members of a list or a set; any other tree is one member, or two if it has a ±."""
        parts = tree.parts if tree.kind in ("list", "set") else (tree,)
        members = []
        for part in parts:
            if part.kind == "set" and tree.kind == "list":
                return [tree]
            if _is_equation(part) and part.parts[1].kind == "list":
                members += [_equation(part.parts[0], p) for p in part.parts[1].parts]
            else:
                members += both_signs(part)
        return members

    def collections(self, gold: Expression, said: Expression) -> bool:
        """Lists and sets, in any order; in the given order if the members are letters or words, end
        in dots, or repeat."""
        if {gold.kind, said.kind} == {"group", "list"}:
            group, bare = (gold, said) if gold.kind == "group" else (said, gold)
            values = _unnamed(bare.parts, sort=True)
            # x = 1 and y = 2 is the point (1, 2)
            joined = not bare.name or (bare.name == "and" and values != list(bare.parts))
            return group.name == "()" and joined and self.one_by_one(values, group.parts)
        # A or B is not A and B; but x = 1 or 2 is x = 1, 2
        one_or = (gold.name == "or") != (said.name == "or")
        if one_or and all(map(_is_text, gold.parts + said.parts)):
            return False
        wanted, given = _renamed(self.members(gold)), _renamed(self.members(said))
        if any(w.kind == "relation" for w in wanted) != any(g.kind == "relation" for g in given):
            wanted, given = _unnamed(wanted), _unnamed(given)
            # x = 1, y = 2 and 1, 2: the order of the names gives the order of the values
            if any(_names(side) > 1 for side in (wanted, given)):
                values = (_unnamed(wanted, sort=True), _unnamed(given, sort=True))
                return "set" not in (gold.kind, said.kind) and self.one_by_one(*values)
        ordered = (gold.kind == "list" and _in_order(wanted)) or (
            said.kind == "list" and _in_order(given)
        )
        if ordered or max(len(wanted), len(given)) > MAX_MEMBERS:
            return self.one_by_one(wanted, given)
        wanted, given = self.distinct(wanted, gold), self.distinct(given, said)
        if len(wanted) != len(given) or (wanted == [gold] and given == [said]):
            return False
        return self.any_order(wanted, given)

    def any_order(self, wanted: Sequence[Expression], given: Sequence[Expression]) -> bool:
        """Whether each wanted member takes another equal one of the given."""
        left = list(given)
        for member in wanted:
            match = next((i for i, g in enumerate(left) if self.same(member, g)), None)
            if match is None:
                return False
            del left[match]
        return True

    def distinct(self, members: list[Expression], source: Expression) -> list[Expression]:
        """Each member of a set once; the members of a list as they are."""
        if source.kind == "list":
            return members
        kept: list[Expression] = []
        for member in members:
            if not any(self.same(member, k) for k in kept):
                kept.append(member)
        return kept

    def one_by_one(self, wanted: Sequence[Expression], given: Sequence[Expression]) -> bool:
        return len(wanted) == len(given) and all(map(self.same, wanted, given))

    def groups(self, gold: Expression, said: Expression) -> bool:
        """Points, intervals and matrices. A column is a point too, and [[1,2],[3,4]] a matrix."""
        gold, said = _as_group(gold, said), _as_group(said, gold)
        if gold.kind != said.kind or gold.name != said.name:
            return False
        if gold.kind not in ("group", "matrix"):
            return self.same(gold, said)
        return self.one_by_one(gold.parts, said.parts)

    def ratios(self, gold: Expression, said: Expression) -> bool:
        """1:2:3 is 2:4:6; 3:4 is 3/4."""
        a, b = (list(t.parts) if t.kind == "ratio" else [t, number(1)] for t in (gold, said))
        if len(a) != len(b) or (len(a) > 2 and gold.kind != said.kind):
            return False
        products = [
            (Expression("product", (a[i], b[0])), Expression("product", (a[0], b[i])))
            for i in range(1, len(a))
        ]
        return all(self.values(x, y) for x, y in products)

    def pieces(self, tree: Expression) -> list[Piece] | None:
        """The pieces of a set of real numbers, or None."""
        try:
            return pieces_of(tree, self.compare)
        except Undefined:
            return None

    def sets(self, gold: Expression, said: Expression) -> bool:
        """Sets of real numbers. Those of two letters, x > 3 and y > 3, differ."""
        if self.exact:
            raise NeedsDigits
        a, b = self.pieces(gold), self.pieces(said)
        if a is None or b is None:
            # \mathbb{Z} has no pieces
            alike = (gold.kind, gold.name) == (said.kind, said.name) and bool(gold.parts)
            return alike and self.one_by_one(gold.parts, said.parts)
        subjects = [set(letters(t)) - {"\\mathbb{R}"} for t in (gold, said)]
        if all(subjects) and subjects[0] != subjects[1]:
            return False
        try:
            a, b = merged(a, self.compare), merged(b, self.compare)
        except Undefined:
            return False
        return len(a) == len(b) and all(
            (p[1], p[3]) == (q[1], q[3])
            and self.compare(p[0], q[0]) == self.compare(p[2], q[2]) == 0
            for p, q in zip(a, b, strict=True)
        )


def _measured(tree: Expression) -> Expression:
    """The value before a unit, without a degree sign: 20 of 20°C."""
    inner = tree.parts[0]
    return inner.parts[0] if inner.kind == "degree" else inner


def _unnamed(members: Sequence[Expression], sort: bool = False) -> list[Expression]:
    """The values of x = 1, x = 2; other members as they are.

    With `sort` also the values of x = 1, y = 2, in the order of the names. Without it they stay, as
    they are not two values of one thing.
    """
    named = all(_is_equation(m) and len(m.parts) == 2 and _is_name(m.parts[0]) for m in members)
    if not named or (not sort and _names(members) > 1):
        return list(members)
    members = sorted(members, key=lambda m: m.parts[0].name) if sort else members
    return [m.parts[1] for m in members]


def _is_equation(tree: Expression) -> bool:
    return tree.kind == "relation" and tree.name == "="


def _names(members: Sequence[Expression]) -> int:
    """The number of different left sides of relations."""
    return len({m.parts[0] for m in members if m.kind == "relation"})


def _renamed(members: list[Expression]) -> list[Expression]:
    """n = 1, 2, 3 as n = 1, n = 2, n = 3; and x \\in \\{1, 2\\} as x = 1, x = 2."""
    if len(members) == 1 and members[0].kind == "relation" and members[0].name in ("in", "="):
        name, value = members[0].parts[0], members[0].parts[-1]
        inner = value.parts if value.kind == "set" else [value]
        values = [v for part in inner for v in both_signs(part)]
        return [_equation(name, v) for v in values] if _is_name(name) else members
    rest = members[1:]
    if not members or not _is_equation(members[0]) or any(m.kind == "relation" for m in rest):
        return members
    return [members[0], *(_equation(members[0].parts[0], m) for m in rest)]


def _equation(name: Expression, value: Expression) -> Expression:
    return Expression("relation", (name, value), "=")


def _is_text(tree: Expression) -> bool:
    return tree.kind in ("word", "letter")


def _in_order(members: Sequence[Expression]) -> bool:
    """Whether the order of the members matters."""
    return len(members) > 1 and (
        all(map(_is_text, members))
        or Expression("letter", name="…") in members
        or len(set(members)) < len(members)
    )


def _as_group(tree: Expression, other: Expression) -> Expression:
    """A matrix beside a group as a group: a row or a column as a point, others as rows."""
    if tree.kind != "matrix" or other.kind != "group":
        return tree
    rows = tree.parts
    single = len(rows) == 1 or all(len(r.parts) == 1 for r in rows)
    if single and not any(p.kind == "group" for p in other.parts):
        cells = tuple(cell for row in rows for cell in row.parts)
        return Expression("group", cells, other.name if other.name in ("()", "[]") else "()")
    return Expression("group", rows, "[]")

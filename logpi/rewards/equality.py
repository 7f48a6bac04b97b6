r"""Whether two answers are the same, as trees: the rules of docs/verifiers.md, one method each.

    expressions  equal values (`agreement.py`)
    relations    equations whose sides differ by a constant factor, inequalities by a positive one;
                 `x = 5` is 5
    sets         the same real numbers (`real_sets.py`); lists without brackets and finite sets in
                 any order, ± as two
    groups       part by part, with the same brackets

Left out: what cannot be read, which `math.py` compares as text.
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
    """x, x_1, f(x), AB, |AB|, (x, y), AB/CD, AB:CD: what an answer may be called."""
    if tree.kind in ("group", "quotient", "ratio") or (tree.kind == "call" and tree.name == "abs"):
        return all(map(_is_name, tree.parts))
    return tree.kind == "letter"


def _is_wordy(tree: Expression) -> bool:
    """Area, \\text{max}: a name in words, which says no more than no name."""
    return tree.name.startswith("\\text{")


class Equality(Agreement):
    """Equality of two answers; `exact` as in Agreement."""

    def same(self, gold: Expression, said: Expression) -> bool:
        """Whether `said` is as good an answer as `gold`."""
        if gold == said:
            return True
        if gold.kind == "relation" or said.kind == "relation":
            return self.relations(gold, said)
        if gold.kind in ("word", "clock") or said.kind == "clock" or said.kind == "word":
            return self.texts(gold, said)
        if is_real_set(gold) or is_real_set(said):
            return self.sets(gold, said)
        if (
            {gold.kind, said.kind} & {"list", "set", "either"}
            or has(gold, "either")
            or has(said, "either")
        ):
            return self.collections(gold, said)
        if {gold.kind, said.kind} & {"group", "matrix"}:
            return self.groups(gold, said)
        if gold.kind == "ratio" or said.kind == "ratio":
            return self.ratios(gold, said)
        return self.measures(gold, said)

    def texts(self, gold: Expression, said: Expression) -> bool:
        if gold.kind == "word" or said.kind == "word":
            # the tier before has found that the texts differ
            return False
        if gold.kind == said.kind:
            a, b = gold.name, said.name
            return a.rstrip("ap") == b.rstrip("ap") and (a == b or not {a[-1], b[-1]} <= {"a", "p"})
        # 10:15 may be a ratio where a ratio is asked for
        if said.kind == "clock" and gold.kind != "clock":
            hours, minutes = re.findall("[0-9]+", said.name)
            return not said.name[-1].isalpha() and self.same(
                gold, Expression("ratio", (number(int(hours)), number(int(minutes))))
            )
        return False

    # --- values ---

    def measures(self, gold: Expression, said: Expression) -> bool:
        """Values with or without a unit, a percent sign, a degree sign."""
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
            letter = measured.name
            if re.fullmatch("[a-zA-Z]", letter) and self.values(
                Expression("product", (measured.parts[0], Expression("letter", name=letter))), other
            ):
                # 5 m
                return True
        if {gold.kind, said.kind} in ({"unit", "percent"}, {"unit", "degree"}):
            known = unit(gold.name if gold.kind == "unit" else said.name)
            if known and not {"celsius", "fahrenheit"} & set(known[0]):
                # 60 mph is not 60°
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
        named = all(map(_is_name, names)) and set(gold.name.split()) == set(said.name.split()) == {
            "="
        }
        if named and (names[0] == names[1] or any(map(_is_wordy, names))):
            return all(self.same(g, s) for g in gold.parts[1:] for s in said.parts[1:])
        # a < x < b with letters
        if " " in gold.name or " " in said.name:
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        if has(gold, "either") or has(said, "either"):
            return self.collections(gold, said)
        return self.balanced(gold, said)

    def balanced(self, gold: Expression, said: Expression) -> bool:
        """2x + 2y = 4 is x + y = 2, and -x > -1 is x < 1; but 2x = 4 is not x = 2, its solution."""
        one_letter = any(len(letters(t)) == 1 and solved(t) for t in (gold, said))
        if one_letter and not (solved(gold) and solved(said)) and gold.name == "=":
            return False
        if not all(t.kind in _PLAIN for side in (gold, said) for p in side.parts for t in walk(p)):
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        a, b = (Expression("sum", (t.parts[0], negative(t.parts[1]))) for t in (gold, said))
        if not letters(a) or not letters(b):
            return gold.name == said.name and all(map(self.same, gold.parts, said.parts))
        sign = self.proportion(a, b)
        wanted = said.name if sign > 0 else FLIPPED.get(said.name)
        return bool(sign) and gold.name == wanted

    def stated(self, gold: Expression, said: Expression) -> bool:
        """One of the two is named, `x = 5`, the other is the bare value, 5."""
        relation, value = (gold, said) if gold.kind == "relation" else (said, gold)
        names, *values = relation.parts
        if relation.name == "in" and _is_name(names):
            return self.same(values[0], value) if relation is gold else self.same(value, values[0])
        if set(relation.name.split()) != {"="} or value.kind == "word":
            return False
        if not _is_name(names) and (relation is gold or has(names, "number") or not letters(names)):
            return self.all_equal([names, *values], relation, value)
        return all(self.same(v, value) if relation is gold else self.same(value, v) for v in values)

    def all_equal(
        self, parts: Sequence[Expression], relation: Expression, value: Expression
    ) -> bool:
        r"""2\sqrt3 = \sqrt{12}: what is without letters, and true throughout."""
        return (
            not letters(*parts) and not letters(value) and all(self.same(value, p) for p in parts)
        )

    # --- collections ---

    def members(self, tree: Expression) -> list[Expression]:
        parts = tree.parts if tree.kind in ("list", "set") else (tree,)
        members = []
        for part in parts:
            if part.kind == "set" and tree.kind == "list":
                return [tree]
            if part.kind == "relation" and part.name == "=" and part.parts[1].kind == "list":
                members += [
                    Expression("relation", (part.parts[0], p), "=") for p in part.parts[1].parts
                ]
            else:
                members += both_signs(part)
        return members

    def collections(self, gold: Expression, said: Expression) -> bool:
        """Members in any order; in the given order if they are letters or words, go on with dots,
        or repeat themselves."""
        if {gold.kind, said.kind} == {"group", "list"}:
            group, bare = (gold, said) if gold.kind == "group" else (said, gold)
            values = _unnamed(bare.parts, sort=True)
            # x = 1 and y = 2
            joined = not bare.name or (bare.name == "and" and values != list(bare.parts))
            return group.name == "()" and joined and self.one_by_one(values, group.parts)
        if (
            {gold.name, said.name} & {"or"}
            and gold.name != said.name
            and all(map(_is_text, gold.parts + said.parts))
        ):
            # A or B is not A and B, where x = 1 or 2 is x = 1, 2
            return False
        wanted, given = self.members(gold), self.members(said)
        wanted, given = _renamed(wanted), _renamed(given)
        if any(w.kind == "relation" for w in wanted) != any(g.kind == "relation" for g in given):
            wanted, given = _unnamed(wanted), _unnamed(given)
            if any(
                len({m.parts[0] for m in side if m.kind == "relation"}) > 1
                for side in (wanted, given)
            ):
                # which of x = 1, y = 2 is which
                values = (
                    _unnamed(wanted, sort=True),
                    _unnamed(given, sort=True),
                )
                return "set" not in (gold.kind, said.kind) and self.one_by_one(*values)
        if max(len(wanted), len(given)) > MAX_MEMBERS:
            return len(wanted) == len(given) and self.one_by_one(wanted, given)
        if any(
            source.kind == "list" and _in_order(m) for source, m in ((gold, wanted), (said, given))
        ):
            return len(wanted) == len(given) and self.one_by_one(wanted, given)
        wanted, given = self.distinct(wanted, gold), self.distinct(given, said)
        if len(wanted) != len(given) or (wanted == [gold] and given == [said]):
            return False
        left = list(given)
        for w in wanted:
            match = next((i for i, g in enumerate(left) if self.same(w, g)), None)
            if match is None:
                return False
            del left[match]
        return True

    def distinct(self, members: list[Expression], source: Expression) -> list[Expression]:
        """Of a set, each member once; a list that repeats itself stays as it is."""
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
        """Points, intervals and matrices; a column is a point too, and [[1,2],[3,4]] a matrix."""
        gold, said = _as_matrix(gold, said), _as_matrix(said, gold)
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
        try:
            return pieces_of(tree, self.compare)
        except Undefined:
            return None

    def sets(self, gold: Expression, said: Expression) -> bool:
        """Sets of real numbers; those of two different letters, x > 3 and y > 3, are not the
        same."""
        if self.exact:
            raise NeedsDigits
        a, b = self.pieces(gold), self.pieces(said)
        if a is None or b is None:
            # \mathbb{Z} has none
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
    """What a unit stands behind: 20 of 20°C."""
    inner = tree.parts[0]
    return inner.parts[0] if inner.kind == "degree" else inner


def _unnamed(members: Sequence[Expression], sort: bool = False) -> list[Expression]:
    """The values of x = 1, y = 2, or the members as they are."""
    if not all(
        m.kind == "relation" and m.name == "=" and len(m.parts) == 2 and _is_name(m.parts[0])
        for m in members
    ):
        return list(members)
    if not sort and len({m.parts[0] for m in members}) > 1:
        # x = 1, y = 2 are no two values of one thing
        return list(members)
    members = sorted(members, key=lambda m: m.parts[0].name) if sort else members
    return [m.parts[1] for m in members]


def _renamed(members: list[Expression]) -> list[Expression]:
    """n = 1, 2, 3 as n = 1, n = 2, n = 3; so also x \\in \\{1, 2\\} by its members."""
    if len(members) == 1 and members[0].kind == "relation" and members[0].name in ("in", "="):
        name, value = members[0].parts[0], members[0].parts[-1]
        inner = value.parts if value.kind == "set" else [value]
        values = [v for part in inner for v in both_signs(part)]
        return (
            [Expression("relation", (name, v), "=") for v in values] if _is_name(name) else members
        )
    first = members[0] if members else None
    if (
        first is None
        or first.kind != "relation"
        or first.name != "="
        or any(m.kind == "relation" for m in members[1:])
    ):
        return members
    return [first, *(Expression("relation", (first.parts[0], m), "=") for m in members[1:])]


def _is_text(tree: Expression) -> bool:
    return tree.kind in ("word", "letter")


def _in_order(members: Sequence[Expression]) -> bool:
    return len(members) > 1 and (
        all(map(_is_text, members))
        or Expression("letter", name="…") in members
        or len(set(members)) < len(members)
    )


def _as_matrix(tree: Expression, other: Expression) -> Expression:
    if tree.kind == "matrix" and other.kind == "group":
        rows = tree.parts
        if len(rows) == 1 or all(len(r.parts) == 1 for r in rows):
            cells = tuple(c for r in rows for c in r.parts)
            if not any(p.kind == "group" for p in other.parts):
                return Expression(
                    "group", cells, other.name if other.name in ("()", "[]") else "()"
                )
        return Expression("group", rows, "[]")
    return tree

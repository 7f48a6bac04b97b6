r"""Reads a final answer into a tree: expressions, and the forms around them.

    list      1, 2   2 \text{ or } 3   A, C      set      \{1, 2\}   \emptyset   \{x \mid x > 1\}
    group     (1, 2)   [0, 1)   ]0, 1[           matrix   \begin{pmatrix}…\end{pmatrix}
    relation  x = 5   1 < x \le 2   x \in [0, 1)          union, intersection, without   of sets
    unit      72\text{ cm}^2   \$18   5 million
    percent, degree, ratio (3:4), clock (12:00), word (Monday)

Text with two readings is `Unreadable`. So is a date, 2024-01-05, which is not a difference. Left
out: comparing answers (`equality.py`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from logpi.rewards.expressions import FUNCTIONS, Expressions
from logpi.rewards.notation import ROW, tidy, ungroup
from logpi.rewards.trees import Expression, Unreadable, number
from logpi.rewards.units import KNOWN, SCALES

# characters; a longer text is not a final answer
MAX_ANSWER = 1_000
_JOIN = (
    r"\s*\\text\{,?\s*(and|or)\s*,?\s*\}\s*|\s*\\(lor|vee|land|wedge)(?![A-Za-z])\s*"
    r"|\s*(?<![A-Za-z])(and|or)(?![A-Za-z])\s*"
)
_SEPARATOR = re.compile(rf"\s*[,;](?:{_JOIN})?\s*|(?:{_JOIN})")
_RELATION = re.compile(
    r"\\(leqslant|geqslant|leq|geq|le|ge|lt|gt|neq|ne|notin|in|approx|simeq|to|rightarrow)"
    r"(?![A-Za-z])|([=<>])"
)
_SIGNS = {
    "leqslant": "<=",
    "leq": "<=",
    "le": "<=",
    "geqslant": ">=",
    "geq": ">=",
    "ge": ">=",
    "lt": "<",
    "gt": ">",
    "neq": "!=",
    "ne": "!=",
    "in": "in",
    "approx": "~",
    "simeq": "~",
}
_OPERATIONS = {"cup": "union", "cap": "intersection", "setminus": "without", "backslash": "without"}
_OPERATION = re.compile(r"\\(cup|cap|setminus|backslash)(?![A-Za-z])")
_NAME = re.compile(r"(?:\\text\{([^{}]*)\}|([A-Za-z]{3,}(?: [A-Za-z]+)*))\s*(?==)")
# p(x) = …
_CALLED = re.compile(r"([A-Za-z](?:_\{?\w+\}?)?)\(\s*([a-z](?:\s*,\s*[a-z])*)\s*\)\s*(?==)")
_NOT_WORDS = FUNCTIONS | {
    "and",
    "or",
    "pi",
    "sqrt",
    "infinity",
    "inf",
    "oo",
    "mod",
    "times",
    "over",
    "if",
    "for",
    "where",
    "when",
}
_PLAIN_WORD = r"(?!(?:and|or)(?![A-Za-z]))(?:[A-Za-z]{2,}'[a-z]|[A-Za-z]+(?:-[A-Za-z]{3,})*)"
_WORDS = re.compile(
    rf"(?:\\text\{{[^{{}}]*[A-Za-z]{{2,}}[^{{}}]*\}}|{_PLAIN_WORD}(?:"
    rf" {_PLAIN_WORD})*\.?)\s*(?=$|[,;)\]}}]|\\text\{{,? ?(?:and|or)|and |or )"
)
_CLOCK = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?:\s*(?:\\text\{)?\s*([ap])\.?\s?m\.?\s*\}?)?\s*$", re.I
)
_DATED = re.compile(r"[0-9]+(?:-[0-9]+)+$|[0-9]+/[0-9]+/[0-9]+$")
_MONEY = re.compile(r"([-+]?)\s*([¤€£¥])\s*(?=[-+0-9.\\])")
_MEASURE = re.compile(
    r"(?:\s*(?:\\text\s*\{[^{}]*\}|[¤€£¥¢]|[぀-ヿ一-鿿가-힯]+|(?!(?:and|or)(?![A-Za-z]))[A-Za-z]+\.?)"
    r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?\s*(?:[/·-]|\\cdot)?)+"
)
_FORBIDDEN = {
    "and",
    "or",
    "if",
    "for",
    "where",
    "when",
    "mod",
    "times",
    "over",
    "than",
    "not",
    "to",
    "all",
    "any",
}
# \{x \mid x > 1\}
_DESCRIBED = re.compile(
    r"[A-Za-z]\s*(?:\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?(?:\\mid(?![A-Za-z])|\||:)"
)
_ENVIRONMENT = re.compile(r"\{([pbB]?matrix|smallmatrix|array)\}(?:\{[lcr|\s]*\})?")


class _AnswerParser(Expressions):
    """Parses a whole answer."""

    def answer(self) -> Expression:
        """The tree of the whole text."""
        tree = self.listed()
        self.skip()
        if self.at < len(self.text) or (self.padded and self.numbers > 1):
            raise Unreadable(f"cannot read on at {self.text[self.at : self.at + 20]!r}")
        return tree

    def listed(self) -> Expression:
        """A list of items with their separators; a single item as it is."""
        items, between = [self.item()], set()
        while separator := _SEPARATOR.match(self.text, self.at):
            self.at = separator.end()
            joined = next((g for g in separator.groups() if g), "")
            between.add(
                {"lor": "or", "vee": "or", "land": "and", "wedge": "and"}.get(joined, joined)
            )
            items.append(self.item())
        if len(items) == 1:
            return items[0]
        return Expression("list", tuple(items), name=",".join(sorted(between - {""})))

    def item(self) -> Expression:
        """A time, a named or bare value, a word, or an amount of money."""
        self.skip()
        rest = self.text[self.at :]
        if _DATED.match(rest):
            raise Unreadable("a date, or a score")
        if clock := _CLOCK.match(rest):
            self.at = len(self.text)
            return Expression("clock", name=f"{int(clock[1])}:{clock[2]}{(clock[3] or '').lower()}")
        if name := self.next(_NAME):
            return self.related(
                Expression("letter", name=f"\\text{{{(name[1] or name[2]).strip().lower()}}}")
            )
        if called := self.next(_CALLED):
            return self.related(Expression("letter", name=f"{called[1]}({called[2]})"))
        if word := self.words():
            return word
        self.next(r"\\approx(?![A-Za-z])")
        money = self.next(_MONEY)
        tree = self.related(self.side())
        if money:
            if self.numbers == 0:
                raise Unreadable("money without a number")
            tree = Expression("product", (number(-1), tree)) if money[1] == "-" else tree
            return Expression("unit", (self.measured(tree, money[2]),), money[2])
        return tree

    def words(self) -> Expression | None:
        match = _WORDS.match(self.text, self.at)
        if not match:
            return None
        words = re.sub(r"\\text\{([^{}]*)\}|\s+", lambda m: m[1] or " ", match[0]).strip()
        longest = max(map(len, words.split()), default=0)
        # in brackets a word has four letters or more: (ab)^2 is a product
        if len(words) < 2 or _NOT_WORDS & set(words.split()) or (self.brackets and longest < 4):
            return None
        self.at = match.end()
        return Expression("word", name=words)

    # --- units ---

    def measured(self, tree: Expression, money: str = "") -> Expression:
        """`tree` with the unit after it."""
        if tree.kind == "group" or not (match := _MEASURE.match(self.text, self.at)):
            return tree
        measure = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", match[0]).strip()
        words = re.findall(r"[A-Za-z]+", measure.lower())
        if _FORBIDDEN & set(words):
            return tree
        self.at = match.end()
        if words and words[0] in SCALES:
            tree = Expression("product", (tree, number(SCALES[words[0]])))
            measure, words = re.sub(r"^\w+\s*", "", measure), words[1:]
        if words and words[0] in ("percent", "pct", "percentage"):
            return Expression("percent", (tree,))
        if words and words[0] in ("degree", "degrees", "deg") and len(words) == 1:
            return Expression("degree", (tree,))
        return Expression("unit", (tree,), measure) if measure and not money else tree

    def starts_atom(self) -> bool:
        """Whether a factor follows; a unit is not a factor: `18 dollars`, `72 cm`, but `2ab` is
        2·a·b."""
        self.skip()
        run = re.compile(r"[A-Za-z]+").match(self.text, self.at)
        if self.sees(r"\\text(?![A-Za-z])"):
            return self.sees(r"\\text\s*\{\s*(?:[ei]|" + "|".join(FUNCTIONS) + r")\s*\}")
        if run and run[0] == "min" and re.match(r"\s*(?:$|[,;)/.])", self.text[run.end() :]):
            return False
        if run and run[0] not in _NOT_WORDS and self.numbers:
            word, lower = run[0], run[0].lower()
            spaced = self.text[self.at - 1 : self.at] == " "
            known = lower in KNOWN and len(word) > 1 and word != "in"
            measure = (known or (len(word) > 2 and spaced)) and not word.isupper()
            if measure or lower in SCALES:
                return False
        return super().starts_atom()

    # --- relations and sets ---

    def related(self, first: Expression) -> Expression:
        """The relation that `first` begins; `first` with its unit if no sign follows."""
        parts, signs = [self.measured(first)], []
        while relation := self.next(_RELATION):
            sign = relation[2] or _SIGNS.get(relation[1], "")
            if not sign:
                raise Unreadable(relation[0])
            money = self.next(_MONEY)
            part = self.measured(self.side(), money[2] if money else "")
            if money:
                part = Expression(
                    "unit",
                    (Expression("product", (number(-1), part)) if money[1] == "-" else part,),
                    money[2],
                )
            # 2\sqrt3 \approx 3.46: the exact side counts
            if sign == "~" and any(t.kind != "letter" for t in parts):
                continue
            parts.append(part)
            signs.append("=" if sign == "~" else sign)
        return Expression("relation", tuple(parts), " ".join(signs)) if signs else parts[0]

    def side(self) -> Expression:
        """One side of a relation: a set, an expression, or a ratio."""
        parts = [self.sets()]
        while self.next(":"):
            parts.append(self.sets())
        return Expression("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def sets(self) -> Expression:
        tree = self.expression()
        while operation := self.next(_OPERATION):
            tree = Expression(_OPERATIONS[operation[1]], (tree, self.expression()))
        return tree

    def group(self, closing: str, opening: str) -> Expression:
        """The content of brackets: a single item as it is; several as a point, an interval or a
        set."""
        self.brackets += opening != "{}"
        self.depth += 1
        if self.depth > 40:
            raise Unreadable("too deep")
        is_set = opening == "\\{"
        if is_set and self.next(closing):
            tree = Expression("set")
        else:
            described = is_set and self.next(_DESCRIBED)
            is_set = is_set and not described
            tree = self.listed()
            end = self.next(closing)
            if not end:
                raise Unreadable("a bracket that is not closed")
            tree = self.grouped(tree, opening, end[0], is_set)
        self.depth -= 1
        self.brackets -= opening != "{}"
        return tree

    def grouped(self, tree: Expression, opening: str, closing: str, is_set: bool) -> Expression:
        if is_set:
            return Expression("set", tree.parts if tree.kind == "list" else (tree,))
        if tree.kind != "list":
            partner = {"(": ")", "[": "]"}.get(opening, closing)
            if closing != partner and not closing.startswith("\\"):
                raise Unreadable("brackets that do not match")
            return tree
        if tree.name:
            raise Unreadable("and, or in brackets")
        if opening == "{}":
            return Expression("set", tree.parts)
        return Expression("group", tree.parts, opening + ("]" if closing == "]" else ")"))

    def read_matrix(self, name: str) -> Expression:
        kind = self.next(_ENVIRONMENT)
        if not kind:
            raise Unreadable("an environment")
        self.brackets += 1
        rows = [[]]
        ending = rf"\\end\s*\{{{kind[1]}\}}"
        while not self.next(ending):
            rows[-1].append(self.item())
            if self.next(ROW):
                rows.append([])
            elif not self.next("&") and not self.sees(ending):
                raise Unreadable("a matrix")
        self.brackets -= 1
        rows = [Expression("group", tuple(r), "[]") for r in rows if r]
        if not rows or len({len(r.parts) for r in rows}) > 1:
            raise Unreadable("rows of different lengths")
        return Expression("matrix", tuple(rows))


@lru_cache(1 << 14)
def _read(text: str) -> Expression | str:
    try:
        if len(text) > MAX_ANSWER:
            raise Unreadable("too long")
        return _AnswerParser(ungroup(tidy(text))).answer()
    except (Unreadable, RecursionError, IndexError) as error:
        return str(error) or "?"


def read(text: str) -> Expression:
    """The tree of an answer. Raises Unreadable with the reason."""
    tree = _read(text)
    if isinstance(tree, str):
        raise Unreadable(tree)
    return tree


def readable(text: str) -> bool:
    """Whether `text` can be read as mathematics or words.

    >>> readable(r"x \\in [0, 1)"), readable("2024-01-05"), readable("1/xy")
    (True, False, False)
    """
    return isinstance(_read(text), Expression)

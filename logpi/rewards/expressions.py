r"""Reads an expression into a tree, from LaTeX or plain text: numbers, letters, operations and
functions.

    sum     = product {(+ | - | \pm | \mp) product}
    product = power {[* | / | \cdot | nothing] power}
    power   = atom {! | ^ power | %}

The parser skips nothing and guesses nothing. A text with two readings (1/xy, \sin x/2, sin(x)^2,
x2) or none is `Unreadable`. Length and depth are bounded. Left out: lists, sets, relations and
units around expressions (`answers.py`), and values (`values.py`).
"""

from __future__ import annotations

import re

from logpi.rewards.latex_names import FUNCTIONS, GREEK, INVERSE, OTHER_NAMES, READERS, WORDS
from logpi.rewards.numerals import numeral
from logpi.rewards.trees import Expression, Unreadable, negative, number, replaced, walk

MAX_DEPTH = 40
# before brackets these letters are functions: f(2) is not f times 2
_CALLED = set("fghFGHPQ")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)")
_WORD = re.compile(r"[A-Za-z]+")


class Expressions:
    """A parser of one text.

    Attributes:
        at: the position in the text.
        depth: the depth of nested expressions.
        brackets: the number of open brackets.
        bare: the end of the last function argument without brackets; -1 before one.
        numbers: the count of numbers so far.
        padded: whether one of them began with a zero, as 05.
    """

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth, self.brackets = text, 0, 0, 0
        self.bare, self.numbers, self.padded = -1, 0, False

    # --- position ---

    def skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def next(self, pattern: str | re.Pattern[str]) -> re.Match[str] | None:
        """The match of a pattern after white space, which is then consumed; or None."""
        self.skip()
        match = re.compile(pattern).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def sees(self, pattern: str) -> bool:
        """Whether a pattern matches after white space."""
        self.skip()
        return re.compile(pattern).match(self.text, self.at) is not None

    def must(self, pattern: str) -> None:
        """Consume a pattern. Raises Unreadable if it does not match."""
        if not self.next(pattern):
            raise Unreadable(f"expected {pattern} at {self.text[self.at : self.at + 20]!r}")

    # --- operations ---

    def expression(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        first = self.next(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])|\+\s*/\s*-")
        tree = self.term()
        if first:
            tree = Expression("either", (number(0), tree), _sign(first[0]))
        while sign := self.next(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])|\+\s*/\s*-|[-+]"):
            term = self.term()
            if sign[0] in "+-":
                tree = Expression("sum", (tree, term if sign[0] == "+" else negative(term)))
            else:
                tree = Expression("either", (tree, term), _sign(sign[0]))
        self.depth -= 1
        return tree

    def term(self) -> Expression:
        tree, slashed = self.signed(), False
        while True:
            if self.next(r"\*|\\(?:cdot|times|ast)(?![A-Za-z])"):
                tree = Expression("product", (tree, self.signed()))
            elif slash := self.next(r"/|\\div(?![A-Za-z])"):
                if slashed or self.bare == slash.start():
                    raise Unreadable("two readings of a slash")
                tree, slashed = Expression("quotient", (tree, self.signed())), True
            elif self.starts_atom():
                if slashed and {p.kind for p in tree.parts} != {"number"}:
                    raise Unreadable("two readings of a slash")
                tree = Expression("product", (tree, self.power()))
            else:
                return tree

    def signed(self) -> Expression:
        sign = self.next(r"[-+]")
        if sign and self.sees(r"[-+]"):
            raise Unreadable("two signs")
        tree = self.power()
        return negative(tree) if sign and sign[0] == "-" else tree

    def power(self) -> Expression:
        tree, raised = self.atom(), False
        while True:
            if self.next(r"!(?!=)"):
                if self.sees("!"):
                    raise Unreadable("a double factorial")
                tree = Expression("call", (tree,), "factorial")
            elif self.next(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])"):
                tree = Expression("degree", (tree,))
            elif self.next("%"):
                tree = Expression("percent", (tree,))
            elif hat := self.next(r"\^"):
                if raised or self.bare == hat.start():
                    raise Unreadable("two readings of a power")
                tree, raised = Expression("power", (tree, self.exponent())), True
            else:
                return tree

    def exponent(self) -> Expression:
        if self.next(r"\{"):
            return self.until(r"\}")
        sign = self.next(r"[-+]")
        tree = self.single() if self.sees(r"[A-Za-z]") else self.atom()
        return negative(tree) if sign and sign[0] == "-" else tree

    def until(self, closing: str) -> Expression:
        tree = self.expression()
        self.must(closing)
        return tree

    # --- atoms ---

    def starts_atom(self) -> bool:
        """Whether a factor follows without a sign. A number may follow a factorial only: 3!7!"""
        if self.sees(r"[0-9.]"):
            if self.text[: self.at].rstrip().endswith("!"):
                return True
            raise Unreadable("a number after a factor")
        if self.sees(
            r"\\(?:cup|cap|setminus|in|text|mid|le|ge|leq|geq|lt|gt|ne|neq|pm|mp|approx|to|rangle|"
            r"rfloor|rceil|rvert|\}|\\|end|lor|land|vee|wedge|circ|leqslant|geqslant|backslash|"
            r"simeq)(?![A-Za-z])"
        ):
            return False
        return self.sees(r"[A-Za-z(\[{\\]") and not self.sees(r"(?:and|or)(?![A-Za-z])")

    def atom(self) -> Expression:
        self.skip()
        char = self.text[self.at : self.at + 1]
        if char in "0123456789." and char:
            return self.number()
        if char == "\\":
            return self.command()
        if char.isalpha() and char.isascii():
            return self.letters()
        if self.next(r"\|"):
            return Expression("call", (self.until(r"\|"),), "abs")
        if self.next(r"\{"):
            return self.group(r"\}", "{}")
        if self.next(r"\("):
            return self.group(r"[)\]]", "(")
        if self.next(r"\["):
            return self.group(r"[)\]]", "[")
        raise Unreadable(f"cannot read on at {self.text[self.at : self.at + 20]!r}")

    def group(self, closing: str, opening: str) -> Expression:
        """The content of brackets, up to `closing`. A subclass parses it."""
        raise NotImplementedError

    def number(self) -> Expression:
        self.skip()
        start = self.at
        tree, self.at = numeral(self.text, start, self.brackets > 0)
        self.numbers += 1
        self.padded |= re.compile("0[0-9]").match(self.text, start) is not None
        # 52_8
        if self.text[self.at : self.at + 1] == "_":
            self.at += 1
            tree = Expression("letter", name=f"{tree.value}_{self.raw()}")
        return tree

    def raw(self) -> str:
        """The text of a subscript."""
        match = self.next(r"\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|([0-9]+|[A-Za-z]|\\[A-Za-z]+)")
        if not match:
            raise Unreadable("no subscript")
        inside = match[1] if match[1] is not None else match[2]
        return re.sub(r"\\text\s*\{([^{}]*)\}|\s", r"\1", inside)

    def letters(self) -> Expression:
        run = _WORD.match(self.text, self.at)
        assert run
        word = run[0]
        begins = [w for w in WORDS if word.startswith(w) and len(word) - len(w) <= 1]
        known = max(begins, key=len, default=None)
        if known and not (len(word) > len(known) and known in ("pi", "oo", "lg", "tg", "inf")):
            self.at += len(known)
            return self.named(known)
        if len(word) > 1 and (word.isupper() or len(word) > 3):
            if not word.isupper():
                raise Unreadable(f"a word: {word}")
            self.at = run.end()
            return self.indexed(word)
        if re.search("[A-Z]{2}", word):
            raise Unreadable(f"a word: {word}")
        return self.single()

    def single(self) -> Expression:
        char = self.text[self.at]
        self.at += 1
        if char in "ei" and not self.sees("[_']"):
            return Expression("constant", name=char)
        return self.indexed(char)

    def indexed(self, name: str) -> Expression:
        """A letter with its subscript and primes and, if it is a function, its argument: one
        name."""
        while self.text[self.at : self.at + 1] and self.text[self.at] in "_'":
            self.at += 1
            name += f"_{self.raw()}" if self.text[self.at - 1] == "_" else "'"
        if name[0] in _CALLED and self.text[self.at : self.at + 1] == "(":
            self.at += 1
            name += repr(self.group(r"\)", "("))
        return Expression("letter", name=name)

    def argument(self) -> Expression:
        """An argument of \\frac or a similar command: a group in braces, a digit, a letter or a
        command."""
        if self.next(r"\{"):
            return self.until(r"\}")
        if digit := self.next(r"[0-9]"):
            self.numbers += 1
            return number(int(digit[0]))
        if self.sees(r"[A-Za-z]"):
            return self.single()
        if self.sees(r"\\"):
            return self.command()
        raise Unreadable("no argument")

    def command(self) -> Expression:
        command = self.next(_COMMAND)
        if not command:
            raise Unreadable("no command")
        return self.named(command[1])

    def named(self, name: str) -> Expression:
        name = OTHER_NAMES.get(name, name)
        if name in FUNCTIONS:
            return self.call(name)
        if name in GREEK:
            return self.indexed("\\" + name)
        read = getattr(self, "read_" + READERS.get(name, ""), None)
        if read is None:
            raise Unreadable(f"\\{name}")
        return read(name)

    def read_constant(self, name: str) -> Expression:
        return Expression("constant", name="pi" if name == "pi" else "inf")

    def read_frac(self, name: str) -> Expression:
        return Expression("quotient", (self.argument(), self.argument()))

    def read_binom(self, name: str) -> Expression:
        if name == "binom" and self.next(r"\("):
            raise Unreadable("binom")
        return Expression("call", (self.argument(), self.argument()), "binom")

    def read_root(self, name: str) -> Expression:
        degree = self.until(r"\]") if self.next(r"\[") else number(2)
        if self.next(r"\("):
            inner = self.group(r"\)", "(")
        else:
            inner = self.atom() if name == "surd" else self.argument()
        return Expression("call", (inner, degree), "root")

    def read_brackets(self, name: str) -> Expression:
        if name in ("{", "lbrace"):
            return self.group(r"\\(?:\}|rbrace(?![A-Za-z]))", "\\{")
        if name == "langle":
            return self.group(r"\\rangle(?![A-Za-z])", "(")
        closing = {
            "lfloor": r"\\rfloor",
            "lceil": r"\\rceil",
            "lvert": r"\\rvert",
            "vert": r"\\vert",
        }[name]
        return Expression(
            "call", (self.until(closing),), {"lfloor": "floor", "lceil": "ceil"}.get(name, "abs")
        )

    def read_accent(self, name: str) -> Expression:
        """An accent and the text below it: one name."""
        return self.indexed(f"\\{name}{{{self.raw()}}}")

    def read_angle(self, name: str) -> Expression:
        what = self.next(r"[A-Z]+|[a-z]|\\[a-z]+")
        return Expression("letter", name=f"\\{name} {what[0] if what else ''}")

    def read_dots(self, name: str) -> Expression:
        return Expression("letter", name="…")

    def read_set(self, name: str) -> Expression:
        if name == "mathbb":
            return Expression("letter", name=f"\\mathbb{{{self.raw()}}}")
        return Expression("set")

    def read_text(self, name: str) -> Expression:
        """A name in upright letters: \\mathrm{e}, \\operatorname{arccot}."""
        word = self.next(r"\*?\s*\{\s*([A-Za-z]+)\s*\}")
        if word and word[1] in ("e", "i"):
            return Expression("constant", name=word[1])
        if not word or OTHER_NAMES.get(word[1], word[1]) not in FUNCTIONS:
            raise Unreadable("a text")
        return self.named(word[1])

    def read_series(self, name: str) -> Expression:
        r"""\sum_{k=1}^{n} and the product after it."""
        self.must(r"_\s*\{\s*")
        variable = self.next(r"[A-Za-z](?=\s*=)")
        self.must("=")
        low = self.until(r"\}")
        self.must(r"\^")
        high = self.exponent()
        body = self.term()
        if not variable or any(_bound(t, variable[0]) for t in walk(body)):
            raise Unreadable("a sum whose letter stands in a name")
        body = _renamed(body, variable[0])
        return Expression("series", (low, high, body), f"{name} {variable[0]}")

    def call(self, name: str) -> Expression:
        base = self.argument() if self.next("_") else None
        power = self.exponent() if self.next(r"\^") else None
        if power == number(-1) and name in INVERSE:
            name, power = INVERSE[name], None
        if opening := self.next(r"[(\[{]|\\\{"):
            closing = {"(": r"\)", "[": r"\]", "{": r"\}", "\\{": r"\\\}"}[opening[0]]
            inner = self.group(closing, "(") if opening[0] == "(" else self.until(closing)
            if self.sees(r"\^"):
                raise Unreadable("two readings of a power")
        else:
            inner = self.bare_argument()
            self.bare = self.at
        several = inner.parts if inner.kind == "group" else (inner,)
        if (len(several) > 1) != (name in ("gcd", "lcm", "max", "min")):
            raise Unreadable("the number of arguments")
        tree = Expression("call", (*several, base) if base else several, name)
        return Expression("power", (tree, power)) if power else tree

    def bare_argument(self) -> Expression:
        tree = self.signed()
        while self.starts_atom():
            if self.sees(r"[(\[]"):
                raise Unreadable("two readings of an argument")
            if self.sees(
                r"\\(?:" + "|".join(FUNCTIONS) + r")(?![A-Za-z])|\\(?:operatorname|sum|prod)"
            ):
                break
            tree = Expression("product", (tree, self.power()))
        return tree


def _sign(text: str) -> str:
    return "-" if text == "\\mp" else "+"


def _bound(tree: Expression, letter: str) -> bool:
    """Whether `letter` is a part of another name, as k of x_k."""
    return (
        tree.kind == "letter"
        and tree.name != letter
        and re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", tree.name) is not None
    )


def _renamed(tree: Expression, letter: str) -> Expression:
    """`tree` with the constant `letter` as a letter, since a sum binds it: `i` is not imaginary."""
    bound = Expression("letter", name=letter)
    return replaced(tree, lambda t: bound if t.kind == "constant" and t.name == letter else None)

"""Reading a completion: its text, and the place in it where the answer stands.

Every function here is total (any string gives a result, never an exception) and takes time linear in the text, because
what it reads was written by a policy that is paid to surprise us. Left out: deciding what the answer is worth
(`match.py`), and symbolic mathematics.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

__all__ = ["Completion", "after", "as_number", "last_boxed", "last_number", "last_tag", "squeeze", "text_of"]

Completion = str | Sequence[Mapping[str, Any]]
MAX_NUMBER = 1_000  # characters; a longer "number" is no answer, and conversion to int is quadratic

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"  # [0-9]: \d would take other scripts
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}])[-+])?(?:{_UNSIGNED})(?:[eE][-+]?[0-9]+)?(?:\s?/\s?[0-9]+(?:\.[0-9]+)?)?")
_FRAC = re.compile(r"([-+]?)\\[dt]?frac\s*\{\s*([-+]?[0-9.,]+)\s*\}\s*\{\s*([-+]?[0-9.,]+)\s*\}")


def _content(content: Any) -> str:
    """The text of one message: a string, or a list of parts of which only those of type `text` are read."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping) and p.get("type") == "text")
    return ""


def text_of(completion: Completion) -> str:
    """What the policy itself wrote: the string, or the assistant's messages, a line each.

    Messages with another role (tool results, user turns) are not read: a policy must not be paid for an answer that a
    tool gave it and that it never stated.

    >>> text_of([{"role": "tool", "content": "42"}, {"role": "assistant", "content": "It is 7."}])
    'It is 7.'
    """
    if isinstance(completion, str):
        return completion
    return "\n".join(_content(m.get("content")) for m in completion if m.get("role", "assistant") == "assistant")


def squeeze(text: str) -> str:
    """`text` with each run of white space made one space, none at the ends."""
    return " ".join(text.split())


def after(text: str, marker: str) -> str | None:
    """What follows the last `marker` to the end of the text, or None without one. An empty marker: the whole text."""
    at = text.rfind(marker) if marker else 0
    return None if at < 0 else text[at + len(marker) :].strip()


def last_tag(text: str, tag: str) -> str | None:
    """The content of the last closed `<tag>…</tag>`, or None.

    >>> last_tag("<answer>1</answer> no: <answer> 2 </answer>", "answer")
    '2'
    """
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, max(end, 0))
    return None if start < 0 else text[start + len(tag) + 2 : end].strip()


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, braces balanced, or None (an unclosed last box is no answer).

    >>> last_boxed(r"\boxed{1}, no, \boxed{\frac{3}{4}}.")
    '\\frac{3}{4}'
    """
    start = text.rfind("\\boxed{") + 7
    if start < 7:
        return None
    depth = 1
    for brace in re.finditer(r"\\?[{}]", text[start:]):  # an escaped brace is text, not structure
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[start : start + brace.start()].strip()
    return None


def _ratio(top: str, bottom: str = "1") -> Fraction | None:
    if len(top) + len(bottom) > MAX_NUMBER or len(top.lower().partition("e")[2]) > 4:
        return None
    try:
        return Fraction(top.replace(",", "").strip()) / Fraction(bottom.replace(",", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


def as_number(text: str) -> Fraction | None:
    r"""`text` as an exact rational number, or None.

    Read: `1,234.50`, `-3`, `3/4`, `\frac{3}{4}`, `.5`, `1e-3`; a leading `$` and a trailing `.` or `%` are passed over.
    Not read: exponents of more than three digits, roots, other scripts' digits, more than 1,000 characters.

    >>> as_number("$1,250.50"), as_number("-3/4"), as_number("9**9**9")
    (Fraction(2501, 2), Fraction(-3, 4), None)
    """
    if len(text) > 4 * MAX_NUMBER:
        return None
    plain = text.replace("\u2212", "-").replace("{,}", ",").strip().strip("$").strip()
    plain = plain.removesuffix(".").removesuffix("%").removesuffix("\\").strip()
    frac = _FRAC.fullmatch(plain)
    if frac:
        value = _ratio(frac[2], frac[3])
        return -value if value is not None and frac[1] == "-" else value
    if not _NUMBER.fullmatch(plain):
        return None
    top, _, bottom = plain.partition("/")
    return _ratio(top, bottom or "1")


def last_number(text: str) -> Fraction | None:
    """The last number written in `text`, or None. A minus after a letter, digit or bracket is an operator, not a sign.

    >>> last_number("so 1,000 - 3 = 997."), last_number("none")
    (Fraction(997, 1), None)
    """
    text = text.replace("\u2212", "-")
    tail = text.find(" ", len(text) - 256) if len(text) > 512 else 0  # the end alone first: a solution may be long
    for start in (max(tail, 0), 0):
        found = deque(_NUMBER.finditer(text, start), maxlen=1)
        if found and (found[0].start() > start + 32 or not start):  # no part of a number that begins before
            return as_number(found[0].group())
    return None

"""Reads a completion: its text, and its final answer.

Every function takes any string and linear time, because a policy may write anything. Left out:
judging the answer (`match.py`, `math.py`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from logpi.rewards.notation import fold

Completion = str | Sequence[Mapping[str, Any]]
# characters; a longer "number" is not an answer, and conversion to int is quadratic
MAX_NUMBER = 1_000

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?:(?<![\w)\]}}])[-+])?(?:{_UNSIGNED})(?:[eE][-+]?[0-9]+)?(?:\s?/\s?[0-9]+(?:\.[0-9]+)?)?"
)
_FRAC = re.compile(
    rf"([-+]?)\\[dtc]?frac\s*\{{\s*([-+]?(?:{_UNSIGNED}))\s*\}}"
    rf"\s*\{{\s*([-+]?(?:{_UNSIGNED}))\s*\}}"
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|([^\s{}$\\]+))")
_BETWEEN_BOXES = re.compile(
    r"(?:\s*\$)?\s*(?:[,;]|(?:,\s*)?(?:\\text\s*\{\s*)?(?:and|or)(?:\s*\})?)\s*(?:\$\s*)?|"
)
_PHRASE = re.compile(
    r"\b(?:answer|(?:correct|right|final) (?:option|choice))\**\s{0,3}(?:is|:|=)[\s:*]{0,6}",
    re.IGNORECASE,
)
_SAID = re.compile(r"(?:\\text\{)?(yes|no|true|false)\b\}?(?=\W*(?:[.,;!\n]|$))", re.IGNORECASE)
# a heading over the answer
_TITLE = re.compile(r"\W*(?:the )?(?:final )?answer\W*", re.IGNORECASE)
_CHOICE = re.compile(r"\(?([A-H])\)?(?![A-Za-z0-9=^_])")
_FORMULA = re.compile(r"\$+([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BARE = re.compile(
    r"[^A-Za-z\\]*(?:(?:\\[A-Za-z]+|sqrt|sin|cos|tan|ln|log|pi|[A-Za-z])(?![A-Za-z])[^A-Za-z\\]*)*"
)


def content_text(content: Any) -> str:
    """The text of one message's content: a string, or the parts of type `text` in a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(
            str(p.get("text", ""))
            for p in content
            if isinstance(p, Mapping) and p.get("type") == "text"
        )
    return ""


def text_of(completion: Completion) -> str:
    """The policy's own text: the string, or the assistant's messages, a line each.

    It ignores messages of other roles (tool results, user turns): a policy must state an answer
    itself.

    >>> text_of([{"role": "tool", "content": "42"}, {"role": "assistant", "content": "It is 7."}])
    'It is 7.'
    """
    if isinstance(completion, str):
        return completion
    return "\n".join(
        content_text(m.get("content"))
        for m in completion
        if m.get("role", "assistant") == "assistant"
    )


def squeeze(text: str) -> str:
    """`text` with one space for each run of white space, and none at the ends."""
    return " ".join(text.split())


def after(text: str, marker: str) -> str | None:
    """The text after the last `marker`, or None without one; the whole text for an empty marker."""
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


def _closed(text: str, start: int, end: int) -> int | None:
    """The position of the brace that closes the one before `start`, or None."""
    depth = 1
    # an escaped brace is text
    for brace in re.compile(r"\\?[{}]").finditer(text, start, end):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` or `\fbox{…}`, with balanced braces, or None.

    An unclosed last box is not an answer. Boxes that `,`, `and` or `or` joins belong to one answer.

    >>> one, two = r"\boxed{1}, no, \boxed{\frac{3}{4}}.", r"$\boxed{2}$ or $\boxed{-2}$"
    >>> last_boxed(one), last_boxed(two)
    ('\\frac{3}{4}', '2, -2')
    """
    boxes: list[str] = []
    right = len(text)
    for box in reversed(list(_BOX.finditer(text))):
        end = box.end() if box[1] else _closed(text, box.end(), right)
        if end is None or (boxes and not _BETWEEN_BOXES.fullmatch(text, end + (not box[1]), right)):
            break
        boxes.append(box[1].rstrip(".,;") if box[1] else text[box.end() : end].strip())
        right = box.start()
    return ", ".join(dict.fromkeys(reversed(boxes))) if boxes else None


def final_answer(text: str, number: bool = True) -> str | None:
    r"""The final answer of `text`, or None: the last box, `####`, `<answer>`, "answer is", or (if
    `number`) number.

    It ignores the text before `</think>`. If the last box is unclosed there is no answer. The
    content of `####` and `<answer>` may be boxed, and may be `$…$`.

    >>> boxes = r"first \boxed{1}, no, \boxed{\frac{3}{4}}."
    >>> final_answer(boxes), final_answer("#### 18"), final_answer("<answer> 7 </answer>")
    ('\\frac{3}{4}', '18', '7')
    """
    text = text.rpartition("</think>")[2]
    if "\\" in text and _BOX.search(text):
        return last_boxed(text)
    marked = after(text, "####")
    if marked:
        line, _, below = marked.partition("\n")
        below = below.strip()
        return below.split("\n", 1)[0].strip() if below and _TITLE.fullmatch(line) else line.strip()
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return tagged
    phrase = deque(_PHRASE.finditer(text, max(0, len(text) - 1_000)), maxlen=1)
    stated = _stated(text[phrase[0].end() :]) if phrase else None
    return stated or (_last_value(text) if number else None)


def _stated(rest: str) -> str | None:
    """The answer after "the answer is"."""
    formula, choice = _FORMULA.match(rest), _CHOICE.match(rest) or _SAID.match(rest)
    if formula:
        return next(g for g in formula.groups() if g).strip()
    if choice:
        return choice[1]
    sentence = re.split(r"\.(?:\s|$)|\n|!(?:\s|$)", rest, maxsplit=1)[0].strip().strip("*").strip()
    if sentence and _BARE.fullmatch(sentence):
        return sentence
    first = _NUMBER.search(fold(sentence))
    value = as_number(first[0]) if first and "\\" not in sentence else None
    return None if value is None else str(value)


def _last_value(text: str) -> str | None:
    r"""The last number, or the formula that it is a part of: `\frac{3}{4}`, 2^{10}."""
    tail = fold(text[-2_000:]).rstrip(" .\n*")
    formula = deque(_FORMULA.finditer(tail), maxlen=1)
    if formula and formula[0].end() == len(tail):
        return next(g for g in formula[0].groups() if g).rpartition("=")[2].strip()
    pieces = deque(
        re.finditer(r"(?:-?[0-9.]+\s*(?:\\times|\\cdot|\*)\s*)?\S*[0-9]\S*", tail), maxlen=1
    )
    if pieces and re.search(r"[\\^{_]", pieces[0][0]):
        return pieces[0][0].rpartition("=")[2].strip(".,;$")
    value = last_number(text)
    return None if value is None else str(value)


def given_answers(answer: Any) -> list[str]:
    """The right answers of a row, one or several, as texts. A missing one (None, NaN, empty) does
    not count."""
    several = answer if isinstance(answer, list | tuple) else [answer]
    texts = [str(a).strip() for a in several if a is not None]
    return [t for t in texts if t not in ("", "nan", "NaN")]


def _ratio(top: str, bottom: str = "1") -> Fraction | None:
    if len(top) + len(bottom) > MAX_NUMBER or len(top.lower().partition("e")[2]) > 4:
        return None
    try:
        return Fraction(top.replace(",", "").strip()) / Fraction(bottom.replace(",", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


def as_number(text: str) -> Fraction | None:
    r"""`text` as an exact rational number, or None.

    It reads `1,234.50`, `-3`, `3/4`, `\frac{3}{4}`, `.5` and `1e-3`, and ignores a leading `$` and
    a trailing `.` or `%`. It does not read exponents of more than three digits, roots, or more than
    1,000 characters.

    >>> as_number("$1,250.50"), as_number("-3/4"), as_number("9**9**9")
    (Fraction(2501, 2), Fraction(-3, 4), None)
    """
    if len(text) > 4 * MAX_NUMBER:
        return None
    plain = fold(text).replace("{,}", ",").strip().strip("$").strip()
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
    """The last number in `text`, or None. A minus after a letter, digit or bracket is an operator.

    >>> last_number("so 1,000 - 3 = 997."), last_number("none")
    (Fraction(997, 1), None)
    """
    text = fold(text)
    # search the end first: a solution may be long
    tail = text.find(" ", len(text) - 256) if len(text) > 512 else 0
    for start in (max(tail, 0), 0):
        found = deque(_NUMBER.finditer(text, start), maxlen=1)
        # it must not be the rest of a number that begins before `start`
        if found and (found[0].start() > start + 32 or not start):
            return as_number(found[0].group())
    return None

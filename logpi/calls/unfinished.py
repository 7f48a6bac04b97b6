"""How much of a turn that is still being written is surely no part of a call.

Left out: reading the calls of a whole turn (`reading.py`).
"""

from __future__ import annotations

from logpi.calls.reading import MARKS

_OPENINGS = (*MARKS, "<function", "</tool_call>", "```")
_FIRST = {opening[0] for opening in _OPENINGS} | set("{[")
_LONGEST = max(map(len, _OPENINGS))


def settled(text: str, at: int = 0) -> int:
    """The number of first characters of `text` that are no call, however it goes on; the first
    `at` are known to be none. White space before a call is not said either, so it waits.

    >>> settled("I look it up. <tool_c"), settled("a < b, so"), settled('Well\\n{"name"')
    (13, 9, 4)
    """
    end = next((i for i in range(at, len(text)) if _may_open(text, i)), len(text))
    return max(at, len(text[:end].rstrip()))


def _may_open(text: str, i: int) -> bool:
    if text[i] not in _FIRST:
        return False
    rest = text[i : i + _LONGEST]
    if any(rest.startswith(o) or o.startswith(rest) for o in _OPENINGS):
        return True
    # calls without a mark begin a line
    return text[i] in "{[" and not text[text.rfind("\n", 0, i) + 1 : i].strip()

"""Our docstrings for the API pages: a Griffe extension that rewrites what its parser of Google's
style would not read, before it reads it.

    low, high: ≥ 0.                 two attributes                 (one entry for each)
    logp: [B, T]. entropy: [B, T].  two on one line                (one entry for each)
    >>> f(1)                        an example after a text        (a block of code)
        Âₜ = R − mean(R)            indented below a text          (a block, not a list)
    ρₜ Âₜ                           a line that is an equation     (a block)
    Raises: ValueError: why         a section on one line          (a section)

Left out: docstrings that are wrong (their tests are in `tests/`).
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import griffe

SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")
_HEAD = re.compile(rf"^({'|'.join(SECTIONS)}):\s*(.*)$")
_SEVERAL = re.compile(r"^(\s+)([\w.*]+(?:, [\w.*]+)+): (.*)$")
_EQUATION = re.compile(r"[πθρÂ∇ΣσβλγδπμΠ𝔼∂√≥≤∈→₀-ₜ]|E\[|log ")


def rewritten(text: str, names: frozenset[str] = frozenset()) -> str:
    r"""A docstring in the form that Griffe's parser of Google's style reads.

    Args:
        names: of attributes or parameters, which may stand in the middle of a line.

    >>> rewritten("Doubles.\n\n>>> 2 * 2\n4")
    'Doubles.\n\n```python\n>>> 2 * 2\n4\n```'
    >>> rewritten("A.\n\nArgs:\n    a, b: numbers.")
    'A.\n\nArgs:\n    a: numbers.\n    b: as `a`.'
    """
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    pieces: list[str] = []
    for block in blocks:
        pieces += _block(block, names)
    return "\n\n".join(pieces)


def _block(block: str, names: frozenset[str]) -> list[str]:
    """A paragraph, as one or several."""
    lines = block.split("\n")
    if lines[0].lstrip().startswith(">>>"):
        return [_fence("python", lines)]
    # [S, A] [B, T] would be a link
    lines = [re.sub(r"\](\s?)\[", r"]\1\[", line) for line in lines]
    heads = [i for i, line in enumerate(lines) if _HEAD.match(line)]
    if heads:
        starts = [*([0] if heads[0] else []), *heads, len(lines)]
        parts = [lines[a:b] for a, b in itertools.pairwise(starts)]
        return [_section(p, names) if _HEAD.match(p[0]) else "\n".join(p) for p in parts]
    if all(line.startswith("    ") for line in lines) or _is_equation(lines):
        return [_fence("text", lines)]
    # a table, or a list of names, below the text that announces it
    split = next((i for i, line in enumerate(lines) if i and line.startswith("    ")), None)
    if split and all(line.startswith("    ") for line in lines[split:]):
        return ["\n".join(lines[:split]), _fence("text", lines[split:])]
    return ["\n".join(lines)]


def _is_equation(lines: list[str]) -> bool:
    """One short line with the signs of mathematics that is no sentence."""
    line = lines[0].strip()
    return (
        len(lines) == 1
        and len(line) < 90
        and not line.endswith((".", ":", ";"))
        and bool(_EQUATION.search(line))
        and not line.startswith(("-", "*", "#", "|", "`"))
    )


def _fence(language: str, lines: list[str]) -> str:
    indent = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
    return "\n".join([f"```{language}", *(x[indent:] for x in lines), "```"])


def _section(lines: list[str], names: frozenset[str]) -> str:
    """A section of entries; a text on the line of its heading moves below it."""
    match = _HEAD.match(lines[0])
    assert match
    entries = ([f"    {match[2]}"] if match[2] else []) + lines[1:]
    if match[1] in ("Args", "Attributes"):
        entries = [x for line in entries for x in _entries(line, names)]
    return "\n".join([f"{match[1]}:", *entries])


def _entries(line: str, names: frozenset[str]) -> list[str]:
    """The entries on one line."""
    lines, rest = [], line
    indent = line[: len(line) - len(line.lstrip())]
    if len(indent) == 4 and names:
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        rest = re.sub(rf"(?<=[.;]) (?=(?:{known})(?:, (?:{known}))*: )", f"\n{indent}", line)
    for part in rest.split("\n"):
        several = _SEVERAL.match(part)
        if several and len(several[1]) == 4:
            first, *others = several[2].split(", ")
            lines.append(f"{several[1]}{first}: {several[3]}")
            # a text that goes on below belongs to the first
            lines += [f"{several[1]}{other}: as `{first}`." for other in others]
        else:
            lines.append(part)
    return lines


class OurDocstrings(griffe.Extension):
    """Rewrites every docstring when it is loaded."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is None:
            return
        names = set(getattr(obj, "members", ()) if obj.is_class else ())
        names |= {p.name for p in getattr(obj, "parameters", ()) or ()}
        if obj.is_class and "__init__" in obj.members:
            names |= {p.name for p in obj.members["__init__"].parameters}
        obj.docstring.value = rewritten(obj.docstring.value, frozenset(names))

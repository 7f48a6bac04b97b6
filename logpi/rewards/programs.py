"""Finds the program in a completion, and compares a program's output with the expected one.

Left out: running programs (`code.py`), and their tests (`unit_tests.py`).
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from typing import Any

from logpi.rewards.text import content_text

# A line with an indent of four or more is part of the program, say of a docstring, and closes no
# fence.
_FENCE = re.compile(
    r"^(?P<before>[^`\n]+)?(?P<marks>```+|~~~+)[ \t]*(?P<language>[^\s`]*)[^`\n]*\n(?P<body>.*?)"
    r"(?:^(?(before)[ \t>]*| {0,3})(?P=marks)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PYTHON = ("python", "python3", "py", "py3", "python2")


def program_of(
    text: str, prompt: str = "", entry_point: str = "", names: Collection[str] = ()
) -> str:
    r"""The program in a completion: the last fenced Python block that defines `entry_point` or one
    of `names`, else the last block, else the whole text.

    If the prompt begins the function `entry_point` and the completion does not, the completion is
    its body.

    >>> program_of("So:\n```python\ndef f(x):\n    return x\n```\nDone.")
    'def f(x):\n    return x\n'
    >>> program_of("    return x\n\nprint(f(1))", prompt="def f(x):\n", entry_point="f")
    'def f(x):\n    return x\n\n'
    """
    text = text.rpartition("</think>")[2]
    entry = entry_point.rpartition(".")[2]
    patterns = [rf"def[ \t]+{re.escape(entry)}\b"] if entry else []
    patterns += [rf"(?:def|class)[ \t]+{re.escape(n)}\b|^{re.escape(n)}[ \t]*=" for n in names]
    defines = re.compile("|".join(patterns) or r"(?!)", re.MULTILINE)
    blocks = _blocks(text)
    last = blocks[-1] if blocks else _unfenced(text)
    program = next((b for b in reversed(blocks) if defines.search(b)), last)
    if not entry or f"def {entry}" not in prompt:
        return program
    return _imports(prompt) + program if defines.search(program) else prompt + _body(program)


def _blocks(text: str) -> list[str]:
    """The fenced blocks marked as Python; if there is none, the unmarked ones."""
    fences = [(m["language"].lower().strip("{.}"), _outdented(m)) for m in _FENCE.finditer(text)]
    python = [body for language, body in fences if language in _PYTHON]
    return [b for b in python or [b for language, b in fences if not language] if b.strip()]


def _unfenced(text: str) -> str:
    """The content of the last answer tags, or the whole text."""
    opened, _, answer = text.rpartition("<answer>")
    return answer.partition("</answer>")[0] if opened or text.startswith("<answer>") else text


def _imports(prompt: str) -> str:
    """The prompt's imports, for a program that continues it."""
    lines = (line for line in prompt.splitlines() if line.startswith(("import ", "from ")))
    return "".join(f"{line}\n" for line in lines if parses(line))


def _outdented(fence: re.Match[str]) -> str:
    """A block without the indent of its fence, which in a list item is that of the item's text."""
    before = fence["before"] or ""
    inside = re.fullmatch(r"(?:[ \t>]|[-*+]|\d+[.)])*", before) is not None
    if not (inside and before):
        return fence["body"]
    return re.sub(rf"^[ \t>]{{1,{len(before)}}}", "", fence["body"], flags=re.MULTILINE)


def _body(text: str) -> str:
    """The indented lines at the start. Later lines are not part of the function."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and lines:
            break
        lines.append(line)
    return "".join(lines)


def prompt_code(prompt: Any, entry_point: str) -> str:
    """The text of a prompt or of its last message; only the Markdown block with the function
    `entry_point`, if there is one."""
    if not isinstance(prompt, str):
        prompt = content_text(prompt[-1].get("content")) if prompt else ""
    blocks = [_outdented(m) for m in _FENCE.finditer(prompt)]
    start = f"def {entry_point.rpartition('.')[2]}"
    return next((b for b in blocks if start in b), prompt) if entry_point else prompt


def parses(source: str) -> bool:
    """Whether a text is Python."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def same_output(output: str, expected: str) -> bool:
    """Whether a program's output is the expected one.

    White space at the ends of lines and of the whole does not count. Lines of numbers are compared
    number by number.
    """
    lines, others = output.rstrip().split("\n"), expected.rstrip().split("\n")
    return len(lines) == len(others) and all(map(_same_line, lines, others))


def _same_line(line: str, expected: str) -> bool:
    if line.rstrip() == expected.rstrip():
        return True
    words, others = line.split(), expected.split()
    return len(words) == len(others) and all(map(_same_number, words, others))


def _same_number(word: str, expected: str) -> bool:
    """Whether two words are equal numbers: 3.0 is 3.

    The tolerance of an expected fraction is 1e-6, or 1e-6 of it if it is below 1.

    >>> _same_number("0.30000000000000004", "0.3"), _same_number("3.1", "3")
    (True, False)
    """
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(expected)):
        return False
    if not set(expected) & set(".eE"):
        return word.partition(".")[0] == expected and not word.partition(".")[2].strip("0")
    a, b = float(word), float(expected)
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6 * min(1.0, abs(b)) + 1e-12)

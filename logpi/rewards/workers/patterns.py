"""Matches texts with regular expressions and JSON schemas, in a worker process.

Left out: the deadline (`processes.py`), and checks of the pattern or schema itself, which come
before any work (`rewards/pattern.py`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

# the checkout of this file may not be the installed one
if (ROOT := str(Path(__file__).parents[3])) not in sys.path:
    sys.path.insert(1, ROOT)

from logpi.calls import json_schema

MAX_TEXT = 1_000_000
_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def matches(prompts, completions, *, pattern, search, flags) -> list[float | None]:
    """1.0 for each text that matches its pattern."""
    rows = zip(completions, pattern, search, flags, strict=True)
    return [
        None if not p else float(bool((re.search if s else re.fullmatch)(p, c, f)))
        for c, p, s, f in rows
    ]


def fits(prompts, completions, *, schema) -> list[float | None]:
    """1.0 for each text that is JSON and fits its schema."""
    rows = zip(completions, schema, strict=True)
    return [None if not s else float(_fits(text, json.loads(s))) for text, s in rows]


def _fits(text: str, schema: Any) -> bool:
    if len(text) > MAX_TEXT:
        return False
    blocks = _BLOCK.findall(text)
    try:
        value = json.loads(blocks[-1] if blocks else text, parse_constant=_refuse)
        return json_schema.fits(value, schema)
    # 1e999 is JSON, and infinite in Python
    except (ValueError, RecursionError, OverflowError):
        return False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")

"""Regular expressions and JSON schemas against texts, as a worker process runs them.

Left out: the deadline (`processes.py`), and whether the pattern or the schema is one at all, which
is asked before any work (`rewards/pattern.py`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

# a checkout that is not installed, or another one than that
if (ROOT := str(Path(__file__).parents[3])) not in sys.path:
    sys.path.insert(1, ROOT)

from logpi.calls import json_schema

MAX_TEXT = 1_000_000
_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def matches(prompts, completions, *, pattern, search, flags) -> list[float | None]:
    """1.0 where the text matches its pattern."""
    rows = zip(completions, pattern, search, flags, strict=True)
    return [
        None if not p else float(bool((re.search if s else re.fullmatch)(p, c, f)))
        for c, p, s, f in rows
    ]


def fits(prompts, completions, *, schema) -> list[float | None]:
    """1.0 where the text is JSON that fits its schema."""
    rows = zip(completions, schema, strict=True)
    return [None if not s else float(_fits(text, json.loads(s))) for text, s in rows]


def _fits(text: str, schema: Any) -> bool:
    if len(text) > MAX_TEXT:
        return False
    blocks = _BLOCK.findall(text)
    try:
        value = json.loads(blocks[-1] if blocks else text, parse_constant=_refuse)
        return json_schema.fits(value, schema)
    # 1e999 is JSON, and infinite here
    except (ValueError, RecursionError, OverflowError):
        return False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")

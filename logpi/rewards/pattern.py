r"""Constrained generation as a reward: does the output match a regular expression, or a JSON
schema?

The pattern is the user's and the text the policy's, and a text can make a careless pattern run for
ever: matching is done in a worker process with a deadline (`workers/patterns.py`). Left out:
    constraining the sampler itself, and what the text says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from logpi.errors import UserError
from logpi.rewards.text import text_of
from logpi.rewards.workers.processes import Failure, Workers, call

_APART = Path(__file__).with_name("workers") / "patterns.py"
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


@lru_cache
def _worker(function: str) -> Workers:
    return Workers(str(_APART), function, 1, memory=1 << 30)


def _ask(
    function: str, texts: list[str], columns: dict[str, Any], seconds: float
) -> list[float | Failure | None]:
    """The worker's verdicts on the whole batch; if that is late, on each text alone, so that only
    the guilty have none."""
    whole = _worker(function).ask(call(texts, texts, None, columns), seconds)
    replies = [whole]
    if "failed" in whole and len(texts) > 1:
        alone = [
            call([t], [t], None, {k: [v[i]] for k, v in columns.items()})
            for i, t in enumerate(texts)
        ]
        replies = _worker(function).map(alone, seconds)
    return [
        v for r in replies for v in ([Failure(**r["failed"])] if "failed" in r else r["verdicts"])
    ]


@dataclass(frozen=True)
class Regex:
    r"""1 if the output matches a regular expression, as a whole unless `search`.

    Attributes:
        pattern: Python's syntax; "" takes each row's own from the column `pattern`. flags: of i, m,
            s, x.
        seconds: for a batch, then for each of its texts; what takes longer has no verdict.

    Raises:
        ValueError: a pattern that does not compile.

    >>> Regex(r"\d{4}-\d\d-\d\d")(prompts=["?"] * 2, completions=["2026-11-21", "21 Nov"])
    [1.0, 0.0]
    """

    pattern: str = ""
    search: bool = False
    flags: str = ""
    seconds: float = 2.0
    name: str = "regex"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern, sum(_FLAGS[f] for f in self.flags))
        except (re.error, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"regex {self.pattern!r} with flags {self.flags!r} does not compile: {error}"
            ) from None

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.pattern else ("pattern",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, pattern=None, **columns
    ) -> list[float | Failure | None]:
        n = len(completions)
        patterns = [self.pattern] * n if self.pattern else list(pattern or [])
        given = {
            "pattern": patterns,
            "search": [self.search] * n,
            "flags": [sum(_FLAGS[f] for f in self.flags)] * n,
        }
        return _ask("matches", [text_of(c) for c in completions], given, self.seconds)


@dataclass(frozen=True)
class JsonSchema:
    """1 if the output is JSON (alone, or in its last ```json block) that fits a JSON schema.

    Understood without more: type, enum, const, properties, required, additionalProperties, items,
    prefixItems, minItems, maxItems, uniqueItems, minLength, maxLength, pattern, minimum, maximum
    (and exclusive), multipleOf, anyOf, oneOf, allOf, not, and $ref inside the schema. Another
    keyword is refused at the start rather than passed over.

    Attributes:
        schema: as JSON, or the path of a .json file; "" takes each row's own from the column
            `schema`.

    Raises:
        ValueError: no JSON, no such file, a keyword that is not understood.

    >>> JsonSchema('{"type": "object", "required": ["a"]}')(prompts=["?"] * 2, completions=['{"a": 1}', "[]"])
    [1.0, 0.0]
    """

    schema: str = ""
    seconds: float = 2.0
    name: str = "json_schema"

    def __post_init__(self) -> None:
        text = self.schema
        if text.strip().endswith(".json"):
            if not Path(text).is_file():
                raise ValueError(f"json_schema: there is no file {text}")
            text = Path(text).read_bytes().decode("utf-8", "replace")
            object.__setattr__(self, "schema", text)
        if text:
            _understood(text)

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Read every row's own schema.

        Raises:
            UserError: names the first row whose schema is none, or has a keyword that is not
                understood.
        """
        for i, row in enumerate(rows if not self.schema else ()):
            own = row.get("schema")
            try:
                _understood(own if isinstance(own, str) else json.dumps(own))
            except ValueError as error:
                raise UserError(f"{getattr(row, 'where', '') or f'row {i}'}: {error}") from None

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.schema else ("schema",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, schema=None, **columns
    ) -> list[float | Failure | None]:
        own = [s if isinstance(s, str) else json.dumps(s) for s in schema or []]
        schemas = [self.schema] * len(completions) if self.schema else own
        return _ask("fits", [text_of(c) for c in completions], {"schema": schemas}, self.seconds)


def _understood(schema: str) -> None:
    """Raises ValueError if this is no JSON schema, or one with a keyword that is not understood."""
    from logpi.rewards.workers.patterns import unknown

    try:
        given = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json_schema: the schema is not JSON: {error}") from None
    try:
        strange = unknown(given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json_schema: {error}") from None
    if strange:
        raise ValueError(
            f"json_schema does not understand {', '.join(strange)}: leave it out, or check it with"
            " command(…)"
        )

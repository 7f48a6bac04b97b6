r"""Rewards for an output that matches a regular expression or a JSON schema.

The pattern is the user's and the text is the policy's. A text can make a careless pattern run for
ever, so a worker process with a deadline does the matching (`workers/patterns.py`). Left out:
constrained sampling, and the meaning of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from logpi.calls.json_schema import schema_problem
from logpi.errors import UserError, row_place
from logpi.rewards.samples import Judgement, Samples, Verdict, judged
from logpi.rewards.text import text_of
from logpi.rewards.workers.processes import Failure, Workers

_FILE = Path(__file__).with_name("workers") / "patterns.py"
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


@lru_cache
def _worker(function: str) -> Workers:
    return Workers(str(_FILE), function, 1, memory=1 << 30)


def _judge(
    function: str, completions: Sequence[Any], columns: Mapping[str, Sequence[Any]], seconds: float
) -> list[Verdict]:
    """The worker's verdicts on the batch; if the worker is late, on each text alone."""
    texts = [text_of(c) for c in completions]

    def ask(samples: Samples) -> Judgement | Failure:
        return Judgement.of(_worker(function).ask(samples.pickled(), seconds))

    return list(judged(Samples(texts, texts, None, columns), ask, ask).verdicts)


@dataclass(frozen=True)
class Regex:
    r"""1 if the output matches a regular expression, as a whole unless `search`.

    Attributes:
        pattern: in Python's syntax; "" takes each row's own from the column `pattern`.
        search: match a part of the output.
        flags: letters of i, m, s, x.
        seconds: the limit for a batch, then for each text; a late text has no verdict.

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
    ) -> list[Verdict]:
        n = len(completions)
        patterns = [self.pattern] * n if self.pattern else list(pattern or [])
        given = {
            "pattern": patterns,
            "search": [self.search] * n,
            "flags": [sum(_FLAGS[f] for f in self.flags)] * n,
        }
        return _judge("matches", completions, given, self.seconds)


@dataclass(frozen=True)
class JsonSchema:
    """1 if the output is JSON (alone, or in its last ```json block) that fits a JSON schema.

    The draft is the schema's own `$schema`, else 2020-12. It ignores `format`. It refuses, at the
    start, an unknown keyword and a $ref out of the schema.

    Attributes:
        schema: as JSON, or the path of a .json file; "" takes each row's own from the column
            `schema`.

    Raises:
        ValueError: not JSON, not a JSON schema, or no such file.

    >>> judge = JsonSchema('{"type": "object", "required": ["a"]}')
    >>> judge(prompts=["?"] * 2, completions=['{"a": 1}', "[]"])
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
            _check(text)

    def read_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Check every row's own schema.

        Raises:
            UserError: names the first row whose schema is not one.
        """
        for i, row in enumerate(rows if not self.schema else ()):
            own = row.get("schema")
            try:
                _check(own if isinstance(own, str) else json.dumps(own))
            except ValueError as error:
                raise UserError(f"{row_place(row, f'row {i}')}: {error}") from None

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.schema else ("schema",)

    def __call__(
        self, prompts, completions, completion_ids=None, *, schema=None, **columns
    ) -> list[Verdict]:
        own = [s if isinstance(s, str) else json.dumps(s) for s in schema or []]
        schemas = [self.schema] * len(completions) if self.schema else own
        return _judge("fits", completions, {"schema": schemas}, self.seconds)


def _check(schema: str) -> None:
    """Raises ValueError for a text that is not a usable JSON schema."""
    try:
        problem = schema_problem(json.loads(schema))
    except json.JSONDecodeError as error:
        raise ValueError(f"json_schema: the schema is not JSON: {error}") from None
    except (RecursionError, OverflowError) as error:
        raise ValueError(f"json_schema: the schema is not JSON that can be read: {error}") from None
    if problem:
        raise ValueError(f"json_schema: {problem}")

"""One response by its tokens, the group it is compared in, and its prompt over the steps, as JSON.

A long response comes in windows of tokens; texts are cut where a page would not bear them, and say
so. Left out: which responses there are (`samples_index.py`), and drawing (`page/`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from logpi.runs.summary import number
from logpi.viewer.files import Folders, ViewError
from logpi.viewer.samples_file import SamplesFile, prompt_key
from logpi.viewer.samples_index import BUDGET, Query, SamplesIndex, preview
from logpi.viewer.samples_lines import text
from logpi.viewer.token_pieces import by_turns, specials, tokenizer_of

if TYPE_CHECKING:
    from logpi.viewer.runs_index import RunRecord

# characters of a text, of one in a group; rows of a prompt's history
LONGEST, IN_GROUP, IN_HISTORY = 200_000, 20_000, 400
MOST_TOKENS, MOST_SPECIAL = 10_000, 8
BY_TOKEN = ("advantage", "logp", "entropy", "ratio")


def sample_json(
    index: SamplesIndex, record: RunRecord, place: tuple[str, int, int], window: tuple[int, int]
) -> dict[str, Any]:
    """A response. place: kind, step and row. window: its first token, and how many.

    Raises:
        ViewError: it is not there.
    """
    kind, step, row = place
    with index.lock:
        file = index.file(kind, step, row)
        response = index.response(file, row)
        if response is None:
            raise ViewError(f"row {row} of step {step} is gone: the run went back and goes on")
        before, after = _neighbours(index, file, row)
    whole = text(response.get("completion"))
    shown = preview(response, file, row) | _details(response)
    with suppress(ViewError):
        shown["special"] = _specials(response, index, record)
    return {
        "row": shown,
        "turns": _turns(response),
        "tokens": _tokens(response, index.folders, record, window),
        "text": whole[:LONGEST],
        "cut": len(whole) > LONGEST,
        "previous": before,
        "next": after,
    }


def mark_specials(index: SamplesIndex, record: RunRecord, rows: Sequence[dict[str, Any]]) -> None:
    """Add to rows of a list which special tokens their texts do not show; without a tokenizer, or
    beyond the time for it, nothing."""
    end = monotonic() + BUDGET
    for row in rows:
        if "special" not in row and monotonic() < end and not row["too_long"]:
            with index.lock, suppress(ViewError):
                file = index.file(row["kind"], row["step"], row["row"])
                row["special"] = _specials(index.response(file, row["row"]) or {}, index, record)


def _specials(response: Mapping[str, Any], index: SamplesIndex, record: RunRecord) -> list[str]:
    ids = response.get("ids")
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return []
    tokenizer = tokenizer_of(index.folders, record.run.path, record.arguments)
    ended = response.get("stop") != "length"
    return specials(tokenizer, ids, text(response.get("completion")), ended)[:MOST_SPECIAL]


def _details(response: Mapping[str, Any]) -> dict[str, Any]:
    names = ("answer", "errors", "extras", "counts", "version", "prefix")
    return {"prompt": _cut(response.get("prompt"))} | {k: response.get(k) for k in names}


def _cut(value: Any) -> Any:
    """A prompt whose texts are not longer than a page bears."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[:LONGEST] + " …"
    if isinstance(value, list):
        return [{k: _cut(v) for k, v in m.items()} if isinstance(m, dict) else m for m in value]
    return value


def _turns(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = response.get("turns")
    if not isinstance(turns, list):
        return []
    names = ("text", "shown", "reward", "observed", "tokens")
    return [{k: _cut(t.get(k)) for k in names} for t in turns if isinstance(t, dict)]


def _tokens(
    response: Mapping[str, Any], folders: Folders, record: RunRecord, window: tuple[int, int]
) -> dict[str, Any]:
    """The own tokens of a window: lists of one entry for each; None where nothing was recorded."""
    ids, begin = response.get("ids"), max(0, window[0])
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return (
            {"from": 0, "of": 0, "pieces": None, "ids": [], "mask": None}
            | dict.fromkeys(BY_TOKEN, None)
            | {"why": "the tokens of this response were not recorded (an evaluation, an older run)"}
        )
    end = min(len(ids), begin + min(max(0, window[1]), MOST_TOKENS))
    pieces, why = None, None
    try:
        tokenizer = tokenizer_of(folders, record.run.path, record.arguments)
        turns = [t["tokens"] for t in _turns(response) if type(t["tokens"]) is int]
        # all from the first on: a character may begin before the window
        pieces = by_turns(tokenizer, ids[:end], turns)[begin:]
    except ViewError as error:
        why = str(error)
    learned = number(response.get("reward")) is not None
    return {
        "from": begin,
        "of": len(ids),
        "pieces": pieces,
        "ids": ids[begin:end],
        "mask": [int(learned)] * (end - begin),
        **{name: _each(response.get(name), len(ids), begin, end) for name in BY_TOKEN},
        "why": why,
    }


def _each(values: Any, count: int, begin: int, end: int) -> Sequence[float | None] | None:
    """Numbers of the tokens of a window; one number stands for all tokens.

    >>> _each(0.5, 3, 1, 3), _each([1.0, "nan", 3.0], 3, 1, 3), _each(None, 3, 1, 3)
    ([0.5, 0.5], [None, 3.0], None)
    """
    if isinstance(values, list):
        return [number(v) for v in values[begin:end]] if len(values) == count else None
    known = number(values)
    return None if known is None else [known] * max(0, end - begin)


def _neighbours(
    index: SamplesIndex, file: SamplesFile, row: int
) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    """The responses before and after this one, over the steps."""
    steps = index.kinds()[file.kind]
    earlier = [s for s in steps if s < file.step]
    later = [s for s in steps if s > file.step]
    before = {"step": file.step, "row": row - 1} if row else None
    if before is None and earlier:
        count = len(index.file(file.kind, earlier[-1]))
        before = {"step": earlier[-1], "row": count - 1} if count else None
    after = {"step": later[0], "row": 0} if later else None
    if not file.complete:
        file.read_on(index.folders, monotonic() + BUDGET, row + 1)
    return before, {"step": file.step, "row": row + 1} if row + 1 < len(file) else after


def group_json(index: SamplesIndex, kind: str, step: int, group: int) -> dict[str, Any]:
    """The responses to one prompt in one step, beside each other. Raises ViewError: none."""
    with index.lock:
        file = index.file(kind, step)
        rows = [i for i, g in enumerate(file.columns["group"]) if g == group]
        if not rows:
            raise ViewError(f"step {step} has no group {group}")
        shown, texts, prompt = [], [], None
        for row in rows:
            response = index.response(file, row, short=True)
            if response is not None:
                texts.append(text(response.get("completion")))
                cut = {"text": texts[-1][:IN_GROUP], "cut": len(texts[-1]) > IN_GROUP}
                shown.append(preview(response, file, row) | cut)
                prompt = response.get("prompt") if prompt is None else prompt
    same = len(os.path.commonprefix(texts))
    return {"rows": shown, "common_prefix": same, "prompt": _cut(prompt)}


def prompt_json(index: SamplesIndex, place: tuple[str, int, int]) -> dict[str, Any]:
    """How the answers to a prompt changed: those of every step that had it, oldest first."""
    kind, step, row = place
    with index.lock:
        start = monotonic()
        response = index.response(index.file(kind, step, row), row, short=True) or {}
        files = index.of_kind(kind)
        complete = index.read_on(files, Query(kind, sort="best"), start)
        table = index.table(files)
        [rows] = (table.columns["prompt"] == prompt_key(response.get("prompt"))).nonzero()
        shown = index.rows(files, table, _spread(rows))
    steps: dict[int, list[dict[str, Any]]] = {}
    for each in reversed(shown):
        steps.setdefault(each["step"], []).insert(0, each)
    return {
        "prompt": _cut(response.get("prompt")),
        "steps": [{"step": s, "rows": steps[s]} for s in sorted(steps)],
        "of": len(rows),
        "complete": complete,
    }


def _spread(rows: np.ndarray) -> Sequence[int]:
    """All rows, or as many as a page bears, evenly."""
    if len(rows) <= IN_HISTORY:
        return rows.tolist()
    places = np.linspace(0, len(rows) - 1, IN_HISTORY).round().astype(np.int64)
    return rows[np.unique(places)].tolist()

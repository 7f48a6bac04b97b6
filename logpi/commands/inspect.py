"""`logpi inspect RUN`: one response of a run, turn by turn: who wrote what, what it earned, and
what it was taught.

    green   the policy's own tokens with a positive advantage: the stronger, the brighter
    red     those with a negative one
    grey    what the policy was given: prompt, replies of the environment (never trained)

Without a terminal the same as plain text. The advantage is the one that the update used: one number
for a row where all tokens share it; where they do not (a critic), the run's own tokenizer gives the
text of each token. Of a run of `logpi eval` the rows are its responses, item by item. Left out:
statistics over responses (metrics.jsonl has them).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.runs.reading import RunView

# Of the terminal's 256 colours, from weak to strong.
GREEN = (22, 28, 34, 40, 46)
RED = (52, 88, 124, 160, 196)
GREY = 245


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Arguments of `logpi inspect`."""

    run: Path = option(help="the directory of a run of `logpi rl` or `logpi eval`", positional=True)
    step: int | None = option(
        None, help="of training: whose responses (default: the last with samples)", least=0
    )
    row: int = option(0, help="which response of the step or evaluation, from 0", least=0)
    color: bool | None = option(None, help="default: if this is a terminal and NO_COLOR is not set")


def main(argv: Sequence[str]) -> int:
    a = parse(Inspect, argv, "logpi inspect", "Show one response of a run, turn by turn.")
    from logpi.runs.reading import RunView

    run = RunView(a.run)
    rows, place = _rows(run, a.step)
    if not rows:
        raise UserError(f"none of the samples of {place} in {a.run} can be read")
    if not 0 <= a.row < len(rows):
        raise UserError(f"{place} has {len(rows)} rows: --row 0 … {len(rows) - 1}")
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ if a.color is None else a.color
    row = rows[a.row]
    try:
        pieces = _pieces(run, row) if isinstance(row.get("advantage"), list) else None
        lines = list(shown(row, pieces, color))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(
            f"row {a.row} of {place} in {a.run} is damaged, or of another version: {what}"
        ) from None
    print(f"{a.run}   {place}   row {a.row} of {len(rows)}", *lines, sep="\n")
    return 0


def _rows(run: RunView, step: int | None) -> tuple[list[dict[str, Any]], str]:
    """The responses of a step, or of an evaluation, and what they are called.

    Raises:
        UserError: there are none, or a step of an evaluation is asked for.
    """
    file = run.path / "responses.jsonl"
    if run.sample_steps() or not file.is_file():
        rows = run.samples(step)
        return rows, f"step {max(run.sample_steps()) if step is None else step}"
    if step is not None:
        raise UserError(f"{run.path} is an evaluation, which has no steps: leave --step out")
    from logpi.runs.metrics import read_rows
    from logpi.viewer.samples_lines import responses

    return [r for line in read_rows(file) for r in responses(line)], "evaluation"


def _pieces(run: RunView, row: Mapping[str, Any]) -> list[str] | None:
    """The text of each own token; None without the run's tokenizer or ids."""
    from logpi.policies.loading import load_tokenizer

    places = [run.model, Path(str(run.arguments.get("model", "")))]
    place = next((p for p in places if (p / "tokenizer_config.json").is_file()), None)
    if place is None or "ids" not in row:
        return None
    return load_tokenizer(place).batch_decode([[i] for i in row["ids"]])


def shown(
    row: Mapping[str, Any], pieces: Sequence[str] | None = None, color: bool = False
) -> Iterator[str]:
    """The lines of a response. pieces: the texts of its own tokens, needed to colour each by its
    own advantage.

    >>> row = {"prompt": "2+2=", "completion": "4", "tokens": 1, "stop": "eos"}
    >>> row |= {"reward": 1.0, "rewards": {"exact": 1.0}, "advantage": 0.5}
    >>> print("\\n".join(shown(row)))
    reward 1   exact 1   stop eos   tokens 1   advantage +0.5
    ── prompt
    2+2=
    ── turn 1   1 tokens   advantage +0.5
    4
    """
    credit = _credit(row)
    yield "   ".join(_head(row, credit))
    yield _paint("── prompt", GREY, color)
    yield _paint(_safe(_prompt(row.get("read") or row["prompt"])), GREY, color)
    whole = {
        "tokens": row["tokens"],
        "text": row["completion"],
        "shown": "",
        "reward": 0.0,
        "observed": 0,
    }
    at, strongest = 0, max(map(abs, credit), default=0.0)
    for number, turn in enumerate(row.get("turns") or [whole], 1):
        some, texts = (
            credit[at : at + turn["tokens"]],
            pieces[at : at + turn["tokens"]] if pieces else None,
        )
        at += turn["tokens"]
        earned = f"   reward {turn['reward']:+.3g}" if turn["reward"] else ""
        taught = f"   advantage {fmean(some):+.3g}" if some else ""
        yield f"── turn {number}   {turn['tokens']} tokens{earned}{taught}"
        if texts is None or not some:
            yield _paint(
                _safe(turn["text"]), _shade(fmean(some) if some else 0.0, strongest), color
            )
        else:
            yield "".join(
                _paint(_safe(t), _shade(c, strongest), color)
                for t, c in zip(texts, some, strict=True)
            )
        if turn["shown"]:
            yield _paint(f"── environment   {turn['observed']} tokens, not trained", GREY, color)
            yield _paint(_safe(turn["shown"]), GREY, color)


def _head(row: Mapping[str, Any], credit: Sequence[float]) -> Iterator[str]:
    yield "reward none" if row["reward"] is None else f"reward {row['reward']:.4g}"
    yield from (
        f"{_safe(k)} {'none' if v is None else f'{v:.4g}'}"
        for k, v in row.get("rewards", {}).items()
    )
    yield from (f"{_safe(k)}: {_safe(v)}" for k, v in row.get("errors", {}).items())
    yield f"stop {row['stop']}"
    yield f"tokens {row['tokens']}"
    yield from (f"{_safe(k)} {v:g}" for k, v in row.get("counts", {}).items())
    if row.get("answer") is not None:
        yield f"answer {_safe(str(row['answer']))}"
    if credit:
        yield f"advantage {fmean(credit):+.3g}"
    elif "greedy" in row:
        yield "greedy" if row["greedy"] else "sampled"
    else:
        yield "advantage not known (not trained on, or an older run)"


def _credit(row: Mapping[str, Any]) -> list[float]:
    """The advantage of each own token; [] if it was not recorded."""
    advantage = row.get("advantage")
    if advantage is None:
        return []
    return list(advantage) if isinstance(advantage, list) else [advantage] * row["tokens"]


def _prompt(prompt: Any) -> str:
    return (
        prompt
        if isinstance(prompt, str)
        else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    )


def _safe(text: str) -> str:
    """`text` without what would move the cursor or colour the terminal: a model, or a tool, may
    write anything."""
    return re.sub(
        r"[^\n\t\x20-\x7e\xa0-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]", "\ufffd", text
    )


def _shade(advantage: float, strongest: float) -> int | None:
    if advantage == 0 or strongest == 0:
        return None
    return (GREEN if advantage > 0 else RED)[min(4, int(5 * abs(advantage) / strongest))]


def _paint(text: str, shade: int | None, color: bool) -> str:
    """Line by line, so that a pager keeps the colour."""
    if not color or shade is None:
        return text
    return "\n".join(
        f"\x1b[38;5;{shade}m{line}\x1b[0m" if line else "" for line in text.split("\n")
    )

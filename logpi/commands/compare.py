"""`logpi compare RUN RUN …`: runs side by side in the terminal: the arguments that differ, last and
best values, means with intervals over runs that differ by seed alone, and one picture.

A folder stands for all runs in it. Left out: what is compared (`runs/comparison.py`), and one run
alone (`logpi view`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.runs.comparison import ComparedRun, Comparison


@dataclass(frozen=True)
class Compare:
    """Arguments of `logpi compare`."""

    runs: tuple[Path, ...] = option(help="runs, or folders with runs", positional=True, nargs="+")
    picture: Path | None = option(None, help="draw the curves into this PNG, seeds as a band")
    json: bool = option(False, help="print everything as JSON")


def main(argv: Sequence[str]) -> int:
    a = parse(Compare, argv, "logpi compare", "Runs side by side, seeds as one.")
    if a.picture is not None:
        _check_picture(a.picture)
    from logpi.runs.comparison import compare

    paths, runs = _read(a.runs)
    comparison = compare(runs)
    if a.json:
        print(json.dumps(_plain(runs, comparison), allow_nan=False))
    else:
        print("\n".join(_lines(runs, comparison)))
    if a.picture is not None:
        _draw(a.picture, paths, comparison)
    return 0


def _check_picture(path: Path) -> None:
    """Raises UserError or RunError if no picture can be written there."""
    from logpi.runs.disk import refuse_unwritable

    if path.suffix != ".png":
        raise UserError(f"a picture is a .png, not {path.name}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for the picture: make it first")
    refuse_unwritable(path, "give another --picture")


def _read(places: Sequence[Path]) -> tuple[list[Path], list[ComparedRun]]:
    """Every run with metrics in these places. Raises UserError: a place has none, or it is not
    there."""
    from logpi.viewer.comparison_page import compared
    from logpi.viewer.files import Folders
    from logpi.viewer.runs_index import RunsIndex

    paths: list[Path] = []
    for place in places:
        index = RunsIndex(Folders([place]))
        found = [run for run in index.runs() if index.record(run).summary.names]
        if not found:
            raise UserError(f"{place} holds no run with metrics: give a run's directory")
        paths += [run.path for run in found if run.path not in paths]
    index = RunsIndex(Folders(paths))
    by_path = {run.path: run for run in index.runs()}
    runs = compared(index, [by_path[path] for path in paths])
    return paths, [_labelled(run, path) for run, path in zip(runs, paths, strict=True)]


def _labelled(run: ComparedRun, path: Path) -> ComparedRun:
    """Its label is its path from here, where that is shorter."""
    from dataclasses import replace

    here = Path.cwd()
    return replace(run, label=str(path.relative_to(here) if here in path.parents else path))


def _lines(runs: Sequence[ComparedRun], comparison: Comparison) -> list[str]:
    """Arguments that differ, and the table."""
    from logpi.jobs.memory import aligned
    from logpi.runs.comparison import word

    lines = []
    if comparison.differing:
        rows = [["differs", *(run.label for run in runs)]]
        for name, values in comparison.differing:
            rows.append([name, *(_short(word(value)) for value in values)])
        if len(rows) < len(rows[0]):
            rows = [list(row) for row in zip(*rows, strict=True)]
        lines += [*aligned(rows, "<" * len(rows[0])), ""]
    table = [list(comparison.columns)]
    table += [[_cell(cell) for cell in row] for row in comparison.rows]
    lines += aligned(table, "<" + ">" * (len(table[0]) - 1))
    return [*lines, *comparison.notes]


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:18]} … {text[-18:]}"


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else f"{value:.4g}"


def _plain(runs: Sequence[ComparedRun], comparison: Comparison) -> dict[str, Any]:
    labels = [run.label for run in runs]
    return {
        "runs": labels,
        "differing": {name: dict(zip(labels, v, strict=True)) for name, v in comparison.differing},
        "groups": {g.label: [labels[i] for i in g.runs] for g in comparison.groups},
        "table": {"columns": comparison.columns, "rows": comparison.rows},
        "notes": comparison.notes,
    }


def _draw(path: Path, paths: Sequence[Path], comparison: Comparison) -> None:
    """The curves of all groups in one picture. Raises UserError: they have no curve in common."""
    from logpi.jobs.seed_report import picture

    groups: Mapping[str, list[list[Path]]] = {
        g.label: [[paths[i] for i in same] for same in g.seeds] for g in comparison.groups
    }
    if picture(groups, path) is None:
        raise UserError("these runs have no curve in common: compare runs of one kind")
    print(f"picture {path}", file=sys.stderr)

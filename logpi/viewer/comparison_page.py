"""Runs side by side, as JSON. The comparison itself is `runs/comparison.py`, which `logpi compare`
uses too; curves are those of each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from logpi.runs.comparison import ComparedRun, compare

if TYPE_CHECKING:
    from logpi.viewer.runs_index import FoundRun, RunsIndex


def compared(runs: RunsIndex, found: Sequence[FoundRun]) -> list[ComparedRun]:
    """Runs as they are compared."""
    records = [runs.record(run) for run in found]
    return [ComparedRun(r.run.shown, r.command, r.arguments, r.summary) for r in records]


def comparison_json(runs: RunsIndex, found: Sequence[FoundRun]) -> dict[str, Any]:
    """The comparison of some runs. Raises ViewError: one was deleted."""
    comparison = compare(compared(runs, found))
    return {
        "runs": [runs.shown(run) for run in found],
        "differing": [[name, list(values)] for name, values in comparison.differing],
        "groups": [
            {
                "label": group.label,
                "ids": [found[i].id for i in group.runs],
                "seeds": [[found[i].id for i in same] for same in group.seeds],
            }
            for group in comparison.groups
        ],
        "table": {
            "columns": list(comparison.columns),
            "rows": [list(row) for row in comparison.rows],
            "note": "; ".join(comparison.notes),
        },
    }

"""The results of a sweep: `sweep.json`, written after every run, and the table.

Left out: what a run measures (`seed_report.last_numbers`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from logpi.errors import UserError, did_you_mean
from logpi.jobs.memory import aligned
from logpi.jobs.seed_report import last_numbers
from logpi.jobs.sweep_cells import Cell
from logpi.runs import disk
from logpi.runs.comparison import interval, least_is_best


class SweepTable:
    """The cells of a sweep with the results of their runs.

    Attributes:
        measure: what is to be best; "" until the first run has said what there is.
        minimise: the least of it is best.
    """

    def __init__(self, path: Path, measure: str = "", minimise: bool = False) -> None:
        self.path, self.measure, self._minimise = path, measure, minimise
        self.results: dict[str, dict[str, Any]] = {}
        if (path / "sweep.json").exists():
            saved = json.loads((path / "sweep.json").read_bytes())
            self.measure, self.results = saved["measure"], saved["cells"]

    @property
    def minimise(self) -> bool:
        """Less of a loss and of perplexity is better."""
        return self._minimise or least_is_best(self.measure)

    def begin(self, cell: Cell) -> None:
        """Record a cell before its runs start, so that a stopped sweep resumes it."""
        record = {"number": cell.number, "settings": dict(cell.settings)}
        record |= {"words": list(cell.words), "runs": {}, "done": False}
        self.results.setdefault(cell.name, record)
        self._save()

    def add(self, cell: Cell, run: Path, failure: str = "") -> None:
        """The result of one of a cell's runs."""
        self.begin(cell)
        numbers = {} if failure else last_numbers(run)
        self.measure = self.measure or next(iter(numbers), "")
        if not failure and self.measure not in numbers:
            hint = did_you_mean(self.measure, numbers) or f"; there are: {', '.join(numbers)}"
            raise UserError(f"{run} measured no {self.measure!r}{hint}")
        record = {"numbers": numbers, "failure": failure}
        self.results[cell.name]["runs"][str(run.relative_to(self.path))] = record
        self._save()

    def end(self, cell: Cell) -> None:
        """Every run of the cell has ended."""
        self.results[cell.name]["done"] = True
        self._save()

    def cells(self, done: bool = True) -> list[Cell]:
        """Those whose runs have ended, or those that were stopped."""
        return [
            Cell(r["number"], r["settings"], tuple(r["words"]))
            for r in self.results.values()
            if r["done"] == done
        ]

    def values(self, cell: Cell) -> list[float]:
        """The measure of each run of a cell; NaN: it failed."""
        runs = self.results[cell.name]["runs"].values()
        return [r["numbers"].get(self.measure, math.nan) for r in runs]

    def mean(self, cell: Cell) -> float:
        """NaN if a run failed."""
        values = self.values(cell)
        return interval(values)[0] if values else math.nan

    def said(self, run: Path) -> str:
        """One run's result, for people."""
        key = str(run.relative_to(self.path))
        record = next(r["runs"][key] for r in self.results.values() if key in r["runs"])
        return record["failure"] or f"{self.measure} {record['numbers'][self.measure]:.4g}"

    def ordered(self) -> list[Cell]:
        """The best first, failures last."""
        cells = self.cells() + self.cells(done=False)
        sign = 1 if self.minimise else -1

        def place(cell: Cell) -> tuple[bool, float]:
            mean = self.mean(cell)
            return math.isnan(mean), 0.0 if math.isnan(mean) else sign * mean

        return sorted(cells, key=place)

    def text(self) -> str:
        """The table, and the best."""
        cells = self.ordered()
        names = list(cells[0].settings)
        rows = [[*names, self.measure or "failed", "± 95 %"]]
        for cell in cells:
            mean, half = interval(self.values(cell) or [math.nan])
            spread = "" if math.isnan(half) else f"{half:.2g}"
            rows.append([*(cell.settings[n] for n in names), f"{mean:.4g}", spread])
        lines = aligned(rows, ">" * len(rows[0]))
        best = cells[0]
        if math.isnan(self.mean(best)):
            return "\n".join([*lines, "every run failed"])
        return "\n".join([*lines, f"best: {best.label}  {self.path / best.name}"])

    def _save(self) -> None:
        record = {"measure": self.measure, "cells": self.results}
        disk.write(self.path / "sweep.json", json.dumps(record, indent=1).encode())

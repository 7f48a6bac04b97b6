"""The report on several runs of one job: the mean of each measure with its interval, a table, and a
curve.

Left out: one run's own curves (`runs/plots.py`), and intervals over items (`evaluation/`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logpi.errors import UserError
from logpi.runs.comparison import interval
from logpi.runs.metrics import read_metrics

# (x, y) of the curve, the first that the runs have, with the names of the axes
CURVES = {
    ("num_tokens_seen", "reward_100"): ("environment steps", "return, last 100 episodes"),
    ("step", "reward"): ("step", "reward"),
    ("step", "loss"): ("step", "loss"),
}


def last_numbers(run: Path) -> dict[str, float]:
    """A run's last evaluation; without one its last reward or loss."""
    records = read_metrics(run)
    for record in reversed(records):
        if measured := {k: v for k, v in record.items() if k.startswith("eval/")}:
            return measured
    trained = [r for r in records if "reward" in r or "loss" in r]
    return {k: v for k, v in trained[-1].items() if k in ("reward", "loss")} if trained else {}


def measures(runs: Sequence[Path]) -> dict[str, list[float]]:
    """The last value of each number that every run has."""
    every = [last_numbers(run) for run in runs]
    names = [n for n in every[0] if all(n in numbers for numbers in every)]
    return {n: [numbers[n] for numbers in every] for n in names}


def table(values: Mapping[str, Sequence[float]], heads: Sequence[str]) -> str:
    """Measures down; mean, half width of the interval and each run across."""
    width = max([len(n) for n in values] + [len("last evaluation")])
    head = "last evaluation".ljust(width) + f"{'mean':>10}{'± 95 %':>10}"
    lines = [head + "".join(f"{h:>12}" for h in heads)]
    for name, row in values.items():
        mean, half = interval(row)
        cells = "".join(f"{v:>12.4g}" for v in row)
        lines.append(f"{name.ljust(width)}{mean:>10.4g}{half:>10.2g}{cells}")
    return "\n".join(lines)


def report(out: Path, runs: Sequence[Path], title: str) -> str:
    """The table, and where the curve is; both also written beside the runs."""
    values = measures(runs)
    if not values:
        raise UserError(f"no run in {out} measured anything")
    records = {
        n: dict(zip(("mean", "interval95"), interval(v), strict=True)) for n, v in values.items()
    }
    first = next(iter(values))
    record: dict[str, Any] = {"title": title, "measure": first, "final": values[first]}
    record |= records[first]
    record["measures"] = {n: {"values": values[n], **r} for n, r in records.items()}
    (out / "seeds.json").write_text(json.dumps(record, indent=2))
    path = picture({title: runs}, out / "curves.png")
    where = path or "no curve: a run's training measured nothing"
    text = table(values, [run.name for run in runs])
    return f"{title}\n{text}\ncurves  {where}"


def _drawable(
    runs: Mapping[str, Sequence[Path]],
) -> tuple[dict[str, list[list[tuple[float, float]]]], tuple[str, str]] | None:
    """The curves that every run has, with the names of their axes."""
    rewarded = any("eval/reward" in last_numbers(p) for seeds in runs.values() for p in seeds)
    metrics = {label: [read_metrics(p) for p in seeds] for label, seeds in runs.items()}
    for (x, y), labels in CURVES.items():
        if y == "loss" and rewarded:
            continue  # that of a policy gradient says nothing
        every = {
            label: [[(r[x], r[y]) for r in records if x in r and y in r] for records in seeds]
            for label, seeds in metrics.items()
        }
        if all(line for series in every.values() for line in series):
            return every, labels
    return None


def picture(runs: Mapping[str, Sequence[Path]], path: Path, title: str = "") -> Path | None:
    """Mean over each label's seeds as training went, with its 95 % interval as a band and the seeds
    as thin lines. None if a run's training measured nothing that there is a curve of."""
    import numpy as np
    from matplotlib.ticker import EngFormatter

    from logpi.runs.plots import Panel, figure, save

    curves = _drawable(runs)
    if curves is None:
        return None
    every, labels = curves
    drawing = figure([Panel(title, *labels)], size=(6, 3.6))
    [axes] = drawing.axes
    for label, series in every.items():
        grid = np.linspace(max(s[0][0] for s in series), min(s[-1][0] for s in series), 200)
        lines = np.stack([np.interp(grid, [x for x, _ in s], [y for _, y in s]) for s in series])
        mean, half = np.transpose([interval(column.tolist()) for column in lines.T])
        line = axes.plot(grid, mean, label=f"{label} ({len(series)} seeds)")[0]
        colour = line.get_color()
        axes.fill_between(grid, mean - half, mean + half, alpha=0.2, color=colour, linewidth=0)
        axes.plot(grid, lines.T, color=colour, alpha=0.35, linewidth=0.6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(fontsize=8, frameon=False)
    return save(drawing, path)

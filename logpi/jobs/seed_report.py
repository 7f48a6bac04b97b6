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

# a curve's points; of each seed of a label, its runs
Line = list[tuple[float, float]]
Seeds = Sequence[Sequence[Path]]
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
    path = picture({title: [[run] for run in runs]}, out / "curves.png")
    where = path or "no curve: a run's training measured nothing"
    text = table(values, [run.name for run in runs])
    return f"{title}\n{text}\ncurves  {where}"


def _drawable(
    runs: Mapping[str, Seeds],
) -> tuple[dict[str, list[list[Line]]], tuple[str, str]] | None:
    """The curves that every run has, with the names of their axes."""
    paths = [p for seeds in runs.values() for same in seeds for p in same]
    rewarded = any("eval/reward" in last_numbers(p) for p in paths)
    metrics = {p: read_metrics(p) for p in paths}
    for (x, y), labels in CURVES.items():
        if y == "loss" and rewarded:
            continue  # that of a policy gradient says nothing
        lines = {p: [(r[x], r[y]) for r in rs if x in r and y in r] for p, rs in metrics.items()}
        if all(lines.values()):
            every = {k: [[lines[p] for p in same] for same in s] for k, s in runs.items()}
            return every, labels
    return None


def picture(runs: Mapping[str, Seeds], path: Path, title: str = "") -> Path | None:
    """Mean over each label's seeds as training went, with its 95 % interval as a band and the seeds
    as thin lines; runs of one seed are one line, their mean. None if a run's training measured
    nothing that there is a curve of."""
    from matplotlib.ticker import EngFormatter

    from logpi.runs.plots import Panel, figure, legend_below, save

    curves = _drawable(runs)
    if curves is None:
        return None
    every, labels = curves
    drawing = figure([Panel(title, *labels)], size=(6, 3.6))
    [axes] = drawing.axes
    for label, seeds in every.items():
        _draw_seeds(axes, label, seeds)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend_below(drawing)
    return save(drawing, path)


def _draw_seeds(axes: Any, label: str, seeds: Sequence[Sequence[Line]]) -> None:
    """One label's mean, band and seeds, at 200 points that all of its runs have."""
    import numpy as np

    every = [line for same in seeds for line in same]
    grid = np.linspace(max(s[0][0] for s in every), min(s[-1][0] for s in every), 200)
    lines = np.stack([np.mean([np.interp(grid, *np.transpose(s)) for s in g], 0) for g in seeds])
    mean, half = np.transpose([interval(column.tolist()) for column in lines.T])
    count = f"{len(seeds)} seed" + "s" * (len(seeds) != 1)
    colour = axes.plot(grid, mean, label=f"{label} ({count})")[0].get_color()
    axes.fill_between(grid, mean - half, mean + half, alpha=0.2, color=colour, linewidth=0)
    axes.plot(grid, lines.T, color=colour, alpha=0.35, linewidth=0.6)

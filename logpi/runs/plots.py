"""Learning curves as a picture: a few panels, raw values faint, a smoothed line on top, evaluations
as points.

    curves(["runs/grpo", "runs/dapo"], ["reward", ("entropy", "kl"), "eval/accuracy"],
    "compare.png")

Left out: interaction (TensorBoard does that) and statistics over seeds (each run is its own line).
Matplotlib is imported only when something is drawn, and never opens a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from logpi.errors import UserError
from logpi.runs.disk import reported
from logpi.runs.metrics import names as metric_names
from logpi.runs.metrics import read_metrics

Records = Sequence[Mapping[str, Any]]
Runs = str | Path | Sequence[str | Path] | Mapping[str, Records]

_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Mean with weights that fall off on both sides, over about `span` values; NaN and infinities
    are passed over.

    mₜ = Σₛ d^|t−s| xₛ / Σₛ d^|t−s|, with d = 1 − 2/(span + 1). Two-sided, unlike the usual moving
    average, so that the line does not lag behind the values that it stands for.

    >>> smooth([1.0, 1.0, 4.0], span=3)
    [1.4285714285714286, 1.75, 2.7142857142857144]
    """
    decay = 1 - 2 / (max(span, 1.0) + 1)
    known = [float(math.isfinite(v)) for v in values]
    sums = _two_sided([v if k else 0.0 for v, k in zip(values, known, strict=True)], decay)
    weights = _two_sided(known, decay)
    return [s / w if w > 1e-12 else math.nan for s, w in zip(sums, weights, strict=True)]


def _two_sided(values: list[float], decay: float) -> list[float]:
    """Σₛ d^|t−s| xₛ: what came before, and what comes after, each in one pass."""

    def before(xs: list[float]) -> list[float]:
        return list(accumulate(xs, lambda total, x: decay * total + x))

    forth, back = before(values), before(values[::-1])[::-1]
    return [f + b - x for f, b, x in zip(forth, back, values, strict=True)]


def curves(
    runs: Runs, names: Sequence[str | tuple[str, ...]], path: str | Path, title: str = ""
) -> Path:
    """Draw metrics against steps into the PNG `path`.

    Args:
        runs: a run's directory, several of them (compared on one figure), or {label: records}.
        names: one panel each; a tuple shares a panel. Names that begin with "eval/" are drawn as
            points. A panel with no data in any run is left out.
        path: where to.

    Raises:
        UserError: none of the metrics is there, or matplotlib is not installed.
        RunError: the picture cannot be written.
    """
    records, path = _records(runs), Path(path)
    panels = [tuple(n for n in _tuple(names_) if _present(records, n)) for names_ in names]
    panels = [p for p in panels if p]
    if not panels:
        there = sorted(set(metric_names(r for rows in records.values() for r in rows)))
        raise UserError(
            f"nothing to draw: no run has any of {_listed(names)}; there are:"
            f" {', '.join(there) or 'none'}"
        )
    figure = _figure(records, panels, title)
    with reported(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, facecolor="white", metadata={"Software": None})
    return path


def _figure(records: Mapping[str, Records], panels: Sequence[tuple[str, ...]], title: str) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "matplotlib is not installed, so there is no picture: pip install matplotlib"
        ) from None
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)  # four panels as two by two
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)  # our own canvas: the user's pyplot state is not touched
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _panel(axes, records, panel)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _panel(axes: Any, records: Mapping[str, Records], panel: tuple[str, ...]) -> None:
    """All runs and metrics of one panel; a legend only where more than one line needs telling
    apart."""
    count = 0
    for label, rows in records.items():
        for name in panel:
            steps, values = _series(rows, name)
            if steps:
                text = " ".join(
                    filter(
                        None, [label if len(records) > 1 else "", name if len(panel) > 1 else ""]
                    )
                )
                _line(axes, steps, values, name, text, _COLOURS[count % len(_COLOURS)])
                count += 1
    axes.set_title(" · ".join(panel), fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.locator_params(axis="x", integer=True)
    if count > 1:
        axes.legend(fontsize=8, frameon=False)


def _line(
    axes: Any, steps: list[int], values: list[float], name: str, label: str, colour: str
) -> None:
    if name.startswith("eval/") or len(values) < 10:  # few values: each one counts
        axes.plot(steps, values, color=colour, label=label, marker="o", markersize=4, linewidth=1.2)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(values, len(values) / 20), color=colour, label=label, linewidth=1.8)


def _series(rows: Records, name: str) -> tuple[list[int], list[float]]:
    pairs = [(r["step"], float(r[name])) for r in rows if isinstance(r.get(name), int | float)]
    return [s for s, _ in pairs], [v if math.isfinite(v) else math.nan for _, v in pairs]


def _records(runs: Runs) -> dict[str, Records]:
    if isinstance(runs, Mapping):
        return dict(runs)
    paths = [Path(p) for p in ([runs] if isinstance(runs, str | Path) else runs)]
    for path in paths:
        if not (path / "metrics.jsonl").exists():
            raise UserError(f"there are no metrics at {path} (no metrics.jsonl)")
    short = [p.resolve().name for p in paths]
    return {
        (name if short.count(name) == 1 else str(p)): read_metrics(p)
        for name, p in zip(short, paths, strict=True)
    }


def _present(records: Mapping[str, Records], name: str) -> bool:
    return any(name in row for rows in records.values() for row in rows)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _listed(names: Sequence[str | tuple[str, ...]]) -> str:
    return ", ".join(n for group in names for n in _tuple(group))

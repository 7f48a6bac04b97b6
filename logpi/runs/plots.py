"""Pictures: `figure(panels)`, which every picture of the library begins with, and learning curves.

    picture = figure([Panel("reward", x="step"), Panel("length")])
    picture.axes[0].plot(steps, rewards, label="grpo")      # matplotlib's own calls fill the panels
    save(picture, "compare.png")

    curves(["runs/grpo", "runs/dapo"], ["reward", ("entropy", "kl"), "eval/accuracy"], "both.png")

Left out: interaction (TensorBoard does that), and statistics over seeds (each run is its own line).
Matplotlib is imported only when something is drawn, and never opens a window.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from textwrap import fill
from typing import Any

from logpi.errors import UserError
from logpi.runs.disk import reported
from logpi.runs.metrics import names as metric_names
from logpi.runs.metrics import read_metrics

Records = Sequence[Mapping[str, Any]]
Runs = str | Path | Sequence[str | Path] | Mapping[str, Records]

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")


@dataclass(frozen=True)
class Panel:
    """What stands around one pair of axes: title, names of the axes, and whether lines of a grid
    help to read it."""

    title: str = ""
    x: str = ""
    y: str = ""
    grid: bool = True


def figure(
    panels: Sequence[Panel],
    title: str = "",
    *,
    columns: int = 0,
    size: tuple[float, float] = (4.6, 3.1),
    **layout: Any,
) -> Any:
    """A `matplotlib.figure.Figure` with one pair of axes for each panel, to draw into.

    `.axes` has them in order. A notebook shows it as a picture. pyplot's state is not touched.

    Args:
        columns: panels in a row; 0: at most three, in rows of equal length (four as two by two).
        size: of one panel, in inches.
        layout: of `matplotlib.figure.Figure.subplots`, say `sharey=True`.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(
            "matplotlib is not installed, so there is no picture: pip install matplotlib"
        ) from None
    columns = columns or math.ceil(len(panels) / math.ceil(len(panels) / 3))
    rows = math.ceil(len(panels) / columns)
    height = size[1] * rows + (0.4 if title else 0)
    picture: Any = Figure(figsize=(size[0] * columns, height), layout="constrained")
    FigureCanvasAgg(picture)
    grid = picture.subplots(rows, columns, squeeze=False, **layout).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _dress(axes, panel)
    for axes in grid[len(panels) :]:
        axes.remove()
    if title:
        picture.suptitle(title, fontsize=12)
    picture._repr_png_ = partial(_png, picture)
    return picture


def _dress(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel(panel.x, fontsize=9)
    axes.set_ylabel(panel.y, fontsize=9)
    axes.tick_params(labelsize=8)
    if panel.grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)


def legend_below(picture: Any, width: int = 90) -> None:
    """Give a figure with one panel a legend: inside where its labels are short and few, else below
    the axes, which keep their size; long labels are wrapped to `width` characters and cut in their
    middle."""
    [axes] = picture.axes
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= 6 and all(len(label) <= 40 for label in labels):
        axes.legend(fontsize=8, frameon=False)
        return
    cut = [s if len(s) <= 2 * width else f"{s[: 2 * width - 50]} … {s[-40:]}" for s in labels]
    texts = [fill(s, width) for s in cut]
    lines = sum(text.count("\n") + 1 for text in texts)
    picture.set_figheight(picture.get_figheight() + 0.17 * lines + 0.1)
    picture.legend(handles, texts, loc="outside lower left", fontsize=8, frameon=False)


def save(picture: Any, path: str | Path) -> Path:
    """Write a figure as the PNG `path`.

    Raises:
        RunError: the file cannot be written.
    """
    path, data = Path(path), _png(picture)
    with reported(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def _png(picture: Any) -> bytes:
    """The picture as PNG; panels with two labels or more and no legend of their own get one."""
    for axes in picture.axes:
        own = axes.get_legend() is not None or bool(picture.legends)
        if not own and len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(fontsize=8, frameon=False)
    data = io.BytesIO()
    picture.savefig(data, dpi=130, facecolor="white", metadata={"Software": None}, format="png")
    return data.getvalue()


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Mean with weights that fall off on both sides, over about `span` values; NaN and infinities
    are passed over.

    mₜ = Σₛ d^|t−s| xₛ / Σₛ d^|t−s|, with d = 1 − 2/(span + 1). Two-sided, unlike the usual moving
    average, so that the line does not lag behind the values that it stands for.

    >>> smooth([1.0, 1.0, 4.0], span=3)
    [1.4285714285714286, 1.75, 2.7142857142857144]
    """
    decay = 1 - 2 / (max(span, 1.0) + 1)
    finite = [float(math.isfinite(v)) for v in values]
    sums = _two_sided([v if k else 0.0 for v, k in zip(values, finite, strict=True)], decay)
    weights = _two_sided(finite, decay)
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
    """Draw metrics against steps into the PNG `path`: see `curves_figure`.

    Raises:
        UserError: none of the metrics is there, or matplotlib is not installed.
        RunError: the picture cannot be written.
    """
    return save(curves_figure(runs, names, title), path)


def curves_figure(runs: Runs, names: Sequence[str | tuple[str, ...]], title: str = "") -> Any:
    """Metrics against steps: raw values faint, a smoothed line on top, evaluations as points.

    Args:
        runs: a run's directory, several of them (compared on one figure), or {label: records}.
        names: one panel each; a tuple shares a panel. Names that begin with "eval/" are drawn as
            points. A panel with no data in any run is left out.

    Raises:
        UserError: none of the metrics is there, or matplotlib is not installed.
    """
    records = _records(runs)
    logged = set(metric_names(r for rows in records.values() for r in rows))
    groups = [tuple(n for n in _tuple(group) if n in logged) for group in names]
    groups = [g for g in groups if g]
    if not groups:
        wanted = ", ".join(n for group in names for n in _tuple(group))
        raise UserError(
            f"nothing to draw: no run has any of {wanted}; there are:"
            f" {', '.join(sorted(logged)) or 'none'}"
        )
    picture = figure([Panel(" · ".join(group), "step") for group in groups], title)
    for axes, group in zip(picture.axes, groups, strict=True):
        _draw(axes, records, group)
    return picture


def _draw(axes: Any, records: Mapping[str, Records], group: tuple[str, ...]) -> None:
    """All runs and metrics of one panel. A label says what differs: the run, the metric, or
    both."""
    axes.locator_params(axis="x", integer=True)
    count = 0
    for run, rows in records.items():
        for name in group:
            steps, values = _series(rows, name)
            if steps:
                label = [run] * (len(records) > 1) + [name] * (len(group) > 1)
                _line(axes, steps, values, name, " ".join(label), COLOURS[count % len(COLOURS)])
                count += 1


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


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)

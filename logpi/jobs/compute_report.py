"""The points of `logpi compute`, its table and its picture.

Left out: sampling and searching (`compute.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Point:
    """A way of spending tokens: how many an item, and how often the answer is right, with its 95 %
    interval.

    k is the number of samples pooled, or the width of the search.
    """

    model: str
    method: str
    k: int
    tokens: float
    right: float
    low: float
    high: float


def curve(name: str, records: Sequence[dict[str, Any]]) -> list[Point]:
    """The points of an evaluation's records: greedy, and each pool at each k."""
    from logpi.evaluation import pooling
    from logpi.evaluation.measures import samples_of

    sampled = [r for r in records if r["kind"] == "sampled"]
    greedy = [r for r in records if r["kind"] == "greedy"]
    samples, length = [samples_of(r) for r in sampled], [fmean(r["tokens"]) for r in sampled]
    pools = {"pass": pooling.any_right}
    if sampled[0].get("answers") is not None:
        pools |= {"maj": pooling.majority_vote, "weighted_maj": pooling.weighted_vote}
    if sampled[0].get("scores") is not None:
        pools["best_of"] = pooling.best_scored
    tokens, right = [r["tokens"][0] for r in greedy], [float(r["right"][0]) for r in greedy]
    points = [point(name, "greedy", 1, tokens, right)]
    for method, pool in pools.items():
        for k in pooling.doubling(len(samples[0])):
            right = [pool(s, k) for s in samples]
            points.append(point(name, method, k, [k * n for n in length], right))
    return points


def point(name: str, method: str, k: int, tokens: Sequence[float], right: Sequence[float]) -> Point:
    from logpi.evaluation.measures import interval

    return Point(name, method, k, fmean(tokens), fmean(right), *interval(right))


def table(points: Sequence[Point]) -> str:
    lines = [f"{'model':<14}{'method':<14}{'k':>4}{'tokens':>10}{'right':>9}{'95 % interval':>18}"]
    lines += [
        f"{p.model:<14}{p.method:<14}{p.k:>4}{p.tokens:>10.1f}{p.right:>9.4f}{p.low:>10.4f}–{p.high:.4f}"
        for p in points
    ]
    return "\n".join(lines)


# method -> marker and line
STYLES = {
    "greedy": ("*", ""),
    "pass": ("", ":"),
    "maj": ("o", "-"),
    "weighted_maj": ("s", "--"),
    "best_of": ("^", "-."),
    "beam": ("D", "-"),
}


def picture(points: Sequence[Point], path: Path, title: str) -> Path:
    """Tokens (log scale) across, accuracy up: a colour for each model, a mark for each method."""
    from logpi.runs.plots import COLOURS, Panel, figure, save

    drawing = figure([Panel(title, "tokens sampled for each item", "right")], size=(8.2, 4.8))
    [axes] = drawing.axes
    colours = dict(zip(dict.fromkeys(p.model for p in points), COLOURS, strict=False))
    for model, method in dict.fromkeys((p.model, p.method) for p in points):
        line = [p for p in points if (p.model, p.method) == (model, method)]
        _line(axes, line, colours[model])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    return save(drawing, path)


def _line(axes: Any, points: Sequence[Point], colour: str) -> None:
    """The points of one model and method; a majority's with their 95 % interval as a band."""
    model, method = points[0].model, points[0].method
    marker, line = STYLES[method]
    x = [p.tokens for p in points]
    axes.plot(
        x,
        [p.right for p in points],
        color=colour,
        label=f"{model}: {'any right' if method == 'pass' else method}",
        marker=marker or None,
        markersize=9 if method == "greedy" else 5,
        linestyle=line or "none",
        linewidth=1.4,
        alpha=0.5 if method == "beam" else 1.0,
    )
    if method == "maj":
        low, high = [p.low for p in points], [p.high for p in points]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)

"""The report of `logpi distill-demo`: one table and one picture, read from the directories of its
seeds.

    OUT/distillation.txt     the table
    OUT/distillation.json    every seed's curves
    OUT/distillation.png     accuracy against updates and against tokens

Left out: training (`distillation.py`), and any measure that the runs did not take themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from logpi.runs import disk
from logpi.runs.comparison import interval
from logpi.runs.metrics import read_metrics

CPU = "cpu.json"  # stage → CPU seconds
TEACHER = "teacher.json"  # the teacher's accuracy, and how many parameters both have
SAMPLED, GREEDY, LENGTH = "eval/pass@1", "eval/greedy", "eval/mean_length"


class Compared(Protocol):
    """What the report reads of a lane."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def before(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Curve:
    """A lane of one seed.

    Attributes:
        updates, tokens: done before each evaluation; tokens are those that were learned from.
        sampled, greedy: share of right answers at each. length: tokens of a drawn answer.
        seconds: of CPU, in all.
    """

    updates: list[int]
    tokens: list[float]
    sampled: list[float]
    greedy: list[float]
    length: list[float]
    seconds: float


def curve(home: Path, lane: Compared) -> Curve:
    """What a lane's run has logged."""
    records = read_metrics(home / lane.name)
    tokens = {0: 0.0} | {r["step"]: r["num_tokens_seen"] for r in records if "num_tokens_seen" in r}
    measured = [r for r in records if SAMPLED in r]
    spent = json.loads((home / CPU).read_text())
    return Curve(
        [r["step"] for r in measured],
        [tokens[r["step"]] for r in measured],
        *([r[key] for r in measured] for key in (SAMPLED, GREEDY, LENGTH)),
        seconds=sum(spent.get(stage, 0.0) for stage in (lane.name, *lane.before)),
    )


def report(lanes: Sequence[Compared], homes: Sequence[Path], out: Path) -> None:
    """Print and write the report. homes: the directories of the seeds."""
    curves = {lane.label: [curve(home, lane) for home in homes] for lane in lanes}
    teachers = [json.loads((home / TEACHER).read_text()) for home in homes]
    spent = [json.loads((home / CPU).read_text()) for home in homes]
    text = "\n".join(_table(curves, teachers, spent))
    kept = {label: [vars(c) for c in some] for label, some in curves.items()}
    disk.write(out / "distillation.txt", (text + "\n").encode())
    disk.write(
        out / "distillation.json", json.dumps({"teacher": teachers, **kept}, indent=1).encode()
    )
    print(f"\n{text}\n\npicture: {_picture(curves, teachers, out)}   numbers: {out}")


def _table(
    curves: Mapping[str, Sequence[Curve]],
    teachers: Sequence[Mapping[str, Any]],
    spent: Sequence[Mapping[str, float]],
) -> Iterator[str]:
    """A line for the teacher, the student before, and each lane after; means ± 95 % over seeds."""
    heads = ("right (sampled)", "right (greedy)", "tokens", "updates", "learned from", "CPU s")
    yield f"{'':<26}" + "".join(f"{h:>17}" for h in heads)
    sizes = {name: f"{teachers[0][name]:,}" for name in ("teacher", "student")}
    made = [sum(v for k, v in seed.items() if k.startswith("teacher/")) for seed in spent]
    yield _line(
        f"teacher, {sizes['teacher']}",
        *([t[key] for t in teachers] for key in (SAMPLED, GREEDY, LENGTH)),
        seconds=made,
    )
    first = next(iter(curves.values()))
    yield _line(
        f"student, {sizes['student']}",
        *([getattr(c, key)[0] for c in first] for key in ("sampled", "greedy", "length")),
        seconds=[seed.get("sft", 0.0) for seed in spent],
    )
    for label, seeds in curves.items():
        ends = ([getattr(c, key)[-1] for c in seeds] for key in ("sampled", "greedy", "length"))
        yield _line(
            label,
            *ends,
            updates=seeds[0].updates[-1],
            learned=fmean(c.tokens[-1] for c in seeds),
            seconds=[c.seconds for c in seeds],
        )


def _line(
    label: str,
    sampled: Sequence[float],
    greedy: Sequence[float],
    length: Sequence[float],
    *,
    seconds: Sequence[float],
    updates: int | None = None,
    learned: float | None = None,
) -> str:
    cells = [
        _share(sampled),
        _share(greedy),
        f"{fmean(length):.1f}",
        "" if updates is None else str(updates),
        "" if learned is None else f"{learned:,.0f}",
        f"{fmean(seconds):.0f}",
    ]
    return f"{label:<26}" + "".join(f"{c:>17}" for c in cells)


def _share(values: Sequence[float]) -> str:
    """
    >>> _share([0.5]), _share([0.4, 0.5, 0.6])
    ('50.0%', '50.0 ± 24.8%')
    """
    mean, half = (100 * x for x in interval(values))
    return f"{mean:.1f}%" if len(values) == 1 else f"{mean:.1f} ± {half:.1f}%"


def _picture(
    curves: Mapping[str, Sequence[Curve]], teachers: Sequence[Mapping[str, Any]], out: Path
) -> Path:
    """Accuracy of drawn answers against updates and tokens, and of the likeliest against updates;
    means over seeds, each seed faint."""
    from logpi.runs.plots import COLOURS, Panel, figure, save

    axes_of = (("updates", "sampled"), ("tokens", "sampled"), ("updates", "greedy"))
    names = {"updates": "updates", "tokens": "tokens learned from"}
    panels = [Panel(f"right answers ({y})", names[x]) for x, y in axes_of]
    picture = figure(panels, f"a small student, {len(teachers)} seed(s); dotted: its teacher")
    for axes, (x, y) in zip(picture.axes, axes_of, strict=True):
        for (label, seeds), colour in zip(curves.items(), COLOURS, strict=False):
            lines = [(getattr(c, x), getattr(c, y)) for c in seeds]
            for line in lines if len(lines) > 1 else ():
                axes.plot(*line, color=colour, alpha=0.25, linewidth=0.8)
            mean = [[fmean(values) for values in zip(*some, strict=True)] for some in zip(*lines)]
            axes.plot(*mean, color=colour, label=label, marker="o", markersize=3)
        key = SAMPLED if y == "sampled" else GREEDY
        axes.axhline(fmean(t[key] for t in teachers), color="black", linestyle=":")
        axes.set_ylim(-0.02, 1.02)
    return save(picture, out / "distillation.png")

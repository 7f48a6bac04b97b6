"""How the lab shows a grid world: values and moves as text, one column for each map, and as a
picture.

    y=3   ↓   [−1]  →   [+4]
    y=2   →↓   →↓   →↓   ↓

Left out: what the values are of (`bellman.py`, `policy_values.py`, `rewards.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logpi.envs.control.grid_model import ARROWS, GridModel
from logpi.lab.report import WIDTH, ReportTable

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 9  # cells in a row: a map and its names fit a terminal
Map = Sequence[str]


def value_map(grid: GridModel, value: Tensor, digits: int = 2) -> Map:
    """Values [S] as text, ■ for a terminal cell."""
    cells = [grid.cell(s) in grid.terminals for s in range(grid.states)]
    texts = ("■" if end else number(float(v), digits) for end, v in zip(cells, value, strict=True))
    # room for a sign and one more digit: maps of one table are equally wide
    return [text.rjust(3 + digits) for text in texts]


def move_map(grid: GridModel, good: Tensor) -> Map:
    """The arrows of the moves that are `good` [S, 4] bool, or the reward of a terminal cell."""
    return [
        f"[{_signed(grid, s)}]"
        if grid.cell(s) in grid.terminals
        else "".join(arrow for arrow, is_good in zip(ARROWS, good[s], strict=True) if is_good)
        for s in range(grid.states)
    ]


def _signed(grid: GridModel, state: int) -> str:
    return f"{grid.terminals[grid.cell(state)]:+g}".replace("-", "−")


def number(x: float, digits: int = 2) -> str:
    """A number with a real minus sign, also before ∞.

    >>> number(-1.5), number(float("-inf"))
    ('−1.50', '−∞')
    """
    text = f"{x:.{digits}f}" if math.isfinite(x) else "∞" if x > 0 else "-∞"
    # a number that rounds to 0 has no sign
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def map_table(
    grid: GridModel, title: str, maps: Mapping[str, Map], centred: bool = False, note: str = ""
) -> ReportTable:
    """Maps of one grid side by side, its upper row first; as many as fit a terminal, the last ones
    rather than the first."""
    columns = {name: _rows(grid, texts, centred) for name, texts in maps.items()}
    widths = {name: 2 + max(len(name), len(rows[0])) for name, rows in columns.items()}
    while len(columns) > 1 and sum(widths[name] for name in columns) + 3 > WIDTH:
        columns.pop(next(iter(columns)))
    rows = [
        (f"y={grid.height - 1 - i}", *(texts[i] for texts in columns.values()))
        for i in range(grid.height)
    ]
    return ReportTable(title, ("", *columns), tuple(rows), (), note)


def _rows(grid: GridModel, texts: Map, centred: bool) -> list[str]:
    """A map's lines; its cells are equally wide."""
    width = max(map(len, texts))
    cells = [f"{t:^{width}}" if centred else t.rjust(width) for t in texts]
    lines = [" ".join(cells[i : i + grid.width]) for i in range(0, grid.states, grid.width)]
    return lines[::-1]


def draw(axes: Any, grid: GridModel, value: Tensor, moves: Map) -> None:
    """A map of values [S] in colour, with the arrows of `moves` and the rewards of the ends."""
    shade = value.clone()
    for cell, reward in grid.terminals.items():
        shade[grid.state(cell)] = reward
    finite = shade[shade.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    span = max(abs(low), abs(high), 1e-9)
    axes.imshow(
        shade.nan_to_num(neginf=low, posinf=high).reshape(grid.height, grid.width),
        origin="lower",
        cmap="RdYlGn",
        vmin=-span,
        vmax=span,
        alpha=0.75,
    )
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    for s, text in enumerate(moves):
        x, y = grid.cell(s)
        if (x, y) in grid.terminals:
            axes.text(x, y, text.strip("[]"), fontsize=15, fontweight="bold", **middle)
            continue
        axes.text(x, y + 0.13, text, fontsize=15 if len(text) < 3 else 10, **middle)
        axes.text(x, y - 0.27, number(float(value[s])), fontsize=9, **middle)
    axes.set_xticks(range(grid.width))
    axes.set_yticks(range(grid.height))


def few_cells(grid: GridModel, most: int = 4) -> list[int]:
    """The states that tables of single cells show: the start, then cells of the examples, then
    others; none is terminal."""
    examples = [grid.start, (1, 1), (2, 1), (2, 2)]
    inside = [grid.state((x, y)) for x, y in examples if x < grid.width and y < grid.height]
    every = dict.fromkeys([*inside, *range(grid.states)])
    return [s for s in every if grid.cell(s) not in grid.terminals][:most]

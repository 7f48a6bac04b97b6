"""The grid world as a table: transitions P[s, a, s'], rewards R[s, a, s'], and which cells are
terminal.

    y=3   .  −1   .  +4      cells are (x, y); S is the start, in the lower left corner
    y=2   .   .   .   .      a move costs 1; entering a terminal cell (+5, +4, −1) pays its
    y=1   .   .   .  +5      reward *instead*
    y=0   S   .   .   .

Example: right, up, right, right from (0, 0) has rewards −1, −1, −1, +5. A move into a wall stays
where it is and costs 1. With probability `slip` a move goes a quarter turn to its left instead
(right slips up).

Another grid is a few words, from Python or from the command line:

    GridModel.of(cost=-2, terminals="(3,0):-5,(3,1):5", slip=0.1, width=5)

Left out: time limits, observations, random numbers (`gridworld.py`), values and policies (the lab).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from logpi.errors import did_you_mean

Cell = tuple[int, int]
ACTIONS = ("right", "up", "left", "down")  # a quarter turn to the left is the next one
ARROWS = ("→", "↑", "←", "↓")
_MOVES: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))
LARGEST = 100  # cells in a row or a column
_CELL = r"\((\d{1,4}),(\d{1,4})\)"


@dataclass(frozen=True)
class GridModel:
    """A finite Markov decision process on a `width` × `height` grid, S = width·height states, 4
    actions.

    Attributes:
        width, height: of the grid, in cells.
        start: the cell (x, y) where episodes begin.
        terminals: cell → reward for entering it (it replaces the cost of the move); episodes end
            there.
        cost: reward of every other move.
        slip: probability in [0, 1) that a move goes a quarter turn to the left of the one chosen.

    Raises:
        ValueError: a cell outside the grid, a start that is terminal, a slip that is not a
            probability below 1.

    >>> GridModel().path("right", "up", "right", "right")
    ([(0, 0), (1, 0), (1, 1), (2, 1), (3, 1)], [-1.0, -1.0, -1.0, 5.0])
    """

    width: int = 4
    height: int = 4
    start: Cell = (0, 0)
    terminals: dict[Cell, float] = field(
        default_factory=lambda: {(3, 1): 5.0, (3, 3): 4.0, (1, 3): -1.0}
    )
    cost: float = -1.0
    slip: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            size = getattr(self, name)
            if type(size) is not int or not 1 <= size <= LARGEST:
                raise ValueError(f"{name} is a whole number from 1 to {LARGEST}, not {size!r}")
        for x, y in (self.start, *self.terminals):
            if not (0 <= x < self.width and 0 <= y < self.height):
                what = "start" if (x, y) == self.start else "terminals"
                raise ValueError(
                    f"cell ({x}, {y}) is outside the {self.width}×{self.height} grid: give other"
                    f" {what}"
                )
        if self.start in self.terminals:
            raise ValueError(f"the start {self.start} is a terminal cell: no episode could begin")
        if not _is_number(self.slip) or not 0 <= self.slip < 1:
            raise ValueError(f"slip is a probability below 1, not {self.slip}")
        ends = [(f"the reward of {cell}", reward) for cell, reward in self.terminals.items()]
        for name, reward in (("cost", self.cost), *ends):
            if not _is_number(reward):
                raise ValueError(f"{name} is a finite number, not {reward!r}")

    @classmethod
    def of(cls, **words: Any) -> GridModel:
        """A grid from words; what is left out is as above.

        Args:
            terminals: a mapping of cells to rewards, or "(3,0):-5,(3,1):5". start: (x, y), or
                "(0,2)". A mapping's keys may be such texts too: JSON has no tuples.
            words: the other attributes.
        Raises:
            ValueError: an unknown word, or one that cannot be read.

        >>> GridModel.of(terminals="(3,0):-5,(3,1):5", start="(0,2)").terminals
        {(3, 0): -5.0, (3, 1): 5.0}
        """
        known = [f.name for f in fields(cls)]
        for name in words:
            if name not in known:
                near = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
                raise ValueError(f"the grid world has no {name!r}{near}")
        read = {"terminals": _terminals, "start": _cell}
        return cls(**{k: read[k](v) if k in read else v for k, v in words.items()})

    @property
    def states(self) -> int:
        """S, the number of cells."""
        return self.width * self.height

    def state(self, cell: Cell) -> int:
        """Number of a cell: x + width · y."""
        return cell[0] + self.width * cell[1]

    def cell(self, state: int) -> Cell:
        """The cell (x, y) of a state."""
        return state % self.width, state // self.width

    def neighbour(self, state: int, action: int) -> int:
        """The state a move leads to when it does not slip; a wall, or a terminal state, keeps the
        agent where it is."""
        x, y = self.cell(state)
        to = (x + _MOVES[action][0], y + _MOVES[action][1])
        inside = 0 <= to[0] < self.width and 0 <= to[1] < self.height
        return self.state(to) if inside and (x, y) not in self.terminals else state

    @property
    def terminal(self) -> Tensor:
        """[S] bool."""
        return torch.tensor([self.cell(s) in self.terminals for s in range(self.states)])

    @property
    def transition(self) -> Tensor:
        """P[s, a, s'] [S, 4, S] float64, rows add up to 1. Terminal states lead to themselves."""
        p = torch.zeros(self.states, 4, self.states, dtype=torch.float64)
        for s in range(self.states):
            for a in range(4):
                p[s, a, self.neighbour(s, a)] += 1 - self.slip
                p[s, a, self.neighbour(s, (a + 1) % 4)] += self.slip
        return p

    @property
    def reward(self) -> Tensor:
        """R[s, a, s'] [S, 4, S] float64, in units of return, by the cell where a move ends; 0 from
        a terminal state."""
        r = torch.full((self.states, 4, self.states), self.cost, dtype=torch.float64)
        for cell, entering in self.terminals.items():
            r[:, :, self.state(cell)] = entering
        r[self.terminal] = 0.0
        return r

    def path(self, *actions: str) -> tuple[list[Cell], list[float]]:
        """The cells and the rewards of these moves from the start, without slips.

        Raises:
            ValueError: an unknown move.
        """
        state, cells, rewards, reward = self.state(self.start), [self.start], [], self.reward
        for name in actions:
            if name not in ACTIONS:
                raise ValueError(f"unknown move {name!r}; there are: {', '.join(ACTIONS)}")
            action = ACTIONS.index(name)
            after = self.neighbour(state, action)
            rewards.append(float(reward[state, action, after]))
            cells.append(self.cell(after))
            state = after
        return cells, rewards


# --- words ---


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _cell(value: Any) -> Cell:
    """(3, 1), [3, 1] or "(3,1)"."""
    if isinstance(value, str) and (match := re.fullmatch(_CELL, value.replace(" ", ""))):
        return int(match[1]), int(match[2])
    if isinstance(value, tuple | list) and [type(x) for x in value] == [int, int]:
        return value[0], value[1]
    raise ValueError(f"a cell is (x,y), e.g. (3,1), not {value!r}")


def _terminals(value: Any) -> dict[Cell, float]:
    """{(3, 1): 5}, {"(3,1)": 5} or "(3,1):5,(3,3):4"; "" for none."""
    if isinstance(value, Mapping):
        return {_cell(cell): reward for cell, reward in value.items()}
    text = str(value).replace(" ", "")
    terminals = {}
    for item in re.split(r",(?=\()", text) if text else ():
        match = re.fullmatch(_CELL + r":(.+)", item)
        try:
            terminals[int(match[1]), int(match[2])] = float(match[3])  # type: ignore[index]
        except (TypeError, ValueError):
            raise ValueError(
                f"terminals are CELL:REWARD, e.g. (3,1):5,(3,3):4, not {item!r}"
            ) from None
    return terminals

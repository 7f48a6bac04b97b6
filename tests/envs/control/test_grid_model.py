"""The grid world's table: the worked trajectory, probabilities, slips, terminal cells, kind
errors."""

from __future__ import annotations

import pytest
import torch

from logpi.envs.control.grid_model import ACTIONS, GridModel


def test_golden_trajectory():
    cells, rewards = GridModel().path("right", "up", "right", "right")
    assert cells == [(0, 0), (1, 0), (1, 1), (2, 1), (3, 1)]
    assert rewards == [-1.0, -1.0, -1.0, 5.0]


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_transitions_are_probabilities_and_terminals_absorb(slip):
    grid = GridModel(slip=slip)
    p, r = grid.transition, grid.reward
    assert torch.equal(p.sum(-1), torch.ones(16, 4, dtype=torch.float64))
    assert (p >= 0).all()
    ends = grid.terminal
    assert int(ends.sum()) == 3
    assert torch.equal(p[ends], torch.eye(16, dtype=torch.float64)[ends][:, None].expand(-1, 4, -1))
    assert not r[ends].any()


def test_slip_is_the_texts_example():
    grid, gamma = GridModel(slip=0.2), 0.9
    s, right = grid.state((1, 1)), ACTIONS.index("right")
    value = torch.arange(16, dtype=torch.float64)
    backed_up = (grid.transition[s, right] * (grid.reward[s, right] + gamma * value)).sum()
    ahead, up = value[grid.state((2, 1))], value[grid.state((1, 2))]
    assert float(backed_up) == pytest.approx(
        float(0.8 * (-1 + gamma * ahead) + 0.2 * (-1 + gamma * up)), abs=1e-12
    )


def test_walls_keep_the_agent_and_cost_a_move():
    grid = GridModel()
    assert grid.path("left", "down") == ([(0, 0)] * 3, [-1.0, -1.0])


def test_states_and_cells_are_inverse():
    grid = GridModel(width=3, height=2, terminals={(2, 1): 1.0})
    assert [grid.state(grid.cell(s)) for s in range(grid.states)] == list(range(6))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"slip": 1.5}, "probability"),
        ({"start": (4, 0)}, "outside"),
        ({"start": (3, 1)}, "terminal"),
    ],
)
def test_wrong_grids_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        GridModel(**wrong)


def test_unknown_move_is_named():
    with pytest.raises(ValueError, match="north"):
        GridModel().path("north")


# --- words ---


@pytest.mark.parametrize(
    "terminals",
    [
        "(3,0):-5,(3,1):5",
        " (3, 0) : -5 , (3, 1) : 5.0 ",
        {(3, 0): -5, (3, 1): 5},
        {"(3,0)": -5, "(3, 1)": 5.0},
    ],
)
def test_terminals_by_word_and_by_value(terminals):
    grid = GridModel.of(cost=-2, terminals=terminals, start="(1,2)", width=5)
    assert grid == GridModel(5, 4, (1, 2), {(3, 0): -5.0, (3, 1): 5.0}, -2.0)


def test_no_words_are_the_default_grid():
    assert GridModel.of() == GridModel() and GridModel.of(terminals="").terminals == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"costs": 1}, "no 'costs'; did you mean cost?"),
        ({"cost": "x"}, "cost is a finite number, not 'x'"),
        ({"cost": True}, "cost is a finite number"),
        ({"cost": float("inf")}, "cost is a finite number"),
        ({"slip": "x"}, "slip is a probability below 1"),
        ({"slip": 1}, "slip is a probability below 1"),
        ({"width": 0}, "width is a whole number from 1 to 100"),
        ({"height": 2.0}, "height is a whole number"),
        ({"width": 10**9}, "width is a whole number from 1 to 100"),
        ({"width": 2}, "outside the 2×4 grid: give other terminals"),
        ({"start": "(0,9)"}, "outside the 4×4 grid: give other start"),
        ({"start": "0,1"}, r"a cell is \(x,y\)"),
        ({"start": (0, 1.5)}, r"a cell is \(x,y\)"),
        ({"start": (3, 1)}, "is a terminal cell"),
        ({"terminals": "(3,1)"}, "terminals are CELL:REWARD"),
        ({"terminals": "(3,1):x"}, "terminals are CELL:REWARD"),
        ({"terminals": "(3,1):5(3,3):4"}, "terminals are CELL:REWARD"),
        ({"terminals": "(3,1):nan"}, r"reward of \(3, 1\) is a finite number"),
        ({"terminals": {(3, 1): "5"}}, r"reward of \(3, 1\) is a finite number"),
        ({"terminals": 5}, "terminals are CELL:REWARD"),
    ],
)
def test_words_that_make_no_grid_are_one_line(words, says):
    with pytest.raises(ValueError, match=says) as error:
        GridModel.of(**words)
    assert len(str(error.value).splitlines()) == 1

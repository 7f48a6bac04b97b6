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

"""V, Q and A of given policies on the grid world, the closing sentences at the options' bounds, and
the three rewards."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from logpi.commands.lab import COMMANDS, main
from logpi.commands.lab_runs import grid_and_policy
from logpi.envs.control.grid_model import ACTIONS, GridModel
from logpi.errors import UserError
from logpi.jobs import gym
from logpi.lab import rewards
from logpi.lab.bellman import bellman, best_moves, returns_to_a_cell, settled, value_iteration
from logpi.lab.grids import map_table, number, value_map
from logpi.lab.policy_values import MovePolicy, evaluate
from logpi.lab.worlds import grid_mdp

ROOT = Path(__file__).parents[2]
LINE = GridModel(width=4, height=1, terminals={(3, 0): 5.0})


def random_policy(grid: GridModel, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(grid.states, 4, generator=generator, dtype=torch.float64).softmax(-1)


# --- a policy's values ---


def test_a_line_by_hand():
    """Right from (0, 0): −1 −1 +5. Left never ends."""
    right = evaluate(LINE, MovePolicy.named("right", LINE).pi)
    assert right.value.tolist() == [3.0, 4.0, 5.0, 0.0]
    assert right.q[1].tolist() == [4.0, 3.0, 2.0, 3.0]
    assert right.advantage[1].tolist() == [0.0, -1.0, -2.0, -1.0]
    assert [x.tolist() for x in right.sweeps[:2]] == [[-1, -1, 5, 0], [-2, 4, 5, 0]]
    left = MovePolicy.named("left", LINE).pi
    assert evaluate(LINE, left).value[:3].tolist() == [-math.inf] * 3
    # at a wall for ever: −1/(1 − γ)
    assert evaluate(LINE, left, 0.5).value[0] == pytest.approx(-2.0)
    assert evaluate(replace(LINE, cost=1.0), left).value[0] == math.inf
    assert evaluate(replace(LINE, cost=0.0), left).value[:3].tolist() == [0.0] * 3


def test_half_a_chance_to_be_lost():
    """Up stays where it is on a line, right goes on: half of each ends, up alone does not."""
    pi = MovePolicy.named("right", LINE).pi
    pi[2] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    # v = ½·5 + ½(−1 + v)
    assert evaluate(LINE, pi).value[2] == pytest.approx(4.0)
    pi[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    pi[1] = torch.tensor([0.5, 0.0, 0.5, 0.0])
    assert evaluate(LINE, pi).value[:3].tolist() == [-math.inf, -math.inf, 4.0]


@pytest.mark.parametrize("slip", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_sweeps_arrive_at_the_linear_system(slip, gamma):
    grid = GridModel(slip=slip)
    pi = random_policy(grid)
    found = evaluate(grid, pi, gamma)
    torch.testing.assert_close(found.sweeps[-1], found.value, atol=1e-8, rtol=0)
    torch.testing.assert_close((pi * found.q).sum(-1), found.value, atol=1e-9, rtol=0)
    assert (pi * found.advantage).sum(-1).abs().max() < 1e-9


def test_values_are_those_of_a_long_process():
    """The lab's process with a horizon, long enough that its end does not matter."""
    grid = GridModel(slip=0.2)
    pi = random_policy(grid, 1)
    long = grid_mdp(grid, 600)
    value, q = long.values(pi)
    found = evaluate(grid, pi)
    torch.testing.assert_close(found.value, value[0], atol=1e-6, rtol=0)
    acting = ~grid.terminal
    torch.testing.assert_close(found.q[acting], q[0][acting], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.advantage[acting], long.advantage(pi)[0][acting], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_no_policy_is_better_than_the_best(gamma):
    grid = GridModel(slip=0.2)
    last = value_iteration(grid, gamma)[-1]
    best = best_moves(last.q).double()
    best = best / best.sum(-1, keepdim=True)
    torch.testing.assert_close(evaluate(grid, best, gamma).value, last.value, atol=1e-7, rtol=0)
    for seed in range(3):
        assert (evaluate(grid, random_policy(grid, seed), gamma).value <= last.value + 1e-9).all()


def test_policies_by_name():
    for i, name in enumerate(ACTIONS):
        assert MovePolicy.named(name, LINE).pi[:, i].tolist() == [1.0] * 4
    with pytest.raises(ValueError, match="did you mean uniform"):
        MovePolicy.named("unifrm", LINE)


def test_a_runs_policy_on_its_own_grid(tmp_path, capsys):
    words = ["cost=-2", "terminals=(3,0):-5,(3,1):5", "slip=0.1", "max_episode_steps=50"]
    out = tmp_path / "r"
    short = ["--steps", "256", "--eval-episodes", "1", "--evaluations", "0"]
    env = ["--env", "logpi/GridWorld-v0", "--algorithm", "a2c", "--env-options", *words]
    gym.main(["--out", str(out), *env, *short])
    grid, policy = grid_and_policy(str(out), {})
    assert grid == GridModel(terminals={(3, 0): -5.0, (3, 1): 5.0}, cost=-2, slip=0.1)
    assert policy.name == "r"
    torch.testing.assert_close(policy.pi.sum(-1), torch.ones(16).double(), atol=1e-6, rtol=0)
    assert main(["bellman", "--policy", str(out)]) == 0
    assert "V^π of the policy “r”" in capsys.readouterr().out
    with pytest.raises(UserError, match="leave --slip out"):
        main(["bellman", "--policy", str(out), "--slip", "0.1"])


# --- the closing sentence ---


def shown(**options) -> str:
    gamma = options.pop("gamma", 1.0)
    return " ".join(bellman(GridModel.of(**{"slip": 0.2, **options}), gamma).shown.split())


def test_without_slips_nothing_is_said_of_them():
    report = bellman(GridModel(slip=0.0))
    assert "slip" not in report.shown.replace("without slips", "")
    assert report.shown.startswith("without slips values are settled after 5 sweeps")
    assert [t.title[:2] for t in report.tables] == ["1.", "2.", "3.", "4.", "5."]
    assert report.tables[1].columns == ("", "without slips")


def test_gamma_zero_settles_at_once():
    report = bellman(gamma=0.0)
    assert "settled after 1 sweep," in report.shown
    assert "slips leave it as it is and need as many sweeps" in report.shown
    assert "γ = 0 counts the next reward alone" in report.shown
    assert "spread" not in report.question and "spread" in bellman().question


def test_a_tiny_effect_is_shown_with_enough_digits():
    text = shown(slip=0.999)
    first, second = re.findall(r"start is (\S+); slips lower it to (\S+) ", text)[0]
    assert float(first) > float(second)
    run = value_iteration(GridModel(slip=0.999))
    assert float(second) == pytest.approx(float(run[-1].value[0]), abs=5e-4)


@pytest.mark.parametrize("slip", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cost", [-10.0, -1.0, -0.01])
def test_every_claim_is_true_of_the_numbers(slip, gamma, cost):
    grid = GridModel(slip=slip, cost=cost)
    text = shown(slip=slip, gamma=gamma, cost=cost)
    firm, slippery = value_iteration(replace(grid, slip=0.0), gamma), value_iteration(grid, gamma)
    first, second = (float(r[-1].value[0]) for r in (firm, slippery))
    assert f"settled after {settled(firm)} sweep" in text
    assert ("slips lower it" in text) == (second < first - 1e-9)
    assert ("slips raise it" in text) == (second > first + 1e-9)
    more = settled(slippery) > settled(firm)
    assert (f"need {settled(slippery)} sweep" in text) == (slip > 0 and more)
    depends = more and returns_to_a_cell(grid, slippery[-1].q)
    assert ("because a cell's value then depends on itself" in text) == depends


def test_coming_back_to_a_cell():
    firm, slippery = GridModel(), GridModel(slip=0.2)
    assert not returns_to_a_cell(firm, value_iteration(firm)[-1].q)
    assert returns_to_a_cell(slippery, value_iteration(slippery)[-1].q)


@pytest.mark.parametrize("policy", ["uniform", "right", "left"])
def test_what_is_said_of_the_policy(policy):
    grid = GridModel(slip=0.0)
    text = bellman(grid, policy=MovePolicy.named(policy, grid)).shown
    lost = "may walk for ever" in text
    assert lost == (policy != "uniform")
    assert lost or "is worth −15.29 there, the best one 2.00" in text


def test_wide_grids_fit_a_terminal():
    grid = GridModel(width=9, height=9, terminals={(8, 8): -1000.0}, slip=0.1)
    text = bellman(grid, gamma=0.9).text()
    assert max(map(len, text.splitlines())) <= 100
    value = torch.zeros(grid.states)
    table = map_table(grid, "t", {"a": value_map(grid, value), "b": value_map(grid, value)})
    assert table.columns[-1] == "b" and len(table.rows) == 9


@pytest.mark.parametrize(
    ("x", "text"),
    [(-0.0001, "0.00"), (-2.0, "−2.00"), (math.inf, "∞"), (-math.inf, "−∞"), (0.0, "0.00")],
)
def test_numbers_for_people(x, text):
    assert number(x) == text


# --- three rewards ---


@pytest.fixture(scope="module")
def designs():
    return {name: rewards._design(grid, 0) for name, grid in rewards.DESIGNS.items()}


def test_the_best_policies_behave_as_designed(designs):
    ends = {name: rewards.destinations(d.grid, best_moves(d.q)) for name, d in designs.items()}
    assert ends["+5 at a corner"] == {(3, 1): 0, (3, 3): 13, (1, 3): 0, None: 0}
    assert ends["+1 alive"] == {(3, 1): 0, (3, 3): 0, (1, 3): 0, None: 13}
    assert ends["−1 everywhere"] == {(3, 1): 7, (3, 3): 3, (1, 3): 3, None: 0}
    corner, alive, hurry = (float(d.q[0].max()) for d in designs.values())
    assert corner == pytest.approx(5 * 0.9**5)
    assert alive == pytest.approx(1 / (1 - 0.9))
    assert hurry == pytest.approx(-(1 - 0.9**4) / (1 - 0.9))


def test_learned_policies_do_the_same(designs):
    for d in designs.values():
        assert d.agreement > 0.97
        value = evaluate(d.grid, d.pi, rewards.GAMMA).value[0]
        assert float(d.q[0].max()) - float(value) < 0.1
        own, best = (rewards.walk(d.grid, best_moves(x))[1] for x in (d.pi, d.q))
        assert (own is None) == (best is None)


def test_no_cost_makes_the_agent_refuse_to_move():
    """−10 a step: three steps and +5."""
    dear = rewards._cost(-10.0)
    assert (dear.value, dear.moves) == (-25.0, 4)
    assert dear.ends == {5.0: 9, 4.0: 1, -1.0: 3}
    assert rewards._cost(-0.01).ends == {5.0: 13, 4.0: 0, -1.0: 0}


def test_the_page_of_rewards_has_the_exact_numbers(designs):
    """What is sampled may differ in the last bit elsewhere, and so in a move."""
    page = (ROOT / "docs" / "lab" / "rewards.md").read_text(encoding="utf-8")
    costs = [rewards._cost(c) for c in rewards.COSTS]
    maps = rewards._maps(designs, "2. The best moves, exactly", lambda d: best_moves(d.q))
    for table in (rewards._designs(designs), maps, rewards._costs(costs)):
        assert table.text() in page, "run: python scripts/lab_docs.py"
    assert "rewards" in COMMANDS

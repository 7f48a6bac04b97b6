"""The grid world as a Gymnasium environment (`logpi/GridWorld-v0`), and pictures of it, in the
terminal and as an image.

    env = gymnasium.make("logpi/GridWorld-v0", slip=0.2, render_mode="ansi")
    env = gymnasium.make("logpi/GridWorld-v0", cost=-2, terminals={(3, 0): -5, (3, 1): 5})

Observation: the number of the cell (Discrete 16). Actions: right, up, left, down. Rewards, terminal
cells and slips are those of `grid_model.GridModel`. Left out: exact values, which the lab computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from logpi.envs.control.grid_model import ACTIONS, ARROWS, GridModel
from logpi.policies.distributions import Categorical
from logpi.runs.plots import Panel, figure

if TYPE_CHECKING:
    from logpi.policies.mlp import ActorCritic

ID = "logpi/GridWorld-v0"


class GridWorld(gym.Env):
    """Walk to a terminal cell; every move costs.

    Args:
        model: the grid; default: the one above.
        render_mode: "ansi" or "rgb_array".
        words: of another grid: width, height, start, terminals, cost, slip (`GridModel.of`).

    Raises:
        ValueError: a word that makes no grid, or words beside a model.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self, model: GridModel | None = None, render_mode: str | None = None, **words: Any
    ) -> None:
        if model is not None and words:
            raise ValueError(f"the model says what the grid is: leave {', '.join(words)} out")
        self.model = model or GridModel.of(**words)
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Discrete(self.model.states)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self._next = [
            [self.model.neighbour(s, a) for a in range(4)] for s in range(self.model.states)
        ]
        self._terminal = self.model.terminal.tolist()
        cells = map(self.model.cell, range(self.model.states))
        self._entering = [self.model.terminals.get(c, self.model.cost) for c in cells]
        self._state = self.model.state(self.model.start)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.model.state(self.model.start)
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        turned = self.model.slip > 0 and self.np_random.random() < self.model.slip
        after = self._next[self._state][(action + turned) % 4]
        self._state = after
        return after, float(self._entering[after]), self._terminal[after], False, {}

    def render(self) -> str | np.ndarray | None:
        if self.render_mode == "ansi":
            return draw(self.model, at=self._state)
        return picture(self.model, self._state) if self.render_mode == "rgb_array" else None


gym.register(ID, entry_point="logpi.envs.control.gridworld:GridWorld", max_episode_steps=100)


def move_chances(model: GridModel, policy: ActorCritic) -> np.ndarray:
    """π(a|s) [S, 4] of a policy that was trained on this grid."""
    assert isinstance(policy.kind, Categorical)
    return policy.kind.probabilities(policy.actor()(np.eye(model.states, dtype=np.float32)))


def draw(
    model: GridModel,
    policy: np.ndarray | None = None,
    value: Sequence[float] | None = None,
    at: int | None = None,
) -> str:
    """The grid as text, y upwards: `A` the agent, terminal rewards, and the policy's likeliest
    moves and values if given.

    Args:
        policy: [S, 4] probabilities. value: [S] in units of return. at: the agent's state.

    >>> print(draw(GridModel(width=2, height=1, terminals={(1, 0): 5.0}), at=0))
       A    +5
    """
    lines = []
    for y in reversed(range(model.height)):
        states = [model.state((x, y)) for x in range(model.width)]
        lines.append("  ".join(f"{_sign(model, s, policy, at):>4}" for s in states))
        if value is not None:
            lines.append(
                "  ".join(
                    "    " if model.cell(s) in model.terminals else f"{value[s]:4.1f}"
                    for s in states
                )
            )
    return "\n".join(lines)


def _sign(model: GridModel, state: int, policy: np.ndarray | None, at: int | None) -> str:
    if state == at:
        return "A"
    if model.cell(state) in model.terminals:
        return f"{model.terminals[model.cell(state)]:+g}"
    return "." if policy is None else ARROWS[int(np.argmax(policy[state]))]


def picture(model: GridModel, at: int) -> np.ndarray:
    """The grid as an image [H, W, 3] bytes, with the terminal rewards and the agent in state `at`.

    Raises:
        UserError: matplotlib is not installed.
    """
    image = figure([Panel(grid=False)], size=(0.9 * model.width, 0.9 * model.height))
    [axes] = image.axes
    axes.set(
        xticks=np.arange(model.width + 1) - 0.5,
        yticks=np.arange(model.height + 1) - 0.5,
        xlim=(-0.5, model.width - 0.5),
        ylim=(-0.5, model.height - 0.5),
        aspect="equal",
    )
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="0.6")
    for cell, reward in model.terminals.items():
        axes.text(*cell, f"{reward:+g}", ha="center", va="center", fontsize=14, weight="bold")
    axes.plot(*model.cell(at), "o", markersize=16, color="#2563eb")
    image.canvas.draw()
    return np.asarray(image.canvas.buffer_rgba())[..., :3].copy()

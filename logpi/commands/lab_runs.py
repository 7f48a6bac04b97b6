"""What `logpi lab` reads from runs: the grid and the policy of `logpi gym` on the grid world.

Left out: what is computed of them (`logpi.lab`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.envs.control.grid_model import GridModel
    from logpi.lab.policy_values import MovePolicy


def grid_and_policy(
    name: str, words: Mapping[str, Any], trust: bool = False
) -> tuple[GridModel, MovePolicy]:
    """The grid of these words (`GridModel.of`) and a policy by name, or both of a run.

    Raises:
        UserError: a run of another environment; a run, and words besides.
        ValueError: an unknown name; words that make no grid.
    """
    from logpi.envs.control.grid_model import GridModel
    from logpi.lab.bellman import SLIP
    from logpi.lab.policy_values import MovePolicy

    if not Path(name).is_dir():
        grid = GridModel.of(**{"slip": SLIP, **words})
        return grid, MovePolicy.named(name, grid)
    if words:
        raise UserError(
            f"the grid is that of {name}: leave {', '.join(f'--{k}' for k in words)} out"
        )
    return _of_run(Path(name), trust)


def _of_run(path: Path, trust: bool) -> tuple[GridModel, MovePolicy]:
    import torch

    from logpi.envs.control.grid_model import GridModel
    from logpi.envs.control.gridworld import ID, move_chances
    from logpi.jobs.open_run import open_run
    from logpi.lab.grids import LARGEST
    from logpi.lab.policy_values import MovePolicy

    run = open_run(path, trust)
    if run.command != "gym" or run.arguments.get("env") != ID:
        raise UserError(f"{path} is no run of `logpi gym --env {ID}`")
    options = {k: v for k, v in run.arguments["env_options"].items() if k != "max_episode_steps"}
    grid = GridModel.of(**options)
    if max(grid.width, grid.height) > LARGEST:
        raise UserError(f"the lab shows grids of up to {LARGEST}×{LARGEST} cells")
    pi = torch.from_numpy(move_chances(grid, run.policy())).double()
    return grid, MovePolicy(path.name, pi)

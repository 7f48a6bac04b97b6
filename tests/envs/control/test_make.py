"""Environments from ids, modules, files and objects: what is made, copied, and refused in a line.

Run: python -m pytest -q tests/envs/control/test_make.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from logpi.envs.control.make import LIMIT, make_env, make_vector_environment
from logpi.envs.control.vector import SyncVectorEnvironment
from logpi.errors import UserError

ROOT = Path(__file__).parents[3]
MINE = """
import gymnasium as gym
import numpy as np

class Maze(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, size=3, render_mode=None):
        self.size = size
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.full(2, self.t / 9, np.float32), float(action), self.t >= self.size, False, {}

def make_maze(size=5):
    return Maze(size)

made = Maze(7)
number = 3
gym.register("MineInAFile-v0", entry_point=Maze, max_episode_steps=50)
"""
names: dict = {}
exec(MINE, names)
Maze = names["Maze"]


class Locked(Maze):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def sizes(envs) -> list[int]:
    return [env.unwrapped.size for env in envs.envs]


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine_in_a_file.py"
    path.write_text(MINE)
    return path


def test_classes_functions_and_environments():
    assert sizes(make_vector_environment(Maze, 2)) == [3, 3]
    assert sizes(make_vector_environment(Maze, 2, size=4)) == [4, 4]
    assert sizes(make_vector_environment(lambda: Maze(6), 1)) == [6]
    own = Maze(7)
    envs = make_vector_environment(own, 3)
    assert isinstance(envs, SyncVectorEnvironment) and sizes(envs) == [7, 7, 7]
    assert own not in [env.unwrapped for env in envs.envs] and len({*envs.envs}) == 3
    envs.begin(lambda i: i)
    envs.step(np.zeros(3, np.int64))
    assert "t" not in vars(own)  # the caller's own is never played
    assert make_env(Maze).spec is None and make_env(Maze)._max_episode_steps == LIMIT


def test_a_time_limit_for_all():
    env = make_env(Maze, size=50, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(0)[3] is False and env.step(0)[3] is True


def test_actions_are_held():
    env = make_env(Maze, repeat=2)
    env.reset(seed=0)
    assert env.step(1)[1:3] == (2.0, False) and env.step(1)[1:3] == (1.0, True)


def test_copies_of_what_cannot_be_copied(mine, monkeypatch):
    locked = Locked()
    assert make_env(locked).unwrapped is locked
    with pytest.raises(UserError, match="Locked cannot be copied: give its class.*lock"):
        make_vector_environment(locked, 2)
    gym.register("Locked-v0", entry_point=Locked)
    registered = gym.make("Locked-v0")
    envs = make_vector_environment(registered, 2)  # made anew from its specification
    assert len({registered.unwrapped, *(env.unwrapped for env in envs.envs)}) == 3
    changed = gym.make("CartPole-v1")
    changed.unwrapped.gravity = 5.0  # a copy has it, a new one had not
    assert [e.unwrapped.gravity for e in make_vector_environment(changed, 2).envs] == [5.0, 5.0]


def test_words_of_a_file(mine):
    assert sizes(make_vector_environment(f"{mine}:Maze", 2, size=4)) == [4, 4]
    assert sizes(make_vector_environment(f"{mine}:make_maze", 2)) == [5, 5]
    assert sizes(make_vector_environment(f"{mine}:made", 2)) == [7, 7]
    for word, line in {
        "number": "mine_in_a_file.py:number: an environment is a Gymnasium id, .* not int",
        "Mazes": "has no 'Mazes'; did you mean Maze?",
    }.items():
        with pytest.raises(UserError, match=line):
            make_env(f"{mine}:{word}")
    with pytest.raises(UserError, match="does not take these options: TypeError.*sise"):
        make_env(f"{mine}:Maze", sise=3)


WRONG = {
    "no environment": (lambda: 3, "<lambda> makes no gymnasium.Env, but int"),
    "a vector environment": (
        lambda: gym.make_vec("CartPole-v1", 2),
        "but a vector environment: give the single one",
    ),
    "a function that fails": (lambda: 1 / 0, "cannot be made: ZeroDivisionError.*test_make.py"),
    "a number": (3, "int: an environment is a Gymnasium id"),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_line_for_what_makes_none(what):
    source, line = WRONG[what]
    with pytest.raises(UserError, match=line):
        make_env(source)


def test_options_and_vectorised_forms_of_objects():
    with pytest.raises(UserError, match=r"Maze is made already: it takes no options \(size\)"):
        make_env(Maze(), size=2)
    with pytest.raises(UserError, match="Maze has no vectorised form of its own"):
        make_vector_environment(Maze, 2, vectorized=True)


def gym_command(where: Path, env: str, out: str) -> subprocess.CompletedProcess[str]:
    """`logpi gym` as the console script starts it: the current directory is not on the path."""
    code = "import sys; sys.path = [p for p in sys.path if p]; from logpi.cli import main; main()"
    words = ["gym", "--env", env, "--steps", "32", "--evaluations", "0", "--out", out]
    options = ["--options", "envs=2", "n_steps=16", "minibatches=1", "epochs=1"]
    return subprocess.run(
        [sys.executable, "-c", code, *words, *options],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )


def test_the_command_finds_modules_and_files_of_the_current_directory(mine):
    for env, out in (("mine_in_a_file:MineInAFile-v0", "a"), ("mine_in_a_file.py:Maze", "b")):
        run = gym_command(mine.parent, env, out)
        assert run.returncode == 0, run.stderr
        assert json.loads((mine.parent / out / "arguments.json").read_text())
    run = gym_command(mine.parent, "nowhere:Maze-v0", "c")
    assert "no environment 'nowhere:Maze-v0': No module named 'nowhere'" in run.stderr
    assert "Traceback" not in run.stderr and not (mine.parent / "c").exists()

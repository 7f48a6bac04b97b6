"""Environments from a word or an object, and vector environments of several copies.

    "CartPole-v1", "logpi/GridWorld-v0"   a Gymnasium id
    "mine:Maze-v0"                        an id that the module `mine` registers when it is imported
    "mine.py:Maze"                        the object Maze of a user's file: any of the following
    Maze                                  a class, or a function that makes an environment
    Maze(3)                               an environment, which is copied

Left out: how the copies are stepped together (`vector.py`).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from logpi.envs.control.processes import ProcessVectorEnvironment
from logpi.envs.control.vector import (
    GymnasiumVectorEnvironment,
    SyncVectorEnvironment,
    VectorEnvironment,
)
from logpi.envs.scalars import number
from logpi.errors import UserError, did_you_mean
from logpi.rewards.workers.worker import describe
from logpi.runs.user_code import from_user_code, is_user_code

EnvSource = str | gym.Env | Callable[..., gym.Env]
_MODULE = re.compile(r"[^\W\d][\w.]*:")  # module:Id-v0
LIMIT = 10_000
"""Time limit of an episode where the environment has none: an endless episode has no return."""
# a package in an error's message -> the extra of Gymnasium that installs it
_EXTRAS = {
    "Box2D": "box2d",
    "box2d": "box2d",
    "mujoco": "mujoco",
    "ale_py": "atari",
    "pygame": "classic_control",
}


class ActionRepeat(gym.Wrapper):
    """Repeats every action for `times` steps (fewer at an episode's end) and adds up rewards."""

    def __init__(self, env: gym.Env, times: int) -> None:
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        total = number(reward)
        for _ in range(self.times - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += number(reward)
        return obs, total, terminated, truncated, info


def make_env(source: EnvSource, repeat: int = 1, **options: Any) -> gym.Env:
    """One environment, without Gymnasium's step-by-step checks.

    Args:
        source: a word or an object (see the module's docstring). An environment is copied, or
            returned itself if it cannot be copied. repeat: steps for which every action is held.
        options: of the environment; all have `max_episode_steps`. An environment without a time
            limit gets one of `LIMIT` steps.

    Raises:
        UserError: unknown (with the nearest name), its package is not installed (with the command
            that installs it), an option that it does not take, or it makes no environment.
    """
    return _envs(source, 1, repeat, options)[0]


def make_vector_environment(
    source: EnvSource,
    n: int,
    vectorized: bool = False,
    repeat: int = 1,
    processes: int = 1,
    **options: Any,
) -> VectorEnvironment:
    """`n` environments stepped in turn, or in blocks by several processes, or the environment's own
    vectorised form.

    Raises:
        UserError: as `make_env`; an environment that cannot be copied; there is no vectorised form;
            more processes than environments.
    """
    if not vectorized:
        envs = _envs(source, n, repeat, options)
        return (
            SyncVectorEnvironment(envs)
            if processes == 1
            else ProcessVectorEnvironment(envs, processes)
        )
    if processes > 1:
        raise UserError("a vectorised form has no processes: leave --vectorized off, or these")
    make_env(source, **options).close()
    if (
        not isinstance(source, str)
        or is_user_code(source)
        or gym.spec(source).vector_entry_point is None
    ):
        raise UserError(
            f"{_name(source)} has no vectorised form of its own; leave --vectorized off"
        )
    if repeat > 1:
        raise UserError(
            "a vectorised form cannot hold actions: leave --vectorized off, or set repeat=1"
        )
    return GymnasiumVectorEnvironment(
        gym.make_vec(source, n, vectorization_mode="vector_entry_point", **options)
    )


def _envs(source: EnvSource, n: int, repeat: int, options: dict[str, Any]) -> list[gym.Env]:
    """`n` environments, each with a time limit and its actions held."""
    named = from_user_code(source) if isinstance(source, str) and is_user_code(source) else source
    name = _name(source)
    if isinstance(named, str):
        envs = [_from_id(named, options) for _ in range(n)]
    elif isinstance(named, gym.Env):
        if options:
            raise UserError(f"{name} is made already: it takes no options ({', '.join(options)})")
        envs = _copies(name, named, n)
    elif callable(named):
        envs = [_from_function(name, named, options) for _ in range(n)]
    else:
        raise UserError(
            f"{name}: an environment is a Gymnasium id, a gymnasium.Env, or a class or function"
            f" that makes one, not {type(named).__name__}"
        )
    return [_limited(env, repeat) for env in envs]


def _limited(env: gym.Env, repeat: int) -> gym.Env:
    if env.spec is None or env.spec.max_episode_steps is None:
        env = gym.wrappers.TimeLimit(env, LIMIT)
    return ActionRepeat(env, repeat) if repeat > 1 else env


def _name(source: EnvSource) -> str:
    """Its name in messages."""
    if isinstance(source, str):
        return source
    return str(getattr(source, "__name__", type(source).__name__))


# --- from an id ---


def _from_id(name: str, options: dict[str, Any]) -> gym.Env:
    """`gymnasium.make`, with every error as one line."""
    import logpi.envs.control.gridworld  # noqa: F401  registers ours

    _import_module(name, options)
    try:
        return gym.make(name, disable_env_checker=True, **options)
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{name} is not installed: {_install(str(error))}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"no environment {name!r}: {error}") from None
    except gym.error.Error as error:
        raise UserError(_unknown(name, error)) from None
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(_cannot_be_made(name, options, error)) from error


def _import_module(name: str, options: dict[str, Any]) -> None:
    """Import the module of `module:Id-v0`. The current directory counts as it does for `python
    -m`: a console script starts without it."""
    texts = [x for x in (name, *options.values()) if isinstance(x, str)]
    named = any(_MODULE.match(text) for text in texts)
    if named and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    module, colon, _ = name.rpartition(":")
    if not colon:
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(
            f"no environment {name!r}: in front of the colon stands a module that can be imported"
        )
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"no environment {name!r}: {error}") from None
    except Exception as error:
        raise UserError(_cannot_be_made(name, {}, error)) from error


def _install(message: str) -> str:
    """The command that installs the package in an error's message, or its first line."""
    extra = next((extra for package, extra in _EXTRAS.items() if package in message), None)
    return f"pip install 'gymnasium[{extra}]'" if extra else message.splitlines()[0]


def _unknown(name: str, error: gym.error.Error) -> str:
    """Why there is no environment of this id."""
    # The package of the Atari games registers their ids.
    if name.startswith("ALE/") and "ALE/Pong-v5" not in gym.registry:
        return f"{name} is not installed: pip install 'gymnasium[atari]'"
    own = name.rpartition(":")[2]
    if own in gym.registry and gym.registry[own].entry_point is None:
        return (
            f"{name} has only a vectorised form, and evaluation plays single episodes: register"
            " both"
        )
    near = "" if own in gym.registry else did_you_mean(name, gym.registry)
    return f"no environment {name!r}{near or f': {str(error).splitlines()[0]}'}"


def _cannot_be_made(name: str, options: dict[str, Any], error: Exception) -> str:
    """The error of a module, a constructor or a function."""
    refused = options and isinstance(error, TypeError | ValueError | AssertionError)
    if refused and _is_ours(error):
        return f"{name}: {error}"
    what = "does not take these options" if refused else "cannot be made"
    return f"{name} {what}: {describe(error).partition(' was raised from')[0]}"


def _is_ours(error: Exception) -> bool:
    """Whether an environment of the library refused it: its line is whole without a place."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, ValueError) and name.startswith("logpi.envs.")


# --- from an object ---


def _from_function(name: str, make: Callable[..., Any], options: dict[str, Any]) -> gym.Env:
    """The environment that a class or a function makes."""
    limit = options.get("max_episode_steps")
    try:
        env = make(**{k: v for k, v in options.items() if k != "max_episode_steps"})
        if isinstance(env, gym.Env):
            return env if limit is None else gym.wrappers.TimeLimit(env, limit)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(_cannot_be_made(name, options, error)) from error
    kind = "a vector environment: give the single one" if isinstance(env, VectorEnv) else type(env)
    raise UserError(f"{name} makes no gymnasium.Env, but {getattr(kind, '__name__', kind)}")


def _copies(name: str, env: gym.Env, n: int) -> list[gym.Env]:
    """`n` copies of an environment. One that Python cannot copy (for its window, its simulator in
    C) is made again from its registered specification."""
    try:
        return [deepcopy(env) for _ in range(n)]
    except Exception as error:
        reason = describe(error)
    try:
        if env.spec is not None:
            return [gym.make(env.spec, disable_env_checker=True) for _ in range(n)]
    except Exception as error:
        reason = describe(error)
    if n == 1:
        return [env]
    raise UserError(
        f"{name} cannot be copied: give its class, or a function that makes one ({reason})"
    )

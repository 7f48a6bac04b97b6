"""Checks an environment's return values against Gymnasium's interface.

    reset(seed=…)  → observation, info
    step(action)   → observation, reward, terminated, truncated, info

`CheckedEnv` is the innermost wrapper, so that a user's wrappers see checked values. A reward may be
an array of one number. `reset` gets only the arguments that it takes. Another form (old Gym's four
values, a reset without a seed) and any exception of an environment become an error of one line.
Left out: observations (`spaces.py`), automatic resets (`vector.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import gymnasium as gym

from logpi.envs.scalars import OLD, flag, number
from logpi.errors import UserError
from logpi.rewards.workers.worker import describe

# types of what a step gives beside the observation
USUAL = (float, bool, bool, dict)


def call_env(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of an environment's method; its exception, with its place, as a UserError."""
    try:
        return call(*args, **options)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"the environment's {call.__name__} failed: {describe(error)}") from error


def with_checks(env: gym.Env) -> gym.Env:
    """The environment with a `CheckedEnv` around its innermost part, added if there is none."""
    outer, inner = None, env
    while isinstance(inner, gym.Wrapper) and not isinstance(inner, CheckedEnv):
        outer, inner = inner, inner.env
    if isinstance(inner, CheckedEnv):
        return env
    if outer is None:
        return CheckedEnv(env)
    outer.env = CheckedEnv(inner)
    return env


class CheckedEnv(gym.Wrapper):
    """See the module's docstring."""

    @cached_property
    def _reset_arguments(self) -> frozenset[str]:
        """Which of `seed` and `options` its reset takes."""
        parameters = inspect.signature(self.env.reset).parameters.values()
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = {p.name for p in parameters}
        return frozenset(n for n in ("seed", "options") if takes_any or n in names)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if "seed" not in self._reset_arguments:
            raise UserError(
                "the environment's reset takes no seed, from which every episode begins: write it"
                f" as reset(self, *, seed=None, options=None), with super().reset(seed=seed); {OLD}"
            )
        arguments = {"seed": seed, "options": options}
        accepted = {k: v for k, v in arguments.items() if k in self._reset_arguments}
        return check_reset(self.env.reset(**accepted))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        # as nearly all environments answer
        if type(result) is tuple and tuple(map(type, result[1:])) == USUAL:
            return result  # type: ignore[return-value]
        obs, reward, terminated, truncated, info = check_step(result)
        return (
            obs,
            number(reward),
            flag(terminated, "terminated"),
            flag(truncated, "truncated"),
            info,
        )


def check_reset(result: Any) -> tuple[Any, dict[str, Any]]:
    """The result of a reset. Raises UserError if it has another form."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        raise UserError(
            f"the environment's reset gave {_shown(result)}, not (observation, info): {OLD}"
        )
    return result


def check_step(result: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """The result of a step. Raises UserError if it has another form."""
    if not isinstance(result, tuple | list) or len(result) != 5 or not isinstance(result[4], dict):
        expected = "(observation, reward, terminated, truncated, info)"
        raise UserError(f"the environment's step gave {_shown(result)}, not {expected}: {OLD}")
    return tuple(result)


def _shown(result: Any) -> str:
    """The types in a result."""
    if not isinstance(result, tuple | list):
        return f"one {type(result).__name__}"
    return f"({', '.join(type(x).__name__ for x in result)})"

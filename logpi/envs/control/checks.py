"""What an environment answers, held to Gymnasium's interface where it enters.

    reset(seed=…)  → observation, info
    step(action)   → observation, reward, terminated, truncated, info

`Border` stands inside of every wrapper. A reward may come in an array of one number, and options
are passed on to nobody who does not take them. What is not of this form (old Gym's four values, a
reset that takes no seed), and what an environment raises, is one line. Left out: observations
(`spaces.py`), and how episodes begin again (`vector.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import gymnasium as gym

from logpi.envs.scalars import OLD, flag, number
from logpi.errors import UserError


def asked(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What an environment's method answers. Raises UserError with what it raised, and where."""
    try:
        return call(*args, **options)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        from logpi.rewards.workers.worker import describe

        raise UserError(f"the environment's {call.__name__} failed: {describe(error)}") from error


def bordered(env: gym.Env) -> gym.Env:
    """The environment with a border around its innermost part, put there if there is none."""
    outer, inner = None, env
    while isinstance(inner, gym.Wrapper) and not isinstance(inner, Border):
        outer, inner = inner, inner.env
    if isinstance(inner, Border):
        return env
    if outer is None:
        return Border(env)
    outer.env = Border(inner)
    return env


class Border(gym.Wrapper):
    """See the module's docstring."""

    @cached_property
    def _takes(self) -> frozenset[str]:
        """Which of `seed` and `options` its reset takes."""
        parameters = inspect.signature(self.env.reset).parameters.values()
        every = any(p.kind is p.VAR_KEYWORD for p in parameters)
        return frozenset(
            n for n in ("seed", "options") if every or n in {p.name for p in parameters}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if "seed" not in self._takes:
            raise UserError(
                "the environment's reset takes no seed, from which every episode begins: write it"
                f" as reset(self, *, seed=None, options=None), with super().reset(seed=seed); {OLD}"
            )
        given = {"seed": seed, "options": options}
        return began(self.env.reset(**{k: v for k, v in given.items() if k in self._takes}))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = stepped(self.env.step(action))
        return (
            obs,
            number(reward),
            flag(terminated, "terminated"),
            flag(truncated, "truncated"),
            info,
        )


def began(answer: Any) -> tuple[Any, dict[str, Any]]:
    """What a reset gave. Raises UserError if it is of another form."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], dict):
        raise UserError(
            f"the environment's reset gave {_shown(answer)}, not (observation, info): {OLD}"
        )
    return answer


def stepped(answer: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """What a step gave. Raises UserError if it is of another form."""
    if not isinstance(answer, tuple | list) or len(answer) != 5 or not isinstance(answer[4], dict):
        expected = "(observation, reward, terminated, truncated, info)"
        raise UserError(f"the environment's step gave {_shown(answer)}, not {expected}: {OLD}")
    return tuple(answer)


def _shown(answer: Any) -> str:
    """What an answer is made of."""
    if not isinstance(answer, tuple | list):
        return f"one {type(answer).__name__}"
    return f"({', '.join(type(x).__name__ for x in answer)})"

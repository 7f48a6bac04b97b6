"""Transitions of vector environments: recorded while a policy acts, checked, and laid out as rows.

Left out: which steps make a batch (`gym.py`), how environments are stepped
(`envs/control/vector.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from logpi.errors import UserError
from logpi.policies.distributions import Bernoulli, Distribution, MultiCategorical
from logpi.policies.mlp import FORBIDDEN
from logpi.types import Batch

if TYPE_CHECKING:
    from logpi.envs.control.vector import VectorEnvironment

Array = np.ndarray
notices = logging.getLogger("logpi")
# [N, *] observations -> action parameters [N, K], actions [N, *]
Choose = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Stream:
    """S steps of N environments in their order.

    Attributes:
        obs: [S, N, *]. params: [S, N, K] of the action distributions. action: [S, N, *].
        after: [S, N, *] the state that followed. reward: [S, N]. terminated, truncated, real: [S,
            N] bool; see `vector.VectorStep`.
    """

    obs: Array
    params: Array
    action: Array
    after: Array
    reward: Array
    terminated: Array
    truncated: Array
    real: Array

    @property
    def over(self) -> Array:
        return (self.terminated | self.truncated) & self.real


def record(
    envs: VectorEnvironment,
    choose: Choose,
    kind: Distribution,
    *,
    steps: int = 0,
    episodes: int = 0,
) -> Stream:
    """Record `steps` steps of every environment, or `episodes` whole episodes of each (every
    environment plays as many, so short episodes are not favoured). It continues until at least one
    step is real."""
    left = np.full(envs.n, episodes)
    records: list[tuple[Array, ...]] = []
    while len(records) < steps or left.any() or not any(real.any() for *_, real in records):
        obs = envs.obs
        params, action = choose(obs)
        s = envs.step(kind.to_env(action), left > 0 if episodes else None)
        records.append((obs, params, action, s.after, s.reward, s.terminated, s.truncated, s.real))
        if episodes:
            left -= (s.terminated | s.truncated) & s.real
    stream = Stream(*(np.stack(x) for x in zip(*records, strict=True)))
    _check(stream, envs.masks, kind)
    return stream


def _check(stream: Stream, masks: int, kind: Distribution) -> None:
    """Refuse steps that no policy can learn from.

    Raises:
        FloatingPointError, UserError: as `check_finite`; or a mask that allows no action.
    """
    check_finite(stream.params, stream.reward, stream.obs, stream.after)
    if masks:
        sizes = kind.sizes if isinstance(kind, MultiCategorical) else (masks,)
        allowed = np.split(stream.obs[stream.real][:, -masks:] > 0.5, np.cumsum(sizes)[:-1], -1)
        if not isinstance(kind, Bernoulli) and not all(x.any(-1).all() for x in allowed):
            raise UserError(
                "the environment's action mask forbids every action in a state where one must be"
                " taken"
            )


def check_finite(params: Array, reward: Array, *observations: Array) -> None:
    """Raises FloatingPointError if the policy's parameters are not finite, UserError if rewards or
    observations are not."""
    # first, for actions that are NaN make an environment's answers NaN too
    if not np.isfinite(params).all():
        raise FloatingPointError(
            "the policy's action parameters are not numbers (NaN or infinite): the weights have"
            " diverged"
        )
    for what, x in (("a reward", reward), *(("an observation", x) for x in observations)):
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            raise UserError(
                f"the environment gave {what} that is not a finite number: mend it, or wrap it in"
                " one that replaces it"
            )


def trial(envs: VectorEnvironment, kind: Distribution, steps: int = 16) -> float:
    """Play a few steps of random actions, to find an environment's faults before any work. Closes
    the environments.

    Returns the seconds of CPU of one environment's step.

    Warns if an episode's first state does not follow from its seed.

    Raises:
        UserError: the environment fails, or returns values that are not of its spaces or not
            finite.
    """
    rng = np.random.default_rng(0)

    def choose(obs: Array) -> tuple[Array, Array]:
        params = np.zeros((envs.n, kind.outputs + kind.free), np.float32)
        if envs.masks:
            params[:, : envs.masks] = np.where(obs[:, -envs.masks :] > 0.5, 0.0, FORBIDDEN)
        return params, kind.sample(params, rng)

    envs.begin(lambda i: i)
    first = envs.obs.copy()
    start = time.process_time()
    record(envs, choose, kind, steps=steps)
    cost = (time.process_time() - start) / (steps * envs.n)
    envs.begin(lambda i: i)
    if not np.array_equal(first, envs.obs, equal_nan=first.dtype.kind == "f"):
        notices.warning(
            "the environment's reset(seed=…) does not decide how an episode begins: groups of one"
            " seed begin differently, and runs do not repeat. Draw from self.np_random, after"
            " super().reset(seed=seed)"
        )
    envs.close()
    return cost


def rows(stream: Stream, kind: Distribution) -> Batch:
    """Split at episode ends and pad; rows in the order of environments, then of time.

    No loop over steps, environments or rows: it works on the K real steps in the order of
    environments. A row ends where an episode does or where its environment's record stops.
    """
    # Two environments of four steps; x: the last of an episode, ·: a reset, which is no step.
    #
    #     keep      a₀ a₁x · a₃      b₀ b₁ b₂x b₃
    #     row       0  0     1       2  2  2   3      cumsum of the ends before it
    #     column    0  1     0       0  1  2   0      place in its row
    keep = stream.real.T
    steps = np.arange(keep.shape[1])
    last = np.where(keep, steps, -1).max(1)
    end = (stream.over.T | (steps == last[:, None]))[keep]
    row = np.cumsum(end) - end
    start = np.concatenate([[0], np.flatnonzero(end)[:-1] + 1])
    column = np.arange(len(row)) - start[row]
    b, t = int(row[-1]) + 1, int(column.max()) + 1

    def by_environment(x: Array) -> Array:
        return x.swapaxes(0, 1)[keep]

    def place(x: Array, width: int = t) -> Array:
        out = np.zeros((b, width, *x.shape[1:]), x.dtype)
        out[row, column] = x
        return out

    obs = place(by_environment(stream.obs), t + 1)
    obs[np.arange(b), column[end] + 1] = by_environment(stream.after)[end]
    action = torch.from_numpy(by_environment(stream.action))
    with torch.no_grad():
        logp = kind.logp(torch.from_numpy(by_environment(stream.params)), action).numpy()
    fields = dict(
        obs=obs,
        action=place(action.numpy()),
        mask=place(np.ones(len(row), bool)),
        reward=place(by_environment(stream.reward)),
        terminated=by_environment(stream.terminated)[end],
        group=np.arange(b),
        logp=place(logp),
    )
    return Batch(**{k: torch.from_numpy(v) for k, v in fields.items()})

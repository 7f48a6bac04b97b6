"""Rollouts from Gymnasium: transitions in, rows of a `Batch` out.

    Fragments(envs, policy, steps=128)     a fixed number of steps of every environment, cut where
                                           the batch ends (A2C, TRPO, PPO)
    Episodes(envs, policy, episodes=16)    whole episodes, and groups of them from one reset seed
                                           (REINFORCE, GRPO, RLOO)

While acting only the actor runs. Log-probabilities of the actions are computed once for the whole
batch, from the recorded action parameters; values come from the learner. Every row is one episode
or a piece of one: time-outs and cut-offs keep the state that followed them and `terminated` False,
so a critic bootstraps there and nowhere else. Left out: resets (`envs/control/vector.py`),
recording (`transitions.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from logpi.errors import UserError
from logpi.ops.moments import merge
from logpi.ops.selection import Bootstrap, KeepAll
from logpi.rollouts.collate import collate
from logpi.rollouts.transitions import Array, Choose, Stream, check_finite, record, rows
from logpi.types import Batch, Collected, Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.algorithms import Algorithm
    from logpi.envs.control.vector import VectorEnvironment
    from logpi.policies.distributions import Distribution
    from logpi.policies.mlp import ActorCritic


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return, and clips them
    (as VecNormalize and the 37 details of PPO do).

    Attributes:
        gamma: discount of that return. clip: in units of the scaled reward.
    """

    def __init__(self, gamma: float, clip: float = 10.0) -> None:
        self.gamma, self.clip = gamma, clip
        self.moments: tuple[float, float, float] = (0.0, 1.0, 0.0)
        self.running: Array | None = None

    def __call__(self, stream: Stream) -> Stream:
        total = np.zeros(stream.reward.shape[1]) if self.running is None else self.running
        totals = np.empty_like(stream.reward, dtype=np.float64)
        for t, (reward, over) in enumerate(
            zip(stream.reward * stream.real, stream.over, strict=True)
        ):
            totals[t] = total = self.gamma * total + reward
            total = np.where(over, 0.0, total)
        self.running, real = total, totals[stream.real]
        self.moments = merge(*self.moments, float(real.mean()), float(real.var()), len(real))
        return replace(stream, reward=self.scaled(stream.reward))

    def scaled(self, reward: Array) -> Array:
        """Rewards [*] in the unit of the moments so far."""
        return np.clip(reward / np.sqrt(self.moments[1] + 1e-8), -self.clip, self.clip).astype(
            np.float32
        )

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments, "running": self.running}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments, self.running = tuple(state["moments"]), state["running"]


def selected(batch: Batch, algorithm: Algorithm) -> Batch:
    """The batch with the algorithm's `truncation` for rows that a time limit cut off, and without
    the groups that it does not keep.

    Raises:
        UserError: no group is left.
    """
    if algorithm.keep == KeepAll() and algorithm.truncation == Bootstrap():
        return batch
    groups: dict[int, list[Trajectory]] = {}
    for i in range(len(batch)):
        row = _trajectory(batch, i)
        row = row if row.terminated else algorithm.truncation(row)
        groups.setdefault(row.group, []).append(row)
    kept = [row for group in groups.values() if algorithm.keep(group) for row in group]
    if not kept:
        raise UserError(f"{algorithm.keep} kept none of the {len(groups)} groups of a batch")
    return collate(kept)


def _trajectory(batch: Batch, i: int) -> Trajectory:
    n = int(batch.mask[i].sum())
    return Trajectory(
        obs=batch.obs[i, : n + 1],
        action=batch.action[i, :n],
        mask=batch.mask[i, :n],
        reward=batch.reward[i, :n],
        logp=batch.logp[i, :n],
        terminated=bool(batch.terminated[i]),
        group=int(batch.group[i]),
        baseline=None if batch.baseline is None else float(batch.baseline[i]),
    )


class _GymRollout(ABC):
    """Shared by both rollouts: acting, statistics of episodes and observations, state."""

    def __init__(
        self,
        envs: VectorEnvironment,
        policy: ActorCritic,
        *,
        seed: int = 0,
        scale: RewardScale | None = None,
    ) -> None:
        self.envs, self.policy, self.scale = envs, policy, scale
        self.kind = policy.kind
        self._act = policy.actor()
        self._chance, self._starts = (
            np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2)
        )
        # moments of the last batch, for the normalisation
        self._seen: tuple[Array, Array, int] | None = None
        self._return, self._length = np.zeros(envs.n), np.zeros(envs.n)
        self._recent: deque[float] = deque(maxlen=100)

    def __call__(self) -> Collected:
        # before sampling, not after: the policy that samples must be the one that learns
        if self._seen is not None:
            self.policy.observe(*self._seen)
        stream = self._record()
        metrics = self._count(stream)
        if self.policy.normalizer is not None:
            features = stream.obs[stream.real][:, : self.envs.features].astype(np.float64)
            self._seen = features.mean(0), features.var(0), len(features)
        return Collected(
            self._batch(rows(stream if self.scale is None else self.scale(stream), self.kind)),
            metrics,
        )

    @abstractmethod
    def _record(self) -> Stream: ...

    def _batch(self, batch: Batch) -> Batch:
        return batch

    def _sample(self, obs: Array) -> tuple[Array, Array]:
        params = self._act(obs)
        return params, self.kind.sample(params, self._chance)

    def _greedy(self, obs: Array) -> tuple[Array, Array]:
        params = self._act(obs)
        return params, self.kind.mode(params)

    def _draw(self, i: int) -> int:
        return int(self._starts.integers(2**31))

    def _count(self, stream: Stream) -> dict[str, float]:
        """Returns and lengths of the episodes that ended, in the environment's own rewards."""
        returns, lengths = [], []
        for reward, over, real in zip(stream.reward, stream.over, stream.real, strict=True):
            self._return += reward * real
            self._length += real
            if over.any():
                returns += self._return[over].tolist()
                lengths += self._length[over].tolist()
                self._return[over] = self._length[over] = 0.0
        self._recent.extend(returns)
        out = {"num_tokens": float(stream.real.sum()), "episodes": float(len(returns))}
        if returns:
            out |= {"reward": float(np.mean(returns)), "episode_length": float(np.mean(lengths))}
        if self._recent:
            out["reward_100"] = float(np.mean(self._recent))
        return out

    def state_dict(self) -> dict[str, Any]:
        return {
            "chance": self._chance.bit_generator.state,
            "starts": self._starts.bit_generator.state,
            "seen": self._seen,
            "return": self._return.copy(),
            "length": self._length.copy(),
            "recent": list(self._recent),
            "scale": None if self.scale is None else self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._chance.bit_generator.state, self._starts.bit_generator.state = (
            state["chance"],
            state["starts"],
        )
        self._seen = None if state["seen"] is None else tuple(state["seen"])
        self._return, self._length = state["return"].copy(), state["length"].copy()
        self._recent = deque(state["recent"], maxlen=100)
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])


class Fragments(_GymRollout):
    """A fixed number of steps of every environment; episodes continue in the next batch.

    Args:
        envs: the environments. policy: acts, with its weights of the moment. steps: of each
            environment in a batch.
        algorithm: learns from the batches; None: no checks.
        seed: of actions and episodes. scale: scales the batch's rewards, or None.

    Raises:
        UserError: an algorithm that needs whole episodes.
    """

    def __init__(
        self,
        envs: VectorEnvironment,
        policy: ActorCritic,
        *,
        steps: int,
        algorithm: Algorithm | None = None,
        seed: int = 0,
        scale: RewardScale | None = None,
    ) -> None:
        super().__init__(envs, policy, seed=seed, scale=scale)
        if algorithm is not None:
            _check_fragments(algorithm)
        self.steps, self._begun = steps, False

    def _record(self) -> Stream:
        if not self._begun:
            self.envs.begin(self._draw)
            self._begun = True
        return record(self.envs, self._sample, self.kind, steps=self.steps)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"envs": self.envs.state_dict() if self._begun else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._begun = state["envs"] is not None
        if self._begun:
            self.envs.load_state_dict(state["envs"], self._draw)


def _check_fragments(algorithm: Algorithm) -> None:
    if not algorithm.objective.fragments:
        raise UserError(f"{algorithm.name} learns from whole episodes, not from fragments")
    if algorithm.keep != KeepAll() or algorithm.truncation != Bootstrap():
        raise UserError(
            f"{algorithm.name} learns from fragments, which end where a batch does: there are no"
            f" groups to keep and no rows to cut ({algorithm.keep}, {algorithm.truncation})"
        )


class Episodes(_GymRollout):
    """Whole episodes, the same number in every environment; `group` of them begin from one reset
    seed.

    Args:
        episodes: in a batch, a multiple of the environments and of `group`.
        group: G, episodes from each seed, which group baselines compare; 1: no groups.
        algorithm: chooses the groups to keep, what becomes of episodes that a time limit cut off,
            and whether each seed is also played greedily for a baseline (ReMax). None: all
            episodes stay as they are.

    Raises:
        UserError: numbers that do not divide; groups or greedy episodes without seeds (the
            vectorised form has none); a group smaller than the algorithm compares.
    """

    def __init__(
        self,
        envs: VectorEnvironment,
        policy: ActorCritic,
        *,
        episodes: int,
        group: int = 1,
        algorithm: Algorithm | None = None,
        seed: int = 0,
        scale: RewardScale | None = None,
    ) -> None:
        super().__init__(envs, policy, seed=seed, scale=scale)
        if algorithm is not None:
            _check_episodes(algorithm, group)
        greedy = algorithm is not None and algorithm.objective.needs_greedy
        if episodes % envs.n or episodes % group:
            raise UserError(
                f"{episodes} episodes must be a multiple of the {envs.n} environments and of the"
                f" group of {group}"
            )
        if (group > 1 or greedy) and not envs.seeded:
            raise UserError(
                "groups begin from one reset seed, which the vectorised form cannot do for one"
                " environment: leave --vectorized off"
            )
        self.episodes, self.group, self.greedy = episodes, group, greedy
        self.algorithm = algorithm
        # seeds of the batch under way
        self._seeds: Array = np.zeros(0, np.int64)

    def _record(self) -> Stream:
        self._seeds = self._starts.integers(2**31, size=self.episodes // self.group)
        _begin(self.envs, self._seeds.repeat(self.group).reshape(self.envs.n, -1))
        return record(self.envs, self._sample, self.kind, episodes=self.episodes // self.envs.n)

    def _batch(self, batch: Batch) -> Batch:
        batch = replace(batch, group=torch.arange(len(batch)) // self.group)
        if self.greedy:
            batch = replace(batch, baseline=self._baseline())
        return batch if self.algorithm is None else selected(batch, self.algorithm)

    def _baseline(self) -> Tensor:
        """[B] the greedy episode's return from each row's seed, in the unit of the rewards."""
        unit = None if self.scale is None else self.scale.scaled
        returns = play(self.envs, self._greedy, self.kind, self._seeds.tolist(), unit)
        return torch.from_numpy(returns.repeat(self.group)).float()


def _check_episodes(algorithm: Algorithm, group: int) -> None:
    if algorithm.keep.refill:
        raise UserError(
            f"{algorithm.name} samples further prompts in place of some groups, which environments"
            " do not have: use grpo or dr_grpo"
        )
    if group < algorithm.objective.min_group:
        raise UserError(
            f"{algorithm.name} compares episodes of one reset seed: group must be at least"
            f" {algorithm.objective.min_group}, not {group}"
        )


def _begin(envs: VectorEnvironment, seeds: Array) -> None:
    """Begin the episodes of `seeds` [N, *], one row for each environment."""
    plan = [iter(row) for row in seeds.tolist()]
    envs.begin(lambda i: next(plan[i], None))


def play(
    envs: VectorEnvironment,
    choose: Choose,
    kind: Distribution,
    seeds: list[int],
    unit: Callable[[Array], Array] | None = None,
) -> Array:
    """Play one episode from each seed (a vectorised form takes only the first seed). Returns their
    returns [len(seeds)].

    It records no steps: episodes of pixels may be long.

    Args:
        unit: scales rewards [*] before they are added up.
    """
    n, rounds = envs.n, -(-len(seeds) // envs.n)
    # the last round repeats seeds, for environments that would be idle
    _begin(envs, np.resize(np.array(seeds), n * rounds).reshape(rounds, n).T)
    totals, done, column = np.zeros((rounds, n)), np.zeros(n, np.int64), np.arange(n)
    while (playing := done < rounds).any():
        obs, (params, action) = envs.obs, choose(envs.obs)
        step = envs.step(kind.to_env(action), playing)
        check_finite(params, step.reward, obs)
        reward = step.reward if unit is None else unit(step.reward)
        totals[np.minimum(done, rounds - 1), column] += np.where(step.real, reward, 0.0)
        done += (step.terminated | step.truncated) & step.real
    return totals.ravel()[: len(seeds)]

"""Environments small enough to know everything about, and a minimal loop."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch

from logpi import AdamW, Learner, algorithm
from logpi.envs.control.spaces import action_kind
from logpi.envs.control.vector import SyncVectorEnvironment
from logpi.policies.mlp import ActorCritic, mlp
from logpi.rollouts.gym import Episodes, Fragments, play
from logpi.updates.sgd import SGD, Actions


class Count(gym.Env):
    """Observation: steps so far (and the episode's number). Ends after `length` steps; every other
    episode by a time-out."""

    def __init__(self, length: int = 3) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.length, self.episode, self.t = length, -1, 0

    def _obs(self) -> np.ndarray:
        return np.array([self.t, self.episode], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        timed = over and self.episode % 2 == 1
        return self._obs(), float(self.t), over and not timed, timed, {}


class Identity(gym.Env):
    """Right is to do what is seen (Stable-Baselines3's test environment): reward 1, or 1 −
    distance² for a Box; 100 steps."""

    def __init__(self, space: gym.Space) -> None:
        self.action_space = self.observation_space = space

    def _draw(self):
        self.t += 1
        self.state = self.action_space.sample()
        return self.state

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.action_space.seed(seed)
        self.t = -1
        return self._draw(), {}

    def step(self, action):
        if isinstance(self.action_space, gym.spaces.Box):
            reward = float(np.all(np.abs(action - self.state) <= 0.5))
        else:
            reward = float(np.all(action == self.state))
        return self._draw(), reward, False, self.t >= 100, {}


class Ring(gym.Env):
    """Four states in a ring, reward 1 for every step, for ever: the true value is 1/(1 − γ).
    Time-outs end episodes early."""

    observation_space = gym.spaces.Discrete(4)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.state = 0
        return self.state, {}

    def step(self, action):
        self.state = (self.state + (1 if action == 1 else -1)) % 4
        return self.state, 1.0, False, False, {}


def envs_of(make, n: int) -> SyncVectorEnvironment:
    return SyncVectorEnvironment([make() for _ in range(n)])


def control(  # noqa: PLR0913 (settings, all keywords)
    envs,
    name: str,
    *,
    steps=0,
    episodes=0,
    group=1,
    updates=1,
    lr=1e-3,
    seed=0,
    hidden=(64, 64),
    epochs=1,
    minibatches=1,
    squash=False,
    log_std=0.0,
    normalize=False,
    **options,
):
    """A rollout and a learner, ready to go."""
    torch.manual_seed(seed)
    made = algorithm(name, **options)
    if isinstance(made.update, SGD):
        shuffle = {"shuffle": Actions()} if minibatches > 1 else {}
        made = algorithm(name, **options, update=SGD(epochs, minibatches, None, 0.5, **shuffle))
    else:
        made = algorithm(name, **{"critic": SGD(5, 1, None, None)} | options)
    policy = mlp(
        envs.features,
        action_kind(envs.action, squash),
        hidden=hidden,
        masks=envs.masks,
        log_std=log_std,
        critic=made.objective.needs_critic,
        normalize=normalize,
    )
    learner = Learner(
        policy, made, AdamW(lr, betas=(0.9, 0.999), eps=1e-5), total=updates, seed=seed
    )
    if steps:
        return Fragments(envs, policy, steps=steps, seed=seed), learner
    return Episodes(
        envs, policy, episodes=episodes, group=group, algorithm=made, seed=seed
    ), learner


def score(policy: ActorCritic, envs, episodes: int = 20, seed: int = 10_000) -> float:
    """Mean return of the greedy policy on fresh seeds."""
    act = policy.actor()

    def choose(obs):
        params = act(obs)
        return params, policy.kind.mode(params)

    return float(play(envs, choose, policy.kind, list(range(seed, seed + episodes))).mean())

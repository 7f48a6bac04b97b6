"""Vector environments: N environments stepped together. The one place that knows about automatic
resets.

    envs = make_vector_environment("CartPole-v1", 8)     # make.py
    envs.begin(next_seed)                                # every environment starts an episode
    step = envs.step(actions)

`step.after` holds the states that followed, `envs.obs` the states to act on next. They differ where
an episode ends, here for one environment whose episode is s0 s1 s2 and whose next one is r0 r1:

    call of step    obs before   after    obs next   terminated
    1               s0           s1       s1         False
    2               s1           s2       r0         True        s2: a critic may look at it
    3               r0           r1       r1         False       r0: the policy acts on it

`SyncVectorEnvironment` steps single environments in turn; `processes.py` shares expensive ones out
among processes. Each episode begins from a seed, so seed and actions reproduce it, and a run
resumes exactly. `GymnasiumVectorEnvironment` wraps a `gymnasium.vector.VectorEnv`, such as an
environment's own vectorised form, in either autoreset mode. Observations are checked and copied
(`checks.py`, `spaces.checked_observation`). Left out: making environments (`make.py`), recording
steps (`rollouts/transitions.py`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from logpi.envs.control.checks import call_env, check_reset, check_step, with_checks
from logpi.envs.control.spaces import (
    MASK,
    checked_observation,
    encode,
    encoded_shape,
    is_image,
    mask_size,
    stack,
)
from logpi.envs.scalars import OLD, number
from logpi.errors import UserError

Array = np.ndarray
NextSeed = Callable[[int], int | None]
"""Number of an environment → seed of its next episode; None: no further episode."""
notices = logging.getLogger("logpi")
DIFFERS = (
    "the environment does not repeat itself from seed and actions: new episodes begin, so this run"
    " goes on, but not bit for bit"
)


@dataclass(frozen=True)
class VectorStep:
    """One step of all environments.

    Attributes:
        after: [N, *] the state that followed; of an ended episode its last state, never the next
            one's first.
        reward: [N], in units of return. terminated, truncated: [N] bool.
        real: [N] bool, False where nothing was stepped: an idle environment, or one that spent the
            call on a reset.
    """

    after: Array
    reward: Array
    terminated: Array
    truncated: Array
    real: Array


class VectorEnvironment(ABC):
    """See the module's docstring.

    Attributes:
        n: number of environments.
        obs: [N, *] encoded, for the next actions. observation, action: the single spaces.
        masks: bits of allowed actions at the end of an observation. seeded: every episode begins
            from a seed of its own. processes: that step them.
    """

    n: int
    obs: Array
    observation: gym.Space
    action: gym.Space
    masks: int
    seeded: bool
    processes: int = 1

    @property
    def features(self) -> int:
        """Numbers of an encoded observation before the mask's bits."""
        return int(np.prod(self.obs.shape[1:])) - self.masks

    @property
    def image(self) -> bool:
        return is_image(self.observation)

    def _set_masks(self, bits: int) -> None:
        """Where the mask is: in the observation, or else in the `info`, whose mask has so many bits
        for each environment.

        Raises:
            UserError: the observation is an image.
        """
        own = mask_size(self.observation)
        self._info_mask = bits > 0 and not own
        self.masks = bits if self._info_mask else own
        if self.masks and self.image:
            raise UserError(
                f"pixels with an {MASK} are not supported: wrap the environment in one that leaves"
                " either out"
            )

    def _acted(self, action: Array) -> Array:
        """The actions in the number type of the action space."""
        space = self.action
        if not isinstance(space, gym.spaces.Box) or action.dtype == space.dtype:
            return action
        return np.clip(action.astype(space.dtype), space.low, space.high)

    @abstractmethod
    def begin(self, next_seed: NextSeed) -> None:
        """Start an episode in every environment. Where `seeded`, later episodes take their seeds
        from `next_seed` too."""

    @abstractmethod
    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        """One action [N, *] in every environment, or in the active ones [N] bool only."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""


def drawn(next_seed: NextSeed, places: Iterable[int]) -> dict[int, int]:
    """The seeds of the next episodes at these places, drawn in their order."""
    seeds = ((i, next_seed(i)) for i in places)
    return {i: seed for i, seed in seeds if seed is not None}


class SyncVectorEnvironment(VectorEnvironment):
    """Single environments, one after the other."""

    seeded = True

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        self.envs, self.n = list(envs), len(envs)
        self._checked = [with_checks(e) for e in envs]
        self.observation, self.action = _spaces(envs[0])
        if any(_spaces(e) != (self.observation, self.action) for e in envs[1:]):
            raise UserError(
                "copies of the environment have different spaces: one policy cannot act in all of"
                " them"
            )
        shape = encoded_shape(self.observation)
        _, info = call_env(self._checked[0].reset, seed=0)
        self._set_masks(np.asarray(info.get(MASK, ())).size)
        if self._info_mask:
            shape = (shape[0] + self.masks,)
        self.obs = np.zeros((self.n, *shape), np.uint8 if self.image else np.float32)
        # Of each environment: its encoded row, where that is the observation's own numbers, else
        # (observation, mask), which are encoded together.
        own = isinstance(self.observation, gym.spaces.Box) and not self.image
        self._rows = self.obs.copy() if own and not self._info_mask else None
        self._raw: list[Any] = [None] * self.n
        self._seeds: list[int] = [0] * self.n
        self._actions: list[list[Any]] = [[] for _ in envs]

    def begin(self, next_seed: NextSeed) -> None:
        self._next_seed = next_seed
        self.restart(drawn(next_seed, range(self.n)))

    def restart(self, seeds: Mapping[int, int]) -> Array:
        """Begin the episodes of these seeds in these environments; the observations of all."""
        for i, seed in seeds.items():
            self._keep(i, *call_env(self._checked[i].reset, seed=seed))
            self._seeds[i], self._actions[i] = seed, []
        self.obs = self._encoded()
        return self.obs

    def _keep(self, i: int, obs: Any, info: dict[str, Any]) -> None:
        """The observation of one environment, checked and copied."""
        if self._rows is None:
            self._raw[i] = self._copied(obs, info)
        elif (
            type(obs) is np.ndarray and obs.shape == self._rows.shape[1:] and obs.dtype.kind == "f"
        ):
            self._rows[i] = obs
        else:
            self._rows[i] = checked_observation(self.observation, obs).ravel()

    def _copied(self, obs: Any, info: dict[str, Any]) -> tuple[Any, Array | None]:
        """Observation and mask of one environment, checked and copied."""
        bits = None
        if self._info_mask:
            # the mask may be missing at an episode's end
            bits = np.array(info.get(MASK, np.ones(self.masks)), np.float32).ravel()
            if bits.size != self.masks:
                raise UserError(
                    f"the {MASK} had {self.masks} bits at first and has {bits.size} now"
                )
        return checked_observation(self.observation, obs), bits

    def _encoded(self) -> Array:
        if self._rows is not None:
            return self._rows.copy()
        x = encode(self.observation, stack(self.observation, [obs for obs, _ in self._raw]))
        return (
            np.concatenate([x, np.stack([bits for _, bits in self._raw])], -1)
            if self._info_mask
            else x
        )

    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        step = self.advance(action, active)
        over = step.terminated | step.truncated
        if over.any():
            self.restart(drawn(self._next_seed, np.flatnonzero(over).tolist()))
        return step

    def advance(self, action: Array, active: Array | None = None) -> VectorStep:
        """A step without what follows an episode's end."""
        reward = np.zeros(self.n, np.float32)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        real = np.ones(self.n, bool) if active is None else active.copy()
        action = self._acted(action)
        choices = action.tolist() if action.ndim == 1 else action
        for i in range(self.n) if active is None else np.flatnonzero(active).tolist():
            choice = choices[i]
            obs, value, terminated[i], truncated[i], info = call_env(self._checked[i].step, choice)
            self._keep(i, obs, info)
            # checked again: a wrapper around the checks may have changed the reward
            reward[i] = value if type(value) is float else number(value)
            self._actions[i].append(choice)
        self.obs = self._encoded()
        return VectorStep(self.obs, reward, terminated, truncated, real)

    def state_dict(self) -> dict[str, Any]:
        """Seed and actions of every episode under way, which determine its state."""
        return {
            "seeds": list(self._seeds),
            "actions": [np.array(a) for a in self._actions],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None:
        """Replay the episodes under way. An environment that does not repeat itself begins new
        ones, with a warning."""
        self._next_seed = next_seed
        if not np.array_equal(self.replay(state), state["obs"]):
            notices.warning(DIFFERS)
            self.begin(next_seed)

    def replay(self, state: dict[str, Any]) -> Array:
        """The observations after the episodes under way were played again."""
        for i, env in enumerate(self._checked):
            self._seeds[i] = int(state["seeds"][i])
            self._keep(i, *call_env(env.reset, seed=self._seeds[i]))
            actions = state["actions"][i]
            self._actions[i] = actions.tolist() if actions.ndim == 1 else list(actions)
            for choice in self._actions[i]:
                obs, _, _, _, info = call_env(env.step, choice)
                self._keep(i, obs, info)
        self.obs = self._encoded()
        return self.obs

    def close(self) -> None:
        for env in self.envs:
            env.close()


class GymnasiumVectorEnvironment(VectorEnvironment):
    """A vector environment of Gymnasium's, which begins its episodes itself.

    The episodes of the module's example, s0 s1 s2 and r0 r1, in both autoreset modes:

        mode        call   it returns              after   obs next   real
        SAME_STEP   2      r0, final_obs: s2       s2      r0         True
        NEXT_STEP   2      s2                      s2      s2         True
                    3      r0 (spent on a reset)   r0      r0         False: no row is made of it

    Raises:
        UserError: the environment has automatic resets disabled.
    """

    seeded = False

    def __init__(self, env: VectorEnv) -> None:
        self.env, self.n = env, env.num_envs
        self.observation, self.action = env.single_observation_space, env.single_action_space
        self._shape = encoded_shape(self.observation)
        self.mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if self.mode == AutoresetMode.DISABLED:
            raise UserError(
                "the vector environment has autoreset disabled; use SAME_STEP or NEXT_STEP"
            )
        self._over = np.zeros(self.n, bool)
        raw, info = check_reset(call_env(env.reset, seed=0))
        self._set_masks(np.asarray(info[MASK][0]).size if MASK in info else 0)
        self.obs = self._encoded(raw, info)

    def _encoded(self, raw: Any, info: dict[str, Any]) -> Array:
        # A copy: some environments return their own buffer.
        x = encode(self.observation, raw).copy()
        if x.shape[1:] != self._shape:
            raise UserError(
                f"the vector environment gave observations of shape {x.shape[1:]}, and announces"
                f" {self._shape}"
            )
        if not self._info_mask:
            return x
        bits = np.stack([np.asarray(b, np.float32).ravel() for b in info[MASK]])
        return np.concatenate([x, bits], -1)

    def begin(self, next_seed: NextSeed) -> None:
        self.obs = self._encoded(*check_reset(call_env(self.env.reset, seed=next_seed(0))))
        self._over = np.zeros(self.n, bool)

    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        raw, reward, terminated, truncated, info = check_step(
            call_env(self.env.step, self._acted(action))
        )
        if {np.shape(x) for x in (reward, terminated, truncated)} != {(self.n,)}:
            raise UserError(
                f"the vector environment's rewards, terminated and truncated are not of {self.n}"
                " numbers each"
            )
        obs = self._encoded(raw, info)
        over = terminated | truncated
        real = np.ones(self.n, bool)
        after = obs
        if self.mode == AutoresetMode.NEXT_STEP:
            real = ~self._over
        elif over.any():
            ended = np.flatnonzero(over)
            if "final_obs" not in info:
                raise UserError(
                    "the vector environment says SAME_STEP, and gives no final_obs in its info"
                    " where episodes end"
                )
            last = self._encoded(
                stack(self.observation, [info["final_obs"][i] for i in ended]),
                _final_info(info, ended),
            )
            after = obs.copy()
            after[ended] = last
        self.obs, self._over = obs, over
        return VectorStep(
            after,
            np.asarray(reward, np.float32),
            terminated,
            truncated,
            real if active is None else real & active,
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None:
        notices.warning(
            "a vectorised environment's state cannot be saved: new episodes begin, so this run goes"
            " on, but not bit for bit (the synchronous form can)"
        )
        self.begin(next_seed)

    def close(self) -> None:
        self.env.close()


def _spaces(env: gym.Env) -> tuple[gym.Space, gym.Space]:
    """The spaces of observations and actions. Raises UserError if they are not Gymnasium's."""
    observation, action = (
        getattr(env, name, None) for name in ("observation_space", "action_space")
    )
    if not isinstance(observation, gym.Space) or not isinstance(action, gym.Space):
        raise UserError(
            "the environment's observation_space and action_space must be spaces of Gymnasium's,"
            f" not {(observation, action)}: {OLD}"
        )
    return observation, action


def _final_info(info: dict[str, Any], ended: Array) -> dict[str, Any]:
    return {MASK: info["final_info"][MASK][ended]} if MASK in info.get("final_info", {}) else {}

"""N copies of an environment, stepped together; the one place that knows how episodes begin again.

    envs = make_vector_environment("CartPole-v1", 8)
    envs.begin(next_seed)                 # every environment starts an episode
    step = envs.step(actions)             # step.after: the true next states; envs.obs: what is acted on next

`SyncVectorEnvironment` steps single environments one after the other (asynchronous processes are
ten times slower on cheap ones). Each episode begins from a seed, so what happened is known from the
seed and the actions, and is how a run resumes exactly. `GymnasiumVectorEnvironment` wraps a
`gymnasium.vector.VectorEnv`, the environment's own vectorised form among them, in either autoreset
mode. Everything that an environment gives is checked and copied as it comes (`checks.py`,
`spaces.taken`). What is recorded of the steps is not here (`rollouts/gym.py`).
"""

from __future__ import annotations

import difflib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from logpi.envs.control.checks import asked, began, bordered, stepped
from logpi.envs.control.spaces import MASK, encode, encoded_shape, is_image, mask_size, stack, taken
from logpi.envs.scalars import OLD, number
from logpi.errors import UserError

Array = np.ndarray
NextSeed = Callable[
    [int], int | None
]  # environment's number -> seed of its next episode, None for no further one
notices = logging.getLogger("logpi")


@dataclass(frozen=True)
class VectorStep:
    """One step of all environments.

    Attributes:
        after: [N, *] the state that followed; of an ended episode its last state, never the next
            one's first.
        reward: [N]. terminated, truncated: [N] bool.
        real: [N] bool, False where nothing was stepped: an idle environment, or a vector environment that
            spent the call on a reset.
    """

    after: Array
    reward: Array
    terminated: Array
    truncated: Array
    real: Array


class VectorEnvironment(ABC):
    """See the module's docstring.

    Attributes:
        n: number of environments. obs: [N, *] encoded, what is acted on next. observation, action: the
            single spaces.
        masks: bits of allowed actions at the end of an observation. seeded: every episode begins
            from a seed of its own.
    """

    n: int
    obs: Array
    observation: gym.Space
    action: gym.Space
    masks: int
    seeded: bool

    @property
    def features(self) -> int:
        """Numbers of an encoded observation before the mask's bits."""
        return int(np.prod(self.obs.shape[1:])) - self.masks

    @property
    def image(self) -> bool:
        return is_image(self.observation)

    def _refuse_masked_images(self) -> None:
        if self.masks and self.image:
            raise UserError(
                f"pixels with an {MASK} are not supported: wrap the environment in one that leaves"
                " either out"
            )

    def _acted(self, action: Array) -> Array:
        """The actions in the numbers of the environment's own space, which may be finer than the
        policy's."""
        space = self.action
        if not isinstance(space, gym.spaces.Box) or action.dtype == space.dtype:
            return action
        return np.clip(action.astype(space.dtype), space.low, space.high)

    @abstractmethod
    def begin(self, next_seed: NextSeed) -> None:
        """Start an episode in every environment; later ones take their seeds from `next_seed` too, if
        `seeded`."""

    @abstractmethod
    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        """One action [N, *] in every environment, or in the active ones [N] bool only."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Free what the environments hold."""


class SyncVectorEnvironment(VectorEnvironment):
    """Single environments, one after the other."""

    seeded = True

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        self.envs, self.n = list(envs), len(envs)
        self._played = [bordered(e) for e in envs]
        self.observation, self.action = _spaces(envs[0])
        if any(_spaces(e) != (self.observation, self.action) for e in envs[1:]):
            raise UserError(
                "copies of the environment have different spaces: one policy cannot act in all of"
                " them"
            )
        own = mask_size(self.observation)
        shape = encoded_shape(self.observation)
        _, info = asked(self._played[0].reset, seed=0)
        self._info_mask = MASK in info and not own
        self.masks = np.asarray(info[MASK]).size if self._info_mask else own
        self._refuse_masked_images()
        if self._info_mask:
            shape = (shape[0] + self.masks,)
        self.obs = np.zeros((self.n, *shape), np.uint8 if self.image else np.float32)
        self._raw: list[Any] = [None] * self.n  # (observation, mask) of each environment
        self._seeds: list[int] = [0] * self.n
        self._actions: list[list[Any]] = [[] for _ in envs]

    def begin(self, next_seed: NextSeed) -> None:
        self._next_seed = next_seed
        for i in range(self.n):
            self._reset(i)
        self.obs = self._encoded()

    def _reset(self, i: int) -> None:
        seed = self._next_seed(i)
        if seed is None:
            return
        self._raw[i] = self._taken(*asked(self._played[i].reset, seed=seed))
        self._seeds[i], self._actions[i] = seed, []

    def _taken(self, obs: Any, info: dict[str, Any]) -> tuple[Any, Array | None]:
        """Observation and mask of one environment, checked and copied."""
        bits = None
        if self._info_mask:  # an environment may say nothing where no action follows
            bits = np.array(info.get(MASK, np.ones(self.masks)), np.float32).ravel()
            if bits.size != self.masks:
                raise UserError(
                    f"the {MASK} had {self.masks} bits at first and has {bits.size} now"
                )
        return taken(self.observation, obs), bits

    def _encoded(self) -> Array:
        x = encode(self.observation, stack(self.observation, [obs for obs, _ in self._raw]))
        return (
            np.concatenate([x, np.stack([bits for _, bits in self._raw])], -1)
            if self._info_mask
            else x
        )

    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        reward = np.zeros(self.n, np.float32)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        real = np.ones(self.n, bool) if active is None else active.copy()
        action = self._acted(action)
        choices = action.tolist() if action.ndim == 1 else action
        for i in range(self.n) if active is None else np.flatnonzero(active).tolist():
            choice = choices[i]
            obs, given, terminated[i], truncated[i], info = asked(self._played[i].step, choice)
            self._raw[i], reward[i] = (
                self._taken(obs, info),
                number(given),
            )  # a wrapper may have changed it
            self._actions[i].append(choice)
        after = self._encoded()
        over = terminated | truncated
        if over.any():
            for i in np.flatnonzero(over).tolist():
                self._reset(i)
            self.obs = self._encoded()
        else:
            self.obs = after
        return VectorStep(after, reward, terminated, truncated, real)

    def state_dict(self) -> dict[str, Any]:
        """Seed and actions of every episode under way: they are the environment's state, if it is a
        function of them."""
        return {
            "seeds": list(self._seeds),
            "actions": [np.array(a) for a in self._actions],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: dict[str, Any], next_seed: NextSeed) -> None:
        """Play the episodes under way again, up to where they were."""
        self._next_seed = next_seed
        for i, env in enumerate(self._played):
            self._seeds[i] = int(state["seeds"][i])
            self._raw[i] = self._taken(*asked(env.reset, seed=self._seeds[i]))
            actions = state["actions"][i]
            self._actions[i] = actions.tolist() if actions.ndim == 1 else list(actions)
            for choice in self._actions[i]:
                obs, _, _, _, info = asked(env.step, choice)
                self._raw[i] = self._taken(obs, info)
        self.obs = self._encoded()
        if not np.array_equal(self.obs, state["obs"]):
            notices.warning(
                "the environment does not repeat itself from seed and actions: new episodes begin,"
                " so this run goes on, but not bit for bit"
            )
            self.begin(next_seed)

    def close(self) -> None:
        for env in self.envs:
            env.close()


class GymnasiumVectorEnvironment(VectorEnvironment):
    """A vector environment that begins its episodes itself, whichever way it does.

    SAME_STEP gives the next episode's first state and puts the last one's in `info["final_obs"]`;
    NEXT_STEP gives the last state and spends the following call on the reset, which is no step
    (`real` is False there).

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
        raw, info = began(asked(env.reset, seed=0))
        own = mask_size(self.observation)
        self._info_mask = MASK in info and not own
        self.masks = np.asarray(info[MASK][0]).size if self._info_mask else own
        self._refuse_masked_images()
        self.obs = self._encoded(raw, info)

    def _encoded(self, raw: Any, info: dict[str, Any]) -> Array:
        x = encode(self.observation, raw).copy()  # some return their own buffer
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
        self.obs = self._encoded(*began(asked(self.env.reset, seed=next_seed(0))))
        self._over = np.zeros(self.n, bool)

    def step(self, action: Array, active: Array | None = None) -> VectorStep:
        raw, reward, terminated, truncated, info = stepped(
            asked(self.env.step, self._acted(action))
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
    """Of observations and actions. Raises UserError if there are none."""
    found = tuple(getattr(env, name, None) for name in ("observation_space", "action_space"))
    if not all(isinstance(space, gym.Space) for space in found):
        raise UserError(
            "the environment's observation_space and action_space must be spaces of Gymnasium's,"
            f" not {found}: {OLD}"
        )
    return found  # type: ignore[return-value]


def _final_info(info: dict[str, Any], ended: Array) -> dict[str, Any]:
    return {MASK: info["final_info"][MASK][ended]} if MASK in info.get("final_info", {}) else {}


LIMIT = 10_000  # steps of an episode where the environment has no limit: one that never ends could be neither learned from nor measured
_EXTRAS = {
    "Box2D": "box2d",
    "box2d": "box2d",
    "mujoco": "mujoco",
    "ale_py": "atari",
    "pygame": "classic_control",
}


class ActionRepeat(gym.Wrapper):
    """Holds every action for `times` steps (fewer at an episode's end); rewards add up."""

    def __init__(self, env: gym.Env, times: int) -> None:
        super().__init__(env)
        self.times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self.times):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += number(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


def make_env(name: str, repeat: int = 1, **options: Any) -> gym.Env:
    """`gymnasium.make`, without its step-by-step checks; `repeat` holds every action for so many
    steps. An environment that has no time limit gets one of `LIMIT` steps (`max_episode_steps` is
    an option of every environment).

    Raises:
        UserError: unknown (with the nearest name), its package is not installed (with the command
            that does it), or an option that it does not take.
    """
    import logpi.envs.control.gridworld  # noqa: F401  registers ours

    module, colon, _ = name.rpartition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        raise UserError(
            f"no environment {name!r}: in front of the colon stands a module that can be imported"
        )
    try:
        env = gym.make(name, disable_env_checker=True, **options)
        if env.spec is None or env.spec.max_episode_steps is None:
            env = gym.wrappers.TimeLimit(env, LIMIT)
        return ActionRepeat(env, repeat) if repeat > 1 else env
    except gym.error.DependencyNotInstalled as error:
        extra = next((v for k, v in _EXTRAS.items() if k in str(error)), None)
        what = f"pip install 'gymnasium[{extra}]'" if extra else str(error).splitlines()[0]
        raise UserError(f"{name} is not installed: {what}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"no environment {name!r}: {error}") from None
    except (gym.error.UnregisteredEnv, gym.error.Error) as error:
        if (
            name.startswith("ALE/") and "ALE/Pong-v5" not in gym.registry
        ):  # its package registers its ids
            raise UserError(f"{name} is not installed: pip install 'gymnasium[atari]'") from None
        spec = gym.registry.get(name.rpartition(":")[2])
        if spec is not None and spec.entry_point is None:
            raise UserError(
                f"{name} has only a vectorised form, and evaluation plays single episodes: register"
                " both"
            ) from None
        near = difflib.get_close_matches(name, list(gym.registry), n=1)
        hint = (
            f"; did you mean {near[0]}?"
            if near and near[0] != name
            else f": {str(error).splitlines()[0]}"
        )
        raise UserError(f"no environment {name!r}{hint}") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # its module, or its constructor
        from logpi.rewards.workers.worker import describe

        what = (
            "does not take these options"
            if options and isinstance(error, TypeError | ValueError | AssertionError)
            else "cannot be made"
        )
        said = describe(error).partition(" was raised from")[0]
        raise UserError(f"{name} {what}: {said}") from error


def make_vector_environment(
    name: str, n: int, vectorized: bool = False, repeat: int = 1, **options: Any
) -> VectorEnvironment:
    """Environments stepped in turn, or the environment's own vectorised form.

    Raises:
        UserError: as `make_env`; or the environment has no vectorised form.
    """
    if not vectorized:
        return SyncVectorEnvironment([make_env(name, repeat, **options) for _ in range(n)])
    make_env(name, **options).close()
    if gym.spec(name).vector_entry_point is None:
        raise UserError(f"{name} has no vectorised form of its own; leave --vectorized off")
    if repeat > 1:
        raise UserError(
            "a vectorised form cannot hold actions: leave --vectorized off, or set repeat=1"
        )
    return GymnasiumVectorEnvironment(
        gym.make_vec(name, n, vectorization_mode="vector_entry_point", **options)
    )

"""Environments as people write them: old signatures, other shapes than announced, odd spaces,
buffers written over. Either what is recorded is what they gave, or one line says what is wrong
before training.

Run: python -m pytest -q tests/envs/control/test_checks.py
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces as s
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from logpi.envs.control.make import ActionRepeat, make_env
from logpi.envs.control.spaces import (
    action_kind,
    check_reach,
    checked_observation,
    encode,
    encoded_shape,
    stack,
)
from logpi.envs.control.vector import GymnasiumVectorEnvironment, SyncVectorEnvironment
from logpi.envs.tools import TextGym
from logpi.errors import UserError
from logpi.jobs import gym as recipe
from logpi.jobs.gym import Gym
from logpi.jobs.gym_parts import build
from logpi.policies.distributions import SquashedGaussian
from logpi.rollouts.gym import play
from logpi.rollouts.transitions import record, rows, trial
from tests.worlds import Count

ZEROS = np.zeros(2, np.float32)
OLD = "shimmy"


class World(gym.Env):
    """Right in everything; each world below is wrong, or odd, in one thing."""

    observation_space: gym.Space = s.Box(-1, 1, (2,))
    action_space: gym.Space = s.Discrete(2)
    obs, reward, over, after, info = ZEROS, 1.0, False, False, {}

    def see(self):
        return self.obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is no action"
        self.t += 1
        return self.see(), self.reward, self.t >= 8 or self.over, self.after, self.info


def world(**changed) -> type[World]:
    """A world that differs in attributes or methods."""
    return type("Odd", (World,), changed)


def old_reset(self, **k):
    gym.Env.reset(self)
    self.t = 0
    return ZEROS


def no_seed(self):
    self.t = 0
    return ZEROS, {}


def seed_alone(self, seed=None):
    self.t = 0
    return ZEROS, {}


def raising(self, action):
    raise ZeroDivisionError("by zero")


def none_at_the_end(self):
    return None if self.t >= 8 else ZEROS


DICT = s.Dict({"a": s.Box(-1, 1, (2,)), "b": s.Discrete(3, start=1)})
TUPLE = s.Tuple((s.Box(-1, 1, (1,)), s.MultiBinary(2)))
IMAGE = s.Box(0, 255, (8, 8, 3), np.uint8)
WRONG = {
    "old reset": (world(reset=old_reset), "reset gave one ndarray, not \\(observation, info\\)"),
    "old reset of a tuple": (
        world(observation_space=TUPLE, reset=lambda self, **k: (ZEROS[:1], [0, 1])),
        "reset gave \\(ndarray, list\\), not",
    ),
    "old reset of two numbers": (
        world(reset=lambda self, **k: [0.0, 0.0]),
        "reset gave \\(float, float\\), not",
    ),
    "a reset that returns nothing": (
        world(reset=lambda self, **k: None),
        "reset gave one NoneType, not",
    ),
    "info is None": (
        world(reset=lambda self, **k: (ZEROS, None)),
        "reset gave \\(ndarray, NoneType\\), not",
    ),
    "old step": (
        world(step=lambda self, a: (ZEROS, 1.0, True, {})),
        "step gave \\(ndarray, float, bool, dict\\), not",
    ),
    "step without info": (
        world(step=lambda self, a: (ZEROS, 1.0, True, False)),
        "step gave \\(ndarray, float, bool, bool\\), not",
    ),
    "step's info is None": (world(info=None), "step gave \\(.*NoneType\\), not"),
    "step returns nothing": (world(step=lambda self, a: None), "step gave one NoneType, not"),
    "no seed": (world(reset=no_seed), "reset takes no seed"),
    "a step that raises": (
        world(step=raising),
        "step failed: ZeroDivisionError: by zero \\(test_checks.py:\\d+\\)",
    ),
    "a reset that raises": (
        world(reset=lambda self, seed=None, options=None: 1 / 0),
        "reset failed: ZeroDivisionError",
    ),
    "another shape": (
        world(obs=np.zeros(3, np.float32)),
        "an observation of shape \\(3,\\), and announces \\(2,\\)",
    ),
    "a row too many": (world(obs=np.zeros((1, 2))), "of shape \\(1, 2\\)"),
    "a bare number": (world(obs=0.5), "of shape \\(\\)"),
    "another shape later": (
        world(see=lambda self: np.zeros(2 + (self.t > 3))),
        "of shape \\(3,\\)",
    ),
    "nothing at the end": (world(see=none_at_the_end), "no number or array of numbers: 'None'"),
    "text": (world(obs="0.5 0.5"), "no number or array of numbers"),
    "texts": (world(obs=["0.5", "0.5"]), "no number or array of numbers"),
    "lists of unequal length": (world(obs=[[1.0], [1.0, 2.0]]), "no number or array of numbers"),
    "complex": (world(obs=np.zeros(2, complex)), "no number or array of numbers"),
    "NaN seen": (world(obs=np.array([0, np.nan])), "an observation that is not a finite number"),
    "infinite seen": (
        world(obs=np.array([0, np.inf])),
        "an observation that is not a finite number",
    ),
    "NaN earned": (world(reward=float("nan")), "a reward that is not a finite number"),
    "several rewards": (world(reward=np.ones(2)), "a reward that is not one number: '\\[1. 1.\\]'"),
    "no reward": (world(reward=None), "a reward that is not one number: 'None'"),
    "a reward in words": (world(reward="1.0"), "a reward that is not one number"),
    "done in words": (world(over="no"), "terminated, which is true or false"),
    "truncated is a dictionary": (world(after={}), "truncated, which is true or false"),
    "truncated is a number": (world(after=0.5), "truncated, which is true or false"),
    "a state that is not counted": (
        world(observation_space=s.Discrete(4), obs=4),
        "4, which is not in its observation_space Discrete",
    ),
    "a state below 0": (
        world(observation_space=s.Discrete(4), obs=-1),
        "-1, which is not in its observation_space",
    ),
    "a state below its start": (
        world(observation_space=s.Discrete(4, start=1), obs=0),
        "0, which is not in",
    ),
    "half a state": (world(observation_space=s.Discrete(4), obs=1.5), "no whole number"),
    "states in a row": (world(observation_space=s.Discrete(4), obs=[1]), "of shape \\(1,\\)"),
    "several states": (
        world(observation_space=s.MultiDiscrete([2, 3]), obs=[1, 3]),
        "not in its observation_space",
    ),
    "switches that are 2": (
        world(observation_space=s.MultiBinary(2), obs=[0, 2]),
        "not in its observation_space",
    ),
    "a part is missing": (
        world(observation_space=DICT, obs={"a": ZEROS}),
        "an observation without 'b'",
    ),
    "no parts": (world(observation_space=DICT, obs=ZEROS), "an observation without 'a'"),
    "a part of another shape": (
        world(observation_space=DICT, obs={"a": [0.0], "b": 1}),
        "an observation\\['a'\\] of shape \\(1,\\)",
    ),
    "a part that is not counted": (
        world(observation_space=DICT, obs={"a": ZEROS, "b": 0}),
        "an observation\\['b'\\] 0, which is not",
    ),
    "a tuple too short": (world(observation_space=TUPLE, obs=(ZEROS[:1],)), "no tuple of 2"),
    "pixels between 0 and 1": (
        world(observation_space=IMAGE, obs=np.full((8, 8, 3), 0.5)),
        "float64 that is not in whole bytes",
    ),
    "pixels in another layout": (
        world(observation_space=IMAGE, obs=np.zeros((3, 8, 8), np.uint8)),
        "of shape \\(3, 8, 8\\)",
    ),
    "pixels beyond a byte": (
        world(observation_space=IMAGE, obs=np.full((8, 8, 3), 300)),
        "int64 that is not in whole bytes",
    ),
    "two pixels": (
        world(
            observation_space=s.Box(0, 255, (2, 2, 3), np.uint8), obs=np.zeros((2, 2, 3), np.uint8)
        ),
        "at least 5 × 5",
    ),
    "no observation space": (world(observation_space=None), "must be spaces of Gymnasium's"),
    "no action space": (world(action_space=None), "must be spaces of Gymnasium's"),
    "spaces of text": (
        world(observation_space=s.Text(5), obs="x"),
        "of the kind Text are not supported",
    ),
    "spaces without a size": (
        world(observation_space=s.Sequence(s.Discrete(2)), obs=(1,)),
        "of the kind Sequence are not supported",
    ),
    "a thousand million states": (
        world(observation_space=s.Discrete(10**9), obs=1),
        "1,000,000,000 numbers",
    ),
    "actions far from 0": (
        world(action_space=s.Box(100, 200, (1,))),
        "actions go from 100 to 200, .*set squash=true",
    ),
    "actions below 0": (world(action_space=s.Box(-9, -5, (1,))), "set squash=true"),
    "actions from 100": (
        world(action_space=s.Box(100, np.inf, (1,))),
        "actions go from 100 to inf, .*rescale",
    ),
    "one action far from 0": (
        world(action_space=s.Box(np.array([-1, 50], np.float32), np.array([1, 60], np.float32))),
        "from 50 to 60",
    ),
    "next to no actions": (world(action_space=s.Box(-1e-3, 1e-3, (1,))), "nearly none of them"),
    "whole actions of a Box": (
        world(action_space=s.Box(0, 5, (1,), np.int64)),
        "are not supported",
    ),
    "several actions from 1": (
        world(action_space=s.MultiDiscrete([2, 2], start=[1, 1])),
        "are not supported",
    ),
    "actions of two axes": (
        world(action_space=s.MultiDiscrete([[2, 2], [2, 2]])),
        "are not supported",
    ),
    "actions in a dictionary": (
        world(action_space=s.Dict({"a": s.Discrete(2)})),
        "are not supported",
    ),
    "a constructor that raises": (
        world(__init__=lambda self: [][1]),
        "cannot be made: IndexError: list index out of range",
    ),
}


def registered(env: type, name: str = "Odd-v0", **how) -> str:
    gym.registry.pop(name, None)
    gym.register(name, entry_point=env, **how)
    return name


@pytest.mark.parametrize("what", WRONG)
def test_one_line_before_training(what, tmp_path):
    env, line = WRONG[what]
    words = [
        "--env",
        registered(env),
        "--steps",
        "64",
        "--evaluations",
        "0",
        "--options",
        "envs=2",
        "n_steps=16",
        "minibatches=1",
    ]
    with pytest.raises(UserError, match=line):
        recipe.main(["--out", str(tmp_path / "r"), *words])
    assert not (tmp_path / "r").exists()


class Buffered(World):
    """One array for all observations of all copies, written over at every step."""

    observation_space = s.Box(-np.inf, np.inf, (2,))
    buffer = np.zeros(2, np.float32)

    def __init__(self, number=0.0):
        self.buffer, self.number = Buffered.buffer, number

    def see(self):
        self.buffer[:] = self.t, self.number
        return self.buffer


RIGHT = {
    "a reward in an array": (world(reward=np.array([1.5])), [0, 0], 1.5),
    "a reward in arrays": (world(reward=np.array([[1.5]], np.float32)), [0, 0], 1.5),
    "a reward of NumPy's": (world(reward=np.float64(1.5)), [0, 0], 1.5),
    "a reward that is a bool": (world(reward=True), [0, 0], 1.0),
    "seed alone": (world(reset=seed_alone), [0, 0], 1.0),
    "flags of NumPy's": (world(over=np.array(False), after=np.array([0])), [0, 0], 1.0),
    "a list": (world(obs=[0.5, -0.5]), [0.5, -0.5], 1.0),
    "double precision": (world(obs=np.array([0.5, -0.5])), [0.5, -0.5], 1.0),
    "whole numbers": (world(obs=np.array([1, 0], np.int8)), [1, 0], 1.0),
    "true and false": (world(obs=np.array([True, False])), [1, 0], 1.0),
    "outside of the bounds": (world(obs=np.array([-7.0, 9.0])), [-7, 9], 1.0),
    "a state": (world(observation_space=s.Discrete(3, start=5), obs=6), [0, 1, 0], 1.0),
    "a state as an array": (
        world(observation_space=s.Discrete(3), obs=np.array(2)),
        [0, 0, 1],
        1.0,
    ),
    "a state as a float": (world(observation_space=s.Discrete(3), obs=2.0), [0, 0, 1], 1.0),
    "states": (
        world(observation_space=s.MultiDiscrete([2, 3], start=[0, 4]), obs=[1, 4]),
        [0, 1, 1, 0, 0],
        1.0,
    ),
    "switches": (
        world(observation_space=s.MultiBinary(3), obs=[True, False, True]),
        [1, 0, 1],
        1.0,
    ),
    "a matrix": (
        world(observation_space=s.Box(-1, 1, (2, 2)), obs=[[1, 2], [3, 4]]),
        [1, 2, 3, 4],
        1.0,
    ),
    "one number": (world(observation_space=s.Box(-1, 1, ()), obs=0.25), [0.25], 1.0),
    "parts in another order": (
        world(observation_space=DICT, obs={"b": 3, "more": "x", "a": [0.5, 1]}),
        [0.5, 1, 0, 0, 1],
        1.0,
    ),
    "a list for a tuple": (world(observation_space=TUPLE, obs=[[0.5], [1, 0]]), [0.5, 1, 0], 1.0),
    "a tuple of a dictionary": (
        world(observation_space=s.Tuple((DICT, s.Discrete(2))), obs=({"a": ZEROS, "b": 2}, 1)),
        [0, 0, 0, 1, 0, 0, 1],
        1.0,
    ),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_is_recorded_is_what_was_given(what):
    env, seen, reward = RIGHT[what]
    envs = SyncVectorEnvironment([make_env(registered(env)) for _ in range(2)])
    kind = action_kind(envs.action)
    envs.begin(lambda i: i)
    batch = rows(
        record(
            envs, lambda obs: (np.zeros((2, 2), np.float32), np.zeros(2, np.int64)), kind, steps=10
        ),
        kind,
    )
    assert batch.mask.sum(1).tolist() == [8, 2, 8, 2]
    assert np.array_equal(batch.obs[0, :9].numpy(), np.tile(np.array(seen, np.float32), (9, 1)))
    assert (batch.reward[batch.mask] == reward).all() and batch.terminated.tolist() == [
        True,
        False,
    ] * 2
    trial(SyncVectorEnvironment([make_env("Odd-v0")]), kind)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_pixels_in_whole_numbers_are_bytes(dtype):
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(dtype)
    envs = SyncVectorEnvironment([world(observation_space=IMAGE, obs=frame)()])
    envs.begin(lambda i: i)
    assert envs.obs.dtype == np.uint8 and np.array_equal(envs.obs[0], frame)


def test_a_buffer_that_is_written_over_is_copied():
    """Two copies of an environment share one array: each copy keeps what it was shown, at every
    step."""
    envs = SyncVectorEnvironment([Buffered(1.0), Buffered(2.0)])
    envs.begin(lambda i: i)
    batch = rows(
        record(
            envs,
            lambda obs: (np.zeros((2, 2), np.float32), np.zeros(2, np.int64)),
            action_kind(envs.action),
            steps=3,
        ),
        action_kind(envs.action),
    )
    assert batch.obs[0].tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]] and batch.obs[1].tolist() == [
        [0, 2],
        [1, 2],
        [2, 2],
        [3, 2],
    ]


class Random(World):
    """Begins where it likes, whatever the seed."""

    def see(self):
        return np.random.default_rng().random(2, np.float32)


def test_an_environment_that_does_not_follow_its_seed_is_said(caplog):
    build(Gym(env=registered(Random), steps=64, options={"envs": 2, "n_steps": 16}))
    assert "does not decide how an episode begins" in caplog.text
    caplog.clear()
    build(Gym(env=registered(World), steps=64, options={"envs": 2, "n_steps": 16}))
    assert not caplog.text


@pytest.mark.parametrize(
    "space",
    [
        s.Box(-1, 1, (2,), np.float64),
        s.Box(-0.1, 0.7, (2,), np.float64),
        s.Box(-1, 1, (3, 2)),
        s.Box(-1, 1, ()),
        s.Box(-np.inf, np.inf, (2,)),
        s.Box(0, np.inf, (1,)),
        s.Box(-2, 2, (1,), np.float16),
        s.Discrete(3, start=-1),
        s.MultiDiscrete([2, 3]),
        s.MultiBinary(3),
    ],
)
@pytest.mark.parametrize("mean", [0.0, 1e6, -1e6])
def test_actions_are_in_the_environments_own_space(space, mean):
    """`World.step` refuses an action that its space does not contain."""
    envs = SyncVectorEnvironment([world(action_space=space)()])
    kind = action_kind(space)
    params = np.full((1, kind.outputs + kind.free), mean, np.float32)
    params[:, kind.outputs :] = 0.0
    envs.begin(lambda i: i)
    rng = np.random.default_rng(0)
    record(envs, lambda obs: (params, kind.sample(params, rng)), kind, steps=20)


@pytest.mark.parametrize("bounds", [(100.1, 200.3), (-1e-3, 1e-3), (0.1, 0.7), (-5e4, 3.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squashed_actions_cover_ranges_far_from_0(bounds, dtype):
    space = s.Box(*bounds, (1,), dtype)
    kind, envs = (
        action_kind(space, squash=True),
        SyncVectorEnvironment([world(action_space=space)()]),
    )
    assert isinstance(kind, SquashedGaussian)
    envs.begin(lambda i: i)
    for u in (-50.0, -1.0, 0.0, 1.0, 50.0):
        envs.step(kind.to_env(np.array([[u]], np.float32)))
    low, middle, high = (
        float(kind.to_env(np.array([[u]], np.float32))[0, 0]) for u in (-50, 0, 50)
    )
    assert (low, middle, high) == pytest.approx((bounds[0], sum(bounds) / 2, bounds[1]), rel=1e-6)
    train = Gym(
        env=registered(world(action_space=space)),
        steps=64,
        options={"squash": True, "envs": 2, "n_steps": 16},
    )
    build(train)[2]()


def test_reach_depends_on_the_deviation(caplog):
    far = s.Box(30, 300, (1,))
    with pytest.raises(UserError, match="deviation of 1:"):
        check_reach(far, 0.0)
    check_reach(far, 4.0)  # a deviation of 55: a fair share is within
    for ordinary in (
        s.Box(-1, 1, (2,)),
        s.Box(0, 1, (2,)),
        s.Box(-0.4, 0.4, (1,)),
        s.Box(-200, 200, (1,)),
        s.Discrete(2),
    ):
        check_reach(ordinary, 0.0)
    assert not caplog.text
    check_reach(s.Box(-1e5, 1e5, (1,)), 0.0)
    assert "tries next to nothing of them" in caplog.text


def test_wrappers_are_held_to_what_they_announce():
    class Forgets(gym.ObservationWrapper):
        """Changes what is seen and not what is announced."""

        def observation(self, observation):
            return observation[:1]

    class Says(Forgets):
        def __init__(self, env):
            super().__init__(env)
            self.observation_space = s.Box(-1, 1, (1,))

    def reward_in_array(env):
        return gym.wrappers.TransformReward(env, lambda r: np.array([2 * r]))

    with pytest.raises(UserError, match="of shape \\(1,\\), and announces \\(2,\\)"):
        trial(SyncVectorEnvironment([Forgets(World())]), action_kind(s.Discrete(2)))
    envs = SyncVectorEnvironment(
        [reward_in_array(Says(gym.wrappers.TimeLimit(world(reward=np.array([1.0]))(), 3)))]
    )
    assert envs.features == 1
    envs.begin(lambda i: 0)
    steps = [envs.step(np.zeros(1, np.int64)) for _ in range(3)]
    assert [x.reward.tolist() for x in steps] == [[2.0]] * 3
    assert [x.truncated.tolist() for x in steps] == [[False], [False], [True]] and not steps[
        2
    ].terminated[0]


def test_old_steps_are_told_through_every_wrapper():
    env = ActionRepeat(
        gym.wrappers.TimeLimit(gym.wrappers.FlattenObservation(WRONG["old step"][0]()), 5), 2
    )
    envs = SyncVectorEnvironment([env])
    envs.begin(lambda i: 0)
    with pytest.raises(UserError, match=f"step gave .*{OLD}"):
        envs.step(np.zeros(1, np.int64))


def test_its_own_end_and_a_time_limit_together():
    """At the eighth step the environment ends by itself and the limit is reached: that is an end,
    and nothing follows it."""
    envs = SyncVectorEnvironment(
        [gym.wrappers.TimeLimit(World(), 8), gym.wrappers.TimeLimit(world(after=True)(), 8)]
    )
    envs.begin(lambda i: i)
    batch = rows(
        record(
            envs,
            lambda obs: (np.zeros((2, 2), np.float32), np.zeros(2, np.int64)),
            action_kind(envs.action),
            steps=8,
        ),
        action_kind(envs.action),
    )
    assert (
        batch.mask.sum(1).tolist() == [8] + [1] * 8
        and batch.terminated.tolist() == [True] + [False] * 8
    )


def test_copies_with_different_spaces_are_refused():
    with pytest.raises(UserError, match="different spaces"):
        SyncVectorEnvironment([World(), world(observation_space=s.Box(-1, 1, (3,)))()])


def test_masks_that_change_their_size_are_refused():
    class Shrinks(World):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}

        def step(self, action):
            return *super().step(action)[:4], {"action_mask": np.ones(3, np.int8)}

    envs = SyncVectorEnvironment([Shrinks()])
    with pytest.raises(UserError, match="had 2 bits at first and has 3 now"):
        trial(envs, action_kind(envs.action))


def test_a_trial_takes_allowed_actions_only():
    class Forbids(World):
        action_space = s.Discrete(3)

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {"action_mask": np.array([0, 1, 0], np.int8)}

        def step(self, action):
            assert action == 1
            return *super().step(action)[:4], {"action_mask": np.array([0, 1, 0], np.int8)}

    envs = SyncVectorEnvironment([Forbids()])
    trial(envs, action_kind(envs.action))


def test_what_is_no_number_is_refused_in_evaluation_too():
    envs = SyncVectorEnvironment(
        [world(see=lambda self: np.full(2, np.nan if self.t > 5 else 0.0))()]
    )
    kind = action_kind(envs.action)
    with pytest.raises(UserError, match="an observation that is not a finite number"):
        play(envs, lambda obs: (np.zeros((1, 2), np.float32), np.zeros(1, np.int64)), kind, [0])


def test_a_state_of_many_is_one_row_of_numbers():
    """Of a million states no matrix of all with all is made."""
    space = s.Discrete(1_000_000)
    x = encode(
        space, stack(space, [checked_observation(space, 7), checked_observation(space, 999_999)])
    )
    assert (
        encoded_shape(space) == (1_000_000,)
        and x.shape == (2, 1_000_000)
        and x[0, 7] == x[1, -1] == 1
        and x.sum() == 2
    )


# --- vector environments ---


class Vectors(SyncVectorEnv):
    """Two worlds, with one method's answer changed."""

    def __init__(self, change, mode=AutoresetMode.SAME_STEP):
        super().__init__([lambda: Count(3)] * 2, autoreset_mode=mode)
        self.change = change

    def step(self, actions):
        return self.change(*super().step(actions))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda o, r, te, tr, i: (o[:, :1], r, te, tr, i),
            "observations of shape \\(1,\\), and announces \\(2,\\)",
        ),
        (lambda o, r, te, tr, i: (o, r[:1], te, tr, i), "are not of 2 numbers each"),
        (lambda o, r, te, tr, i: (o, r[:, None], te, tr, i), "are not of 2 numbers each"),
        (lambda o, r, te, tr, i: (o, 1.0, te, tr, i), "are not of 2 numbers each"),
        (
            lambda o, r, te, tr, i: (o, r, te | tr, i),
            "step gave \\(ndarray, ndarray, ndarray, dict\\), not",
        ),
        (lambda o, r, te, tr, i: (o, r, te, tr, {}), "gives no final_obs"),
        (lambda o, r, te, tr, i: (o * np.nan, r, te, tr, i), "not a finite number"),
    ],
)
def test_vector_environments_that_are_wrong(change, line):
    envs = GymnasiumVectorEnvironment(Vectors(change))
    with pytest.raises(UserError, match=line):
        trial(envs, action_kind(envs.action))


def test_an_environment_that_has_a_vectorised_form_alone(tmp_path):
    gym.registry.pop("Many-v0", None)
    gym.register("Many-v0", vector_entry_point=lambda num_envs=2, **k: Vectors(lambda *x: x))
    for words in ([], ["--vectorized"]):
        with pytest.raises(UserError, match="Many-v0 has only a vectorised form"):
            recipe.main(["--env", "Many-v0", "--out", str(tmp_path / "r"), *words])


# --- environments of text ---


class Words:
    """A text environment in old Gym's form, with a reward in an array."""

    def __init__(self, answer):
        self.answer = answer

    def reset(self):
        return "Say it."

    def step(self, action):
        return self.answer(action)


@pytest.mark.parametrize(
    ("answer", "reward", "done"),
    [
        (lambda a: ("ok", np.array([0.5]), False, {}), 0.5, False),
        (lambda a: ("ok", 1, True, {}), 1.0, True),
        (lambda a: ("ok", 0.5, False, True, {}), 0.5, True),
        (lambda a: ("ok", 0.5, np.True_, np.False_, {}), 0.5, True),
    ],
)
def test_text_environments_old_and_new(answer, reward, done):
    reply = TextGym(lambda row: Words(answer)).start({}).reply("it")
    assert (reply.observation, reply.reward, reply.done) == ("\nok\n", reward, done)


def test_text_environments_that_are_wrong_are_told():
    with pytest.raises(UserError, match="a reward that is not one number"):
        TextGym(lambda row: Words(lambda a: ("ok", None, False, {}))).start({}).reply("it")

"""What environments and people do at the edges: nothing but resets, no time limit, masks that
cannot be, rewards that are no numbers, settings that mean nothing, seeds that were stopped."""

from __future__ import annotations

import json
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from logpi import algorithm
from logpi.commands import play
from logpi.envs.control.make import LIMIT, make_env
from logpi.envs.control.spaces import check_mask
from logpi.envs.control.vector import GymnasiumVectorEnvironment, SyncVectorEnvironment
from logpi.errors import UserError
from logpi.jobs import gym as recipe
from logpi.jobs import gym_parts, seed_report
from logpi.policies.cnn import cnn
from logpi.policies.distributions import Categorical
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Episodes, Fragments, RewardScale
from logpi.rollouts.gym import play as returns
from logpi.rollouts.transitions import _check, record
from logpi.runs import comparison
from tests.jobs.alone import watch
from tests.worlds import Count

KIND = Categorical(2)
EVAL = ["--evaluations", "0", "--eval-episodes", "1"]


class Masked(Count):
    """Says in its info which actions are allowed, but not where none follows."""

    def __init__(self, bits: tuple[int, ...] = (0, 1), length: int = 3) -> None:
        super().__init__(length)
        self.bits = np.array(bits, np.int8)

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, {"action_mask": self.bits}

    def step(self, action):
        assert self.bits[action], "a forbidden action"
        obs, reward, terminated, truncated, _ = super().step(action)
        return (
            obs,
            reward,
            terminated,
            truncated,
            {} if terminated or truncated else {"action_mask": self.bits},
        )


class Broken(Count):
    """Its second reward is what it is given, and so is its last observation's first number."""

    def __init__(self, reward: float = 1.0, seen: float = 0.0) -> None:
        super().__init__(3)
        self.reward, self.seen = reward, seen

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        obs[0] = self.seen if terminated or truncated else obs[0]
        return obs, self.reward if self.t == 2 else 0.0, terminated, truncated, info


def fragments(envs, steps=6):
    return Fragments(envs, mlp(envs.features, KIND, masks=envs.masks), steps=steps)


def test_a_batch_of_nothing_but_resets_waits_for_a_step():
    envs = GymnasiumVectorEnvironment(
        SyncVectorEnv([lambda: Count(2)], autoreset_mode=AutoresetMode.NEXT_STEP)
    )
    rollout = fragments(envs, steps=1)
    assert [int(rollout().batch.mask.sum()) for _ in range(4)] == [
        1,
        1,
        1,
        1,
    ]  # the third begins with a reset


@pytest.mark.parametrize(
    ("env", "what"),
    [
        (lambda: Broken(reward=float("nan")), "a reward"),
        (lambda: Broken(reward=float("inf")), "a reward"),
        (lambda: Broken(seen=float("nan")), "an observation"),
    ],
)
def test_what_is_no_number_is_refused_at_once(env, what):
    with pytest.raises(UserError, match=f"{what} that is not a finite number"):
        fragments(SyncVectorEnvironment([env()]))()


def test_weights_that_have_diverged_are_not_the_environments_fault():
    rollout = fragments(SyncVectorEnvironment([Count(3)]))
    with torch.no_grad():
        next(rollout.policy.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="weights have diverged"):
        rollout()


@pytest.mark.parametrize("shape", [(12, 12, 1), (9, 9, 3), (3, 9, 9), (12, 9, 9)])
def test_small_frames_in_either_layout(shape):
    """Nine or twelve pixels high is no stack of frames."""
    policy = cnn(shape, KIND, width=8)
    assert policy.actor()(np.zeros((2, *shape), np.uint8)).shape == (2, 2)


def test_a_mask_may_be_missing_where_no_action_follows():
    batch = fragments(SyncVectorEnvironment([Masked((0, 1)), Masked((0, 1))]))().batch
    assert (batch.action[batch.mask] == 1).all() and (batch.logp[batch.mask] == 0).all()


def test_a_mask_that_forbids_everything_is_refused():
    class Blind(Masked):
        def step(self, action):
            return Count.step(self, action)

    with pytest.raises(UserError, match="forbids every action"):
        fragments(SyncVectorEnvironment([Blind((0, 0))]))()
    stream = record(_begun(SyncVectorEnvironment([Masked((1, 1))])), _zeros, KIND, steps=2)
    _check(stream, 2, KIND)  # the last state's mask is read by nobody


def _begun(envs):
    envs.begin(lambda i: i)
    return envs


def _zeros(obs):
    return np.zeros((len(obs), 2), np.float32), np.zeros(len(obs), np.int64)


def test_a_mask_must_be_of_the_actions():
    s = gym.spaces
    for space, bits in ((s.Discrete(4), 4), (s.MultiDiscrete([2, 3]), 5), (s.MultiBinary(3), 3)):
        check_mask(space, bits)
        with pytest.raises(UserError, match=f"has {bits + 1} bits"):
            check_mask(space, bits + 1)
    with pytest.raises(UserError, match="can be counted"):
        check_mask(s.Box(-1, 1, (2,)), 2)


def test_masked_pixels_are_refused():
    class Pixels(Masked):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)

        def _obs(self):
            return np.zeros((8, 8, 3), np.uint8)

    with pytest.raises(UserError, match="pixels with an action_mask"):
        SyncVectorEnvironment([Pixels()])


def test_an_episode_that_never_ends_is_cut_off():
    """Gymnasium's own CliffWalking has no limit: walking against a wall, a greedy policy would be
    measured for ever."""
    env, found = make_env("CliffWalking-v1"), []
    env.reset(seed=0)
    for _ in range(LIMIT):
        found.append(env.step(3)[2:4])
    assert found[-1] == (False, True) and set(found[:-1]) == {(False, False)}
    assert make_env("CliffWalking-v1", max_episode_steps=7).spec.max_episode_steps == 7


def test_a_greedy_baseline_is_in_the_unit_of_its_batch():
    """Two episodes of Count(4) earn 10 each whatever is done, so scaled returns and baselines are
    equal."""
    envs = SyncVectorEnvironment([Count(4), Count(4)])
    rollout = Episodes(
        envs, mlp(2, KIND), episodes=2, algorithm=algorithm("remax"), scale=RewardScale(0.9)
    )
    batch = rollout().batch
    assert batch.baseline is not None and float(batch.baseline[0]) != 10.0
    torch.testing.assert_close(batch.baseline, (batch.reward * batch.mask).sum(1))


def test_returns_are_those_of_each_seed():
    class Seeded(Count):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed)
            self.length = 1 + seed % 5
            return obs, info

    envs = SyncVectorEnvironment([Seeded(), Seeded(), Seeded()])
    expected = [sum(range(1, 2 + s % 5)) for s in range(8)]
    assert returns(envs, _zeros, KIND, list(range(8))).tolist() == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env-options", "foo=1"], "does not take these options: .*'foo'"),
        (["--options", "weight=TokenMaen"], "did you mean TokenMean"),
        (["--options", "gamma=abc"], "gamma must be a number, not 'abc'"),
        (["--options", "gamma=1.5"], "gamma is between 0 and 1"),
        (["--options", "gae_lambda=-0.1"], "lam is between 0 and 1"),
        (["--options", "clip_range=-0.2"], "low is a distance"),
        (["--options", "lr=-1"], "lr must be above 0"),
        (["--options", "n_epochs=1.5"], "epochs must be a whole number"),
        (["--options", "whiten=1"], "whiten must be true or false"),
        (["--options", "micro_tokens=8"], "micro_tokens is this command's own choice"),
        (["--algorithm", "trpo", "--options", "critic=1"], "critic is this command's own choice"),
        (["--algorithm", "trpo", "--options", "cg_steps=many"], "cg_steps must be a whole number"),
        (["--env", "logpi/GridWorld-v0", "--env-options", "slip=2"], "slip is a probability"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_written(
    words, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        recipe.main(["--out", str(tmp_path / "r"), *words])
    assert not (tmp_path / "r").exists()


def test_other_libraries_names_reach_the_update():
    """`n_epochs` was understood and then lost, for the command puts an update of its own
    together."""
    a = recipe.Gym(options={"n_epochs": 3, "gae_lambda": 0.5, "clip_range": 0.1})
    p, chosen = gym_parts.resolved(a)
    made = gym_parts.make_algorithm("ppo", p, chosen)
    assert (
        made.update.epochs == 3
        and made.objective.advantage.lam == 0.5
        and made.objective.surrogate.low == 0.1
    )


# --- several seeds ---


def test_the_interval_beyond_the_table():
    """Student's t with 10, 14 and 29 degrees of freedom is 2.228, 2.145 and 2.045."""
    for freedom, t in ((10, 2.228), (14, 2.145), (29, 2.045)):
        assert comparison._t95(freedom) == pytest.approx(t, abs=0.003)
    assert comparison._t95(4) == 2.776


def test_seeds_that_saw_no_episode_end_have_a_table_and_no_curve(tmp_path):
    words = [
        "--env",
        "Pendulum-v1",
        "--steps",
        "8",
        "--options",
        "n_steps=4",
        "envs=2",
        "minibatches=2",
        *EVAL,
    ]
    recipe.main(["--out", str(tmp_path / "seed-0"), *words])
    said = seed_report.report(tmp_path, [tmp_path / "seed-0"], "Pendulum")
    assert (
        "no curve" in said and len(json.loads((tmp_path / "seeds.json").read_text())["final"]) == 1
    )


def test_seeds_go_on_together(tmp_path, monkeypatch, capsys):
    """One seed was finished, the other had not begun: `--resume` asks for both, and only for what
    is left of them."""
    asked = watch(monkeypatch)
    out = tmp_path / "s"
    words = ["--env", "logpi/GridWorld-v0", "--steps", "512", *EVAL]
    recipe.main(["--out", str(out), "--seeds", "2", *words])
    first = (out / "seeds.json").read_text()
    before = (out / "seed-0/metrics.jsonl").read_bytes()
    assert [j.resume for j in asked] == [None, None]
    import shutil

    shutil.rmtree(out / "seed-1")
    recipe.main(["--resume", str(out)])
    assert [j.resume for j in asked[2:]] == [out / "seed-0", None]
    assert (out / "seeds.json").read_text() == first and (
        out / "seed-0/metrics.jsonl"
    ).read_bytes() == before
    with pytest.raises(UserError, match=re.escape(f"logpi play {out}/seed-0")):
        play.main([str(out)])
    with pytest.raises(UserError, match="--resume"):
        recipe.main(["--out", str(out), "--seeds", "2", *words])

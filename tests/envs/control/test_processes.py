"""Environments in several processes give the rows of one, bit for bit, and say what went wrong."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
import torch

import logpi
from logpi.envs.control.make import make_vector_environment
from logpi.errors import UserError
from logpi.jobs.gym_parts import build, env_processes
from logpi.policies.distributions import Categorical
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Episodes, Fragments


@pytest.fixture
def made():
    """Makes vector environments, and closes them."""
    envs = []

    def make(source, n, processes, **options):
        envs.append(make_vector_environment(source, n, processes=processes, **options))
        return envs[-1]

    yield make
    for e in envs:
        e.close()


def same(a, b) -> None:
    for x in fields(a):
        p, q = getattr(a, x.name), getattr(b, x.name)
        assert (p is None and q is None) or torch.equal(p, q), x.name


def policy():
    torch.manual_seed(0)
    return mlp(4, Categorical(2), hidden=(8,))


@pytest.mark.parametrize("processes", [2, 3])
def test_rows_statistics_and_resumes_are_those_of_one_process(made, processes):
    """Five environments, blocks of two sizes; episodes end by themselves and by their limit."""
    rollouts = [
        Fragments(made("CartPole-v1", 5, p, max_episode_steps=25), policy(), steps=40, seed=3)
        for p in (1, processes)
    ]
    assert rollouts[1].envs.processes == processes
    for _ in range(2):
        one, several = (r() for r in rollouts)
        same(one.batch, several.batch)
        assert one.metrics == several.metrics
    assert not one.batch.terminated.all() and one.batch.terminated.any()
    states = [r.state_dict() for r in rollouts]
    for key in ("seeds", "obs"):
        assert np.array_equal(*(s["envs"][key] for s in states))
    # the state of one number goes on with another
    for r, state in zip(rollouts, states[::-1], strict=True):
        r.load_state_dict(state)
    same(rollouts[0]().batch, rollouts[1]().batch)


def test_whole_episodes_in_groups_too(made):
    batches = [
        Episodes(made("CartPole-v1", 4, p), policy(), episodes=8, group=2, seed=1)().batch
        for p in (1, 2)
    ]
    same(*batches)


def test_masks_and_pixels_travel(made):
    for source in ("logpi/GridWorld-v0", Frames):
        envs = [made(source, 3, p) for p in (1, 2)]
        for e in envs:
            e.begin(lambda i: 7 + i)
        assert envs[1].obs.dtype == envs[0].obs.dtype
        for _ in range(5):
            steps = [e.step(np.zeros(3, np.int64)) for e in envs]
            assert all(
                np.array_equal(*(getattr(s, x.name) for s in steps)) for x in fields(steps[0])
            )
            assert np.array_equal(envs[0].obs, envs[1].obs)


class Frames(gym.Env):
    """Pixels that depend on the seed; ends after three steps."""

    observation_space = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._frame(), {}

    def step(self, action):
        self.t += 1
        if self.t == 2 and os.environ.get("LOGPI_TEST_FAULT"):
            raise ValueError("the camera is gone")
        return self._frame(), 1.0, self.t == 3, False, {}

    def _frame(self):
        return self.np_random.integers(0, 256, (4, 4, 3)).astype(np.uint8)


def test_a_fault_of_the_environment_is_the_same_line(made, monkeypatch):
    monkeypatch.setenv("LOGPI_TEST_FAULT", "1")
    lines = []
    for processes in (1, 2):
        envs = made(Frames, 2, processes)
        envs.begin(lambda i: i)
        envs.step(np.zeros(2, np.int64))
        with pytest.raises(UserError, match="the camera is gone") as error:
            envs.step(np.zeros(2, np.int64))
        lines.append(str(error.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]


def test_a_process_that_dies_is_one_line(made):
    envs = made("CartPole-v1", 4, 2)
    envs.begin(lambda i: i)
    worker = envs._workers[0][0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(10)
    with pytest.raises(UserError, match="environments 2 to 3 ended by signal 9") as error:
        envs.step(np.zeros(4, np.int64))
    assert "\n" not in str(error.value)


def test_a_process_that_dies_while_another_waits_for_it_is_one_line(made):
    envs = made(lambda: Killed(os.getpid()), 2, 2)
    envs.begin(lambda i: i)
    start = time.monotonic()
    with pytest.raises(UserError, match="environments 1 to 1 ended by signal 9"):
        envs.step(np.zeros(2, np.int64))
    assert time.monotonic() - start < 50


class Killed(gym.Env):
    """Kills its process in its first step, some time after the step was asked for, unless it is the
    process that made it."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, here):
        self.here = here

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if os.getpid() != self.here:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros(1, np.float32), 1.0, False, False, {}


def test_a_fault_in_another_process_is_one_line(made):
    envs = made(lambda: Faulty(os.getpid()), 2, 2)
    envs.begin(lambda i: i)
    with pytest.raises(UserError, match="the other camera is gone") as error:
        envs.step(np.zeros(2, np.int64))
    assert "\n" not in str(error.value)


class Faulty(Killed):
    """Fails in its first step, unless in the process that made it."""

    def step(self, action):
        if os.getpid() != self.here:
            raise ValueError("the other camera is gone")
        return super().step(action)


def test_the_first_block_stays_in_this_process(made):
    """What its environments change outside themselves is seen here."""
    here = []
    envs = made(lambda: Noted(here), 3, 2)
    envs.begin(lambda i: 10 + i)
    assert here[-1] == 10 and not {11, 12} & set(here)


class Noted(Killed):
    """Notes its seeds in a list of this process."""

    def reset(self, *, seed=None, options=None):
        self.here.append(seed)
        return super().reset()


def test_processes_are_forked_after_threads_of_torch(made):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.ones(512, 512)
        assert float((x @ x)[0, 0]) == 512
        envs = made("CartPole-v1", 2, 2)
        envs.begin(lambda i: i)
        assert envs.step(np.zeros(2, np.int64)).real.all()
    finally:
        torch.set_num_threads(threads)


def test_an_answer_that_nobody_waited_for_is_dropped(made):
    """Ctrl-C between question and answer; what is asked next gets its own answer."""
    envs = made("CartPole-v1", 2, 2)
    envs.begin(lambda i: i)
    for _, pipe in envs._workers:
        pipe.send((envs._asked, "state_dict", ()))
    assert envs.step(np.zeros(2, np.int64)).after.shape == (2, 4)


def test_processes_end(made):
    envs = made("CartPole-v1", 2, 2)
    workers = [w for w, _ in envs._workers]
    assert len(workers) == 1 and all(w.is_alive() for w in workers)
    envs.close()
    assert not any(w.is_alive() for w in workers)


def test_numbers_that_cannot_be(made):
    with pytest.raises(UserError, match="1 to 2 processes, not 3"):
        made("CartPole-v1", 2, 3)
    with pytest.raises(UserError, match="leave --vectorized off"):
        made("CartPole-v1", 2, 2, vectorized=True)


def test_processes_are_chosen_by_what_a_step_costs(monkeypatch):
    monkeypatch.setattr("logpi.distributed.cores", lambda: 2)
    word, own = logpi.Gym(env="CartPole-v1"), logpi.Gym(env=Frames)
    # seconds of a step of one environment, and of all eight
    for cost, number in ((1e-5, 1), (2e-4, 2), (1.0, 2)):
        assert env_processes(word, cost, 8) == number and env_processes(own, cost, 8) == 1
    assert env_processes(word, 1.0, 1) == 1
    assert env_processes(logpi.Gym(env=Frames, env_processes=3), 1e-5, 8) == 3
    assert env_processes(logpi.Gym(env="CartPole-v1", vectorized=True), 1.0, 8) == 1


def test_a_job_learns_the_same():
    policies = []
    for number in (1, 2):
        torch.manual_seed(0)
        job = logpi.Gym(env="CartPole-v1", options={"n_steps": 16, "envs": 4}, env_processes=number)
        _, _, rollout, learner, _ = build(job)
        for _ in range(2):
            learner.update(rollout().batch)
        rollout.envs.close()
        policies.append(rollout.policy)
    for p, q in zip(*(x.parameters() for x in policies), strict=True):
        assert torch.equal(p, q)

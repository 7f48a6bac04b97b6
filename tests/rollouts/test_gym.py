"""From transitions to rows: episode ends, time-outs, automatic resets, groups, spaces, scaling."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from logpi import algorithm
from logpi.envs.control.make import make_env, make_vector_environment
from logpi.envs.control.spaces import action_kind, encode, encoded_shape, stack
from logpi.envs.control.vector import GymnasiumVectorEnvironment, SyncVectorEnvironment
from logpi.errors import UserError
from logpi.ops.advantages import GAE, RewardToGo
from logpi.ops.selection import CountAsFailure, DropUniform, MaskOut
from logpi.policies.distributions import Categorical
from logpi.policies.mlp import mlp
from logpi.rollouts.gym import Episodes, Fragments, RewardScale, play
from logpi.rollouts.transitions import record, rows
from tests.worlds import Count, Identity, envs_of

KIND = Categorical(2)


def by_state(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A policy that depends on what is seen alone, and says so with a certain log-probability."""
    params = np.stack([obs[:, 0], np.zeros(len(obs), np.float32)], -1)
    return params, (obs[:, 0].astype(int) + obs[:, 1].astype(int)) % 2


def recorded(envs, **how):
    envs.begin(lambda i: i)
    return rows(record(envs, by_state, KIND, **how), KIND)


def test_rows_end_where_episodes_end():
    """Lengths 2 and 3, five steps: the second environment's second episode is cut off after two of
    its three steps."""
    batch = recorded(SyncVectorEnvironment([Count(2), Count(3)]), steps=5)
    assert batch.mask.sum(1).tolist() == [2, 2, 1, 3, 2]
    # (step, episode): what was seen, and after the last action what followed it, never the next
    # episode's first state
    steps = [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2, 3], [0, 1, 2]]
    for row, expected in zip(batch.obs, steps, strict=True):
        assert row[: len(expected), 0].tolist() == expected
        assert len(set(row[: len(expected), 1].tolist())) == 1
    assert batch.reward[0].tolist() == [1, 2, 0]
    assert batch.obs[:, 0, 1].tolist() == [
        1,
        2,
        3,
        0,
        1,
    ]  # the vector environment resets its first environment once to look at it
    assert batch.terminated.tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]  # odd episodes time out; two rows are cut off


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_both_autoreset_modes_give_the_same_rows(mode):
    lengths = (1, 2, 5)
    alike = [lambda n=n: Count(n) for n in lengths]
    ours = SyncVectorEnvironment([f() for f in alike])
    theirs = GymnasiumVectorEnvironment(SyncVectorEnv(alike, autoreset_mode=mode))
    for env in [*ours.envs, *theirs.env.envs]:
        env.episode = 0
    a, b = recorded(ours, episodes=4), recorded(theirs, episodes=4)
    assert len(a) == 12
    for name in ("obs", "action", "mask", "reward", "terminated", "logp"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_fragments_of_a_next_step_environment_hold_no_garbage():
    envs = GymnasiumVectorEnvironment(
        SyncVectorEnv([lambda: Count(3)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    )
    batch = recorded(envs, steps=10)
    assert (batch.reward[batch.mask] > 0).all()  # a reset's row has reward 0, a step's never
    assert int(batch.mask.sum()) == 2 * 8  # 3 steps, a reset, 3 steps, a reset, 2 steps


def test_time_outs_bootstrap_and_terminations_do_not():
    batch = recorded(SyncVectorEnvironment([Count(2)]), steps=4)
    value = torch.full((2, 3), 10.0)
    advantage = GAE(gamma=0.5, lam=1.0)(batch, value)
    to_go = RewardToGo(0.5)(batch)
    for i in range(2):
        beyond = 0.0 if batch.terminated[i] else 10.0 * 0.25
        assert float(advantage[i, 0]) == pytest.approx(float(to_go[i, 0]) + beyond - 10.0)
    assert set(batch.terminated.tolist()) == {True, False}


def test_returns_across_a_truncation():
    """Tianshou's test_returns: rewards 0…7, γ = 0.1, ends after 0 and 3, a time-out after 5 with a
    worthless last state."""
    import logpi.testing as t

    pieces = [t.row([0.0]), t.row([1.0, 2, 3]), t.row([4.0, 5], terminated=False), t.row([6.0, 7])]
    found = [
        x for p in pieces for x in GAE(0.1, 1.0)(p, torch.zeros(1, p.mask.shape[1] + 1))[0].tolist()
    ]
    assert found == pytest.approx([0, 1.23, 2.3, 3, 4.5, 5, 6.7, 7])


@pytest.mark.parametrize("gamma", [1.0, 0.99])
@pytest.mark.parametrize("lam", [1.0, 0.9])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gae_of_a_reward_at_the_end(gamma, lam, value):
    """Stable-Baselines3's test_gae: 64 steps, reward 1 on the last, constant value; against the sum
    written out."""
    import logpi.testing as t

    row = t.row([0.0] * 63 + [1.0])
    found = GAE(gamma, lam)(row, torch.full((1, 65), value))[0].double()
    delta = [gamma * value - value] * 63 + [1.0 - value]
    expected = [sum((gamma * lam) ** (k - i) * delta[k] for k in range(i, 64)) for i in range(64)]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-5
    )


# --- rollouts ---


def test_log_probabilities_are_the_learners_own():
    torch.manual_seed(0)
    envs = make_vector_environment("CartPole-v1", 3)
    policy = mlp(4, Categorical(2))
    batch = Fragments(envs, policy, steps=40)().batch
    now = policy.evaluate(batch)
    torch.testing.assert_close(
        now.logp.detach()[batch.mask], batch.logp[batch.mask], atol=1e-5, rtol=1e-5
    )


def test_fragments_continue_episodes_and_count_them():
    envs = envs_of(lambda: Count(5), 2)
    rollout = Fragments(envs, mlp(2, KIND), steps=3)
    first, second = rollout(), rollout()
    assert "reward" not in first.metrics and first.metrics["num_tokens"] == 6
    assert (
        second.metrics["reward"] == 15
        and second.metrics["episode_length"] == 5
        and second.metrics["episodes"] == 2
    )
    assert torch.equal(first.batch.obs[0, 3], second.batch.obs[0, 0])


def test_groups_begin_from_the_same_seed():
    envs = make_vector_environment("CartPole-v1", 4)
    batch = Episodes(envs, mlp(4, Categorical(2)), episodes=12, group=3)().batch
    assert batch.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    starts = batch.obs[:, 0].reshape(4, 3, 4)
    assert (starts == starts[:, :1]).all() and len({tuple(s[0].tolist()) for s in starts}) == 4
    assert batch.terminated.all() and len(batch) == 12


def test_greedy_baselines_are_returns_of_the_same_seeds():
    envs = make_vector_environment("CartPole-v1", 2)
    policy = mlp(4, Categorical(2))
    rollout = Episodes(envs, policy, episodes=4, group=2, algorithm=algorithm("remax"), seed=5)
    batch = rollout().batch
    seeds = np.random.default_rng(np.random.SeedSequence(5).spawn(2)[1]).integers(2**31, size=2)
    expected = play(envs, rollout._greedy, policy.kind, seeds.tolist())
    assert batch.baseline.tolist() == expected.repeat(2).tolist()


def test_impossible_settings_are_refused():
    envs = make_vector_environment("CartPole-v1", 4)
    policy = mlp(4, Categorical(2))
    with pytest.raises(UserError, match="multiple"):
        Episodes(envs, policy, episodes=6)
    with pytest.raises(UserError, match="vectorised form cannot"):
        Episodes(
            make_vector_environment("CartPole-v1", 4, vectorized=True), policy, episodes=8, group=2
        )
    with pytest.raises(UserError, match="did you mean CartPole-v1"):
        make_env("CartPol-v1")
    with pytest.raises(UserError, match="no vectorised form"):
        make_vector_environment("Pendulum-v1", 2, vectorized=True)


def test_an_algorithm_is_refused_by_a_rollout_that_it_cannot_learn_from():
    envs = make_vector_environment("CartPole-v1", 2)
    policy = mlp(4, Categorical(2))
    with pytest.raises(UserError, match="reinforce learns from whole episodes"):
        Fragments(envs, policy, steps=8, algorithm=algorithm("reinforce"))
    with pytest.raises(UserError, match="no groups to keep"):
        Fragments(envs, policy, steps=8, algorithm=algorithm("ppo", truncation=MaskOut()))
    with pytest.raises(UserError, match="samples further prompts"):
        Episodes(envs, policy, episodes=4, group=2, algorithm=algorithm("dapo"))
    with pytest.raises(UserError, match="group must be at least 2, not 1"):
        Episodes(envs, policy, episodes=4, algorithm=algorithm("grpo"))


@pytest.mark.parametrize("truncation", [MaskOut(), CountAsFailure(-1.0)], ids=str)
def test_an_algorithm_decides_what_a_cut_off_episode_is(truncation):
    """A time limit that about half of the episodes reach."""
    torch.manual_seed(0)
    policy = mlp(4, Categorical(2))
    wide, plain = (
        Episodes(
            make_vector_environment("CartPole-v1", 2, max_episode_steps=12),
            policy,
            episodes=8,
            group=4,
            algorithm=made,
        )().batch
        for made in (algorithm("grpo", truncation=truncation), algorithm("grpo"))
    )
    cut = ~plain.terminated
    assert 0 < cut.sum() < 8 and torch.equal(wide.group, plain.group)
    if truncation == MaskOut():
        assert torch.equal(wide.mask.any(1), ~cut) and not wide.terminated[cut].any()
    else:
        assert wide.terminated.all() and (wide.reward[cut].sum(1) == -1).all()
    assert torch.equal(wide.reward[~cut].sum(1), plain.reward[~cut].sum(1))


def test_an_algorithm_decides_which_groups_are_kept():
    """A return is an episode's length, at most 12: pairs that both reach the limit are equal."""
    torch.manual_seed(0)
    envs = make_vector_environment("CartPole-v1", 2, max_episode_steps=12)
    rollout = Episodes(
        envs,
        mlp(4, Categorical(2)),
        episodes=32,
        group=2,
        algorithm=algorithm("grpo", keep=DropUniform()),
    )
    batch = rollout().batch
    returns = batch.reward.sum(1).view(-1, 2)
    assert 0 < len(batch) < 32 and (returns[:, 0] != returns[:, 1]).all()
    assert (batch.group.view(-1, 2)[:, 0] == batch.group.view(-1, 2)[:, 1]).all()


def test_the_vectorised_form_gives_the_same_returns():
    """A fixed policy on CartPole: the same mean length whichever way the environments are
    stepped."""
    lengths = []
    for vectorized in (False, True):
        envs = make_vector_environment("CartPole-v1", 64, vectorized)
        torch.manual_seed(0)
        rollout = Episodes(envs, mlp(4, Categorical(2)), episodes=256, seed=3)
        batch = rollout().batch
        assert len(batch) == 256
        lengths.append(batch.mask.sum(1).double())
    gap = abs(float(lengths[0].mean() - lengths[1].mean()))
    assert gap < 4 * float(sum(x.var() / 256 for x in lengths)) ** 0.5


def test_reward_scaling_is_that_of_the_definition():
    envs = envs_of(lambda: Count(3), 2)
    envs.begin(lambda i: i)
    scale = RewardScale(gamma=0.5)
    streams = [record(envs, by_state, KIND, steps=4) for _ in range(2)]
    scaled = [scale(s) for s in streams]
    discounted = [[1, 2.5, 4.25, 1], [2.5, 4.25, 1, 2.5]]  # Count(3): rewards 1 2 3 | 1 2 3 …
    seen = np.array(discounted[0] * 2 + discounted[1] * 2)
    np.testing.assert_allclose(scaled[1].reward, streams[1].reward / seen.std(), rtol=1e-5)


def test_observation_statistics_move_between_updates_only():
    envs = envs_of(lambda: Count(4), 2)
    policy = mlp(2, KIND, normalize=True)
    rollout = Fragments(envs, policy, steps=8)
    first = rollout().batch
    assert float(policy.normalizer.count) == 0  # nothing moved while this batch is learned from
    rollout()
    seen = first.obs[:, :-1][first.mask]
    torch.testing.assert_close(policy.normalizer.mean, seen.mean(0))
    torch.testing.assert_close(policy.normalizer.var, seen.var(0, correction=0))


# --- spaces ---


def test_observations_of_every_kind_become_rows():
    s = gym.spaces
    cases = [
        (s.Box(-1, 1, (2, 2)), np.arange(4.0).reshape(2, 2), [0, 1, 2, 3]),
        (s.Discrete(3, start=5), 6, [0, 1, 0]),
        (s.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (s.MultiBinary(3), np.array([1, 0, 1]), [1, 0, 1]),
        (s.Tuple((s.Discrete(2), s.Box(-1, 1, (1,)))), (1, np.array([0.5])), [0, 1, 0.5]),
        (
            s.Dict({"action_mask": s.MultiBinary(2), "x": s.Discrete(2)}),
            {"action_mask": np.array([1, 0]), "x": 1},
            [0, 1, 1, 0],
        ),
    ]
    for space, one, expected in cases:
        found = encode(space, stack(space, [one, one]))
        assert found.dtype == np.float32 and found.tolist() == [expected, expected], space
        assert encoded_shape(space) == (len(expected),)
    with pytest.raises(UserError, match="supported: Box, Discrete"):
        encoded_shape(s.Text(3))


def test_unsupported_actions_name_the_supported():
    with pytest.raises(UserError, match="supported: Discrete, MultiDiscrete"):
        action_kind(gym.spaces.Tuple((gym.spaces.Discrete(2),)))
    with pytest.raises(UserError, match="finite"):
        action_kind(gym.spaces.Box(-np.inf, np.inf, (1,)), squash=True)


def test_grid_world_is_the_golden_one():
    env = make_env("logpi/GridWorld-v0", render_mode="ansi")
    start, _ = env.reset(seed=0)
    steps = [env.step(a) for a in (0, 1, 0, 0)]  # right, up, right, right
    rewards = [s[1] for s in steps]
    assert (start, rewards, steps[-1][2]) == (0, [-1, -1, -1, 5], True)
    import logpi.testing as t

    assert RewardToGo()(t.row(rewards)).tolist() == [[2, 3, 4, 5]]
    probabilities = torch.tensor([0.4, 0.3, 0.5, 0.7])
    assert float((torch.tensor([2.0, 3, 4, 5]) * probabilities.log()).sum()) == pytest.approx(
        -10.0005, abs=1e-4
    )
    assert "A" in env.render() and "+4" in env.render()


def test_slips_happen_as_often_as_they_should():
    env = make_env("logpi/GridWorld-v0", slip=0.2)
    ups = 0
    for seed in range(2000):
        env.reset(seed=seed)
        ups += env.step(0)[0] == 4
    assert abs(ups / 2000 - 0.2) < 0.03


def test_gymnasium_finds_nothing_wrong_with_it():
    from gymnasium.utils.env_checker import check_env

    check_env(make_env("logpi/GridWorld-v0").unwrapped, skip_render_check=True)


def test_identity_is_what_it_should_be():
    env = Identity(gym.spaces.Discrete(4))
    state, _ = env.reset(seed=1)
    total = 0.0
    for _ in range(100):
        state, reward, _, over, _ = env.step(state)
        total += reward
    assert total == 100 and over

"""Every family of action distributions against its own definition, and the NumPy actor against
torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from logpi.policies.cnn import cnn
from logpi.policies.distributions import (
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
)
from logpi.policies.mlp import FORBIDDEN, mlp
from logpi.types import Batch

KINDS = {
    "categorical": Categorical(5),
    "multi": MultiCategorical((2, 3)),
    "bernoulli": Bernoulli(3),
    "gaussian": Gaussian((-1.0, -2.0), (1.0, 2.0)),
    "squashed": SquashedGaussian((-1.0, -2.0), (1.0, 3.0)),
}
SAMPLES = 400_000


def params_of(kind, seed: int, scale: float = 0.7) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, kind.outputs + kind.free, generator=g)


@pytest.fixture(params=KINDS, ids=list(KINDS))
def kind(request):
    return KINDS[request.param]


def drawn(kind, params: torch.Tensor) -> torch.Tensor:
    action = kind.sample(params.expand(SAMPLES, -1).numpy(), np.random.default_rng(0))
    return torch.from_numpy(action)


def test_entropy_is_minus_the_mean_log_probability(kind):
    params = params_of(kind, 1)
    logp = kind.logp(params.expand(SAMPLES, -1), drawn(kind, params))
    assert (
        abs(float(kind.entropy(params)) + float(logp.mean()))
        < 5 * float(logp.std()) / SAMPLES**0.5 + 2e-4
    )


def test_kl_is_the_mean_log_ratio_and_zero_at_itself(kind):
    old, new = params_of(kind, 1), params_of(kind, 2)
    action = drawn(kind, old)
    gap = kind.logp(old.expand(SAMPLES, -1), action) - kind.logp(new.expand(SAMPLES, -1), action)
    assert abs(float(kind.kl(old, new)) - float(gap.mean())) < 5 * float(gap.std()) / SAMPLES**0.5
    assert float(kind.kl(old, new)) > 0.01
    assert float(kind.kl(old, old)) == pytest.approx(0, abs=1e-6)


def test_log_probability_is_that_of_torch(kind):
    params, d = params_of(kind, 3), torch.distributions
    action = drawn(kind, params)[:50]
    many = params.expand(50, -1)
    match kind:
        case Categorical():
            expected = d.Categorical(logits=many).log_prob(action)
        case MultiCategorical():
            expected = d.Categorical(logits=many[:, :2]).log_prob(action[:, 0]) + d.Categorical(
                logits=many[:, 2:]
            ).log_prob(action[:, 1])
        case Bernoulli():
            expected = d.Bernoulli(logits=many).log_prob(action.float()).sum(-1)
        case SquashedGaussian():
            low, high = torch.tensor(kind.low), torch.tensor(kind.high)
            base = d.Normal(many[:, :2], many[:, 2:].exp())
            onto = [d.TanhTransform(), d.AffineTransform((low + high) / 2, (high - low) / 2)]
            env = torch.from_numpy(kind.to_env(action.numpy()))
            expected = d.TransformedDistribution(base, onto).log_prob(env).sum(-1)
        case Gaussian():
            expected = d.Normal(many[:, :2], many[:, 2:].exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(kind.logp(many, action), expected, atol=2e-4, rtol=1e-4)


def test_sampling_and_mode_fit_the_probabilities():
    # softmax 0.7311, 0.2689
    params = torch.tensor([[1.0, 0.0]])
    share = (drawn(Categorical(2), params) == 0).double().mean()
    assert abs(float(share) - 0.731059) < 0.004
    assert Categorical(3).mode(np.array([[0.0, 2.0, 1.0]])) == [1]
    assert (Bernoulli(2).mode(np.array([[-1.0, 1.0]])) == [[0, 1]]).all()


def test_actions_reach_the_environment_inside_its_bounds():
    action = np.array([[-9.0, 9.0], [0.0, 0.5]], np.float32)
    np.testing.assert_allclose(KINDS["gaussian"].to_env(action), [[-1, 2], [0, 0.5]])
    inside = KINDS["squashed"].to_env(action)
    assert (inside >= [-1, -2]).all() and (inside <= [1, 3]).all() and inside[1, 0] == 0.0
    assert Categorical(2, start=3).to_env(np.array([1])) == [4]


def test_squashing_needs_bounds():
    with pytest.raises(ValueError, match="finite"):
        SquashedGaussian((float("-inf"),), (1.0,))


# --- policies ---


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_numpy_actor_follows_the_torch_one(kind, shared, normalize):
    torch.manual_seed(0)
    policy = mlp(4, kind, hidden=(16, 16), shared=shared, normalize=normalize)
    act, x = policy.actor(), torch.randn(7, 4)
    # the second time after a change of weights and statistics
    for _ in range(2):
        with torch.no_grad():
            expected = policy._params(x)
        np.testing.assert_allclose(act(x.numpy()), expected.numpy(), atol=1e-5)
        policy.load_state_dict({k: v + 0.1 for k, v in policy.state_dict().items()})
        policy.observe(np.ones(4), np.full(4, 2.0), 10)


def test_forbidden_actions_have_probability_zero_everywhere():
    policy = mlp(2, Categorical(3), hidden=(8,), masks=3)
    obs = torch.tensor([[0.1, 0.2, 1, 0, 1], [0.1, 0.2, 0, 0, 1.0]])
    params = torch.from_numpy(policy.actor()(obs.numpy()))
    assert params[0, 1] == FORBIDDEN
    drawn = Categorical(3).sample(np.repeat(params.numpy(), 500, 0), np.random.default_rng(0))
    assert set(drawn[:500]) == {0, 2} and set(drawn[500:]) == {2}
    now = policy.evaluate(one_step(obs, torch.tensor([0, 2])))
    assert (
        now.entropy[1].item() == 0 and now.logp[1].item() == 0 and torch.isfinite(now.entropy).all()
    )
    kl = policy.distributions(one_step(obs, torch.tensor([0, 2])))
    assert torch.isfinite(kl.kl(kl)).all()


def one_step(obs: torch.Tensor, action: torch.Tensor) -> Batch:
    n = len(obs)
    return Batch(
        obs[:, None].repeat(1, 2, *[1] * (obs.ndim - 1)),
        action[:, None],
        torch.ones(n, 1, dtype=torch.bool),
        torch.zeros(n, 1),
        torch.ones(n, dtype=torch.bool),
        torch.arange(n),
        torch.zeros(n, 1),
    )


def test_evaluation_reads_nothing_but_own_actions_and_the_bootstrap_state():
    torch.manual_seed(0)
    policy = mlp(3, Categorical(2), hidden=(8,))
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    clean = Batch(
        torch.randn(3, 4, 3),
        torch.ones(3, 3, dtype=torch.long),
        mask,
        torch.zeros(3, 3),
        torch.tensor([True, False, False]),
        torch.arange(3),
        torch.zeros(3, 3),
    )
    dirty = clean.obs.clone()
    # the state after a cut-off row's last action stays
    dirty[0, 3] = dirty[1, 2:] = dirty[2, 3] = float("nan")
    now, then = (
        policy.evaluate(clean),
        policy.evaluate(Batch(dirty, *list(vars(clean).values())[1:])),
    )
    for name in ("logp", "entropy", "value"):
        assert torch.equal(getattr(now, name), getattr(then, name))
    expected = policy.value(clean.obs[1, 1][None])
    torch.testing.assert_close(now.value[1, 1:2], expected)
    assert now.value[0, 3] == 0


@pytest.mark.parametrize("shape", [(84, 84, 4), (3, 12, 10)])
def test_pixels_in_either_layout(shape):
    torch.manual_seed(0)
    policy = cnn(shape, Categorical(3), width=32)
    frames = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    now = policy.evaluate(one_step(frames, torch.zeros(5, dtype=torch.long)))
    params = torch.from_numpy(policy.actor()(frames.numpy()))
    torch.testing.assert_close(now.logp[:, 0], params.log_softmax(-1)[:, 0], atol=1e-5, rtol=1e-5)
    assert now.value.shape == (5, 2)


def test_the_initial_policy_is_close_to_uniform():
    """Gain 0.01 on the policy's output, orthogonal inside (37 details of PPO)."""
    torch.manual_seed(0)
    policy = mlp(4, Categorical(4))
    logits = policy.actor()(np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32))
    assert np.abs(logits).max() < 0.05
    w = policy.critic_net[2].weight
    torch.testing.assert_close(w @ w.T, 2 * torch.eye(64), atol=1e-4, rtol=0)


def test_a_waiting_time_of_zero_chooses_no_forbidden_action():
    class Zeros:
        def standard_exponential(self, shape, dtype):
            return np.zeros(shape, dtype)

    with np.errstate(all="raise"):
        assert Categorical(3).sample(
            np.array([[0.0, -1e8, -1.0]], np.float32), Zeros()
        ).tolist() == [0]


@pytest.mark.parametrize(
    ("kind", "params", "names", "text"),
    [
        (Categorical(2), [0.0, 0.0], "", "0 .50 ▌  1 .50 ▌"),
        (Categorical(3, 5), [0.0, -50.0, 50.0], "", "5 .00    6 .00    7 1.00 █"),
        (Categorical(2), [math.log(3), 0.0], "←→", "← .75 ▊  → .25 ▎"),
        (MultiCategorical((1, 2)), [3.0, 1.0, 1.0], "", "0 1.00 █ | 0 .50 ▌  1 .50 ▌"),
        (Bernoulli(2), [0.0, 100.0], "", "0 on .50 ▌  1 on 1.00 █"),
        (Gaussian((-1.0,), (1.0,)), [-0.25, 0.0], "", "−0.25 ± 1.00"),
        (SquashedGaussian((-1.0,), (1.0,)), [0.25, 0.0], "", "tanh(+0.25 ± 1.00)"),
    ],
)
def test_what_is_shown_of_a_state(kind, params, names, text):
    assert kind.shown(np.array(params, np.float32), names) == text


def test_probabilities_are_the_softmax():
    params = params_of(KINDS["categorical"], 3)
    chances = KINDS["categorical"].probabilities(params.numpy())
    np.testing.assert_allclose(chances, params.softmax(-1).numpy(), rtol=1e-6)

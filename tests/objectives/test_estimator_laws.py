"""Laws between the parts: which methods coincide, when, and what each KL placement does to the
gradient, by enumeration.

Gradients here are of plain tables of log-probabilities; the same laws through the shipped learner
are the lab's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi import algorithm
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import (
    GAE,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    NStep,
    RewardToGo,
    TotalReward,
)
from logpi.ops.constant_advantages import Uniform
from logpi.ops.kl import KL, Estimator, k1, k2, k3
from logpi.ops.ratios import SequenceRatio
from logpi.ops.surrogates import Clip, ClippedScore, DualClip, ScoreFunction, Surrogate, Unclipped
from logpi.ops.tokens import highest_entropy
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum, TokenMean
from logpi.testing import gradient, random_case
from logpi.types import Batch, PolicyOutput

pytestmark = pytest.mark.usefixtures("double")
Case = tuple[Batch, PolicyOutput, PolicyOutput]


def same(
    a: PolicyGradient, b: PolicyGradient, case: Case, moved: float = 0.3, loss: bool = True
) -> None:
    (x, dx), (y, dy) = gradient(a, *case, moved=moved), gradient(b, *case, moved=moved)
    if loss:
        assert_close(x, y)
    for name in dx:
        assert_close(dx[name], dy[name], msg=lambda m, name=name: f"gradient of {name}: {m}")
    assert dx["logp"].any(), "the gradient is zero, so this shows nothing"


def double_case(seed: int = 0, **options: int) -> Case:
    batch, now, ref = random_case(seed, **options)
    wide = batch.map(lambda x: x.double() if x.is_floating_point() else x)
    up = [PolicyOutput(e.logp.double(), e.entropy.double(), e.value.double()) for e in (now, ref)]  # type: ignore[union-attr]
    return wide, up[0], up[1]


def of_length(width: int, seed: int = 0) -> Case:
    """Every row has the same number of own actions, from the first slot on."""
    batch, now, ref = double_case(seed)
    full = torch.ones_like(batch.mask)
    batch = replace(batch, mask=full, reward=torch.rand_like(batch.reward), logp=now.logp)
    cut = {k: getattr(batch, k)[:, :width] for k in ("action", "mask", "reward", "logp")}

    def short(e: PolicyOutput) -> PolicyOutput:
        assert e.value is not None
        return PolicyOutput(e.logp[:, :width], e.entropy[:, :width], e.value[:, : width + 1])

    return replace(batch, obs=batch.obs[:, : width + 1], **cut), short(now), short(ref)


# --- parts that coincide ---


@pytest.mark.parametrize("seed", range(3))
def test_no_clip_is_unclipped(seed: int) -> None:
    case = double_case(seed)
    base = PolicyGradient(GroupNorm(), surrogate=Clip(float("inf")))
    same(base, replace(base, surrogate=Unclipped()), case)
    same(base, replace(base, surrogate=DualClip(float("inf"), c=float("inf"))), case)
    clipped, _ = gradient(replace(base, surrogate=Clip(0.1)), *case, moved=0.3)
    assert clipped != gradient(base, *case, moved=0.3)[0], (
        "the clip must act here, or the law is empty"
    )


def test_gspo_is_grpo_at_length_one() -> None:
    case = of_length(1)
    base = PolicyGradient(GroupNorm(), surrogate=Clip(0.2), weight=SequenceMean())
    for mean in (True, False):
        same(base, replace(base, ratio=SequenceRatio(mean)), case)


def test_product_ratio_is_mean_ratio_to_the_length() -> None:
    batch, now, _ = double_case()
    moved = now.logp + 0.1 * torch.randn_like(now.logp)
    mean = SequenceRatio(mean=True)(moved, now.logp, batch.mask)
    product = SequenceRatio(mean=False)(moved, now.logp, batch.mask)
    assert_close(product, mean * batch.mask.sum(1, keepdim=True))


@pytest.mark.parametrize("group_size", [2, 3, 5])
def test_leave_one_out_is_the_centred_return_scaled(group_size: int) -> None:
    batch, _, _ = double_case(group_size=group_size)
    assert_close(LeaveOneOut()(batch), GroupCenter()(batch) * group_size / (group_size - 1))


def test_group_norm_is_the_centred_return_over_the_spread() -> None:
    batch, _, _ = double_case()
    centred = GroupCenter()(batch)
    total = torch.where(batch.mask, batch.reward, 0.0).sum(1).reshape(3, 4)
    spread = total.std(1).repeat_interleave(4)[:, None]
    assert_close(GroupNorm(eps=0.0)(batch) * spread, centred)


def test_dapo_is_grpo_at_equal_lengths_and_clips() -> None:
    dapo = algorithm("dapo", low=0.2, high=0.2).objective
    grpo = algorithm("grpo", beta=0.0).objective
    same(dapo, grpo, of_length(5))  # type: ignore[arg-type]
    ragged = double_case()
    with pytest.raises(AssertionError):
        same(dapo, grpo, ragged)  # type: ignore[arg-type]


def test_token_mean_is_group_token_mean_for_one_prompt() -> None:
    case = double_case(prompts=1, group_size=6)
    base = PolicyGradient(GroupNorm(), surrogate=Clip(), weight=TokenMean())
    same(base, replace(base, weight=GroupTokenMean()), case)


def test_fixed_length_one_is_sequence_sum() -> None:
    mask, group = double_case()[0].mask, double_case()[0].group
    assert torch.equal(FixedLength(1)(mask, group), SequenceSum()(mask, group))
    assert_close(FixedLength(64)(mask, group) * 64, SequenceSum()(mask, group))


def test_dr_grpo_is_rloo_up_to_scale_on_policy() -> None:
    case = double_case()
    a = gradient(algorithm("dr_grpo", max_completion_length=7).objective, *case, moved=0.0)[1][
        "logp"
    ]
    b = gradient(algorithm("rloo", beta=0.0).objective, *case, moved=0.0)[1]["logp"]
    assert_close(a * 7 * 4 / 3, b)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_at_lambda_one_is_return_to_go_minus_value(gamma: float) -> None:
    batch, now, _ = double_case()
    over = replace(batch, terminated=torch.ones_like(batch.terminated))
    value = now.value
    assert value is not None
    expected = torch.where(batch.mask, RewardToGo(gamma)(over) - value[:, :-1], 0.0)
    assert_close(GAE(gamma, 1.0)(over, value), expected)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_one_step_is_the_td_error_and_all_steps_are_gae_at_one(gamma: float) -> None:
    """Rows that ended and rows that were cut off, with gaps of a tool and padding."""
    batch, now, _ = double_case()
    assert_close(NStep(1, gamma)(batch, now.value), GAE(gamma, 0.0)(batch, now.value))
    for n in (batch.mask.shape[1], 10**6, float("inf")):
        assert_close(NStep(n, gamma)(batch, now.value), GAE(gamma, 1.0)(batch, now.value))


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_gae_is_the_average_of_all_n_step_advantages(gamma: float, lam: float, seed: int) -> None:
    """(1−λ) Σ_{n<N} λⁿ⁻¹ Â⁽ⁿ⁾ + λᴺ⁻¹ Â⁽ᴺ⁾, where N steps reach the end of every fragment."""
    batch, now, _ = double_case(seed)
    assert bool(batch.terminated.any()) and not bool(batch.terminated.all())
    longest = int(batch.mask.sum(1).max())
    average = lam ** (longest - 1) * NStep(longest, gamma)(batch, now.value)
    for n in range(1, longest):
        average = average + (1 - lam) * lam ** (n - 1) * NStep(n, gamma)(batch, now.value)
    assert_close(average, GAE(gamma, lam)(batch, now.value), atol=1e-12, rtol=0)


def test_gae_without_a_critic_s_opinion_is_return_to_go() -> None:
    batch, now, _ = double_case()
    assert_close(
        GAE(0.9, 1.0)(batch, torch.zeros(now.logp.shape[0], now.logp.shape[1] + 1)),
        RewardToGo(0.9)(batch),
    )


def test_total_reward_is_return_to_go_when_the_reward_comes_last() -> None:
    batch, _, _ = double_case()
    last = torch.where(batch.mask, torch.arange(batch.mask.shape[1]), -1).amax(1, keepdim=True)
    batch = replace(
        batch, reward=torch.zeros_like(batch.reward).scatter(1, last, torch.rand(len(batch), 1))
    )
    assert_close(TotalReward()(batch), RewardToGo()(batch))


def test_orz_is_reinforce_with_baseline_whitened_on_policy() -> None:
    case = double_case()
    orz = algorithm("orz", weight=SequenceSum(), whiten=False).objective
    same(orz, algorithm("reinforce_baseline").objective, case, moved=0.0, loss=False)  # type: ignore[arg-type]


def test_sft_is_the_mean_negative_log_likelihood() -> None:
    batch, now, _ = double_case()
    loss, grads = gradient(algorithm("sft").objective, batch, now, None, moved=0.0)
    assert_close(loss, -now.logp[batch.mask].mean())
    assert_close(grads["logp"], batch.mask / -batch.mask.sum())


def test_a_grid_world_s_reinforce_loss() -> None:
    """Σ Gₜ ln π = −10.0005 for π = .4 .3 .5 .7 along the worked trajectory of Chan, *REINFORCE:
    the world before the gradient*."""
    from logpi.testing import row

    logp = torch.tensor([[0.4, 0.3, 0.5, 0.7]]).log()
    batch = row([-1.0, -1.0, -1.0, 5.0]).map(lambda x: x.double() if x.is_floating_point() else x)
    loss, _ = gradient(
        algorithm("reinforce").objective, batch, PolicyOutput(logp, logp), None, moved=0.0
    )
    assert float(loss) == pytest.approx(10.0005, abs=5e-5)


def test_softmax_gradient_of_the_worked_example() -> None:
    """−G ln p at logits (1, 0), G = 4: p = .7311 and −G (1 − p) = −1.0758 on the chosen logit."""
    from logpi.testing import row

    logits = torch.tensor([1.0, 0.0], requires_grad=True)
    logp = logits.log_softmax(0)[0].reshape(1, 1)
    objective = algorithm("reinforce").objective
    batch = row([4.0]).map(lambda x: x.double() if x.is_floating_point() else x)
    targets = objective.prepare(batch, PolicyOutput(logp, logp), None)
    loss, _ = objective.loss(
        batch, targets, objective.weight(batch.mask, batch.group), PolicyOutput(logp, logp)
    )
    loss.backward()
    assert logits.grad is not None
    assert_close(logits.grad, torch.tensor([-1.0758, 1.0758]), atol=5e-5, rtol=0.0)


# --- the first step ---


@pytest.mark.parametrize(
    "surrogate",
    [Clip(0.2), Unclipped(), DualClip(), ClippedScore(), ClippedScore(0.0, 0.0)],
    ids=str,
)
def test_on_policy_every_surrogate_has_the_score_s_gradient(surrogate: Surrogate) -> None:
    base = PolicyGradient(GroupNorm(), surrogate=ScoreFunction(), weight=TokenMean())
    same(base, replace(base, surrogate=surrogate), double_case(), moved=0.0, loss=False)


@pytest.mark.parametrize("surrogate", [Clip(0.2), Unclipped(), DualClip()], ids=str)
def test_product_ratio_on_policy_is_the_sum_of_scores(surrogate: Surrogate) -> None:
    """∇ρ = Σ ∇ log π for the ratio of a whole response, whose objective counts once: GRPO with it
    has no length bias."""
    same(
        PolicyGradient(GroupNorm(), SequenceRatio(mean=False), surrogate, SequenceMean()),
        PolicyGradient(GroupNorm(), surrogate=ScoreFunction(), weight=SequenceSum()),
        double_case(),
        moved=0.0,
        loss=False,
    )


def test_mean_sequence_ratio_on_policy_is_the_sequence_mean_of_scores() -> None:
    """∇ of the geometric mean is 1/|y| Σ ∇ log π: GSPO's first step is GRPO's without clip or
    KL."""
    case = double_case()
    same(
        algorithm("gspo").objective,  # type: ignore[arg-type]
        PolicyGradient(GroupNorm(), surrogate=ScoreFunction(), weight=SequenceMean()),
        case,
        moved=0.0,
        loss=False,
    )


def test_dual_clip_differs_from_clip_only_far_out_on_bad_actions() -> None:
    case = double_case()
    base = PolicyGradient(GroupNorm(), surrogate=Clip(0.2))
    same(base, replace(base, surrogate=DualClip(0.2, c=3.0)), case, moved=0.3)
    near, far = (
        gradient(base, *case, moved=2.0)[0],
        gradient(replace(base, surrogate=DualClip(0.2)), *case, moved=2.0)[0],
    )
    # the loss is bounded
    assert near > far


# --- KL: what each place does, by enumeration ---


def softmax_pair() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    theta = torch.randn(5, generator=g).requires_grad_()
    return theta, torch.randn(5, generator=g)


def bandit_gradient(objective: PolicyGradient, theta: Tensor, theta_ref: Tensor) -> Tensor:
    """E_{a∼π}[∇ −loss], exactly: one row for each action, weighted by its probability."""
    logp, logp_ref = theta.log_softmax(0)[:, None], theta_ref.log_softmax(0)[:, None]
    n = len(theta)
    batch = Batch(
        obs=torch.zeros(n, 2, dtype=torch.long),
        action=torch.arange(n)[:, None],
        mask=torch.ones(n, 1, dtype=torch.bool),
        reward=torch.zeros(n, 1),
        terminated=torch.ones(n, dtype=torch.bool),
        group=torch.arange(n),
        logp=logp.detach(),
    )
    now, ref = PolicyOutput(logp, logp), PolicyOutput(logp_ref, logp_ref)
    loss, _ = objective.loss(batch, objective.prepare(batch, now, ref), logp.detach().exp(), now)
    return torch.autograd.grad(-loss, theta)[0]


def slope(f: Callable[[Tensor, Tensor], Tensor], theta: Tensor, theta_ref: Tensor) -> Tensor:
    return torch.autograd.grad(f(theta.log_softmax(0), theta_ref.log_softmax(0)), theta)[0]


def reverse(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum()


def forward(p: Tensor, q: Tensor) -> Tensor:
    return (q.exp() * (q - p)).sum()


@pytest.mark.parametrize(
    ("estimator", "divergence"), [(k1, None), (k2, reverse), (k3, forward)], ids=["k1", "k2", "k3"]
)
@pytest.mark.parametrize("surrogate", [ScoreFunction(), Clip()], ids=str)
def test_gradient_of_a_penalty_in_the_loss(
    estimator: Estimator, divergence: Callable | None, surrogate: Surrogate
) -> None:
    """k1 in the loss does nothing on average; k2 is the reverse KL(π‖π_ref), k3 the forward
    KL(π_ref‖π)."""
    theta, ref = softmax_pair()
    objective = PolicyGradient(RewardToGo(), surrogate=surrogate, kl=KL(0.7, estimator, "loss"))
    got = bandit_gradient(objective, theta, ref)
    expected = (
        torch.zeros_like(theta) if divergence is None else -0.7 * slope(divergence, theta, ref)
    )
    assert_close(got, expected)


def test_gradient_of_k1_in_the_reward_is_the_reverse_kl_s() -> None:
    theta, ref = softmax_pair()
    got = bandit_gradient(PolicyGradient(RewardToGo(), kl=KL(0.7, k1, "reward")), theta, ref)
    assert_close(got, -0.7 * slope(reverse, theta, ref))


def test_entropy_bonus_has_the_entropy_s_gradient() -> None:
    theta, _ = softmax_pair()
    logp = theta.log_softmax(0)
    entropy = -(logp.exp() * logp).sum()
    objective = PolicyGradient(Uniform(), entropy_coef=0.5)
    batch = Batch(
        obs=torch.zeros(1, 2, dtype=torch.long),
        action=torch.zeros(1, 1, dtype=torch.long),
        mask=torch.tensor([[True]]),
        reward=torch.zeros(1, 1),
        terminated=torch.tensor([True]),
        group=torch.tensor([0]),
        logp=torch.zeros(1, 1),
    )
    now = PolicyOutput(logp[:1, None].detach(), entropy.reshape(1, 1))
    loss, _ = objective.loss(batch, objective.prepare(batch, now, None), torch.ones(1, 1), now)
    assert_close(
        torch.autograd.grad(-loss, theta, retain_graph=True)[0],
        0.5 * torch.autograd.grad(entropy, theta)[0],
        atol=1e-12,
        rtol=0,
    )


# --- two steps, every trajectory ---

# actions; state 0 is the root, state 1 + a follows a first action a
A = 3


def tree(seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the policy and of the reference [1+A, A], and the reward of every (first, second)
    pair of actions [A²]."""
    g = torch.Generator().manual_seed(seed)
    theta = torch.randn(1 + A, A, generator=g).requires_grad_()
    return theta, torch.randn(1 + A, A, generator=g), torch.rand(A * A, generator=g)


def path_logp(logits: Tensor) -> Tensor:
    """[A², 2] nats of both steps of every trajectory."""
    logp = logits.log_softmax(1)
    return torch.stack(
        [
            torch.stack([logp[0, a], logp[1 + a, b]])
            for a, b in itertools.product(range(A), range(A))
        ]
    )


def paths(reward: Tensor, logp: Tensor, rows: list[int], group: list[int]) -> Batch:
    n = len(rows)
    return Batch(
        obs=torch.zeros(n, 3, dtype=torch.long),
        action=torch.zeros(n, 2, dtype=torch.long),
        mask=torch.ones(n, 2, dtype=torch.bool),
        reward=torch.stack([torch.zeros(n), reward[rows]], 1),
        terminated=torch.ones(n, dtype=torch.bool),
        group=torch.tensor(group),
        logp=logp.detach()[rows],
    )


def tree_gradient(
    objective: PolicyGradient, theta: Tensor, theta_ref: Tensor, reward: Tensor
) -> Tensor:
    """E_{τ∼π}[∇ Σₜ objective], exactly."""
    logp, ref = path_logp(theta), path_logp(theta_ref)
    rows = list(range(A * A))
    batch = paths(reward, logp, rows, rows)
    now = PolicyOutput(logp, logp)
    chance = logp.detach().sum(1, keepdim=True).exp().expand(-1, 2)
    loss, _ = objective.loss(
        batch, objective.prepare(batch, now, PolicyOutput(ref, ref)), chance, now
    )
    return torch.autograd.grad(-loss, theta)[0]


def regularised_return(theta: Tensor, theta_ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    logp = path_logp(theta).sum(1)
    return (logp.exp() * (reward - beta * (logp - path_logp(theta_ref).sum(1)))).sum()


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_whole_trajectory_kl_and_the_kl_trick_have_one_expectation(beta: float) -> None:
    """Theorems 2 and 3 of the introduction to policy gradients for reasoning: both are ∇ of the
    regularised return."""
    theta, ref, reward = tree()
    (true,) = torch.autograd.grad(regularised_return(theta, ref, reward, beta), theta)
    for advantage in (TotalReward(), RewardToGo()):
        assert_close(
            tree_gradient(PolicyGradient(advantage, kl=KL(beta, k1, "reward")), theta, ref, reward),
            true,
        )


def test_the_kl_trick_has_less_variance() -> None:
    theta, ref, reward = tree()
    logp, logp_ref = path_logp(theta).detach(), path_logp(ref)
    rows = list(range(A * A))
    chance = logp.sum(1).exp()

    def spread(advantage: TotalReward | RewardToGo) -> float:
        objective = PolicyGradient(advantage, kl=KL(1.0, k1, "reward"))
        targets = objective.prepare(
            paths(0 * reward, logp, rows, rows),
            PolicyOutput(logp, logp),
            PolicyOutput(logp_ref, logp_ref),
        )
        second = targets.advantage[:, 1]
        return float((chance * second**2).sum() - (chance * second).sum() ** 2)

    assert spread(RewardToGo()) < spread(TotalReward())


def test_a_discount_is_a_bias() -> None:
    theta, ref, reward = tree()
    (true,) = torch.autograd.grad(regularised_return(theta, ref, reward, 0.0), theta)
    biased = tree_gradient(PolicyGradient(RewardToGo(0.5)), theta, ref, reward)
    # the last action's return has no discount
    assert_close(biased[1:], true[1:])
    assert not torch.allclose(biased[0], true[0], rtol=0.05)


def group_gradient(
    name: str, size: int, theta: Tensor, reward: Tensor, **options: object
) -> Tensor:
    """E over every group of `size` trajectories of one prompt, of the gradient of the algorithm's
    own loss."""
    logp = path_logp(theta)
    objective = algorithm(name, **options).objective
    total = torch.zeros(())
    for rows in itertools.product(range(A * A), repeat=size):
        picked = list(rows)
        batch = paths(reward, logp, picked, [0] * size)
        now = PolicyOutput(logp[picked], logp[picked])
        targets = objective.prepare(batch, now, None)
        loss, _ = objective.loss(batch, targets, objective.weight(batch.mask, batch.group), now)
        total = total + logp.detach()[picked].sum().exp() * loss
    return torch.autograd.grad(-total, theta)[0]


@pytest.mark.parametrize(
    ("name", "size", "factor", "options"),
    [
        ("rloo", 2, 1.0, {"beta": 0.0}),
        ("rloo", 3, 1.0, {"beta": 0.0}),
        ("dr_grpo", 2, 1 / 2, {"max_completion_length": 1}),
        ("dr_grpo", 3, 2 / 3, {"max_completion_length": 1}),
        ("reinforce", 1, 1.0, {}),
        ("policy_gradient", 1, 1.0, {}),
    ],
)
def test_expected_gradient_of_group_methods(
    name: str, size: int, factor: float, options: dict
) -> None:
    """RLOO is unbiased for every group size; Dr. GRPO is (G−1)/G of ∇J: exactly, over every group
    of trajectories."""
    theta, ref, reward = tree()
    (true,) = torch.autograd.grad(regularised_return(theta, ref, reward, 0.0), theta)
    assert_close(group_gradient(name, size, theta, reward, **options), factor * true)


def best_of(theta: Tensor, reward: Tensor, k: int) -> Tensor:
    """E[max of k rewards], over every k trajectories."""
    chance = path_logp(theta).sum(1).exp()
    drawn = list(itertools.product(range(A * A), repeat=k))
    return torch.stack([chance[list(r)].prod() * reward[list(r)].max() for r in drawn]).sum()


@pytest.mark.parametrize(("k", "size"), [(2, 2), (2, 3), (3, 3)])
def test_pkpo_climbs_the_best_of_k_for_every_size_of_group(k: int, size: int) -> None:
    """Rewards are any real numbers here, below 0 too."""
    theta, _, reward = tree()
    reward = 3 * reward - 1
    (true,) = torch.autograd.grad(best_of(theta, reward, k), theta)
    assert_close(group_gradient("pkpo", size, theta, reward, k=k), true)


def test_maxrl_climbs_the_logarithm_cut_off() -> None:
    """−Σ_{n<M} (1−p)ⁿ/n: with M = 2 the expected reward, with M = 3 one term more."""
    theta, _, reward = tree()
    right = (reward > reward.median()).double()
    lost = 1 - (path_logp(theta).sum(1).exp() * right).sum()
    for size, goal in ((2, -lost), (3, -lost - lost**2 / 2)):
        (true,) = torch.autograd.grad(goal, theta, retain_graph=True)
        assert_close(group_gradient("maxrl", size, theta, right), true)


def test_at_the_sampling_policy_gates_and_masks_are_not_there() -> None:
    """SAPO and GMPO begin as GRPO, DPPO as Dr. GRPO."""
    case = double_case()
    grpo, dr_grpo = algorithm("grpo", beta=0).objective, algorithm("dr_grpo").objective
    for name, plain in (("sapo", grpo), ("gmpo", grpo), ("dppo", dr_grpo)):
        same(algorithm(name).objective, plain, case, moved=0.0, loss=False)  # type: ignore[arg-type]
        with pytest.raises(AssertionError):
            same(algorithm(name).objective, plain, case, moved=0.5, loss=False)  # type: ignore[arg-type]


def test_gmpo_without_bounds_is_gspo_without_bounds() -> None:
    case, free = double_case(), float("inf")
    gmpo = algorithm("gmpo", low=free).objective
    gspo = algorithm("gspo", surrogate=Clip(free)).objective
    same(gmpo, gspo, case)  # type: ignore[arg-type]


def test_forking_tokens_take_the_others_gradient_away_and_nothing_else() -> None:
    batch, now, ref = double_case()
    whole, part = algorithm("dapo").objective, algorithm("dapo_forking").objective
    all_of_them = gradient(whole, batch, now, ref)[1]["logp"]
    some = gradient(part, batch, now, ref)[1]["logp"]
    chosen = highest_entropy(now.entropy, batch.mask, 0.2)
    assert_close(some, torch.where(chosen, all_of_them, 0.0))
    assert 0 < int(chosen.sum()) <= 0.2 * int(batch.mask.sum()) + 1 and bool(some.any())


def test_a_group_of_two_makes_grpo_blind_to_the_size_of_a_difference() -> None:
    """(R − mean)/std of two is ±1/√2 whatever the difference: the bias that Dr. GRPO removes."""
    batch, _, _ = double_case(group_size=2)
    small = replace(batch, reward=batch.reward * 1e-3)
    assert_close(GroupNorm(eps=0.0)(small), GroupNorm(eps=0.0)(batch))

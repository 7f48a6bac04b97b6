"""The expected gradient of each estimator in theory: closed forms from the papers' algebra.

Each is a function of a `World` that returns E[∇L̂] [S·A] (or its limit), made only of single
trajectories, values and ∇J. Left out: the estimators themselves, which are the library's
(`logpi.ops`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.algorithms import algorithm
from logpi.lab.expectation import Setting
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GAE, RewardToGo
from logpi.ops.selection import DropUniform
from logpi.ops.time import to_go
from logpi.ops.weights import GroupTokenMean, SequenceMean, SequenceSum

if TYPE_CHECKING:
    from logpi.lab.worlds import World


def pull(world: World, coefficient: Tensor) -> Tensor:
    """E_τ[ Σₜ cₜ(τ) ∇log π(aₜ|sₜ) ] [S·A] for coefficients [K, T]."""
    theta = world.logits.detach().requires_grad_()
    logp = world.policy_logp(theta)
    weighted = (world.probability[:, None] * coefficient * logp).sum()
    return torch.autograd.grad(weighted, theta)[0].flatten()


def regularised(world: World, beta: float, reference: Tensor) -> Tensor:
    """∇(J − β KL(π‖π_ref)) [S·A], the KL of whole responses."""
    theta = world.logits.detach().requires_grad_()
    kl = world.mdp.divergence(world.mdp.policy(theta), world.mdp.policy(reference))
    return torch.autograd.grad(world.mdp.expected_return(theta) - beta * kl, theta)[0].flatten()


def _policy_gradient(world: World, m: int) -> Tensor:
    return -world.gradient


def _dr_grpo(world: World, m: int) -> Tensor:
    return -(m - 1) / m * world.gradient


def _spread(world: World) -> Tensor:
    """√(p(1−p)) of each trajectory's prompt [K, 1]."""
    p = world.solve_rate()[world.paths.group]
    return (p * (1 - p)).sqrt()[:, None]


def _centred(world: World) -> Tensor:
    """R − p(x) [K, 1]."""
    return (world.returns - world.solve_rate()[world.paths.group])[:, None]


def _grpo_r1(world: World, m: int) -> Tensor:
    return -pull(world, _centred(world) / _spread(world))


def _grpo(world: World, m: int) -> Tensor:
    return -pull(world, _centred(world) / _spread(world) / world.lengths[:, None])


def _dapo(world: World, m: int) -> Tensor:
    total = torch.zeros_like(world.start).index_add(
        0, world.paths.group, world.conditional * world.lengths
    )
    return -pull(world, _centred(world) / _spread(world) / total[world.paths.group][:, None])


def _chance(world: World) -> Tensor:
    """The probability p that each trajectory's prompt is solved [K, 1]."""
    return world.solve_rate()[world.paths.group][:, None]


def _maxrl(world: World, m: int) -> Tensor:
    """−E[∇p (1 − q^(M−1)) / p], q = 1 − p: the first M − 1 terms of ∇ log p."""
    p = _chance(world)
    return -pull(world, (1 - (1 - p) ** (m - 1)) / p * _centred(world))


def _pass_at_two(world: World, m: int) -> Tensor:
    """−∇E[1 − q²] = −E[2q ∇p]."""
    return -pull(world, 2 * (1 - _chance(world)) * _centred(world))


def _pass_at_two_scaled(world: World, m: int) -> Tensor:
    """−E[q ∇p / σ₂]: the row is one of the two, whose best has mean 1 − q² and spread σ₂."""
    q = 1 - _chance(world)
    return -pull(world, q * _centred(world) / (q**2 * (1 - q**2)).sqrt())


def _mixed_groups(world: World, m: int) -> Tensor:
    """−E[(1 − p^(M−1)) ∇p] / P(mixed): Σ R ∇log π is all of it that is lost where all are right."""
    p = world.solve_rate()
    mixed = (world.start * (1 - p**m - (1 - p) ** m)).sum()
    return -pull(world, (1 - _chance(world) ** (m - 1)) * _centred(world)) / mixed


def _reinforce_plus_plus(world: World, m: int) -> Tensor:
    share = world.probability * world.lengths
    # tokens, not responses, are averaged
    share = share / share.sum()
    mean = (share * world.returns).sum()
    return -world.gradient / (share * (world.returns - mean) ** 2).sum().sqrt()


def discounted(world: World, gamma: float, lam: float) -> Tensor:
    """GAE with V^π of the undiscounted process and γ < 1 in the estimator; exact for responses of
    any length.

        E[Âₜ|s,a] = Q − V − (1−γ) Σ_{k≥t} (γλ)^{k−t} E[V(s_{k+1}) | sₜ, aₜ]

    because E[δₖ] = A − (1−γ) V(s_{k+1}) and the later advantages have mean zero.
    """
    after = world.value[world.index(world.paths)[:, 1:]]
    gap = to_go(after, world.paths.mask, gamma * lam)
    return -world.gradient + (1 - gamma) * pull(world, gap)


def _discounted_return(world: World, m: int) -> Tensor:
    """REINFORCE with γ = 0.9 where only the end is paid: −E[ Σₜ γ^{T−1−t} R ∇log π ]."""
    return -pull(world, 0.9 ** _left(world) * world.returns[:, None])


def _left(world: World) -> Tensor:
    """T−1−t [K, T], the own actions after each one."""
    mask = world.paths.mask
    return torch.where(mask, mask.double().flip(1).cumsum(1).flip(1) - 1, 0.0)


def equal_lengths(world: World, gamma: float, lam: float) -> Tensor:
    """The token advantage (1 − (1−γ)/(1−γλ) (1 − (γλ)^{T−1−t})) Q − V of Liu, "PPO / ORZ"; right
    if all responses have length T."""
    mask, state = world.paths.mask, world.index(world.paths)[:, :-1]
    v, q = (x[0] for x in world.mdp.values(world.pi))
    action = torch.where(mask, world.paths.action, 0)
    factor = 1 - (1 - gamma) / (1 - gamma * lam) * (1 - (gamma * lam) ** _left(world))
    return -pull(world, torch.where(mask, factor * q[state, action] - v[state], 0.0))


@dataclass(frozen=True)
class Claim:
    """What theory says of one method.

    Attributes:
        name: of the method. objective: the method with only the parts that the claim is about.
        law: E[∇L̂] as a formula. form: the same as numbers, a function of the world and M.
        exact: for every M and N; otherwise it is the limit of large batches.
        setting: how batches are drawn. critic: its values, V^π if None.
    """

    name: str
    objective: PolicyGradient
    law: str
    form: Callable[[World, int], Tensor]
    exact: bool = True
    setting: Setting = Setting()
    critic: Callable[[World], Tensor] | None = None

    def drawn(self, m: int) -> Setting:
        """How batches are drawn for groups of M; a claim about several prompts has its own M."""
        return self.setting if self.setting.prompts > 1 else replace(self.setting, responses=m)


def wrong_critic(world: World) -> Tensor:
    """V^π plus an error of about a third of the reward, different in every state."""
    value = world.value
    error = 0.35 * torch.cos(3.0 * torch.arange(value.numel(), dtype=value.dtype))
    return value + error.view_as(value)


def _alone(name: str, **parts: object) -> PolicyGradient:
    """The method's advantage alone, without KL and whitening and with the theorem's own
    aggregation; `parts` replace parts of it."""
    objective = algorithm(name).objective
    assert isinstance(objective, PolicyGradient)
    return replace(objective, **{"kl": None, "whiten": False, "weight": SequenceSum(), **parts})  # type: ignore[arg-type]


def _claims() -> tuple[Claim, ...]:
    exact = (
        "policy_gradient reinforce reinforce_baseline actor_critic_q rloo remax orz ppo a2c".split()
    )
    rows = [Claim(name, _alone(name), "−∇J", _policy_gradient) for name in exact]
    rows += [
        Claim(f"{short}, wrong V", _alone(name), "−∇J", _policy_gradient, critic=wrong_critic)
        for short, name in (("orz", "orz"), ("baseline", "reinforce_baseline"))
    ]
    rows.append(
        Claim(
            "ppo γ=.9 λ=.95",
            _alone("ppo", advantage=GAE(0.9, 0.95)),
            "−∇J + (1−γ)·…",
            lambda w, m: discounted(w, 0.9, 0.95),
        )
    )
    discount = _alone("reinforce", advantage=RewardToGo(0.9))
    rows.append(Claim("reinforce γ=.9", discount, "−E[Σ γᵏ R ∇ln π]", _discounted_return))
    rows.append(Claim("dr_grpo", _alone("dr_grpo"), "−(M−1)/M ∇J", _dr_grpo))
    law = "→ −E[∇p/σ]"
    rows.append(Claim("grpo_r1", _alone("grpo_r1"), law, _grpo_r1, exact=False))
    rows.append(
        Claim("grpo", _alone("grpo", weight=SequenceMean()), law + ", 1/T", _grpo, exact=False)
    )
    rows.append(
        Claim("dapo", _alone("dapo", weight=GroupTokenMean()), law + ", 1/T̂(x)", _dapo, exact=False)
    )
    rows.append(
        Claim(
            "reinforce_plus_plus",
            _alone("reinforce_plus_plus", whiten=True),
            "→ −∇J / σ",
            _reinforce_plus_plus,
            exact=False,
            setting=Setting(prompts=3, responses=1),
        )
    )
    return (*rows, *_newer_claims())


def _newer_claims() -> tuple[Claim, ...]:
    """Of rows that are in none of the texts."""
    law, rows = "−E[∇p (1 − q^(M−1)) / p]", []
    rows.append(Claim("maxrl", _alone("maxrl"), law, _maxrl))
    rows.append(Claim("pkpo", _alone("pkpo"), "−∇E[1 − q²]", _pass_at_two))
    rows.append(
        Claim(
            "reinforce_rej",
            _alone("reinforce_rej"),
            "∝ −E[(1 − p^(M−1)) ∇p]",
            _mixed_groups,
            setting=Setting(keep=DropUniform()),
        )
    )
    limit = "→ −E[q ∇p/σ₂]"
    rows.append(Claim("pass_at_k", _alone("pass_at_k"), limit, _pass_at_two_scaled, exact=False))
    rows.append(Claim("opo", _alone("opo"), "→ −∇J", _policy_gradient, exact=False))
    return tuple(rows)


CLAIMS = _claims()

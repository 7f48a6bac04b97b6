"""KL penalties to a reference policy: estimators, where they act, and how their coefficient adapts.

Estimators of KL(π‖π_ref) from one sample, with Δ = log π − log π_ref (Schulman 2020, "Approximating
KL divergence"):

    k1 = Δ                  unbiased value, can be negative
    k2 = Δ²/2               biased value, always ≥ 0
    k3 = e^{−Δ} + Δ − 1     unbiased value, always ≥ 0

Their place decides their *gradient* on-policy. k1 in the **reward** has the gradient of the reverse
KL(π‖π_ref), which is the intended one. In the **loss**, k1's expected gradient is exactly 0 (a
score has mean zero), k2's is that of the reverse KL, and k3's that of the forward KL(π_ref‖π), both
of each action's distribution in the visited states. Beyond one token no loss term has the gradient
of a whole response's KL, because it leaves out how actions change which states are visited; k1 in
the reward includes that. In the **action** k1 is the loss of that one action's advantage, with no
discount: its gradient is k2's in the loss. All places are supported; `logpi lab kl` shows them
exactly. A whole distribution is compared by `divergences.py`, in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from logpi.ops.divergences import Divergence

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["KL", "AdaptiveKL", "Estimator", "k1", "k2", "k3"]


@dataclass(frozen=True, repr=False)
class Estimator:
    """An estimator of the KL divergence from one sample, called with (logp, logp_ref) [B, T] in
    nats; carries gradient.

    Attributes:
        name: by which it is known. equation: of it. function: computes it.
        derivative: of it by log π, written out; None: autograd computes it.
        reward, loss: what its gradient is in that place, if not that of the KL which it estimates.
        idle: the place in which its expected gradient is 0, or "".
    """

    name: str
    equation: str
    function: Callable[[Tensor, Tensor], Tensor]
    reward: str = ""
    loss: str = ""
    idle: str = ""
    derivative: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, logp: Tensor, logp_ref: Tensor) -> Tensor:
        return self.function(logp, logp_ref)

    def __repr__(self) -> str:
        return self.name


def _k1(logp: Tensor, logp_ref: Tensor) -> Tensor:
    return logp - logp_ref


def _k2(logp: Tensor, logp_ref: Tensor) -> Tensor:
    return 0.5 * (logp - logp_ref) ** 2


def _k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    return (logp_ref - logp).expm1() - (logp_ref - logp)


# k1′ = 1, k2′ = Δ, k3′ = 1 − e^{−Δ}
def _one(logp: Tensor, logp_ref: Tensor) -> Tensor:
    return logp.new_ones(()).expand_as(logp)


def _by_k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    return -(logp_ref - logp).expm1()


_NO_KLS = "has the gradient of no KL (`logpi lab kl`): k1 has that of KL(π‖π_ref) there"
k1 = Estimator("k1", "log(π/π_ref)", _k1, idle="loss", derivative=_one)
k2 = Estimator("k2", "½ log²(π/π_ref)", _k2, reward=_NO_KLS, derivative=_k1)
k3 = Estimator(
    "k3",
    "π_ref/π − log(π_ref/π) − 1",
    _k3,
    reward=_NO_KLS,
    loss="has the gradient of the forward KL(π_ref‖π), though its value is KL(π‖π_ref)",
    derivative=_by_k3,
)


@dataclass(frozen=True)
class AdaptiveKL:
    """Proportional controller of the coefficient (Ziegler et al. 2019, arXiv:1909.08593, section
    2.2).

        e = clip(KL/target − 1, −0.2, 0.2)          β ← β (1 + e · n/horizon)

    Attributes:
        target: wanted KL of a whole response, in nats, > 0.
        horizon: number of responses over which β may change by a fifth, ≥ 1.

    Divergence: a batch counts at most `horizon` responses, or β could become negative.
    """

    target: float = 6.0
    horizon: int = 10_000

    def __post_init__(self) -> None:
        if not (self.target > 0 and self.horizon >= 1):
            raise ValueError(
                "adaptive KL needs a target above 0 nats and a horizon of at least 1 response, got"
                f" {self}"
            )

    def __call__(self, coef: float, kl: float, responses: int) -> float:
        """The next coefficient, from the mean KL of a response in nats and the number of
        responses."""
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return coef * (1.0 + error * min(1.0, responses / self.horizon))


@dataclass(frozen=True)
class KL:
    """A penalty β · KL(π‖π_ref), in the reward or the advantage of each action or as a term of the
    loss.

    Attributes:
        coef: β ≥ 0, in units of reward a nat.
        estimator: k1, k2 or k3 (see the module's docstring for what each does to the gradient), or
            a `Divergence` of the whole distribution, in the loss.
        place: "reward": rₜ ← rₜ − β k(log π_old, log π_ref), no gradient of its own; "action": Âₜ ←
            Âₜ − β k(log π_old, log π_ref), so an action answers for itself alone; "loss": −β k(log
            π, log π_ref).
        adapt: a controller of `coef`, or None for a fixed one.
        teacher: the reference is another model that the policy is to become like, not the policy
            as it was.
    """

    coef: float
    estimator: Estimator | Divergence = k1
    place: Literal["reward", "action", "loss"] = "reward"
    adapt: AdaptiveKL | None = None
    teacher: bool = False

    def __post_init__(self) -> None:
        if self.place not in ("reward", "action", "loss"):
            raise ValueError(f'KL place is "reward", "action" or "loss", not {self.place!r}')
        if isinstance(self.estimator, Divergence) and self.place != "loss":
            raise ValueError(
                f"{self.estimator.name} compares whole distributions, which has its place in the"
                f' loss, not in the {self.place}: place="loss", or estimator k1'
            )
        if self.coef < 0:
            raise ValueError(f"KL coefficient must not be negative, got {self.coef:g}")

    @property
    def differs(self) -> tuple[str, ...]:
        """What the penalty's gradient is, where it is not that of KL(π‖π_ref)."""
        said = self.estimator.loss if self.place == "loss" else self.estimator.reward
        return (f"{self.estimator} in the {self.place} {said}.",) if said else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """That the penalty does nothing, where it is so.

        >>> KL(0.1, k1, "loss").warnings[0][:43], KL(0.1, k1, "reward").warnings
        ('k1 in the loss has an expected gradient of ', ())
        """
        if self.place != self.estimator.idle:
            return ()
        return (
            f"{self.estimator} in the {self.place} has an expected gradient of 0 on-policy, so the"
            " penalty does nothing on average: take kl_place=reward, or kl_estimator=k2",
        )

"""Divergences between two whole distributions over actions, from their log-probabilities of K
actions: what distillation minimises at every state that the student visits.

The K actions are the teacher's likeliest. The others count as one action, the *rest*, so a
divergence is exact where K is the number of all actions and else at most what it would be over all
of them (the data-processing inequality). Left out: estimates from the one action that was taken
(`kl.py`).

    π_T = .6 .3 .1, π = .2 .5 .3, K = 2          actions 0 and 1, and the rest .1 against .3
    reverse  .2 log(.2/.6) + .5 log(.5/.3) + .3 log(.3/.1) = .365
    forward  .6 log(.6/.2) + .3 log(.3/.5) + .1 log(.1/.3) = .396
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Divergence", "ForwardKL", "JensenShannon", "ReverseKL"]


@dataclass(frozen=True)
class Divergence(ABC):
    """A divergence of π from π_T, in nats.

    Attributes:
        top: K ≥ 1, the number of the teacher's likeliest actions that are compared one by one.
    Raises:
        ValueError: no action is compared.
    """

    top: int = 64
    name: ClassVar[str]
    equation: ClassVar[str]
    # as of `kl.Estimator`: the gradient is the divergence's own, in the only place that it has
    reward: ClassVar[str] = ""
    loss: ClassVar[str] = ""
    idle: ClassVar[str] = ""
    source: ClassVar[str] = "on-policy distillation: Agarwal et al. 2023, arXiv:2306.13649"

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top is the number of compared actions, at least 1, not {self.top}")

    def __call__(self, logp: Tensor, logp_teacher: Tensor) -> Tensor:
        """[...] nats for log-probabilities [..., K] of the same actions. Carries the gradient of
        `logp`."""
        return self.over(_with_rest(logp), _with_rest(logp_teacher)).sum(-1)

    @abstractmethod
    def over(self, logp: Tensor, logp_teacher: Tensor) -> Tensor:
        """The summand of each action [..., K + 1]."""


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(π‖π_T) = Σₐ π log(π/π_T): the student gives up what the teacher would not do
    (mode-seeking).

    >>> p, t = torch.tensor([.2, .5]).log(), torch.tensor([.6, .3]).log()
    >>> ReverseKL()(p, t), ForwardKL()(p, t)
    (tensor(0.3653), tensor(0.3961))
    """

    name: ClassVar[str] = "reverse"
    equation: ClassVar[str] = "Σₐ π log(π/π_T)"

    def over(self, logp: Tensor, logp_teacher: Tensor) -> Tensor:
        return _kl(logp, logp_teacher)


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(π_T‖π) = Σₐ π_T log(π_T/π): the student covers all that the teacher would do
    (mass-covering)."""

    name: ClassVar[str] = "forward"
    equation: ClassVar[str] = "Σₐ π_T log(π_T/π)"

    def over(self, logp: Tensor, logp_teacher: Tensor) -> Tensor:
        return _kl(logp_teacher, logp)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """Generalised Jensen–Shannon divergence (GKD, arXiv:2306.13649, eq. 1), with the mixture m =
    mix π_T + (1 − mix) π:

        mix KL(π_T‖m) + (1 − mix) KL(π‖m)

    Divided by `mix`, it tends to the forward KL as mix → 0; divided by 1 − mix, to the reverse KL
    as mix → 1.

    Attributes:
        mix: in (0, 1), the teacher's share of the mixture; the paper's β.
    Raises:
        ValueError: a share outside.
    """

    mix: float = 0.5
    name: ClassVar[str] = "jsd"
    equation: ClassVar[str] = "JSD(π_T, π)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mix < 1:
            raise ValueError(f"mix is above 0 and below 1, not {self.mix:g}")

    def over(self, logp: Tensor, logp_teacher: Tensor) -> Tensor:
        middle = (self.mix * logp_teacher.exp() + (1 - self.mix) * logp.exp()).log()
        return self.mix * _kl(logp_teacher, middle) + (1 - self.mix) * _kl(logp, middle)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    """p log(p/q) of each action; 0 where p is 0."""
    p = logp.exp()
    return p * (logp - logq).masked_fill(p == 0, 0.0)


def _with_rest(logp: Tensor) -> Tensor:
    """Log-probabilities [..., K] and that of all other actions together, [..., K + 1].

    The rest is at least a few roundings: where K is all actions it is that in both distributions
    and counts 0; where the teacher is certain, it bounds what any other action costs.
    """
    least = 8 * torch.finfo(logp.dtype).eps
    rest = (1 - logp.exp().sum(-1, keepdim=True)).clamp(min=least)
    return torch.cat([logp, rest.log()], -1)

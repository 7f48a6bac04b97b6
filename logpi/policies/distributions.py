"""Action distributions of control: what a network's numbers for a state say about actions.

    kind                 action                 parameters of a state
    Categorical(n)       [N] long               n logits
    MultiCategorical     [N, k] long            logits of each part, one after the other
    Bernoulli(n)         [N, n] long, 0 or 1    n logits
    Gaussian             [N, d] float           d means, then d log standard deviations
    SquashedGaussian     [N, d] float           the same, before the tanh

Each is a frozen value with log-probability, entropy and exact KL in torch (they carry gradients),
and sampling and mode in NumPy, where acting one step at a time is ten times cheaper.
`torch.distributions` is left out on purpose: its checks cost more than a small network. Which
network makes the parameters is not here (`policies`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Distributions",
    "Gaussian",
    "MultiCategorical",
    "SquashedGaussian",
]

Array = np.ndarray
LOG_2PI = math.log(2 * math.pi)
TINY = np.finfo(np.float32).tiny


class Distribution(ABC):
    """A family of action distributions. Parameters are one tensor or array [N, outputs + free].

    Attributes:
        outputs: numbers that the network gives for a state.
        free: numbers after those that are the same in every state (log standard deviations),
            trained as they are.
        density: log π is of a density, which may be above 1, not of a probability.
    """

    density: ClassVar[bool] = False

    @property
    @abstractmethod
    def outputs(self) -> int: ...

    @property
    def free(self) -> int:
        return 0

    @abstractmethod
    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """[N] nats."""

    @abstractmethod
    def entropy(self, params: Tensor) -> Tensor:
        """[N] nats."""

    def score(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """`logp` and `entropy` together."""
        return self.logp(params, action), self.entropy(params)

    @abstractmethod
    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """[N] nats, KL(old ‖ new), exact."""

    @abstractmethod
    def sample(self, params: Array, rng: np.random.Generator) -> Array:
        """One action for each state."""

    @abstractmethod
    def mode(self, params: Array) -> Array:
        """The likeliest action of each state (of each part; before squashing)."""

    def to_env(self, action: Array) -> Array:
        """The action as the environment takes it."""
        return action

    @abstractmethod
    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        """π(·|s) of one state [K], for people; `names` are those of a choice's actions.

        >>> Categorical(2).shown(np.log([0.25, 0.75]), "←→")
        '← .25 ▎  → .75 ▊'
        """


BARS = "▏▎▍▌▋▊▉█"


def _chance(name: object, p: float) -> str:
    """A probability as a number and a bar."""
    number = f"{p:.2f}".removeprefix("0")
    return f"{name} {number.ljust(3)} {BARS[math.ceil(p * 8) - 1] if p >= 0.005 else ' '}"


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def _gumbel_argmax(logits: Array, rng: np.random.Generator) -> Array:
    """A sample from softmax(logits): argmaxₐ (lₐ − log Eₐ), E ~ Exp(1). In float32 E can be 0,
    which would choose even what is forbidden."""
    waited = rng.standard_exponential(logits.shape, dtype=np.float32)
    return (logits - np.log(np.maximum(waited, TINY))).argmax(-1)


@dataclass(frozen=True)
class Categorical(Distribution):
    """One of n actions; π = softmax(logits).

    Attributes:
        n: number of actions. start: the environment's number of the first one.
    """

    n: int
    start: int = 0

    @property
    def outputs(self) -> int:
        return self.n

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        return params.log_softmax(-1).gather(-1, action[:, None]).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        logp = params.log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def score(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        # once: it is a fifth of a small policy's forward
        logp = params.log_softmax(-1)
        return logp.gather(-1, action[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        before = old.log_softmax(-1)
        return (before.exp() * (before - new.log_softmax(-1))).sum(-1)

    def sample(self, params: Array, rng: np.random.Generator) -> Array:
        return _gumbel_argmax(params, rng)

    def mode(self, params: Array) -> Array:
        return params.argmax(-1)

    def probabilities(self, params: Array) -> Array:
        """π(a|s) [N, n]."""
        return _softmax(params)

    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        names = names or [str(a) for a in range(self.start, self.start + self.n)]
        chances = zip(names, self.probabilities(params).tolist(), strict=True)
        return "  ".join(_chance(name, p) for name, p in chances)

    def to_env(self, action: Array) -> Array:
        return action + self.start if self.start else action


@dataclass(frozen=True)
class MultiCategorical(Distribution):
    """Several independent choices; log π = Σ over the parts.

    Attributes:
        sizes: number of actions of each part.
    """

    sizes: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return sum(self.sizes)

    def _parts(self, params: Tensor) -> list[tuple[Categorical, Tensor]]:
        return [
            (Categorical(n), x)
            for n, x in zip(self.sizes, params.split(self.sizes, -1), strict=True)
        ]

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        return torch.stack(
            [c.logp(x, action[:, i]) for i, (c, x) in enumerate(self._parts(params))]
        ).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        return torch.stack([c.entropy(x) for c, x in self._parts(params)]).sum(0)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        pairs = zip(self._parts(old), self._parts(new), strict=True)
        return torch.stack([c.kl(x, y) for (c, x), (_, y) in pairs]).sum(0)

    def sample(self, params: Array, rng: np.random.Generator) -> Array:
        return np.stack([_gumbel_argmax(x, rng) for x in self._split(params)], -1)

    def mode(self, params: Array) -> Array:
        return np.stack([x.argmax(-1) for x in self._split(params)], -1)

    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        parts = zip(self.sizes, self._split(params), strict=True)
        return " | ".join(Categorical(n).shown(x, names) for n, x in parts)

    def _split(self, params: Array) -> list[Array]:
        return np.split(params, np.cumsum(self.sizes)[:-1], -1)


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """n independent switches; P(on) = sigmoid(logit)."""

    n: int

    @property
    def outputs(self) -> int:
        return self.n

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        return -softplus(params * (1 - 2 * action.to(params.dtype))).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return (softplus(params) - params * params.sigmoid()).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (old.sigmoid() * (old - new) - softplus(old) + softplus(new)).sum(-1)

    def sample(self, params: Array, rng: np.random.Generator) -> Array:
        return (rng.random(params.shape, dtype=np.float32) * (1 + np.exp(-params)) < 1).astype(
            np.int64
        )

    def mode(self, params: Array) -> Array:
        return (params > 0).astype(np.int64)

    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        chances = 1 / (1 + np.exp(-params.astype(np.float64)))
        named = zip(names or range(self.n), chances.tolist(), strict=True)
        return "  ".join(_chance(f"{name} on", p) for name, p in named)


@dataclass(frozen=True)
class Gaussian(Distribution):
    """Independent normals; the log standard deviations do not depend on the state (as in the 37
    details of PPO).

    The environment gets the action clipped to its bounds, the policy is told of the unclipped one:
    the density stays that of the normal and the bounds belong to the environment.

    Attributes:
        low, high: the environment's bounds for each component; may be infinite. shape: of the
            environment's action.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...] | None = None
    density: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return len(self.low)

    @property
    def free(self) -> int:
        return len(self.low)

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        mean, log_std = params.chunk(2, -1)
        return (-0.5 * ((action - mean) * (-log_std).exp()) ** 2 - log_std - 0.5 * LOG_2PI).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return (params.chunk(2, -1)[1] + 0.5 * (1 + LOG_2PI)).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        (m0, s0), (m1, s1) = old.chunk(2, -1), new.chunk(2, -1)
        return (s1 - s0 + 0.5 * ((2 * (s0 - s1)).exp() + ((m0 - m1) * (-s1).exp()) ** 2 - 1)).sum(
            -1
        )

    def sample(self, params: Array, rng: np.random.Generator) -> Array:
        mean, log_std = np.split(params, 2, -1)
        return mean + np.exp(log_std) * rng.standard_normal(mean.shape, dtype=np.float32)

    def mode(self, params: Array) -> Array:
        return np.split(params, 2, -1)[0]

    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        mean, log_std = np.split(params, 2, -1)
        pairs = zip(mean.tolist(), np.exp(log_std).tolist(), strict=True)
        return "  ".join(f"{m:+.2f} ± {s:.2f}".replace("-", "−") for m, s in pairs)

    def to_env(self, action: Array) -> Array:
        return self._shaped(
            np.clip(action, np.asarray(self.low, np.float32), np.asarray(self.high, np.float32))
        )

    def _shaped(self, action: Array) -> Array:
        return action if self.shape is None else action.reshape(-1, *self.shape)


@dataclass(frozen=True)
class SquashedGaussian(Gaussian):
    """A normal through tanh onto [low, high]: no action outside the bounds exists (Haarnoja et al.
    2018, appendix C).

        log p(a) = log N(u) − Σ log( (high − low)/2 · (1 − tanh² u) )
        a = low + (high − low)(1 + tanh u)/2

    Recorded actions are u, before the tanh, so nothing is inverted and no action is too close to a
    bound. KL is that of the normals (tanh is one-to-one). The entropy has no closed form;
    Gauss–Hermite quadrature with 32 nodes gives it, with its gradient, to about 1e-4 nats for
    standard deviations up to 2.
    """

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in self.low + self.high):
            raise ValueError(
                "a squashed Gaussian needs finite action bounds; leave squashing off for this"
                " environment"
            )

    def _log_slope(self, u: Tensor) -> Tensor:
        half = (torch.tensor(self.high, dtype=u.dtype) - torch.tensor(self.low, dtype=u.dtype)) / 2
        # log(1 − tanh² u), without overflow
        return half.to(u.device).log() + 2 * (math.log(2) - u - softplus(-2 * u))

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        return super().logp(params, action) - self._log_slope(action).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        nodes, weights = np.polynomial.hermite_e.hermegauss(32)
        mean, log_std = params.chunk(2, -1)
        z = torch.as_tensor(nodes, dtype=params.dtype, device=params.device)[:, None, None]
        w = torch.as_tensor(weights / weights.sum(), dtype=params.dtype, device=params.device)[
            :, None, None
        ]
        return super().entropy(params) + (w * self._log_slope(mean + log_std.exp() * z)).sum(0).sum(
            -1
        )

    def shown(self, params: Array, names: Sequence[str] = ()) -> str:
        return f"tanh({super().shown(params, names)})"

    def to_env(self, action: Array) -> Array:
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        # rounding
        return self._shaped(np.clip(low + (high - low) * (1 + np.tanh(action)) / 2, low, high))


@dataclass(frozen=True)
class Distributions:
    """The policy's whole distribution in each state where it acted.

    Attributes:
        kind: the family. params: [M, K], M own actions in row-major order of `mask`; carries
            gradients.
    """

    kind: Distribution
    params: Tensor

    def detach(self) -> Distributions:
        return Distributions(self.kind, self.params.detach())

    def kl(self, old: Distributions) -> Tensor:
        """[M] nats, KL(old ‖ this)."""
        return self.kind.kl(old.params, self.params)

"""The nouns: what is sampled, what a policy says of it, and what an objective needs.

Everything is frozen; tensor fields have shape, unit, meaning. Left out: mathematics, models, I/O.

Legend, used in the whole library:
    B  trajectories (rows)          T  actions of a row, right-padded      *  any further axes
    P  prompts (or reset seeds)     G  samples for each prompt, B = P·G    V  vocabulary, or actions

Time runs so that `action[t]` follows `obs[t]`: next-token prediction, `action = obs[:, 1:]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Flag, auto
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

__all__ = ["Batch", "Collected", "Comparison", "Data", "Explanation", "Objective", "Policy"]
__all__ += ["PolicyOutput", "Rollout", "Targets", "Trajectory", "UpdateConstants"]


class _Tensors:
    """A dataclass of tensors, some of which may be None."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Self:
        """The same with `f` applied to every tensor."""
        values = {x.name: getattr(self, x.name) for x in fields(self)}  # type: ignore[arg-type]
        return replace(self, **{k: f(v) for k, v in values.items() if v is not None})  # type: ignore[type-var]


@dataclass(frozen=True)
class Trajectory:
    """One ragged row: exactly what was sampled, and texts for people.

    A conversation with a tool, token by token (P = prompt, A = the policy's, E = the environment's
    reply):

        obs         P0 P1 A0 A1 E0 E1 A2 A3     t+1 = 8 tokens; nothing follows the last, the end
        action      P1 A0 A1 E0 E1 A2 A3        obs[1:]
        mask         0  1  1  0  0  1  1        True where the policy chose `action`
        reward       0  0  0  0  0  0  1        received after the action: the answer was right
        logp         0  l  l  0  0  l  l        under the sampler, at sampling time

    Attributes:
        obs: [t+1, *] the policy's observations (tokens: long ids, prompt and tool replies
            included).
        action: [t, *] the action after each observation.
        mask: [t] bool, True where the policy chose `action`.
        reward: [t] float, 0 where `mask` is False.
        logp: [t] nats, 0 where `mask` is False.
        terminated: the last state is absorbing, so its value is 0. False for a time-out or a
            cut-off.
        group: the same number = the same start (prompt, or reset seed).
        baseline: reward of the greedy response to the same prompt (ReMax), if there is one.
        info: for people and logs, never for mathematics: `prompt`, `completion`, `stop`, `rewards`,
            `version`, …
    """

    obs: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    logp: Tensor
    terminated: bool
    group: int
    baseline: float | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch(_Tensors):
    """Exactly what was sampled; never modified.

    Attributes:
        obs: [B, T+1, *] observations. Tokens: long ids, prompt and tool replies included.
        action: [B, T, *] the action after each observation. Tokens: obs[:, 1:].
        mask: [B, T] bool, True where the policy chose `action`: not prompt, tool output or padding.
        reward: [B, T] received after action t; never read where `mask` is False.
        terminated: [B] bool, the last state is absorbing (value 0). False for a time-out or a
            cut-off: bootstrap.
        group: [B] long, the same id = the same start (prompt, or reset seed).
        logp: [B, T] nats, under the sampler, at sampling time.
        baseline: [B] reward of the greedy response to the same prompt, or None.
        others: [B, T, K] long, actions that the policy is asked about beside its own, or None.
    """

    obs: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    terminated: Tensor
    group: Tensor
    logp: Tensor
    baseline: Tensor | None = None
    others: Tensor | None = None

    def __len__(self) -> int:
        return self.mask.shape[0]

    def rows(self, index: Tensor) -> Batch:
        """The rows at `index` [n] (long or bool), without padding columns that none of them
        uses."""
        chosen = self.map(lambda x: x[index.to(x.device)])
        used = chosen.mask.any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 1
        cut = {"obs": chosen.obs[:, : width + 1]}
        for name in ("action", "mask", "reward", "logp", "others"):
            if (x := getattr(chosen, name)) is not None:
                cut[name] = x[:, :width]
        return replace(chosen, **cut)

    def to(self, device: torch.device | str) -> Batch:
        return (
            self if self.mask.device == torch.device(device) else self.map(lambda x: x.to(device))
        )


@dataclass(frozen=True)
class PolicyOutput:
    """What the current policy says about the recorded actions; carries gradients.

    Attributes:
        logp: [B, T] nats. entropy: [B, T] nats. Both may be anything where `mask` is False.
        value: [B, T+1] expected return, or None without a critic. It is read where `mask` is True
            and, in rows that did not terminate, in the state after the last own action.
        others: [B, T, K] nats, log-probabilities of `batch.others`, or None.
    """

    logp: Tensor
    entropy: Tensor
    value: Tensor | None = None
    others: Tensor | None = None


@dataclass(frozen=True)
class UpdateConstants(_Tensors, ABC):
    """What is computed once for each batch and is constant during the update; no gradient.

    Tensors [B] hold one number for each row, tensors [B, T] are 0 where `mask` is False.

    Attributes:
        logp_old: [B, T] nats, under the policy before the update.
        logp_ref: [B, T] nats, under the reference policy, or None.
    """

    logp_old: Tensor
    logp_ref: Tensor | None

    @abstractmethod
    def credit(self, mask: Tensor) -> Tensor:
        """[B, T] the credit of each own action, for people."""

    def rows(self, index: Tensor, width: int) -> Self:
        """The rows at `index`, cut to `width` columns like those of `Batch.rows`."""
        return self.map(lambda x: x[index.to(x.device)][:, :width] if x.ndim > 1 else x[index])

    def to(self, device: torch.device | str) -> Self:
        there = self.logp_old.device == torch.device(device)
        return self if there else self.map(lambda x: x.to(device))


@dataclass(frozen=True)
class Targets(UpdateConstants):
    """The constants of a policy gradient.

    Attributes:
        logp_old, logp_ref: see `UpdateConstants`.
        advantage: [B, T] in units of return (whitened if the objective says so).
        value_target: [B, T] in units of return, or None without a critic.
        value_old: [B, T] the critic's estimate before the update (for value clipping), or None.
        others_ref: [B, T, K] nats, `batch.others` under the reference policy, or None.
    """

    advantage: Tensor
    value_target: Tensor | None = None
    value_old: Tensor | None = None
    others_ref: Tensor | None = None

    def credit(self, mask: Tensor) -> Tensor:
        return self.advantage


@dataclass(frozen=True)
class Comparison(UpdateConstants):
    """The constants of preferences: which responses are better than which.

        two pairs, chosen and rejected      side = [1, −1, 1, −1]
        four samples, rewards 1 0 0 ½       side = [1, −½, −½, 0]     the worst two share a side

    Attributes:
        logp_old, logp_ref: see `UpdateConstants`.
        side: [B] above 0 for better rows, below for worse ones, 0 for rows that are not compared.
        reference_point: [B] nats; KTO's z₀, or None.
        margin: [B] units of reward, difference between the rows of the pair, or None.
    """

    side: Tensor
    reference_point: Tensor | None = None
    margin: Tensor | None = None

    def credit(self, mask: Tensor) -> Tensor:
        return torch.where(mask, self.side[:, None], 0.0)


@dataclass(frozen=True)
class Explanation:
    """An objective as mathematics, for people.

    Attributes:
        goal: what is maximised or minimised. where: definitions of its symbols.
        parts: the choice on each axis (advantage, ratio, surrogate, KL, weight): a part or a word.
        sources: of the parts. differs: what they do otherwise than their sources.
        warnings: what a combination does that nobody would expect.
    """

    goal: str
    where: tuple[str, ...]
    parts: Mapping[str, object]
    sources: tuple[str, ...]
    differs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Data(Flag):
    """What an objective can learn from; several are joined by `|`.

    Attributes:
        SAMPLES: the policy's own, with rewards. DEMONSTRATIONS: someone else's trajectories.
        PAIRS: a better and a worse response to one prompt. LABELS: responses called good or bad.
    """

    SAMPLES = auto()
    DEMONSTRATIONS = auto()
    PAIRS = auto()
    LABELS = auto()


class Objective(ABC):
    """Scores a batch. A value: frozen, printable, comparable.

    A subclass writes `prepare` and `loss`; everything else has a default. `logpi.testing.check_all`
    checks its laws, `logpi.lab.check` compares it with the exact gradient.

    Attributes:
        needs_policy: `prepare` reads the policy's log-probabilities of rows that are not its own.
        whole_groups: a group's rows are scored together, so no micro-batch may part them.
        scores_actions: it changes probabilities of actions; False: scores alone (a reward model).
    """

    needs_policy: ClassVar[bool] = False
    whole_groups: ClassVar[bool] = False
    scores_actions: ClassVar[bool] = True

    @property
    def learns_from(self) -> Data:
        return Data.SAMPLES

    @property
    def needs_critic(self) -> bool:
        """`prepare` reads the policy's values."""
        return False

    @property
    def needs_reference(self) -> bool:
        """`prepare` reads a reference policy."""
        return False

    @property
    def needs_teacher(self) -> bool:
        """The reference is another model, which the user names."""
        return False

    @property
    def compared(self) -> int:
        """Number of the reference's likeliest actions that `loss` compares in each state."""
        return 0

    @property
    def needs_greedy(self) -> bool:
        """`prepare` reads `batch.baseline`, the reward of a greedy response."""
        return False

    @property
    def on_policy(self) -> bool:
        """Recorded actions are the policy's own, so every ratio is 1 before the first step."""
        return False

    @property
    def min_group(self) -> int:
        """Least number of samples for each prompt."""
        return 1

    @property
    def ties(self) -> object | None:
        """The part that ties a row's actions together; None if each action's loss is its own."""
        return self

    @property
    def fragments(self) -> bool:
        """It learns from rows that are cut anywhere: a critic bootstraps at the cut."""
        return False

    @abstractmethod
    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> UpdateConstants:
        """Targets for the whole batch, groups intact. Carries no gradient."""

    @abstractmethod
    def loss(
        self, batch: Batch, targets: Any, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The scalar loss of a micro-batch, and its diagnostics, which an update reads in its last
        pass only.

        Diagnostics are token means; names that end in /max and /min are extremes; names that begin
        with + are sums over micro-batches. `targets` is the value of `prepare`, cut to the rows of
        `batch`.
        """

    def weight(self, mask: Tensor, group: Tensor) -> Tensor:
        """[B, T] the weight of each action, made once for each optimiser batch, so micro-batches
        add up exactly. Default: the same for every own action."""
        return mask.to(torch.get_default_dtype()) / mask.sum().clamp(min=1)

    def idle(self, batch: Batch, targets: Any) -> Tensor:
        """[B] bool, rows whose loss and gradient are exactly 0, so they need not be evaluated."""
        return ~batch.mask.any(1)

    def at(self, progress: float) -> Objective:
        """The objective when `progress` in [0, 1] of the run is done."""
        return self

    def controls(self) -> dict[str, float]:
        """Coefficients that a controller changes during training; they are saved and logged."""
        return {}

    def control(self, report: Mapping[str, float], responses: int) -> Objective:
        """The next update's objective, from this one's report and number of responses."""
        return self

    def restore(self, controls: Mapping[str, float]) -> Objective:
        """The objective with these coefficients; the inverse of `controls`."""
        return self

    def taught(self) -> Objective:
        """The objective with a teacher as its reference."""
        return self

    def corrected(self) -> Objective:
        """The objective for samples of a policy whose numerics are not the learner's."""
        return self

    def without_critic(self) -> Objective:
        """The objective of the policy alone, for an update that fits the critic afterwards."""
        return self

    def critic_alone(self) -> Objective:
        """The objective of the critic alone, for an update in which the policy stays."""
        return self

    def explain(self) -> Explanation:
        """The objective as mathematics."""
        return Explanation(f"minimise  {self}", (), {}, ())


class Policy(Protocol):
    """Anything that gives the probabilities of recorded actions; in practice an `nn.Module` with
    this one method more."""

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """The output for a batch on the CPU; its tensors are on the policy's device."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


@dataclass(frozen=True)
class Collected:
    """The result of one call of a rollout: the batch to learn from, metrics to log, and samples for
    people to read."""

    batch: Batch
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()


class Rollout(Protocol):
    """Makes batches. Its state (cursor, generators, environments) is saved and restored exactly."""

    def __call__(self) -> Collected: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

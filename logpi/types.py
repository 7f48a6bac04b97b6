"""The nouns: what is sampled, what a policy says of it, and what an objective needs.

Everything is frozen, every tensor field has its shape, unit and meaning. No mathematics, no models,
no I/O live here.

Legend, used in the whole library:
    B  trajectories (rows)          T  actions of a row, right-padded      *  any further axes
    P  prompts (or reset seeds)     G  samples for each prompt, B = P·G    V  vocabulary (or number of actions)

Time runs so that `action[t]` follows `obs[t]`. For tokens this *is* next-token prediction: `action
= obs[:, 1:]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = [
    "Batch",
    "Collected",
    "PolicyOutput",
    "Explanation",
    "Objective",
    "Policy",
    "Rollout",
    "Targets",
    "Trajectory",
    "collate",
]


@dataclass(frozen=True)
class Trajectory:
    """One ragged row: exactly what was sampled, and what people look at.

    A conversation with a tool, token by token (P = prompt, A = the policy's, E = the environment's
    reply):

        obs         P0 P1 A0 A1 E0 E1 A2 A3     t+1 = 8 tokens; the last is the end, nothing follows it
        action      P1 A0 A1 E0 E1 A2 A3        obs[1:]
        mask         0  1  1  0  0  1  1        True where the policy chose `action`
        reward       0  0  0  0  0  0  1        received after the action; here the final answer was right
        logp         0  l  l  0  0  l  l        under the sampler, at sampling time

    Attributes:
        obs: [t+1, *] what the policy saw (tokens: long ids, prompt and tool replies included).
        action: [t, *] what followed.
        mask: [t] bool, True where the policy chose `action`.
        reward: [t] float, 0 where `mask` is False.
        logp: [t] nats, 0 where `mask` is False.
        terminated: the last state is absorbing, its value is 0. False for a time-out or a cut-off.
        group: equal numbers = same start (prompt, or reset seed).
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
class Batch:
    """Exactly what was sampled; never modified.

    Attributes:
        obs: [B, T+1, *] what the policy saw. Tokens: long ids, prompt and tool replies included.
        action: [B, T, *] what followed. Tokens: obs[:, 1:].
        mask: [B, T] bool, True where the policy chose `action`: not prompt, tool output or padding.
        reward: [B, T] received after action t; what stands where `mask` is False is never read.
        terminated: [B] bool, the last state is absorbing (value 0); False for a time-out or a
            cut-off: bootstrap.
        group: [B] long, equal ids = same start (prompt, or reset seed).
        logp: [B, T] nats, under the sampler, at sampling time.
        baseline: [B] reward of the greedy response to the same prompt, or None.
    """

    obs: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    terminated: Tensor
    group: Tensor
    logp: Tensor
    baseline: Tensor | None = None

    def __len__(self) -> int:
        return self.mask.shape[0]

    def map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """A batch with `f` applied to every tensor."""
        values = {x.name: getattr(self, x.name) for x in fields(self)}
        return replace(self, **{k: f(v) for k, v in values.items() if v is not None})

    def rows(self, index: Tensor) -> Batch:
        """The rows at `index` [n] (long or bool), padding columns that no chosen row uses cut
        off."""
        picked = self.map(lambda x: x[index.to(x.device)])
        used = picked.mask.any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 1
        cut = {"obs": picked.obs[:, : width + 1]}
        for name in ("action", "mask", "reward", "logp"):
            cut[name] = getattr(picked, name)[:, :width]
        return replace(picked, **cut)

    def to(self, device: torch.device | str) -> Batch:
        return (
            self if self.mask.device == torch.device(device) else self.map(lambda x: x.to(device))
        )


@dataclass(frozen=True)
class PolicyOutput:
    """What the current policy says about the recorded actions; carries gradients.

    Attributes:
        logp: [B, T] nats. entropy: [B, T] nats. Both are unspecified where `mask` is False.
        value: [B, T+1] expected return, or None without a critic. It is read where `mask` is True,
            and, for rows that did not terminate, in the state after the row's last own action.
    """

    logp: Tensor
    entropy: Tensor
    value: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """Computed once for each batch, constant during the update; no gradient. All [B, T], 0 where
    `mask` is False.

    Attributes:
        logp_old: nats, under the policy before the update.
        logp_ref: nats, under the reference policy, or None.
        advantage: in units of return (whitened if the objective says so).
        value_target: in units of return, or None without a critic.
        value_old: the critic's estimate before the update (for value clipping), or None.
        baseline: what an outcome is compared with, in the objective's own unit (KTO's reference
            point), or None.
    """

    logp_old: Tensor
    logp_ref: Tensor | None
    advantage: Tensor
    value_target: Tensor | None = None
    value_old: Tensor | None = None
    baseline: Tensor | None = None

    def map(self, f: Callable[[Tensor], Tensor]) -> Targets:
        """Targets with `f` applied to every tensor."""
        values = {x.name: getattr(self, x.name) for x in fields(self)}
        return replace(self, **{k: f(v) for k, v in values.items() if v is not None})

    def rows(self, index: Tensor, width: int) -> Targets:
        """The rows at `index`, cut to `width` columns as `Batch.rows` cut them."""
        return self.map(lambda x: x[index.to(x.device), :width])

    def to(self, device: torch.device | str) -> Targets:
        return (
            self
            if self.logp_old.device == torch.device(device)
            else self.map(lambda x: x.to(device))
        )


@dataclass(frozen=True)
class Explanation:
    """An objective as mathematics, for people.

    Attributes:
        goal: what is maximised or minimised. where: definitions of what stands in it. parts: the
            choice on each axis of the table (advantage, ratio, surrogate, KL, weight). sources: of
            the parts.
    """

    goal: str
    where: tuple[str, ...]
    parts: Mapping[str, str]
    sources: tuple[str, ...]


class Objective(Protocol):
    """Scores a batch. A value: frozen, printable, comparable.

    `needs_critic`, `needs_reference`, `needs_greedy`: what `prepare` reads. `on_policy`: the
    recorded actions must be the policy's own, so every ratio is 1 before the first step.
    `needs_policy`: `prepare` reads the policy's own log-probabilities though the rows are not its.
    `min_group`: least number of samples for each prompt. `whole_groups`: the rows of a group are
    scored together, so no micro-batch may part them.
    """

    @property
    def needs_critic(self) -> bool: ...

    @property
    def needs_reference(self) -> bool: ...

    @property
    def needs_greedy(self) -> bool: ...

    @property
    def on_policy(self) -> bool: ...

    @property
    def needs_policy(self) -> bool: ...

    @property
    def min_group(self) -> int: ...

    @property
    def whole_groups(self) -> bool: ...

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Targets:
        """Targets for the whole batch, groups intact. Carries no gradient."""
        ...

    def weight(self, mask: Tensor, group: Tensor) -> Tensor:
        """[B, T] what each action counts; made once for each optimiser batch, so micro-batches add
        up exactly."""
        ...

    def loss(
        self, batch: Batch, targets: Targets, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Scalar loss of a micro-batch and its diagnostics, which an update reads in its last pass
        only.

        These are token means; names ending in /max and /min are extremes; what begins with + adds
        up over micro-batches.
        """
        ...

    def idle(self, batch: Batch, targets: Targets) -> Tensor:
        """[B] bool, rows whose loss and gradient are exactly 0."""
        ...

    def at(self, progress: float) -> Objective:
        """The objective of an update when `progress` in [0, 1] of the run is done."""
        ...

    def controls(self) -> dict[str, float]:
        """Coefficients that a controller moves during training (saved in checkpoints, logged)."""
        ...

    def control(self, report: Mapping[str, float], responses: int) -> Objective:
        """The objective for the next update, from this update's report and its number of
        responses."""
        ...

    def restore(self, controls: Mapping[str, float]) -> Objective:
        """The objective with these coefficients; the inverse of `controls`."""
        ...

    def explain(self) -> Explanation:
        """The objective as mathematics."""
        ...


class Policy(Protocol):
    """Anything that can say how likely the recorded actions were. In practice an `nn.Module` with
    this one method more."""

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """What it says of the batch, which is on the CPU; the answer lies where the policy does."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


@dataclass(frozen=True)
class Collected:
    """What one call of a rollout brings: the batch to learn from, numbers to log, rows for people
    to read."""

    batch: Batch
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()


class Rollout(Protocol):
    """Makes batches. Its state (data cursor, random generators, environments) can be saved and
    restored exactly."""

    def __call__(self) -> Collected: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _pad(rows: list[Tensor], width: int) -> Tensor:
    out = pad_sequence(rows, batch_first=True)
    return (
        out
        if out.shape[1] == width
        else torch.cat([out, out.new_zeros(len(out), 1, *out.shape[2:])], 1)
    )


def collate(trajectories: Sequence[Trajectory]) -> Batch:
    """Stack ragged rows into a `Batch`; the only place that pads (on the right, with zeros).

    Raises:
        ValueError: no rows, or only some of them have a greedy baseline.

    >>> row = Trajectory(torch.arange(3), torch.arange(1, 3), torch.tensor([False, True]), torch.tensor([0., 1.]),
    ...                  torch.tensor([0., -.5]), terminated=True, group=0)
    >>> collate([row, row]).reward
    tensor([[0., 1.],
            [0., 1.]])
    """
    if not trajectories:
        raise ValueError("no trajectories to collate: the rollout brought nothing")
    width = max(1, max(len(t.action) for t in trajectories))
    baselines = [t.baseline for t in trajectories]
    if any(b is None for b in baselines) and any(b is not None for b in baselines):
        raise ValueError(
            "some trajectories have a greedy baseline and some do not; give it to all or to none"
        )
    return Batch(
        obs=_pad([t.obs for t in trajectories], width + 1),
        action=_pad([t.action for t in trajectories], width),
        mask=_pad([t.mask for t in trajectories], width),
        reward=_pad([t.reward for t in trajectories], width),
        terminated=torch.tensor([t.terminated for t in trajectories]),
        group=torch.tensor([t.group for t in trajectories]),
        logp=_pad([t.logp for t in trajectories], width),
        baseline=None if baselines[0] is None else torch.tensor(baselines, dtype=torch.float32),
    )

"""Scorers: how good a response looks so far. One that has ended chooses among samples, one that has
not steers a search.

    LogP             mean log-probability of its tokens; free, the sampler knows it
    SelfCertainty    how far the policy's distributions are from uniform; one forward
    Judged           any reward on its text: a reward model (`model:PATH`), a verifier, the user's own function
    Rollouts         how often its continuations end right: what a process reward model is trained to guess (`step_labels.py`)

A scorer of unfinished responses is a process scorer; a reward model is asked about the text up to
here as if it ended here.
Left out: what is done with scores (`evaluation/pooling.py` among samples,
`evaluation/beam_search.py` step by step), training of reward models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from logpi.engine.sampling import Completion, Request, Sampling
from logpi.errors import UserError
from logpi.rewards import Rewards, RewardScore, rewards
from logpi.rollouts.responses import trajectory
from logpi.types import collate

if TYPE_CHECKING:
    from logpi.engine.engine import Engine
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM

CHUNK = 2**24  # logits alive at a time


@dataclass(frozen=True)
class PartialResponse:
    """A response up to some step.

    Attributes:
        row: what is asked. prompt: its token ids. tokens: [t] long. logp: [t] nats. text: of the
            tokens, special ones left out.
        stop: why it ended ("eos", "stop", "length"), or "" if it may go on.
    """

    row: Row
    prompt: Sequence[int]
    tokens: Tensor
    logp: Tensor
    text: str
    stop: str = ""


class Scorer(Protocol):
    """Larger is better; -inf: no verdict."""

    @property
    def name(self) -> str: ...

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]: ...


@dataclass(frozen=True)
class LogP:
    """Mean log π(token) of the response, nats: 1/t Σ log π(aₜ | …)."""

    name: str = "logp"

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        return [float(p.logp.mean()) for p in partials]


@dataclass(frozen=True)
class SelfCertainty:
    """Mean KL(uniform ‖ π) over the response, nats (arXiv:2502.18581, eq. 9): −log V − 1/(tV) Σₜ Σⱼ
    log π(j | …).

    Attributes:
        policy: whose distributions. Large vocabularies are forwarded a few rows at a time.
    """

    policy: CausalLM
    name: str = "self_certainty"

    @torch.no_grad()
    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        rows = max(1, CHUNK // (self.policy.vocabulary * max(len(p.tokens) for p in partials)))
        return [
            s for i in range(0, len(partials), rows) for s in self._some(partials[i : i + rows])
        ]

    def _some(self, partials: Sequence[PartialResponse]) -> list[float]:
        made = [
            trajectory(p.prompt, Completion(p.tokens, p.logp, "eos"), 0.0, 0, {}) for p in partials
        ]
        logits = self.policy.distributions(collate(made)).params
        certainty = -log(self.policy.vocabulary) - logits.log_softmax(-1).mean(-1)
        return [float(x.mean()) for x in certainty.split([len(p.tokens) for p in partials])]


@dataclass(frozen=True)
class Judged:
    """The total of rewards on the response's text.

    Raises:
        UserError: they failed on every response.
    """

    rewards: Rewards

    @property
    def name(self) -> str:
        return "+".join(self.rewards.names)

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        found = verdicts(self.rewards, partials)
        if found and all(s.errors for s in found):
            reason = next(iter(found[0].errors.values()))
            raise UserError(f"{self.name} failed on every one of {len(found)} responses: {reason}")
        return [float("-inf") if s.total is None else s.total for s in found]


@dataclass(frozen=True)
class Rollouts:
    """The share of n continuations that end right, with whatever verdicts there are (Math-Shepherd,
    arXiv:2312.08935, eq. 4, soft).

    A response that has ended is right or not; -inf: no verdict at all.

    Attributes:
        policy, engine: who goes on. rewards: the first says what is right. sampling: the limit of a
            whole response.
    """

    policy: CausalLM
    engine: Engine
    rewards: Rewards
    n: int = 8
    sampling: Sampling = Sampling()
    generator: torch.Generator | None = None
    name: str = "rollouts"

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        live = [p for p in partials if not p.stop]
        limit = self.sampling.max_tokens
        asked = [
            Request([*p.prompt, *p.tokens.tolist()], self.n, max_tokens=limit - len(p.tokens))
            for p in live
        ]
        sampled = iter(self.engine.generate(asked, self.sampling, self.generator) if asked else ())
        ends = [
            [p] if p.stop else [joined(self.policy, p, c) for c in next(sampled)] for p in partials
        ]
        said = iter(verdicts(self.rewards, [whole for some in ends for whole in some]))
        name = self.rewards.names[0]
        return [_share([next(said).parts[name] for _ in some]) for some in ends]


def _share(values: Sequence[float | None]) -> float:
    known = [v >= 1.0 for v in values if v is not None]
    return sum(known) / len(known) if known else float("-inf")


def joined(policy: CausalLM, p: PartialResponse, c: Completion) -> PartialResponse:
    """A beginning with what followed it, and why that stopped."""
    tokens, logp = torch.cat([p.tokens, c.tokens]), torch.cat([p.logp, c.logp])
    text = policy.template.decode(tokens)
    return replace(p, tokens=tokens, logp=logp, text=text, stop=c.stop)


def beginnings(policy: CausalLM, whole: PartialResponse, step: str) -> list[PartialResponse]:
    """A response after each of its steps, the whole of it last. `step` ends a step, as in a search;
    "": there are no steps."""
    out, start = [], 0
    for end in range(1, len(whole.tokens)) if step else ():
        if step in policy.tokenizer.decode(whole.tokens[start:end]):
            text = policy.template.decode(whole.tokens[:end])
            out.append(
                replace(whole, tokens=whole.tokens[:end], logp=whole.logp[:end], text=text, stop="")
            )
            start = end
    return [*out, whole]


def verdicts(rewards: Rewards, partials: Sequence[PartialResponse]) -> list[RewardScore]:
    """What rewards say of each response, with its row's columns."""
    names = sorted({name for p in partials for name in p.row} - {"prompt", "completion"})
    return rewards.score(
        [p.row["prompt"] for p in partials],
        [_as_completion(p) for p in partials],
        [p.tokens.tolist() for p in partials],
        {n: [p.row.get(n) for p in partials] for n in names},
    )


def _as_completion(p: PartialResponse) -> str | list[dict[str, str]]:
    return (
        p.text if isinstance(p.row["prompt"], str) else [{"role": "assistant", "content": p.text}]
    )


def scorer(spec: str | Rewards, policy: CausalLM) -> Scorer:
    """`logp`, `self_certainty`, or any reward, also as it is written on a command line.

    Raises:
        ValueError: an unknown name (the nearest is given), as `logpi.rewards.reward`.
    """
    own: dict[str, Scorer] = {"logp": LogP(), "self_certainty": SelfCertainty(policy)}
    return (
        own[spec]
        if isinstance(spec, str) and spec in own
        else Judged(rewards(spec, str(policy.device)))
    )

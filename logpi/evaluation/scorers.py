"""Scorers: a number for how good a response is so far. A scorer of whole responses chooses among
samples; a scorer of unfinished responses (a process scorer) guides a search.

    LogP                 mean log-probability of its tokens; free, the sampler knows it
    SelfCertainty        how far the policy's distributions are from uniform; one forward
    RewardScorer         any reward of its text: a reward model (`model:PATH`), a verifier, the
                         user's own function
    ContinuationScorer   the share of its continuations that end right, which a process reward
                         model is trained to predict (`step_labels.py`)

A reward model judges the text up to here as if the response ended here. Left out: choosing among
samples (`pooling.py`), searching step by step (`beam_search.py`), training reward models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.engine.sampling import Completion, Request, Sampling
from logpi.errors import UserError
from logpi.rewards import Rewards, RewardScore, rewards
from logpi.rollouts.collate import collate
from logpi.rollouts.responses import trajectory

if TYPE_CHECKING:
    from logpi.engine.sampler import Sampler
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM

CHUNK = 2**24
"""Logits in memory at a time."""


@dataclass(frozen=True)
class PartialResponse:
    """A response up to some step.

    Attributes:
        row: the item. prompt: its token ids. tokens: [t] long. logp: [t] nats. text: of the
            tokens, special ones left out.
        stop: why it ended ("eos", "stop", "length"), or "" if it may go on.
    """

    row: Row
    prompt: Sequence[int]
    tokens: Tensor
    logp: Tensor
    text: str
    stop: str = ""


Scorer = Callable[[Sequence[PartialResponse]], list[float]]
"""Larger is better; -inf: no verdict."""


@dataclass(frozen=True)
class LogP:
    """Mean log π(token) of the response, nats: 1/t Σ log π(aₜ | …)."""

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

    @torch.no_grad()
    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        rows = max(1, CHUNK // (self.policy.vocabulary * max(len(p.tokens) for p in partials)))
        return [
            s for i in range(0, len(partials), rows) for s in self._some(partials[i : i + rows])
        ]

    def _some(self, partials: Sequence[PartialResponse]) -> list[float]:
        trajectories = [
            trajectory(p.prompt, Completion(p.tokens, p.logp, "eos"), 0.0, 0, {}) for p in partials
        ]
        logits = self.policy.distributions(collate(trajectories)).params
        certainty = -log(self.policy.vocabulary) - logits.log_softmax(-1).mean(-1)
        return [float(x.mean()) for x in certainty.split([len(p.tokens) for p in partials])]


@dataclass(frozen=True)
class RewardScorer:
    """The total of rewards on the response's text.

    Raises:
        UserError: they failed on every response.
    """

    rewards: Rewards

    @property
    def name(self) -> str:
        return "+".join(self.rewards.names)

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        scores = verdicts(self.rewards, partials)
        if scores and all(s.errors for s in scores):
            reason = next(iter(scores[0].errors.values()))
            raise UserError(f"{self.name} failed on every one of {len(scores)} responses: {reason}")
        return [float("-inf") if s.total is None else s.total for s in scores]


@dataclass(frozen=True)
class ContinuationScorer:
    """The share of n continuations that end right (Math-Shepherd, arXiv:2312.08935, eq. 4, soft).

    "1+2=3, 3+" with continuations right, wrong, no verdict, right: 2/3. A response that has ended
    is its own only continuation; -inf: no verdict at all.

    Attributes:
        policy, sampler: what samples the continuations. rewards: the first says what is right.
        sampling: its token limit is of a whole response.
    """

    policy: CausalLM
    sampler: Sampler
    rewards: Rewards
    n: int = 8
    sampling: Sampling = Sampling()
    generator: torch.Generator | None = None

    def __call__(self, partials: Sequence[PartialResponse]) -> list[float]:
        live = [p for p in partials if not p.stop]
        limit = self.sampling.max_tokens
        requests = [
            Request([*p.prompt, *p.tokens.tolist()], self.n, max_tokens=limit - len(p.tokens))
            for p in live
        ]
        sampled = iter(
            self.sampler.generate(requests, self.sampling, self.generator) if requests else ()
        )
        ends = [
            [p] if p.stop else [extended(self.policy, p, c) for c in next(sampled)]
            for p in partials
        ]
        scores = iter(verdicts(self.rewards, [whole for some in ends for whole in some]))
        name = self.rewards.names[0]
        return [_share([next(scores).parts[name] for _ in some]) for some in ends]


def _share(values: Sequence[float | None]) -> float:
    known = [v >= 1.0 for v in values if v is not None]
    return sum(known) / len(known) if known else float("-inf")


def extended(policy: CausalLM, p: PartialResponse, c: Completion) -> PartialResponse:
    """A partial response with what followed it, and why that stopped."""
    tokens, logp = torch.cat([p.tokens, c.tokens]), torch.cat([p.logp, c.logp])
    text = policy.template.decode(tokens)
    return replace(p, tokens=tokens, logp=logp, text=text, stop=c.stop)


def prefixes(policy: CausalLM, whole: PartialResponse, step: str) -> list[PartialResponse]:
    """A response after each of its steps, the whole of it last. `step` ends a step, as in a search;
    "": there are no steps.

    "1+2=3,3+4=7", step ",":  "1+2=3,"  "1+2=3,3+4=7"
    """
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
    """The rewards' scores of each response, given its row's columns."""
    ids = [p.tokens.tolist() for p in partials]
    return score_rows(rewards, [p.row for p in partials], [p.text for p in partials], ids)


def score_rows(
    rewards: Rewards, rows: Sequence[Row], texts: Sequence[str], ids: Any = None
) -> list[RewardScore]:
    """The rewards' scores of one response to each row. ids: the responses' tokens, if known."""
    names = sorted({name for row in rows for name in row} - {"prompt", "completion"})
    completions = [
        text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]
        for row, text in zip(rows, texts, strict=True)
    ]
    columns = {n: [row.get(n) for row in rows] for n in names}
    return rewards.score([row["prompt"] for row in rows], completions, ids, columns)


def scorer(spec: str | Rewards, policy: CausalLM) -> Scorer:
    """`logp`, `self_certainty`, or any reward, also as it is written on a command line.

    Raises:
        ValueError: an unknown name (the nearest is given), as `logpi.rewards.reward`.
    """
    own: dict[str, Scorer] = {"logp": LogP(), "self_certainty": SelfCertainty(policy)}
    if isinstance(spec, str) and spec in own:
        return own[spec]
    return RewardScorer(rewards(spec, str(policy.device)))

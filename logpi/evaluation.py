"""Evaluation on held-out items: pass@1, unbiased pass@k, maj@k, greedy accuracy, with intervals.

It draws from its own generator, so measuring never changes training. Which items, and what is right, come from the task and
its rewards; nothing is trained here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from logpi.envs.rows import Row
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards
from logpi.rollouts.engine import Engine, Request, Sampling
from logpi.rollouts.text import Answers, Chat, answer

__all__ = ["Evaluator", "interval", "majority", "pass_at_k"]


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that one of k of these samples is right, unbiased (Chen et al. 2021, arXiv:2107.03374, eq. 1).

        1 − C(n−c, k) / C(n, k)

    Raises:
        ValueError: k > samples.

    >>> round(pass_at_k(4, 1, 2), 3)
    0.5
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs at least {k} samples for each item, there are {samples}")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Probability that the most frequent answer is right; ties share. Samples without an answer do not vote.

    >>> majority(["4", "5", "4", None], [True, False, True, False])
    1.0
    """
    votes = Counter(a for a in answers if a is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    leaders = {a for a, n in votes.items() if n == most}
    correct = {a for a, r in zip(answers, right, strict=True) if r}
    return len(leaders & correct) / len(leaders)


def interval(values: Sequence[float], draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values` (one for each item)."""
    x = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = x[torch.randint(len(x), (draws, len(x)), generator=generator)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


@dataclass
class Evaluator:
    """Measures a policy on rows; call it with the step. An `Evaluate` of `logpi.train`.

    Attributes:
        policy, engine, rewards, chat: as in a rollout. rows: the held-out items.
        samples: for each item, at the policy's temperature; pass@k and maj@k are taken at 1, 2, 4, … and all of them. sampling: token limit and stop strings.
        greedy: also answer greedily (one more response for each item).
        seed: the same at every call, so that curves compare like with like.
    """

    policy: CausalLM
    engine: Engine
    rows: Sequence[Row]
    rewards: Rewards
    sampling: Sampling
    samples: int = 1
    greedy: bool = True
    chat: Chat = Chat()
    seed: int = 0
    progress: Callable[[int, int], None] | None = None

    def __call__(self, step: int = 0) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Numbers (pass@1 first) and every response with its verdict."""
        prompts = [self.chat(self.policy, row["prompt"]) for row in self.rows]
        requests = [Request(p, self.samples) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        rows = list(self.rows) * (len(requests) // len(prompts))
        generator = torch.Generator().manual_seed(self.seed)
        answers, seconds = answer(
            self.policy, self.engine, self.rewards, rows, requests, self.sampling, generator, self.progress
        )
        sampled, greedy = answers[: len(prompts)], answers[len(prompts) :]
        numbers = self._numbers(sampled)
        if greedy:
            numbers["eval/greedy"] = fmean(float(self._right(a)[0]) for a in greedy)
        numbers["time/eval"] = seconds["time/generate"] + seconds["time/reward"]
        return numbers, [
            self._sample(a, kind) for part, kind in ((sampled, "sampled"), (greedy, "greedy")) for a in part
        ]

    def _right(self, a: Answers) -> list[bool]:
        """Right means that the first reward gives its full mark of 1; a missing verdict is not right."""
        first = self.rewards.names[0]
        return [(s.parts[first] or 0.0) >= 1.0 for s in a.scores]

    def _numbers(self, sampled: Sequence[Answers]) -> dict[str, float]:
        right = [self._right(a) for a in sampled]
        out = {}
        ks = sorted({*(2**i for i in range(self.samples.bit_length())), self.samples})
        for k in ks:
            out[f"eval/pass@{k}"] = fmean(pass_at_k(len(r), sum(r), k) for r in right)
        find = self.rewards.find_answer
        if find is not None:
            votes = [[find(t) for t in a.texts] for a in sampled]
            for k in ks[1:]:
                out[f"eval/maj@{k}"] = fmean(majority(v[:k], r[:k]) for v, r in zip(votes, right, strict=True))
        low, high = interval([fmean(map(float, r)) for r in right])
        totals = [s.total for a in sampled for s in a.scores if s.total is not None]
        lengths = [len(c.tokens) for a in sampled for c in a.completions]
        cut = [c.stop == "length" for a in sampled for c in a.completions]
        return out | {
            "eval/pass@1_low": low,
            "eval/pass@1_high": high,
            "eval/reward": fmean(totals) if totals else float("nan"),
            "eval/mean_length": fmean(lengths),
            "eval/clipped_ratio": fmean(cut),
        }

    def _sample(self, a: Answers, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "prompt": a.row["prompt"],
            "answer": a.row.get("answer"),
            "completions": list(a.texts),
            "right": self._right(a),
            "rewards": [dict(s.parts) for s in a.scores],
            "stop": [c.stop for c in a.completions],
        }

"""Evaluation on held-out items: pass@1, unbiased pass@k, maj@k, greedy and format-lenient accuracy,
with intervals.

    Evaluator   samples and judges, shard by shard: one record for each item and kind ("sampled", "greedy")
    measures    records → one value for each item and measure: every number is a function of saved records alone
    estimates   values → mean and 95 % interval over items; `by_level` the same for each difficulty

It draws from its own generator, so measuring never changes training; what an item is answered does
not depend on the shards nor on where a stopped evaluation went on. Which items, and what is right,
come from the task and its rewards. Left out: how samples are pooled (`evaluation/pooling.py`),
files (`jobs/evaluate.py`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.engine import SEEDS, Engine
from logpi.engine.sampling import Request, Sampling
from logpi.engine.turns import ENDED
from logpi.evaluation.pooling import (
    BestOf,
    Majority,
    PassAt,
    Sample,
    WeightedVote,
    best_of,
    doubling,
)
from logpi.evaluation.scorers import Judged, PartialResponse, Scorer
from logpi.rewards.samples import Samples
from logpi.rollouts.chat import Chat
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.response_metrics import tool_metrics
from logpi.rollouts.responses import Responses, ResponseSampler, transcript_info

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.tool_conversations import ToolConversations

Record = dict[str, Any]


def unanswerable(rewards: Rewards, rows: Sequence[Row]) -> list[int]:
    """The rows whose `answer` the first reward cannot read: no response could ever get a verdict.

    Asked with an empty response, and only of rewards that compare with the answer column.
    """
    part = rewards.parts[0]
    if "answer" not in getattr(part.function, "needs", ()):
        return []
    names = sorted({name for row in rows for name in row} - {"prompt", "completion"})
    columns = {n: [r.get(n) for r in rows] for n in names}
    samples = Samples([r["prompt"] for r in rows], [""] * len(rows), [[]] * len(rows), columns)
    return [i for i, verdict in enumerate(part.judge(samples).verdicts) if verdict is None]


def interval(values: Sequence[float], draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values` (one for each item)."""
    x = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = x[torch.randint(len(x), (draws, len(x)), generator=generator)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


@dataclass(frozen=True)
class Estimate:
    """Mean over items, its 95 % bootstrap interval, and the number of items."""

    mean: float
    low: float
    high: float
    items: int


def estimates(values: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Each measure's mean with its interval.

    >>> estimates({"pass@1": [1.0, 1.0]})
    {'pass@1': Estimate(mean=1.0, low=1.0, high=1.0, items=2)}
    """
    return {k: Estimate(fmean(v), *interval(v), len(v)) for k, v in values.items()}


def samples_of(record: Record) -> list[Sample]:
    """A record's responses as pools see them."""
    n = len(record["right"])
    answers, scores = record.get("answers") or [None] * n, record.get("scores") or [0.0] * n
    return [
        Sample(r, a, float(s)) for r, a, s in zip(record["right"], answers, scores, strict=True)
    ]


def measures(records: Sequence[Record], ks: Sequence[int] = ()) -> dict[str, list[float]]:
    """One value for each item: pass@k and maj@k at `ks` (default 1, 2, 4, … and all), greedy, and
    the lenient ones.

    Rewards beyond the first are means by their names, of the items to which they gave a verdict;
    none where there is none. With a scorer also best_of@k and weighted_maj@k, and judge_best@k: the
    score itself of the best of k.

    Raises:
        ValueError: a k larger than the number of samples.
    """
    sampled = [r for r in records if r["kind"] == "sampled"]
    greedy = [r for r in records if r["kind"] == "greedy"]
    pooled = [samples_of(r) for r in sampled]
    ks = ks or doubling(len(pooled[0]))
    out = {f"pass@{k}": [PassAt()(s, k) for s in pooled] for k in ks}
    votes = sampled[0].get("answers") is not None
    if votes:
        out |= {f"maj@{k}": [Majority()(s, k) for s in pooled] for k in ks if k > 1}
    if sampled[0].get("scores") is not None:
        out |= {f"best_of@{k}": [BestOf()(s, k) for s in pooled] for k in ks}
        out |= {
            f"weighted_maj@{k}": [WeightedVote()(s, k) for s in pooled]
            for k in ks
            if votes and k > 1
        }
        scores = [[x.score for x in s] for s in pooled]
        out |= {f"judge_best@{k}": [best_of(x, x, k) for x in scores] for k in ks}
    if sampled[0].get("lenient") is not None:
        out["lenient_pass@1"] = [fmean(r["lenient"]) for r in sampled]
    for name in [n for n in list(sampled[0].get("rewards", [{}])[0])[1:] if n != "lenient"]:
        verdicts = [
            [part[name] for part in r["rewards"] if part[name] is not None] for r in sampled
        ]
        out |= {name: means} if (means := [fmean(v) for v in verdicts if v]) else {}
    if greedy:
        out["greedy"] = [float(r["right"][0]) for r in greedy]
        if greedy[0].get("lenient") is not None:
            out["lenient_greedy"] = [float(r["lenient"][0]) for r in greedy]
    return out


def by_level(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each difficulty, easiest first (or each category, where rows have that
    instead); nothing unless there are at least two."""
    found: dict[Any, list[Record]] = defaultdict(list)
    for r in records:
        if r.get("level") is not None:
            found[r["level"]].append(r)
    if len(found) < 2:
        return {}
    return {str(k): found[k] for k in sorted(found, key=lambda k: (isinstance(k, str), k))}


@dataclass
class Evaluator:
    """Measures a policy on rows; call it with the step. An `Evaluate` of `logpi.train`.

    Attributes:
        policy, engine, rewards, chat: as in a rollout. rows: the held-out items.
        samples: for each item, at the policy's temperature. sampling: token limit and stop strings.
        greedy: also answer greedily (one more response for each item).
        seed: the same at every call, so that curves compare like with like.
        lenient: the name of that one of `rewards` which takes the answer from wherever it stands,
            or "".
        ks: of pass@k and maj@k; default 1, 2, 4, … and all.
        scorer: also scores every sampled response, for best-of-N and weighted votes.
        conversations: with an environment that answers; None: one turn. overlong: "cut" shortens
            prompts that fill the context.

    Raises:
        ValueError: no rows; a k larger than samples; no reward called `lenient`; a scorer that
            cannot judge the rows.
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
    lenient: str = ""
    ks: Sequence[int] = ()
    scorer: Scorer | None = None
    conversations: ToolConversations | None = None
    overlong: str = "drop"

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("there are no items to evaluate on")
        if (most := max(self.ks, default=1)) > self.samples:
            raise ValueError(f"pass@{most} needs at least {most} samples for each item: --samples")
        if self.lenient and self.lenient not in self.rewards.names:
            raise ValueError(
                f"no reward is called {self.lenient!r}: there are {', '.join(self.rewards.names)}"
            )
        if isinstance(
            self.scorer, Judged
        ):  # a judge that is not there, or lacks a column, is said now
            self.scorer.rewards.check([*self.rows[0]], self.rows)

    def __call__(self, step: int = 0) -> tuple[dict[str, float], list[Record]]:
        """Numbers (pass@1 first) and every response with its verdict."""
        start = time.perf_counter()
        [records] = self.shards(step=step)
        numbers = self.numbers(records)
        return numbers | {"time/eval": time.perf_counter() - start}, records

    def shards(
        self, first: int = 0, size: int | None = None, step: int = 0
    ) -> Iterator[list[Record]]:
        """The records of `size` items at a time (default: all), from item `first` on; sampled
        before greedy ones. step: for rewards."""
        size = size or len(self.rows)
        for begin in range(first, len(self.rows), size):
            yield self._shard(begin, self.rows[begin : begin + size], step)

    def numbers(self, records: Sequence[Record]) -> dict[str, float]:
        """What a training run logs."""
        values = measures(records, self.ks)
        out = {f"eval/{k}": fmean(v) for k, v in values.items()}
        first = next(iter(values))
        out[f"eval/{first}_low"], out[f"eval/{first}_high"] = interval(values[first])
        for level, some in by_level(records).items():
            out |= {f"eval/level_{level}/{k}": fmean(v) for k, v in measures(some, self.ks).items()}
        sampled = [r for r in records if r["kind"] == "sampled"]
        totals = [t for r in sampled for t in r["totals"] if t is not None]
        if sampled[0].get("counts") is not None:
            out["eval/turns/mean"] = fmean(n for r in sampled for n in r["turns"])
            out |= {
                f"eval/{k}": v
                for k, v in tool_metrics([c for r in sampled for c in r["counts"]]).items()
            }
        return out | {
            "eval/reward": fmean(totals) if totals else float("nan"),
            "eval/mean_length": fmean(n for r in sampled for n in r["tokens"]),
            "eval/clipped_ratio": fmean(s not in ENDED for r in sampled for s in r["stop"]),
            "eval/no_verdict": fmean(
                p[self.rewards.names[0]] is None for r in sampled for p in r["rewards"]
            ),
        }

    def _shard(self, begin: int, rows: Sequence[Row], step: int) -> list[Record]:
        asks = PromptFilter(self.policy, self.chat, self.conversations, self.overlong)
        prompts = [asks.ids(row) for row in rows]
        requests = [Request(p, self.samples) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        asked = list(rows) * (len(requests) // len(prompts))
        sampler = ResponseSampler(
            self.policy,
            self.engine,
            self.rewards,
            self.sampling,
            self.conversations,
            self.progress,
        )
        answers, _ = sampler(asked, requests, self._generator(begin), step)
        records = [
            self._record(a, begin + i % len(rows), "sampled" if i < len(rows) else "greedy")
            for i, a in enumerate(answers)
        ]
        scores = iter(self._scores(answers[: len(rows)]))
        return [
            (
                r | {"scores": [next(scores) for _ in r["right"]]}
                if self.scorer and r["kind"] == "sampled"
                else r
            )
            for r in records
        ]

    def _scores(self, answers: Sequence[Responses]) -> list[float]:
        every = [
            PartialResponse(a.row, a.prompt, c.tokens, c.logp, t, c.stop)
            for a in answers
            for c, t in zip(a.completions, a.texts, strict=True)
        ]
        return self.scorer(every) if self.scorer else []

    def _generator(self, begin: int) -> torch.Generator:
        """The engine takes one seed for each sample: those of the items before `begin` are passed
        over."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randint(SEEDS, (begin * self.samples,), generator=generator)
        return generator

    def _record(self, a: Responses, item: int, kind: str) -> Record:
        """Right means that the first reward gives its full mark of 1; a missing verdict is not
        right."""
        find = self.rewards.find_answer
        marks = {
            n: [(s.parts[n] or 0.0) >= 1.0 for s in a.scores]
            for n in (self.rewards.names[0], self.lenient)
            if n
        }
        return {
            "kind": kind,
            "item": item,
            "prompt": a.row["prompt"],
            "answer": a.row.get("answer"),
            "level": a.row.get("level", a.row.get("category")),
            "completions": list(a.texts),
            "prefix": a.prefix,
            "right": marks[self.rewards.names[0]],
            "lenient": marks[self.lenient] if self.lenient else None,
            "answers": [find(t) for t in a.texts] if find else None,
            "rewards": [dict(s.parts) for s in a.scores],
            "totals": a.returns,
            "errors": [dict(s.errors) for s in a.scores],
            "stop": [c.stop for c in a.completions],
            "tokens": [len(c.tokens) for c in a.completions],
            "logp": [float(c.logp.mean()) for c in a.completions],
        } | self._conversations(a)

    def _conversations(self, a: Responses) -> Record:
        if self.conversations is None:
            return {}
        return {
            "conversations": [transcript_info(t) for t in a.transcripts],
            "counts": [dict(t.metrics) for t in a.transcripts],
            "turns": [len(t.turns) for t in a.transcripts],
        }

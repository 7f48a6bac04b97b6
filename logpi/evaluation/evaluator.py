"""Benchmark evaluation: a policy's responses to held-out items, judged, as records.

    Evaluator.shards     one record for each item and kind ("sampled", "greedy"), shard by shard
    Evaluator.numbers    what a training run logs of them

The evaluator draws from its own generator, so measuring never changes training; an item's responses
depend neither on the shards nor on where a stopped evaluation resumed. Which items there are, and
what is right, come from the task and its rewards. Left out: measures of records (`measures.py`),
pooling of samples (`pooling.py`), files (`jobs/evaluate.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from logpi.engine.sampling import SEEDS, Request, Sampling
from logpi.engine.turns import ENDED
from logpi.evaluation.measures import by_level, interval, measures
from logpi.evaluation.scorers import PartialResponse, RewardScorer, Scorer
from logpi.rewards.samples import Samples
from logpi.rollouts.chat import Chat
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.response_metrics import tool_metrics
from logpi.rollouts.responses import Responses, ResponseSampler, transcript_info

if TYPE_CHECKING:
    from logpi.engine.sampler import Sampler
    from logpi.envs.task import Row
    from logpi.evaluation.records import Record
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.tool_conversations import ToolConversations


def unanswerable(rewards: Rewards, rows: Sequence[Row]) -> list[int]:
    """The numbers of the rows whose `answer` the first reward cannot read: no response to them
    could get a verdict.

    An empty response is judged, by rewards that compare with the answer column only.
    """
    part = rewards.parts[0]
    if "answer" not in getattr(part.function, "needs", ()):
        return []
    names = sorted({name for row in rows for name in row} - {"prompt", "completion"})
    columns = {n: [r.get(n) for r in rows] for n in names}
    samples = Samples([r["prompt"] for r in rows], [""] * len(rows), [[]] * len(rows), columns)
    return [i for i, verdict in enumerate(part.judge(samples).verdicts) if verdict is None]


@dataclass
class Evaluator:
    """Measures a policy on rows; call it with the step. An `Evaluate` of `logpi.train`.

    Attributes:
        policy, sampler, rewards, chat: as in a rollout. rows: the held-out items.
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
    sampler: Sampler
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
        # A judge that is missing, or that lacks a column, is an error now.
        if isinstance(self.scorer, RewardScorer):
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
        """The records of some items, the first of which has number `begin`."""
        prompt_filter = PromptFilter(self.policy, self.chat, self.conversations, self.overlong)
        prompts = [prompt_filter.ids(row) for row in rows]
        requests = [Request(p, self.samples) for p in prompts]
        if self.greedy:
            requests += [Request(p, 1, greedy=True) for p in prompts]
        items = list(rows) * (len(requests) // len(prompts))
        sampler = ResponseSampler(
            self.policy,
            self.sampler,
            self.rewards,
            self.sampling,
            self.conversations,
            self.progress,
        )
        responses, _ = sampler(items, requests, self._generator(begin), step)
        sampled, greedy = responses[: len(rows)], responses[len(rows) :]
        scores = iter(self._scores(sampled))
        records = []
        for i, r in enumerate(sampled):
            record = self._record(r, begin + i, "sampled")
            if self.scorer:
                record["scores"] = [next(scores) for _ in record["right"]]
            records.append(record)
        return records + [self._record(r, begin + i, "greedy") for i, r in enumerate(greedy)]

    def _scores(self, responses: Sequence[Responses]) -> list[float]:
        partials = [
            PartialResponse(r.row, r.prompt, c.tokens, c.logp, t, c.stop)
            for r in responses
            for c, t in zip(r.completions, r.texts, strict=True)
        ]
        return self.scorer(partials) if self.scorer else []

    def _generator(self, begin: int) -> torch.Generator:
        """The generator as it is after the items before `begin`: the engine draws one seed for each
        sample."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randint(SEEDS, (begin * self.samples,), generator=generator)
        return generator

    def _record(self, a: Responses, item: int, kind: str) -> Record:
        """Right means that the first reward is 1; a missing verdict is not right."""
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
            # with the tools, which the template describes in front of it
            "read": self.policy.tokenizer.decode(list(a.prompt)),
            "conversations": [transcript_info(t) for t in a.transcripts],
            "counts": [dict(t.metrics) for t in a.transcripts],
            "turns": [len(t.turns) for t in a.transcripts],
        }

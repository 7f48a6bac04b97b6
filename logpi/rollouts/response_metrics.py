r"""Metrics of a step's responses.

    reward, completions/…    rewards and lengths, by TRL's names
    turns/…, tools/…         of conversations with an environment
    responses/reflection     reflective words in a response ("wait", "check", "however", 等, …)
    responses/reflective     share of responses with at least one
    responses/format         share that is <think>…</think><answer>…</answer>
    responses/mixed          share with words of more than one script
    version/min, …/mean, …/max   of the weights that sampled, in updates, if a server had them
    level/L                  mean of the first reward over the items whose column `level` is L
    eval/…                   reflection, reflective, format and mixed of an evaluation

The reflective words are DeepSeek-R1-Zero's list (Nature 645, 633, supplement: wait, mistake,
however, but, retry, error, verify, wrong, evaluate, check) and similar words in Chinese, Russian
and Arabic. Left out: whether such a word stands for a thought.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.turns import ENDED
from logpi.rewards import ThinkAnswer, failures
from logpi.rewards.language import is_mixed

if TYPE_CHECKING:
    from logpi.rewards import RewardScore
    from logpi.rollouts.responses import Responses

_WORDS = (
    "wait mistake however but retry error verify wrong evaluate check recheck double-check подожди"
    " проверим проверю однако ошибка انتظر تحقق خطأ"
)
_REFLECTIVE = re.compile(
    rf"\b(?:{'|'.join(_WORDS.split())})\b|等等|等|检查|查|然而|但是|错误|验证|重新", re.IGNORECASE
)
_FORMAT = ThinkAnswer()


def reflections(text: str) -> int:
    """Number of reflective words in `text`.

    >>> reflections("Wait, let me check. 等等, 13."), reflections("a checker waits")
    (3, 0)
    """
    return len(_REFLECTIVE.findall(text))


def text_metrics(texts: Sequence[str]) -> dict[str, float]:
    """Reflection, format and scripts of responses; empty without any.

    >>> text_metrics(["<think>wait 一 then</think><answer>7</answer>", "7"])
    {'reflection': 0.5, 'reflective': 0.5, 'format': 0.5, 'mixed': 0.5}
    """
    if not texts:
        return {}
    counts = [reflections(t) for t in texts]
    formats = _FORMAT(prompts=[""] * len(texts), completions=texts)
    return {
        "reflection": fmean(counts),
        "reflective": fmean(c > 0 for c in counts),
        "format": fmean(f or 0.0 for f in formats),
        "mixed": fmean(map(is_mixed, texts)),
    }


def by_level(items: Iterable[tuple[Mapping[str, Any], Sequence[float | None]]]) -> dict[str, float]:
    """Mean value of each level. Items without a level and values that are None do not count.

    >>> by_level([({"level": 2}, [1.0, 0.0]), ({"level": 3}, [0.0, None]), ({}, [1.0])])
    {'2': 0.5, '3': 0.0}
    """
    values: dict[Any, list[float]] = defaultdict(list)
    for row, scores in items:
        if row.get("level") is not None:
            values[row["level"]] += [s for s in scores if s is not None]
    return {str(level): fmean(values[level]) for level in sorted(values, key=str) if values[level]}


def step_metrics(responses: Sequence[Responses]) -> dict[str, float]:
    """Metrics of all responses of a step, whether or not their group is kept."""
    texts = text_metrics([r.prefix + t for r in responses for t in r.texts])
    first = next(iter(responses[0].scores[0].parts), "") if responses[0].scores else ""
    levels = by_level((r.row, [s.parts.get(first) for s in r.scores]) for r in responses)
    return {
        **reward_metrics(responses),
        **{f"responses/{k}": v for k, v in texts.items()},
        **{f"level/{k}": v for k, v in levels.items()},
    }


def evaluation_metrics(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Text metrics of the sampled responses in an evaluation's records. `evaluation/evaluator.py`
    has its other numbers."""
    texts = [
        s.get("prefix", "") + t for s in samples if s["kind"] == "sampled" for t in s["completions"]
    ]
    return {f"eval/{k}": v for k, v in text_metrics(texts).items()}


def pass_rate(responses: Responses) -> float | None:
    """Share of right responses, whose first reward is 1. None if it has no verdict at all."""
    verdicts = [next(iter(s.parts.values()), None) for s in responses.scores]
    known = [v for v in verdicts if v is not None]
    return fmean(v >= 1.0 for v in known) if known else None


def reward_metrics(responses: Sequence[Responses]) -> dict[str, float]:
    """Rewards and lengths, by TRL's names."""
    scores = [s for r in responses for s in r.scores]
    completions = [c for r in responses for c in r.completions]
    groups = [[x for x in r.returns if x is not None] for r in responses]
    returns = [x for group in groups for x in group]
    lengths = [c.tokens.numel() for c in completions]
    spreads = [_spread(group) for group in groups if len(group) > 1]
    metrics = {
        "reward": fmean(returns) if returns else float("nan"),
        "reward_std": fmean(spreads) if spreads else 0.0,
        "completions/mean_length": fmean(lengths),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": fmean(c.stop not in ENDED for c in completions),
        "num_tokens": float(sum(lengths)),
        "rewards/missing": fmean(s.total is None for s in scores),
    }
    for name in scores[0].parts:
        values = [v for s in scores if (v := s.parts[name]) is not None]
        metrics[f"rewards/{name}/mean"] = fmean(values) if values else float("nan")
    metrics |= {f"rewards/failed/{k}": float(n) for k, n in failures(scores).items()}
    return _logged_metrics(scores) | metrics


def _logged_metrics(scores: Sequence[RewardScore]) -> dict[str, float]:
    """Means of what reward functions logged with `log_metric`, by their names."""
    names = dict.fromkeys(name for s in scores for name in s.metrics)
    return {name: fmean(s.metrics[name] for s in scores if name in s.metrics) for name in names}


def _spread(values: Sequence[float]) -> float:
    """Standard deviation. `statistics.pstdev` computes with fractions and takes 0.1 ms."""
    mean = fmean(values)
    return math.sqrt(fmean((v - mean) ** 2 for v in values))


def version_metrics(responses: Sequence[Responses]) -> dict[str, float]:
    """The oldest and the newest weights that sampled, and the mean over tokens, in updates; empty
    where the sampler does not report versions."""
    versions = [c.version for r in responses for c in r.completions if c.version is not None]
    if not versions:
        return {}
    every = torch.cat(versions).double()
    numbers = {"min": every.min(), "mean": every.mean(), "max": every.max()}
    return {f"version/{name}": float(x) for name, x in numbers.items()}


def conversation_metrics(responses: Sequence[Responses]) -> dict[str, float]:
    """Means over conversations: turns, observed tokens, step rewards, the environment's counts, and
    the share that each limit ended."""
    transcripts = [t for r in responses for t in r.transcripts]
    stops = Counter(c.stop for r in responses for c in r.completions)
    observed = [sum(len(turn.observation) for turn in t.turns) for t in transcripts]
    metrics = {
        "turns/mean": fmean(len(t.turns) for t in transcripts),
        "turns/max": float(max(len(t.turns) for t in transcripts)),
        "observation_tokens": fmean(observed),
        "step_reward": fmean(t.reward for t in transcripts),
    }
    for limit in ("length", "turns", "calls", "context"):
        metrics[f"stopped/{limit}"] = stops[limit] / len(transcripts)
    return metrics | tool_metrics([t.metrics for t in transcripts])


def tool_metrics(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of conversations' counts, by the names in the log.

    >>> tool_metrics([{"tool_calls": 2, "hops": 1}, {}])
    {'tools/hops': 0.5, 'tools/calls': 1.0, 'tools/errors': 0.0, 'tools/timeouts': 0.0}
    """
    names = sorted({"tool_calls", "tool_errors", "tool_timeouts"}.union(*counts))
    return {f"tools/{n.removeprefix('tool_')}": fmean(c.get(n, 0.0) for c in counts) for n in names}

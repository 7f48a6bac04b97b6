"""Measures: from the records of an evaluation to numbers with intervals.

    measures    records → one value for each item and measure
    estimates   values → mean and 95 % interval over items
    by_level    the records of each difficulty

Every number is a function of saved records alone. Left out: sampling and judging (`evaluator.py`),
how samples of one item are pooled (`pooling.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from logpi.evaluation.pooling import (
    Sample,
    any_right,
    best_of,
    best_scored,
    doubling,
    majority_vote,
    weighted_vote,
)

if TYPE_CHECKING:
    from logpi.evaluation.records import Record


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
    """A record's responses as pools take them."""
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
    out = {f"pass@{k}": [any_right(s, k) for s in pooled] for k in ks}
    votes = sampled[0].get("answers") is not None
    if votes:
        out |= {f"maj@{k}": [majority_vote(s, k) for s in pooled] for k in ks if k > 1}
    if sampled[0].get("scores") is not None:
        out |= {f"best_of@{k}": [best_scored(s, k) for s in pooled] for k in ks}
        out |= {
            f"weighted_maj@{k}": [weighted_vote(s, k) for s in pooled]
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
    levels: dict[Any, list[Record]] = defaultdict(list)
    for r in records:
        if r.get("level") is not None:
            levels[r["level"]].append(r)
    if len(levels) < 2:
        return {}
    return {str(k): levels[k] for k in sorted(levels, key=lambda k: (isinstance(k, str), k))}

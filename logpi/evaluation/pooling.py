"""Pooling: several samples of one item become one verdict. Evaluation and test-time compute share
these estimators.

    any_right       whether any of k is right, as a perfect verifier would choose
                    1 − C(n−c, k) / C(n, k)
    majority_vote   the answer that most samples give (self-consistency, arXiv:2203.11171)
    best_scored     the sample with the best score
                    Σ_s [C(n≤s, k) − C(n<s, k)] / C(n, k) · mean at s
    weighted_vote   the answer with the largest sum of exp(score)

Each is the probability to be right with k of n samples. `any_right` and `best_scored` are exact
means over all subsets of size k; votes have no such closed form and are means over the ⌊n/k⌋
disjoint blocks of k. All are unbiased, and raise ValueError unless 1 ≤ k ≤ n. Left out: samples and
their scores (`evaluator.py`, `beam_search.py`); intervals over items (`measures.py`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Sample:
    """One response to an item, as pools see it.

    Attributes:
        right: the verifier's verdict. answer: what it answers, equal answers as equal strings;
            None: no answer, no vote.
        score: a judge's; -inf: no verdict, never chosen.
    """

    right: bool
    answer: str | None = None
    score: float = 0.0


def doubling(n: int) -> tuple[int, ...]:
    """1, 2, 4, … and n.

    >>> doubling(12)
    (1, 2, 4, 8, 12)
    """
    return tuple(sorted({*(2**i for i in range(n.bit_length())), n}))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that one of k of these samples is right, unbiased (Chen et al. 2021,
    arXiv:2107.03374, eq. 1).

        1 − C(n−c, k) / C(n, k)

    4 samples of which 1 is right, k = 2: of the 6 pairs, the 3 without the right one fail,
    1 − 3/6 = 0.5.

    Raises:
        ValueError: k > samples.

    >>> round(pass_at_k(4, 1, 2), 3)
    0.5
    """
    if k > samples:
        raise ValueError(f"pass@{k} needs at least {k} samples for each item, there are {samples}")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Probability that the most frequent answer is right; ties share. Samples without an answer do
    not vote.

    >>> majority(["4", "5", "4", None], [True, False, True, False])
    1.0
    """
    votes = Counter(a for a in answers if a is not None)
    return _elected(votes, answers, right)


def vote(answers: Sequence[str | None], scores: Sequence[float], right: Sequence[bool]) -> float:
    """Is the answer with the largest sum of exp(score − best score) right? Ties share; no answer,
    no vote.

    A sample without a score (-inf) has no weight; where none has a score, all weigh the same.

    >>> vote(["4", "5", "5"], [3.0, 1.0, 1.0], [True, False, False])
    1.0
    """
    votes = [s for a, s in zip(answers, scores, strict=True) if a is not None]
    best = max(votes, default=0.0)
    weight: dict[str, float] = defaultdict(float)
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            weight[answer] += math.exp(score - best) if best > -math.inf else 1.0
    return _elected(weight, answers, right)


def _elected(
    weight: dict[str, float] | Counter[str], answers: Sequence[str | None], right: Sequence[bool]
) -> float:
    """Share of right answers among those of the largest weight."""
    if not weight:
        return 0.0
    most = max(weight.values())
    leaders = {a for a, w in weight.items() if math.isclose(w, most)}
    correct = {a for a, r in zip(answers, right, strict=True) if r}
    return len(leaders & correct) / len(leaders)


def best_of(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """Expected value of the best-scored of n answers drawn without replacement from these; exact,
    ties share.

    Scores 0.1 0.9 0.5, values 0 1 0, n = 2: the best of the pairs (0.1, 0.9), (0.1, 0.5),
    (0.9, 0.5) has value 1, 0, 1, so the result is 2/3. By score: 0.9 is the best of
    C(3, 2) − C(2, 2) = 2 of 3 pairs.

    A score of -inf comes last; what is never the best of n has no part in the mean, whatever its
    value.

    Raises:
        ValueError: n is not between 1 and the number of answers.

    >>> best_of([0.1, 0.9, 0.5], [0.0, 1.0, 0.0], 1), best_of([0.1, 0.9, 0.5], [0.0, 1.0, 0.0], 3)
    (0.3333333333333333, 1.0)
    """
    if not 1 <= n <= len(scores):
        raise ValueError(f"best of {n} needs at least {n} answers, there are {len(scores)}")
    by_score: dict[float, list[float]] = defaultdict(list)
    for score, value in zip(scores, values, strict=True):
        by_score[score].append(value)
    total, below = math.comb(len(scores), n), 0
    out = 0.0
    for score in sorted(by_score):
        upto = below + len(by_score[score])
        if upto >= n:
            out += (math.comb(upto, n) - math.comb(below, n)) / total * fmean(by_score[score])
        below = upto
    return out


def _blocks(samples: Sequence[Sample], k: int) -> list[Sequence[Sample]]:
    """The disjoint blocks of k, the rest left over."""
    if not 1 <= k <= len(samples):
        raise ValueError(
            f"a vote of {k} needs at least {k} samples for each item, there are {len(samples)}"
        )
    return [samples[i : i + k] for i in range(0, len(samples) - k + 1, k)]


def any_right(samples: Sequence[Sample], k: int) -> float:
    """Whether any of k is right: no way of choosing among them can do better."""
    return pass_at_k(len(samples), sum(s.right for s in samples), k)


def majority_vote(samples: Sequence[Sample], k: int) -> float:
    """Whether the answer that most of k give is right.

    >>> samples = [Sample(True, "4"), Sample(False, "5"), Sample(True, "4"), Sample(True, "4")]
    >>> majority_vote(samples, 2)
    0.75
    """
    blocks = _blocks(samples, k)
    return fmean(majority([s.answer for s in b], [s.right for s in b]) for b in blocks)


def best_scored(samples: Sequence[Sample], k: int) -> float:
    """Whether the best-scored of k is right."""
    return best_of([s.score for s in samples], [float(s.right) for s in samples], k)


def weighted_vote(samples: Sequence[Sample], k: int) -> float:
    """Whether the answer of the largest summed exp(score) of k is right."""
    blocks = _blocks(samples, k)
    return fmean(
        vote([s.answer for s in b], [s.score for s in b], [s.right for s in b]) for b in blocks
    )

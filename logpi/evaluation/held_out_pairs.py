"""Numbers about preferences: held-out pairs, calibration, win rates.

    HeldOutPairs   an objective's loss, accuracy and margins on held-out groups; an `Evaluate` of
                   `logpi.train`
    calibration    whether a reward model that says 80 % is right 80 % of the time
    win_rate       one model against another under the same judge, with an interval

Left out: sampling answers and scoring them (`rollouts/text_rollout.py`), choosing among them
(`evaluation/pooling.py`), training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.evaluation.measures import interval
from logpi.updates.micro_batches import evaluate

if TYPE_CHECKING:
    from logpi.rollouts.preference_pairs import Preferences
    from logpi.types import Batch, Objective, Policy


@dataclass(frozen=True)
class HeldOutPairs:
    """An objective's loss and diagnostics on held-out groups. An `Evaluate` of `logpi.train`.

    Attributes:
        policy, objective: what is measured. data: the groups (with the reference's
            log-probabilities recorded).
        first: the diagnostic that says which policy is best. tokens: of a forward.
    """

    policy: Policy
    objective: Objective
    data: Preferences
    first: str = "rewards/accuracies"
    tokens: int | None = 16_384

    @torch.no_grad()
    def __call__(self, step: int = 0) -> tuple[dict[str, float], list[Mapping[str, Any]]]:
        """Means over groups, named eval/…; no rows."""
        total: dict[str, float] = defaultdict(float)
        groups = 0
        for batch in self.data.batches():
            metrics, n = self._batch(batch)
            groups += n
            for name, value in metrics.items():
                total[name] += n * value
        means = {f"eval/{k}": v / groups for k, v in total.items()}
        best = f"eval/{self.first}"
        return {best: means.pop(best), **means}, []

    def _batch(self, batch: Batch) -> tuple[dict[str, float], int]:
        now = evaluate(self.policy, batch, self.tokens)
        targets = self.objective.prepare(batch, now, None)
        loss, metrics = self.objective.loss(
            batch, targets, self.objective.weight(batch.mask, batch.group), now
        )
        kept = {
            k.removeprefix("+"): float(v)
            for k, v in metrics.items()
            if not k.endswith(("/max", "/min"))
        }
        return {**kept, "loss": float(loss)}, torch.unique(batch.group).numel()


@torch.no_grad()
def margins(model: Policy, data: Preferences, tokens: int | None = 16_384) -> tuple[Tensor, Tensor]:
    """A reward model's scores of the chosen and of the rejected responses, [P] each."""
    pairs = []
    for batch in data.batches():
        value = evaluate(model, batch, tokens).value
        assert value is not None
        last = (batch.mask * torch.arange(1, batch.mask.shape[1] + 1)).amax(1)
        pairs.append(value.gather(1, last[:, None]).view(-1, 2))
    both = torch.cat(pairs)
    return both[:, 0], both[:, 1]


@dataclass(frozen=True)
class Calibration:
    """How well σ(margin) predicts which response is preferred.

    Attributes:
        confidence, accuracy, count: of each bin of σ(|margin|) in [½, 1].
        error: mean distance of confidence and accuracy over pairs.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    count: tuple[int, ...]
    error: float


def calibration(margin: Tensor, bins: int = 10) -> Calibration:
    """Expected calibration error (arXiv:1706.04599, eq. 3) of σ(margin) as the probability of being
    preferred.

    margins 9 9 9 −9: all in the bin near 1, confidence 1.00, accuracy 0.75, error 0.25.

    >>> calibration(torch.tensor([9.0, 9.0, 9.0, -9.0])).error < 0.26
    True
    """
    probability = torch.sigmoid(margin.abs())
    right = (margin > 0).double()
    place = ((probability - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    rows = [(probability[place == b], right[place == b]) for b in range(bins) if (place == b).any()]
    confidence, accuracy = (tuple(float(r[i].mean()) for r in rows) for i in (0, 1))
    count = tuple(len(r[0]) for r in rows)
    error = sum(n * abs(c - a) for n, c, a in zip(count, confidence, accuracy, strict=True)) / len(
        margin
    )
    return Calibration(confidence, accuracy, count, error)


def win_rate(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> tuple[float, float, float]:
    """Probability that our answer scores higher than theirs to the same prompt, ties one half; with
    a 95 % interval.

    Args:
        ours, theirs: scores of several answers to each prompt; all pairs are compared.
    Returns:
        rate, low, high: the interval is a bootstrap over prompts.

    >>> win_rate([[1.0, 2.0]], [[0.0, 2.0]])[0]
    0.625
    """
    prompts = [
        fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a in mine for b in other)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return (fmean(prompts), *interval(prompts))

"""What a list of runs shows of a run's metrics, from its records one after the other: its chief
metric as a small curve, the pace, whether it collapsed, last and highest values.

It loads no torch and no NumPy. Left out: reading the records (`metrics.py`, the viewer).
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from logpi.runs.collapse import Collapse

# The metric that stands for a run in a list, the first that it has.
CHIEF = ("reward_100", "reward", "rewards/accuracies", "accuracy", "loss")
SPARK = 40
WINDOW = 20


def number(value: Any) -> float | None:
    """A finite number, or None; JSON has no NaN.

    >>> number(0.5), number("nan"), number(float("inf")), number(None), number(True)
    (0.5, None, None, None, None)
    """
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


@dataclass
class Summary:
    """What a list of runs shows of a run's metrics; `add` takes further records.

    Attributes:
        names: every metric, in the order of first appearance. series: of the chief metrics, and of
            the first of an evaluation. step, seen: the last step, and tokens or environment steps
            until then.
        pace: seconds of the last steps. collapse: the alarm; sentence: what it said.
        last: each metric's last value. best, least: the highest and the lowest of an evaluation's.
    """

    names: dict[str, None] = field(default_factory=dict)
    series: dict[str, array[float]] = field(default_factory=dict)
    step: int | None = None
    seen: float | None = None
    pace: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    collapse: Collapse = field(default_factory=Collapse)
    sentence: str = ""
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        for record in records:
            self.step = record["step"]
            values = {
                k: v for k, x in record.items() if k != "step" if (v := number(x)) is not None
            }
            self.names.update(dict.fromkeys(k for k in record if k != "step"))
            self.last.update(values)
            for name, value in values.items():
                if name in CHIEF:
                    self.series.setdefault(name, array("d")).append(value)
                elif name.startswith("eval/"):
                    self.best[name] = max(value, self.best.get(name, value))
                    self.least[name] = min(value, self.least.get(name, value))
            self.seen = values.get("num_tokens_seen", self.seen)
            if "step_time" in values:
                self.pace.append(values["step_time"])
            if "reward" in values:
                self.sentence = self.collapse(record["step"], values) or self.sentence

    @property
    def chief(self) -> str | None:
        """The metric that stands for the run."""
        return next((name for name in CHIEF if name in self.series), self.evaluated)

    @property
    def evaluated(self) -> str | None:
        """The first measure of its evaluations."""
        return next((name for name in self.names if name.startswith("eval/")), None)

    def spark(self) -> list[float]:
        """The chief metric as at most 40 means of equal parts.

        >>> summary = Summary()
        >>> summary.add({"step": i, "reward": float(i)} for i in range(80))
        >>> summary.spark()[:3]
        [0.5, 2.5, 4.5]
        """
        values = self.series.get(self.chief or "", array("d"))
        cuts = [round(i * len(values) / SPARK) for i in range(SPARK + 1)]
        parts = [values[a:b] for a, b in pairwise(cuts) if b > a]
        return [float(f"{sum(part) / len(part):.6g}") for part in parts]

    def seconds_left(self, steps: int | None) -> float | None:
        """By the pace of the last steps; evaluations between them do not count."""
        if steps is None or self.step is None or not self.pace or self.step >= steps:
            return None
        return (steps - self.step) * sum(self.pace) / len(self.pace)

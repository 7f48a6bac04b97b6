"""How fast a job learns: the optimiser, its learning rate and the schedule of it.

Left out: the steps of an update (`epochs`, `minibatches`), which are the algorithm's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.jobs.options.fields import option


@dataclass(frozen=True, kw_only=True)
class LearningArguments:
    """The learning rate and its schedule."""

    HEADING: ClassVar[str] = "learning"

    lr: float = option(
        1e-6,
        help="peak learning rate (about 3e-4 for a model of a million parameters)",
        least=0,
        most=10,
    )
    warmup: int = option(0, help="updates over which the learning rate climbs", least=0)
    schedule: str = option(
        "constant", help="of the learning rate after that", choices=("constant", "linear", "cosine")
    )
    optimizer: str | Any | None = option(
        None, objects=True, hidden=True, help="a class or function of torch that takes parameters"
    )

    def rates(self, end: float = 0.0) -> Any:
        """The optimiser for a `Learner`; linear and cosine schedules go down to `end` times the
        learning rate."""
        from logpi.updates.adamw import AdamW, Constant, Cosine, Linear

        if self.optimizer is not None:
            return self.optimizer
        schedules = {"constant": Constant(), "linear": Linear(end), "cosine": Cosine(end)}
        return AdamW(self.lr, warmup=self.warmup, schedule=schedules[self.schedule])

"""What an environment says of a conversation, as rewards: each of its numbers is one, by its name
and with its weight.

Left out: how an environment comes to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logpi.rewards import Failure

Column = Sequence[Mapping[str, Any]]
"""`Verdicts` of each conversation as plain data, as a reward in a process of its own reads them."""


def failure(verdicts: Mapping[str, Any]) -> Failure | None:
    """Why a conversation has no verdicts, or None.

    >>> failure({"numbers": {}, "error": "hung: no verdict in 3 s"})
    Failure(kind='hung', message='no verdict in 3 s')
    """
    kind, _, message = verdicts["error"].partition(": ")
    return Failure(kind, message) if kind else None


@dataclass(frozen=True)
class Verdict:
    """One number of the environment's own verdicts (`Ending.end`); None where it gave none.

    Attributes:
        name: as the environment calls it.

    >>> Verdict("lcs")(verdicts=[{"numbers": {"lcs": 0.5}, "error": ""}])
    [0.5]
    """

    name: str

    def __call__(self, *, verdicts: Column, **_: Any) -> list[float | Failure | None]:
        return [failure(v) or v["numbers"].get(self.name) for v in verdicts]

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: only a whole conversation has a verdict."""


@dataclass(frozen=True)
class StepRewards:
    """The sum of the environment's rewards for single turns. The return has them in any case, so
    this one is only measured: its weight is 0. A conversation whose end failed has no verdict.

    >>> StepRewards()(step_reward=[1.5, 0.0], verdicts=[{"numbers": {}, "error": ""}] * 2)
    [1.5, 0.0]
    """

    name: str = "steps"

    def __call__(
        self, *, step_reward: Sequence[float], verdicts: Column, **_: Any
    ) -> list[float | Failure]:
        return [failure(v) or r for r, v in zip(step_reward, verdicts, strict=True)]

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: only a whole conversation has rewards."""

"""What an environment says of a conversation, as rewards: each of its numbers is one, by its name
and with its weight.

Left out: how an environment comes to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.rewards import Failure

if TYPE_CHECKING:
    from logpi.envs.conversation import Verdicts


@dataclass(frozen=True)
class Verdict:
    """One number of the environment's own verdicts (`Ending.end`); None where it gave none.

    Attributes:
        name: as the environment calls it.

    >>> from logpi.envs.conversation import Verdicts
    >>> Verdict("lcs")(verdicts=[Verdicts({"lcs": 0.5}), Verdicts()])
    [0.5, None]
    """

    name: str

    def __call__(self, *, verdicts: Sequence[Verdicts], **_: Any) -> list[float | Failure | None]:
        return [self._read(v) for v in verdicts]

    def _read(self, verdicts: Verdicts) -> float | Failure | None:
        if verdicts.error:
            kind, _, message = verdicts.error.partition(": ")
            return Failure(kind, message)
        return verdicts.numbers.get(self.name)

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: only a whole conversation has a verdict."""


@dataclass(frozen=True)
class StepRewards:
    """The sum of the environment's rewards for single turns. The return has them in any case, so
    this one is only measured: its weight is 0.

    >>> StepRewards()(step_reward=[1.5, 0.0])
    [1.5, 0.0]
    """

    name: str = "steps"

    def __call__(self, *, step_reward: Sequence[float], **_: Any) -> list[float]:
        return list(step_reward)

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: only a whole conversation has rewards."""

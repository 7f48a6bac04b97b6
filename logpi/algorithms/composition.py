"""An algorithm as a value: what is maximised, how parameters move, and which rows are learned from.

Left out: the named algorithms (`table.py`) and how a name becomes one (`by_name.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from logpi.ops.kl import KL, k1, k3
from logpi.ops.selection import Bootstrap, Keep, KeepAll, Truncation
from logpi.updates.sgd import SGD

if TYPE_CHECKING:
    from logpi.types import Objective
    from logpi.updates.trust_region import TrustRegion

__all__ = ["Algorithm", "Difference", "kl_in_loss", "kl_in_reward", "kl_to_teacher"]


@dataclass(frozen=True)
class Difference:
    """A line on what a row does otherwise than its source, which holds as long as the algorithm
    has what the line is about.

    Attributes:
        text: the line. about: options with their values in the row. A number or a word must be the
            same, a part of the same class; a number that the algorithm has no more says nothing.

    >>> from logpi.ops.weights import SequenceMean, TokenMean
    >>> line = Difference("The paper takes the sum.", (("weight", SequenceMean()),))
    >>> line.holds({"weight": SequenceMean()}), line.holds({"weight": TokenMean()})
    (True, False)
    """

    text: str
    about: tuple[tuple[str, Any], ...] = ()

    def holds(self, now: Mapping[str, Any]) -> bool:
        """Whether it does for an algorithm of these options."""
        return all(
            isinstance(now.get(name), type(value))
            if is_dataclass(value)
            else now.get(name, value) == value
            for name, value in self.about
        )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Algorithm:
    """A named composition.

    Attributes:
        objective: what is maximised. update: how parameters move.
        keep: which groups enter the batch. truncation: treatment of rows that the length limit cut
            off.
        name: of its row in the table. source: its paper. differs: its divergences from the paper or
            from common libraries; those of its parts are the parts' own.
    """

    objective: Objective
    update: SGD | TrustRegion = SGD()
    keep: Keep = KeepAll()
    truncation: Truncation = Bootstrap()
    name: str = "custom"
    source: str = ""
    differs: tuple[str | Difference, ...] = ()


def kl_in_reward(beta: float) -> KL | None:
    """k1 in the reward of each action; no penalty at 0."""
    return KL(beta, k1, "reward") if beta else None


def kl_to_teacher(beta: float) -> KL:
    """k1 to a teacher in the advantage of each action: β log(π_T/π)."""
    return KL(beta, k1, "action", teacher=True)


def kl_in_loss(beta: float) -> KL | None:
    """k3 in the loss; no penalty at 0."""
    return KL(beta, k3, "loss") if beta else None

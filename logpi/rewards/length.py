"""Rewards for the length of a completion in tokens. Left out: the loss of truncated rows, which is
the objective's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SoftOverlong:
    """Soft overlong punishment of DAPO (arXiv:2503.14476, §3.4, eq. 13): a penalty in [−1, 0].

        R(y) = 0                                  if |y| ≤ L_max − L_cache
             = ((L_max − L_cache) − |y|) / L_cache    if L_max − L_cache < |y| ≤ L_max
             = −1                                 if L_max < |y|

    |y| is the number of tokens in `completion_ids`. Divergence: verl's version has no floor at −1;
    this one keeps the paper's.

    Attributes:
        max_length: L_max, tokens.
        cache: L_cache, tokens over which the penalty grows; 0 < cache ≤ max_length. The paper:
            20,480 and 4,096.

    Raises:
        ValueError: impossible lengths, or a call without token ids.

    >>> ids = [[0] * n for n in (6, 8, 11)]
    >>> SoftOverlong(10, cache=4)(prompts="abc", completions="abc", completion_ids=ids)
    [0.0, -0.5, -1.0]
    """

    max_length: int
    cache: int
    name: str = "soft_overlong"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 < self.cache <= self.max_length:
            raise ValueError(
                f"soft_overlong: cache must be between 1 and max_length tokens, got {self.cache}"
                f" and {self.max_length}"
            )

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        if completion_ids is None:
            raise ValueError(
                "soft_overlong counts tokens: give the completions' token ids as completion_ids"
            )
        free = self.max_length - self.cache
        return [max(-1.0, min(0.0, (free - len(ids)) / self.cache)) for ids in completion_ids]

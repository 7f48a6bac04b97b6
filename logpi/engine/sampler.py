"""The interface of a sampler: requests in, completions out.

`Engine` implements it with the policy's own weights. Another sampler (a server such as vLLM) can
take its place: rollouts and evaluation use this protocol alone. One that samples while the policy
changes is an `IndependentSampler`. Left out: how weights get to another sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from logpi.engine.sampling import Completion, Request, Sampling
    from logpi.engine.turns import OnTurnEnd


class Sampler(Protocol):
    """Samples token ids from a policy."""

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_turn_end: OnTurnEnd | None = None,
    ) -> list[list[Completion]]:
        """`request.n` completions of each request, in the order of the requests.

        Args:
            requests: prompts as token ids. sampling: how tokens are drawn and when rows end.
            generator: gives every row its seed, unless its request has one (`sampling.seeded`); the
                same seeds and weights give the same tokens, whatever else is in the call.
            progress: called with (rows done, rows in all).
            on_turn_end: returns what follows each turn of a row (`turns.OnTurnEnd`). Rows are
                numbered through all requests: first those of the first request, then those of the
                second, … A completion holds the policy's tokens of all turns, and no token of an
                observation. None: a row is one turn.
        """
        ...


@runtime_checkable
class IndependentSampler(Sampler, Protocol):
    """A sampler with a copy of the weights, so that it can sample in one thread while the policy
    changes in another. It says the version of every token."""

    def follow(self, policy: AbstractContextManager[Any]) -> None:
        """From now on the copy changes in `publish` alone, and `generate` reads the policy only
        while it is in the context `policy`, a lock."""
        ...

    def publish(self) -> None:
        """Make the copy the policy as it is, if it is another. The caller holds the lock; rows that
        are being sampled go on under the new weights."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers of what was published since they were last asked for."""
        ...

    def abort(self) -> None:
        """The call of `generate` under way in another thread ends soon, by `SamplerLost`; so does
        every later one."""
        ...


class FirstRankSampler:
    """An `IndependentSampler` of the first rank, as the other ranks hold it: it does nothing."""

    def generate(self, requests: Sequence[Request], *_: Any, **__: Any) -> list[list[Completion]]:
        raise RuntimeError("only the first rank samples")

    def metrics(self) -> dict[str, float]:
        return {}

    def follow(self, policy: AbstractContextManager[Any]) -> None: ...
    def publish(self) -> None: ...
    def abort(self) -> None: ...

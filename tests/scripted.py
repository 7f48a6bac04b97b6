"""A sampler whose turns are written by the test, so that what an environment answers can be known
beforehand. Log-probabilities are the policy's own, of what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from logpi.engine.sampling import Completion, Request, Sampling
from logpi.engine.turns import TurnEnd
from logpi.policies.causal_lm import CausalLM


@dataclass
class Scripted:
    """A `Sampler`.

    Attributes:
        policy: its tokenizer writes the turns. says: the text of a turn, by the row's number and
            the turn's. `None` writes until the token limit.
    """

    policy: CausalLM
    says: Callable[[int, int], str | None]

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        on_turn_end: Any = None,
        **_: Any,
    ) -> list[list[Completion]]:
        rows = [request for request in requests for _ in range(request.n)]
        done = iter([self._row(i, r, sampling, on_turn_end) for i, r in enumerate(rows)])
        return [[next(done) for _ in range(r.n)] for r in requests]

    def _row(self, row: int, request: Request, sampling: Sampling, on_turn_end: Any) -> Completion:
        """One row, until the environment ends it."""
        own: list[int] = []
        seen = list(request.prompt)
        for turn in range(100):
            tokens, stop = self._turn(row, turn, sampling.max_tokens - len(own))
            own, seen = own + tokens, seen + tokens
            if stop == "length" or on_turn_end is None:
                return self._completion(own, stop)
            left, room = sampling.max_tokens - len(own), self.policy.context - len(seen) - 1
            (next_,) = on_turn_end([TurnEnd(row, tokens, stop, left, room)], True)
            if next_.observation is None:
                return self._completion(own, next_.stop or stop)
            seen += next_.observation
        raise AssertionError("a hundred turns")

    def _turn(self, row: int, turn: int, left: int) -> tuple[list[int], str]:
        text = self.says(row, turn)
        tokenizer = self.policy.tokenizer
        ids = tokenizer.encode("x" * left if text is None else text, add_special_tokens=False)
        ids = ids if text is None else [*ids, tokenizer.eos_token_id]
        return (ids[:left], "length") if len(ids) > left or text is None else (ids, "eos")

    def _completion(self, own: list[int], stop: str) -> Completion:
        return Completion(torch.tensor(own), torch.full((len(own),), -1.0), stop)

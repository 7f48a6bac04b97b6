"""Continuous batching without an end: rows join and leave while others decode, each with a sampling
of its own. It is what a server steps.

Rows and prompts have numbers, which are used again: a generation that runs for weeks holds no more
than its rows of the moment. With `rows` = 4, of which a request takes one for each sample:

    join(a, n=2)   rows 0 1, prompt 0     wait
    step()         rows 0 1 are live      a token of each
    join(b)        row 2, prompt 1        waits, and is live from the next step on
    leave([0])     row 0 is free          prompt 0 stays: row 1 needs it
    join(c)        row 0, prompt 2

A row's tokens are those that `Engine` samples for the same seed and prompt, up to rounding: rows
beside it change the order of sums, never the random numbers. Left out: turns (`on_turn_end`), texts
and stop strings (`openai_server/texts.py`), changes of weights (a new generation).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.engine.generation import Generation, Work
from logpi.engine.sampling import Request, Sampling, draw
from logpi.engine.shared_prompts import PromptCache
from logpi.policies.fast.decoder import decoder

if TYPE_CHECKING:
    from logpi.engine.cuda_graphs import CapturedSteps
    from logpi.engine.kv_cache import Cache
    from logpi.engine.slots import RowStates
    from logpi.policies.causal_lm import CausalLM

NOTHING = Request(())


@dataclass(frozen=True)
class Sampled:
    """One token of a row.

    Attributes:
        row: its number. token: id. logp: nats, untempered, of the whole distribution.
        top: the likeliest tokens and their nats, as many as the row asked for.
        end: "eos" or "length" if the row ends with it; "".
    """

    row: int
    token: int
    logp: float
    top: tuple[tuple[int, float], ...]
    end: str


@dataclass(frozen=True)
class _Rule:
    """How a row is drawn."""

    greedy: bool
    sampling: Sampling


class OpenGeneration(Generation):
    """Rows that join and leave.

    Args:
        policy: its weights are read once, now. cache, captured: the rows'.
        slots: rows decoded at a time. rows: rows that are live or wait, at most.
        longest: tokens of a row with its prompt, at most.
    """

    def __init__(
        self,
        policy: CausalLM,
        cache: Cache,
        captured: CapturedSteps | None,
        *,
        slots: int,
        rows: int,
        longest: int,
    ) -> None:
        super().__init__(
            Work([], [], Sampling(), torch.zeros(0, dtype=torch.long), None, None, None),
            policy,
            cache,
            captured,
            slots,
        )
        self.requests, self.limits = [NOTHING] * rows, [0] * rows
        seeds = torch.zeros(rows, dtype=torch.long)
        self.work = replace(self.work, requests=self.requests, limits=self.limits, seeds=seeds)
        self.owner, self.prompt, self.most = list(range(rows)), [0] * rows, longest
        self.decoder = decoder(policy, longest, slots)
        self.head = replace(self.decoder.head, temperature=1.0)
        extents = policy.extents(torch.zeros(rows, dtype=torch.long))
        texts = [()] * rows
        self.prompts = PromptCache(self.decoder, self.device, texts, [1] * rows, extents)
        self.rules = [_Rule(True, Sampling())] * rows
        self.top = [0] * rows
        self.free_rows, self.free_prompts = list(range(rows)), list(range(rows))
        # rows of each prompt
        self.users: Counter[int] = Counter()
        # live rows by their rule, as slots
        self.by_rule: list[tuple[_Rule, Tensor]] = []
        self.likeliest: tuple[Tensor, Tensor] | None = None
        # logits beyond only fill up a matrix
        self.named = min(policy.vocabulary, len(policy.tokenizer))

    @property
    def idle(self) -> bool:
        return not self.waiting and not len(self.live)

    def join(self, request: Request, sampling: Sampling, top: int = 0) -> list[int]:
        """Numbers of the rows of a request, which has seeds and a limit; they wait for slots.

        Args:
            sampling: temperature, top_k and top_p; its other fields are not read.
            top: likeliest tokens to report at each token.
        """
        assert request.max_tokens is not None and len(request.seeds) == request.n
        rows = [self.free_rows.pop(0) for _ in range(request.n)]
        prompt = self.free_prompts.pop(0)
        reach = torch.tensor([self.policy.reach(len(request.prompt))])
        # on a GPU each row holds its prompt (`Generation._prompts`)
        together = min(request.n, self.slots) if self.device.type == "cpu" else 1
        self.prompts.put(prompt, tuple(request.prompt), together, self.policy.extents(reach))
        self.users[prompt] = request.n
        for row, seed in zip(rows, request.seeds, strict=True):
            self.requests[row], self.limits[row] = request, request.max_tokens
            self.work.seeds[row], self.prompt[row] = seed, prompt
            self.rules[row] = _Rule(request.greedy, replace(sampling, max_tokens=1, stop=()))
            self.top[row] = top
        self.waiting.extend(rows)
        return rows

    def step(self) -> list[Sampled]:
        """One token more for every live row, after waiting rows have taken the free slots. Rows
        that end stay until they `leave`.

        Raises:
            FloatingPointError: the logits are not numbers. MemoryError: the cache does not fit.
        """
        if self.waiting and self._free():
            self._admit(self._free())
        if not len(self.live):
            return []
        ends = self._step()
        _, token, logp = self.sampled.pop()
        numbers = (x.tolist() for x in (token, logp, ends["eos"], ends["length"]))
        steps = [
            Sampled(row, t, x, top, "eos" if eos else "length" if out else "")
            for row, top, t, x, eos, out in zip(self.number, self._tops(), *numbers, strict=True)
        ]
        if not all(math.isfinite(s.logp) for s in steps):
            raise FloatingPointError("the model's logits are not numbers (NaN or infinite)")
        return steps

    def leave(self, rows: Collection[int]) -> None:
        """These rows, which are there, are no more: waiting, live or ended."""
        gone = set(rows)
        self.waiting = deque(row for row in self.waiting if row not in gone)
        kept = [slot for slot, row in enumerate(self.number) if row not in gone]
        if len(kept) < len(self.number):
            self._arrange(kept, [])
        for row in gone:
            prompt = self.prompt[row]
            self.users[prompt] -= 1
            if not self.users[prompt]:
                del self.users[prompt]
                self.free_prompts.append(prompt)
            self.requests[row] = NOTHING
            self.free_rows.append(row)

    # --- one step ---

    def _set(self, live: RowStates, paused: RowStates) -> None:
        super()._set(live, paused)
        slots: dict[_Rule, list[int]] = {}
        for slot, row in enumerate(self.number):
            slots.setdefault(self.rules[row], []).append(slot)
        self.by_rule = [(rule, torch.tensor(s, device=self.device)) for rule, s in slots.items()]

    def _draw(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """As of every generation, each row by its own rule; log-probabilities are untempered."""
        logits, chance = self.head.logits(hidden), self._chance()
        logp = logits.log_softmax(-1)
        token = torch.empty(len(hidden), dtype=torch.long, device=self.device)
        for rule, slots in self.by_rule:
            some = logits[slots] if len(self.by_rule) > 1 else logits
            if rule.greedy:
                token[slots] = some.argmax(-1)
            else:
                tempered = some / (rule.sampling.temperature or 1.0)
                token[slots] = draw(tempered, chance[slots], None, rule.sampling)[0]
        most = max(self.top[row] for row in self.number)
        self.likeliest = None
        if most:
            values, ids = logp[:, : self.named].topk(min(most, self.named))
            self.likeliest = ids, values
        return token, logp.gather(-1, token[:, None]).squeeze(-1)

    def _tops(self) -> list[tuple[tuple[int, float], ...]]:
        """The likeliest tokens of each live row."""
        if self.likeliest is None:
            return [()] * len(self.number)
        pairs = zip(*(x.tolist() for x in self.likeliest), strict=True)
        return [
            tuple(zip(ids, values, strict=True))[: self.top[row]]
            for row, (ids, values) in zip(self.number, pairs, strict=True)
        ]

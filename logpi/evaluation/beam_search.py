"""Step-scored beam search: a response is written step by step, a process scorer keeps the most
promising beginnings.

    width candidates for each item ─▶ one step further each ─▶ scored ─▶ the best `keep` go on ─▶ …
    ─▶ the best that ended

As in Snell et al. (arXiv:2408.03314, §5.2: beam search against a process reward model), but
candidates that say the same are one, and an ended response keeps its place and its score. All items
of a call advance together in one batch. Tokens spent are all that were sampled, those of abandoned
beginnings included. Left out: lookahead and tree search with back-ups; the verdict on what is found
(the caller's rewards).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from logpi.engine.sampling import Completion, Request, Sampling
from logpi.evaluation.scorers import PartialResponse, Scorer, joined
from logpi.rollouts.chat import Chat

if TYPE_CHECKING:
    from logpi.engine.engine import Engine
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class BeamSearchResult:
    """What a search made of one item.

    Attributes:
        best: the response of the best score, an ended one if any did. score: its score. beams: all
            that were kept, best first.
        tokens: sampled in all. steps: taken.
    """

    best: PartialResponse
    score: float
    beams: tuple[PartialResponse, ...]
    tokens: int
    steps: int


@dataclass
class _Search:
    """One item's search so far: beams with their scores, best first."""

    beams: list[tuple[float, PartialResponse]]
    tokens: int = 0
    steps: int = 0
    fresh: list[PartialResponse] = field(default_factory=list)  # candidates not scored yet

    @property
    def live(self) -> list[PartialResponse]:
        return [p for _, p in self.beams if not p.stop]

    def found(self) -> BeamSearchResult:
        score, best = next(
            ((s, p) for s, p in self.beams if p.stop in ("eos", "stop")), self.beams[0]
        )
        return BeamSearchResult(
            best, score, tuple(p for _, p in self.beams), self.tokens, self.steps
        )


@dataclass(frozen=True)
class BeamSearch:
    """The search; call it with items.

    Attributes:
        policy, engine, chat: as in a rollout. scorer: of beginnings.
        width: candidates sampled for each item and step, shared among the beginnings that go on.
            keep: how many go on.
        step: what ends a step. stop: what ends a response besides the end token. max_tokens,
            max_steps: of a response.
        temperature: of sampling, or None for the policy's.

    Raises:
        ValueError: keep is not between 1 and width; an empty step.
    """

    policy: CausalLM
    engine: Engine
    scorer: Scorer
    width: int = 8
    keep: int = 2
    step: str = "\n"
    stop: tuple[str, ...] = ()
    max_tokens: int = 512
    max_steps: int = 64
    chat: Chat = Chat()
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.width:
            raise ValueError(
                f"a beam keeps between 1 and its width of {self.width} beginnings, not {self.keep}"
            )
        if not self.step:
            raise ValueError("a step must end with something: give a text, such as a line break")

    def __call__(
        self,
        rows: Sequence[Row],
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[BeamSearchResult]:
        """The best response to each row."""
        items = [_Search([(0.0, self._empty(row))]) for row in rows]
        for _ in range(self.max_steps):
            going = [i for i in items if i.live]
            if not going:
                break
            self._extend(going, generator)
            scores = iter(self.scorer([p for i in going for p in i.fresh]))
            for item in going:
                ended = [(s, p) for s, p in item.beams if p.stop]
                item.beams = self._best(ended + [(next(scores), p) for p in item.fresh])
            if progress is not None:
                progress(sum(not i.live for i in items), len(items))
        return [item.found() for item in items]

    def _empty(self, row: Row) -> PartialResponse:
        prompt = self.chat(self.policy, row["prompt"])
        return PartialResponse(row, prompt, torch.zeros(0, dtype=torch.long), torch.zeros(0), "")

    def _best(
        self, candidates: list[tuple[float, PartialResponse]]
    ) -> list[tuple[float, PartialResponse]]:
        """The best `keep`, equals once; of equal scores those that came first."""
        distinct: dict[tuple[int, ...], tuple[float, PartialResponse]] = {}
        for score, p in candidates:
            distinct.setdefault(tuple(p.tokens.tolist()), (score, p))
        return sorted(distinct.values(), key=lambda x: -x[0])[: self.keep]

    def _extend(self, items: Sequence[_Search], generator: torch.Generator | None) -> None:
        """One step further: `width` candidates for each item, the better beginnings first
        served."""
        asked = [(item, p, n) for item in items for p, n in _shares(item.live, self.width)]
        requests = [
            Request([*p.prompt, *p.tokens.tolist()], n, max_tokens=self.max_tokens - len(p.tokens))
            for _, p, n in asked
        ]
        sampling = Sampling(
            temperature=self.temperature, max_tokens=self.max_tokens, stop=(self.step, *self.stop)
        )
        sampled = self.engine.generate(requests, sampling, generator)
        for item in items:
            item.fresh, item.steps = [], item.steps + 1
        for (item, p, _), completions in zip(asked, sampled, strict=True):
            item.tokens += sum(len(c.tokens) for c in completions)
            item.fresh += [self._longer(p, c) for c in completions]

    def _longer(self, p: PartialResponse, c: Completion) -> PartialResponse:
        """A beginning with one more step. A step's end is not the response's, unless no room is
        left."""
        longer, said = joined(self.policy, p, c), self.policy.tokenizer.decode(c.tokens)
        ended = c.stop if c.stop != "stop" or any(s in said for s in self.stop) else ""
        full = (
            len(longer.tokens) >= self.max_tokens
            or len(p.prompt) + len(longer.tokens) >= self.policy.context
        )
        return replace(longer, stop=ended or ("length" if full else ""))


def _shares(beginnings: Sequence[PartialResponse], width: int) -> list[tuple[PartialResponse, int]]:
    """How many of `width` candidates each beginning gets: as equal as can be, the first ones
    more."""
    each, more = divmod(width, len(beginnings))
    return [(p, each + (i < more)) for i, p in enumerate(beginnings) if each + (i < more)]

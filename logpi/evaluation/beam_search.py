"""Step-scored beam search: a response is sampled step by step, and a process scorer keeps the best
partial responses, the beams.

Width 4, keep 2, steps of a sum that end at a comma, scores in brackets:

    step 1   4 candidates   1+2=3, [.9]   1+2=4, [.2]   1+2=3, [.9]   2+1=3, [.7]
             beams          1+2=3, [.9]   2+1=3, [.7]               (equal candidates count once)
    step 2   2 candidates of each beam, 4 scores, the best 2 are the beams …
    until every beam has ended; the result is the best that ended

As in Snell et al. (arXiv:2408.03314, §5.2: beam search against a process reward model), except that
equal candidates are one, and an ended response keeps its place and its score. All items of a call
advance in one batch. Tokens spent are all that were sampled, those of abandoned beams included.
Left out: lookahead and tree search with back-ups; judging the result (the caller's rewards).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from logpi.engine.sampling import Completion, Request, Sampling
from logpi.evaluation.scorers import PartialResponse, Scorer, extended
from logpi.rollouts.chat import Chat

if TYPE_CHECKING:
    from logpi.engine.sampler import Sampler
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class BeamSearchResult:
    """The result of one item's search.

    Attributes:
        best: the response of the best score, an ended one if any has ended. score: its score.
        beams: all of the last step, best first. tokens: sampled in all. steps: taken.
    """

    best: PartialResponse
    score: float
    beams: tuple[PartialResponse, ...]
    tokens: int
    steps: int


@dataclass
class _ItemSearch:
    """One item's search so far: beams with their scores, best first."""

    beams: list[tuple[float, PartialResponse]]
    tokens: int = 0
    steps: int = 0
    candidates: list[PartialResponse] = field(default_factory=list)

    @property
    def live(self) -> list[PartialResponse]:
        return [p for _, p in self.beams if not p.stop]

    def result(self) -> BeamSearchResult:
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
        policy, sampler, chat: as in a rollout. scorer: of partial responses.
        width: candidates sampled for each item and step, shared among its beams. keep: number of
            beams.
        step: what ends a step. stop: what ends a response besides the end token. max_tokens,
            max_steps: of a response.
        temperature: of sampling, or None for the policy's.

    Raises:
        ValueError: keep is not between 1 and width; an empty step.
    """

    policy: CausalLM
    sampler: Sampler
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
        items = [_ItemSearch([(0.0, self._empty(row))]) for row in rows]
        for _ in range(self.max_steps):
            live = [i for i in items if i.live]
            if not live:
                break
            self._extend(live, generator)
            scores = iter(self.scorer([p for i in live for p in i.candidates]))
            for item in live:
                ended = [(s, p) for s, p in item.beams if p.stop]
                item.beams = self._best(ended + [(next(scores), p) for p in item.candidates])
            if progress is not None:
                progress(sum(not i.live for i in items), len(items))
        return [item.result() for item in items]

    def _empty(self, row: Row) -> PartialResponse:
        prompt = self.chat(self.policy, row["prompt"])
        return PartialResponse(row, prompt, torch.zeros(0, dtype=torch.long), torch.zeros(0), "")

    def _best(
        self, candidates: list[tuple[float, PartialResponse]]
    ) -> list[tuple[float, PartialResponse]]:
        """The best `keep`, equal ones once; of equal scores the first."""
        distinct: dict[tuple[int, ...], tuple[float, PartialResponse]] = {}
        for score, p in candidates:
            distinct.setdefault(tuple(p.tokens.tolist()), (score, p))
        return sorted(distinct.values(), key=lambda x: -x[0])[: self.keep]

    def _extend(self, items: Sequence[_ItemSearch], generator: torch.Generator | None) -> None:
        """One step further: `width` candidates for each item."""
        shares = [(item, p, n) for item in items for p, n in _shares(item.live, self.width)]
        requests = [
            Request([*p.prompt, *p.tokens.tolist()], n, max_tokens=self.max_tokens - len(p.tokens))
            for _, p, n in shares
        ]
        sampling = Sampling(
            temperature=self.temperature, max_tokens=self.max_tokens, stop=(self.step, *self.stop)
        )
        sampled = self.sampler.generate(requests, sampling, generator)
        for item in items:
            item.candidates, item.steps = [], item.steps + 1
        for (item, p, _), completions in zip(shares, sampled, strict=True):
            item.tokens += sum(len(c.tokens) for c in completions)
            item.candidates += [self._longer(p, c) for c in completions]

    def _longer(self, p: PartialResponse, c: Completion) -> PartialResponse:
        """A partial response with one more step. The end of a step is not the end of the response,
        unless no room is left."""
        longer, text = extended(self.policy, p, c), self.policy.tokenizer.decode(c.tokens)
        ended = c.stop if c.stop != "stop" or any(s in text for s in self.stop) else ""
        full = (
            len(longer.tokens) >= self.max_tokens
            or len(p.prompt) + len(longer.tokens) >= self.policy.context
        )
        return replace(longer, stop=ended or ("length" if full else ""))


def _shares(beams: Sequence[PartialResponse], width: int) -> list[tuple[PartialResponse, int]]:
    """How many of `width` candidates each beam gets: equal shares, the better beams one more.

    width 8, 3 beams: 3 3 2;   width 2, 3 beams: 1 1 and none for the third.
    """
    each, more = divmod(width, len(beams))
    return [(p, each + (i < more)) for i, p in enumerate(beams) if each + (i < more)]

"""Continuous batching: one call of the engine, step by step.

Each prompt is read once for its group, and a common opening of prompts once for all of them
(`shared_prompts.py`). Every step adds a token to all live rows; rows that end leave, and waiting
rows take their slots. A row is in one of four states:

    waiting ──admit──▶ live ──end of a turn──▶ paused ──observation──▶ live …
                        │                         │
                        └── limit, or no          └── the conversation is over ──▶ finished
                            on_turn_end ──▶ finished

Live rows stand in the first slots, so that a step works on a slice of the cache; paused rows stand
behind them and are not stepped. Four rows a b c d with three slots, [x] for a paused row:

    slots 0 1 2     waiting   what happened
    a   b   c       d         all three are live: each step forwards three tokens
    a   c  [b]      d         b ended a turn: c takes its slot, and b waits for its environment
    c  [a] [b]      d         a ended a turn
    c  [b]          d         a's conversation is over: a slot is free
    c   d  [b]                d is admitted behind all others, and changes places with b
    c   d   b                 b's observation came: b reads it behind what its slot holds

Left out: the policy's forward (`policies/`), drawing a token (`sampling.py`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from logpi.engine.kv_cache import Cache, DecodeStep, Extension
from logpi.engine.sampling import Completion, Request, Sampling, StopStrings, draw, uniform
from logpi.engine.shared_prompts import PromptCache, SharedPrompts, SharedStep
from logpi.engine.slots import RowStates, arrangement, reading_batches
from logpi.engine.turns import ENDED, Continuation, OnTurnEnd, TurnEnd
from logpi.policies.fast.decoder import decoder

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.engine.cuda_graphs import CapturedSteps
    from logpi.policies.causal_lm import CausalLM

# steps whose random numbers are made at once
AHEAD = 16


@dataclass(frozen=True)
class Work:
    """The work of one call of the engine.

    Attributes:
        requests, sampling, progress, on_turn_end: as in `Sampler.generate`.
        limits: most tokens of a row of each request. seeds: [rows] on the CPU.
        finder: finds the stop strings; None without any.
    """

    requests: Sequence[Request]
    limits: Sequence[int]
    sampling: Sampling
    seeds: Tensor
    finder: StopStrings | None
    progress: Callable[[int, int], None] | None
    on_turn_end: OnTurnEnd | None


class Generation:
    """One call of the engine: its waiting, live and paused rows, and their samples.

    Args:
        work: of the call. policy, cache, captured, slots, half: the engine's.
    """

    def __init__(
        self,
        work: Work,
        policy: CausalLM,
        cache: Cache,
        captured: CapturedSteps | None,
        slots: int,
        half: bool = False,
    ) -> None:
        self.work, self.policy, self.cache, self.captured = work, policy, cache, captured
        self.slots, self.device = slots, policy.device
        # the request of each row
        self.owner = [i for i, r in enumerate(work.requests) for _ in range(r.n)]
        rows, steps = min(slots, len(self.owner)), max(work.limits, default=0)
        self.decoder = decoder(policy, steps, rows, half)
        temperature = work.sampling.temperature or policy.temperature
        self.head = replace(self.decoder.head, temperature=temperature)
        if captured is not None:
            captured.begin(policy)
        self.is_eos = torch.zeros(policy.vocabulary, dtype=torch.bool, device=self.device)
        self.is_eos[[i for i in policy.eos_ids if i < policy.vocabulary]] = True
        # tokens of each row's turn, if stop strings or turns need them
        needs_tokens = work.finder is not None or work.on_turn_end is not None
        self.history: list[list[int]] = [[] for _ in self.owner] if needs_tokens else []
        self.most = self._most()
        self.prompt, self.prompts = self._prompts()
        # rows of one prompt enter together
        self.waiting = deque(sorted(range(len(self.owner)), key=self.prompt.__getitem__))
        # prompts that live rows share
        self.shared: SharedPrompts | None = None
        self.live = self.paused = self._fresh([])
        # numbers of the live rows, as in `live.row`
        self.number: list[int] = []
        # columns of the longest live row, with the next token's
        self.longest = 0
        # random numbers of the coming steps, those of the next step last
        self.chances: list[Tensor] = []
        self.slot = torch.arange(slots, device=self.device)
        # row, token, logp of each step
        self.sampled: list[tuple[Tensor, Tensor, Tensor]] = []
        self.stopped = [""] * len(self.owner)
        # turns that `on_turn_end` has not seen yet
        self.ended: list[TurnEnd] = []

    def _most(self) -> int:
        """Most positions of a row."""
        if self.work.on_turn_end is not None:
            return self.policy.context
        rows = zip(self.work.requests, self.work.limits, strict=True)
        return max((len(r.prompt) + limit for r, limit in rows), default=0)

    def _prompts(self) -> tuple[list[int], PromptCache]:
        """The number of each row's prompt (equal prompts have one number), and the prompts."""
        texts = [tuple(r.prompt) for r in self.work.requests]
        number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        prompt = [number[texts[i]] for i in self.owner]
        can_share = self.work.on_turn_end is None and self.device.type == "cpu"
        live = self.slots if can_share else 0
        together = [min(live, rows) for _, rows in sorted(Counter(prompt).items())]
        lengths = [self.policy.reach(len(text)) for text in number]
        reach = torch.tensor(lengths, dtype=torch.long)
        extents = self.policy.extents(reach)
        return prompt, PromptCache(self.decoder, self.device, list(number), together, extents)

    def run(self) -> None:
        """Decode until every row is finished."""
        while self.waiting or len(self.live) or len(self.paused):
            if self.work.on_turn_end is not None and len(self.paused):
                can_admit = bool(self.waiting) and self._free() > 0
                wait = not len(self.live) and not can_admit
                ended, self.ended = self.ended, []
                self._resume(self.work.on_turn_end(ended, wait))
            free = self._free()
            enough = free >= max(1, self.slots // 8) or (free and not len(self.live))
            if self.waiting and enough:
                self._admit(free)
            if len(self.live):
                ends = self._step()
                ended_rows = torch.stack(list(ends.values())).any(0)
                if ended_rows.any():
                    self._end(ends, ended_rows)

    def _free(self) -> int:
        return self.slots - len(self.live) - len(self.paused)

    # --- one step ---

    def _step(self) -> dict[str, Tensor]:
        """Sample one token for every live row. Returns {reason: [n] bool, the rows that end for
        this reason}, the strongest reason last."""
        live = self.live
        token, logp = self._draw(self._hidden(live))
        self.sampled.append((live.row, token, logp))
        self.live = replace(live, token=token, position=live.position + 1, left=live.left - 1)
        self.longest += 1
        if self.history:
            for row, new in zip(self.number, token.tolist(), strict=True):
                self.history[row].append(new)
        ends = {"length": self.live.left <= 0}
        if self.work.finder is not None:
            ends["stop"] = self.work.finder.matches(token, self.number, self.history)
        return {**ends, "eos": self.is_eos[token]}

    def _draw(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The next tokens [n] and their log-probabilities [n], of states hidden [n, d]."""
        logits = self.head.logits(hidden)
        return draw(logits, self._chance(), self.greedy, self.work.sampling)

    def _hidden(self, live: RowStates) -> Tensor:
        """[n, d] of the live rows' next tokens."""
        place = live.position if self.shared is None else live.position - self.shared.offset
        extent = self.policy.extents(live.reach)
        step = DecodeStep(self.cache, self.slot[: len(live)], place, self.longest, extent=extent)
        if self.shared is None and self.captured is not None:
            return self.captured.hidden(self.decoder, step, live.token, self.most)
        self.cache.reserve(len(live), self.longest, self.most)
        packing = step if self.shared is None else SharedStep(step, self.shared)
        return self.decoder.hidden(packing, live.token, live.position)

    def _chance(self) -> Tensor:
        """[n] uniform numbers of this step; those of `AHEAD` steps are made at once, and used while
        the rows stay the same."""
        if not self.chances:
            ahead = torch.arange(AHEAD, device=self.device).flip(0)[:, None]
            self.chances = list(uniform(self.live.seed, self.live.position + ahead))
        return self.chances.pop()

    # --- ends of turns, and what follows them ---

    def _end(self, ends: dict[str, Tensor], ended: Tensor) -> None:
        """Record why rows end. With `on_turn_end`, those that ended a turn by themselves are
        paused."""
        if not bool(torch.isfinite(self.sampled[-1][2]).all()):
            raise FloatingPointError(
                "the model's logits are not numbers (NaN or infinite): the weights have diverged"
            )
        for reason, rows in ends.items():
            for i in rows.nonzero().squeeze(1).tolist():
                self.stopped[self.number[i]] = reason
        pausing: list[int] = []
        if self.work.on_turn_end is not None:
            slots = ended.nonzero().squeeze(1).tolist()
            pausing = [i for i in slots if self.stopped[self.number[i]] in ENDED]
            if pausing:
                self._note_turns(pausing)
        paused = range(len(self.live), len(self.live) + len(self.paused))
        self._arrange((~ended).nonzero().squeeze(1).tolist(), [*pausing, *paused])

    def _note_turns(self, slots: list[int]) -> None:
        """Keep the turns that ended in live `slots` for `on_turn_end`."""
        rows = self.live.pick(torch.tensor(slots, dtype=torch.long, device=self.device))
        # the policy's next token takes a place too
        room = rows.reach - rows.position - 2
        numbers = (x.tolist() for x in (rows.row, rows.left, room))
        for row, left, space in zip(*numbers, strict=True):
            self.ended.append(TurnEnd(row, self.history[row], self.stopped[row], left, space))
            self.history[row] = []

    def _resume(self, continuations: Sequence[Continuation]) -> None:
        """Paused rows read their observations and become live, or are finished."""
        if not continuations:
            return
        slot = {row: len(self.live) + i for i, row in enumerate(self.paused.row.tolist())}
        for c in continuations:
            self.stopped[c.row] = c.stop or self.stopped[c.row]
        observations = {slot[c.row]: c.observation for c in continuations}
        resumed = {s: o for s, o in observations.items() if o is not None}
        if resumed:
            self._extend(list(resumed), list(resumed.values()))
        self._arrange(
            [*range(len(self.live)), *resumed],
            [s for s in slot.values() if s not in observations],
        )

    def _extend(self, slots: list[int], observations: Sequence[Sequence[int]]) -> None:
        """Forward the unread tokens of the paused rows in `slots`, but for the last one, which is
        their next step's."""
        slot = torch.tensor(slots, device=self.device)
        count = torch.tensor([len(o) for o in observations], device=self.device)
        index = slot - len(self.live)
        start, token = self.paused.position[index], self.paused.token[index]
        end, own = start + count, token.tolist()
        rows = len(self.live) + len(self.paused)
        self.cache.reserve(rows, int(end.max()) + 1, self.most)
        for some in reading_batches(count, end):
            unread = [[own[i], *observations[i][:-1]] for i in some.tolist()]
            extent = self.policy.extents(self.paused.reach[index[some]])
            extension = Extension.after(self.cache, slot[some], start[some], count[some], extent)
            ids = torch.tensor([t for tokens in unread for t in tokens], device=self.device)
            self.decoder.hidden(extension, ids, extension.position)
        last = torch.tensor([o[-1] if o else -1 for o in observations], device=self.device)
        left = self.paused.left[index].minimum(self.paused.reach[index] - 1 - end)
        self.paused = replace(
            self.paused,
            token=self.paused.token.index_copy(0, index, torch.where(last < 0, token, last)),
            position=self.paused.position.index_copy(0, index, end),
            left=self.paused.left.index_copy(0, index, left),
        )

    # --- slots ---

    def _arrange(self, live: list[int], paused: list[int]) -> None:
        """Put the rows in slots `live` first and those in slots `paused` behind them, moving as few
        as possible."""
        rows = self.live.join(self.paused) if len(self.paused) else self.live
        order = arrangement(live, paused)
        moves = [(s, t) for t, s in enumerate(order) if s != t]
        if moves:
            source, target = torch.tensor(moves, device=self.device).T
            self.cache.move(source, target, int(rows.position[source].max()) + 1)
        index = torch.tensor(order, dtype=torch.long, device=self.device)
        self._set(rows.pick(index[: len(live)]), rows.pick(index[len(live) :]))
        if self.work.progress is not None:
            done = len(self.owner) - len(self.waiting) - len(order)
            self.work.progress(done, len(self.owner))

    def _admit(self, free: int) -> None:
        """Give free slots to waiting rows, reading the prompts that have not been read."""
        entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        prompts = [self.prompt[row] for row in entering]
        slot = len(self.live) + len(self.paused)
        needed = max(len(self.prompts.texts[p]) - self.prompts.offset[p] for p in prompts)
        self.cache.reserve(slot + len(entering), max(self.longest, needed), self.most)
        self.prompts.give(self.cache, slot, prompts)
        self._enter(self._fresh(entering))

    def _fresh(self, entering: list[int]) -> RowStates:
        """The state of rows that begin."""
        owners = [self.owner[row] for row in entering]
        requests = [self.work.requests[i] for i in owners]
        of_prompts = [(r.prompt[-1], len(r.prompt) - 1) for r in requests]
        token, position = torch.tensor(of_prompts, dtype=torch.long).view(-1, 2).T
        reach = torch.tensor([self.policy.reach(len(r.prompt)) for r in requests], dtype=torch.long)
        left = torch.tensor([self.work.limits[i] for i in owners], dtype=torch.long)
        row = torch.tensor(entering, dtype=torch.long)
        greedy = torch.tensor([r.greedy for r in requests], dtype=torch.bool)
        parts = (token, position, left, row, self.work.seeds[row], greedy, reach)
        return RowStates(*(x.to(self.device) for x in parts))

    def _enter(self, rows: RowStates) -> None:
        """Make rows live whose prompts stand behind all others."""
        if not len(self.paused):
            self._set(self.live.join(rows), self.paused)
            return
        n, m = len(self.live), len(self.live) + len(self.paused)
        self.paused = self.paused.join(rows)
        self._arrange([*range(n), *range(m, m + len(rows))], [*range(n, m)])

    def _set(self, live: RowStates, paused: RowStates) -> None:
        """Replace the live and paused rows, and all that depends on them."""
        self.live, self.paused, self.chances = live, paused, []
        self.number = live.row.tolist()
        prompts = [self.prompt[row] for row in self.number]
        next_prompt = [self.prompt[self.waiting[0]]] if self.waiting else []
        self.prompts.keep(next_prompt, prompts)
        self.shared = self.prompts.shared(prompts)
        column = live.position if self.shared is None else live.position - self.shared.offset
        self.longest = int(column.max()) + 1 if len(live) else 0
        self.greedy = live.greedy if bool(live.greedy.any()) else None

    def completions(self) -> list[list[Completion]]:
        """The completions of each request. Ordinary tensors on the CPU, outside inference mode."""
        out: list[list[Completion]] = [[] for _ in self.work.requests]
        if not self.sampled:
            return out
        row, token, logp = (torch.cat(x).cpu() for x in zip(*self.sampled, strict=True))
        order = row.argsort(stable=True)
        sizes = row.bincount(minlength=len(self.owner)).tolist()
        rows = zip(token[order].split(sizes), logp[order].split(sizes), self.stopped, strict=True)
        for i, (tokens, nats, stop) in zip(self.owner, rows, strict=True):
            out[i].append(Completion(tokens.clone(), nats.clone(), stop))
        return out

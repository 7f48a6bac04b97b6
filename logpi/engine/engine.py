"""The decoder: many prompts in, sampled token ids and their log-probabilities out, on the policy's
own weights.

Continuous batching. Each prompt is read once for its group, and what many prompts open with once
for all of them; keys and values are given to the group's rows, or held once for them
(`shared_prompts.py`); every step adds a token to all live rows; rows that end leave, and waiting
rows take their place. Weights are those of the moment, so an update is seen by the next call, and
log-probabilities are those of `policy.evaluate` (float32: ~1e-5).

With a partner, a row that ends its turn is not over: it keeps its slot and is not stepped while the
partner answers, then reads the answer after what its cache holds and goes on. Without one nobody
answers, and every end is the end.

Left out: more than one process, speculative decoding, what the partner does
(`rollouts/tool_conversations.py`). Models that keep their own attention are decoded by their own
`generate` (`fallback.py`), without a partner.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from logpi.engine.cuda_graphs import Record, Recorded, cuda_graph
from logpi.engine.fallback import plain_generate
from logpi.engine.kv_cache import Cache, Extension, Step
from logpi.engine.sampling import Completion, Request, Sampling, StopStrings, draw, uniform
from logpi.engine.shared_prompts import Joint, Prompts, Shared
from logpi.engine.turns import ENDED, Heard, Partner, Spoken
from logpi.policies.fast.decoder import decoder
from logpi.policies.packing import CELLS

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

SEEDS = 2**63 - 1
AHEAD = 16  # steps whose random numbers are made at once


@dataclass(frozen=True)
class _Rows:
    """Live or waiting rows, in the order of their slots; all [n].

    token: to forward next, at `position`. left: tokens it may still sample. row: its number in the
        call. seed: of its
    random numbers. greedy: bool. reach: tokens it may come to have in all.
    """

    token: Tensor
    position: Tensor
    left: Tensor
    row: Tensor
    seed: Tensor
    greedy: Tensor
    reach: Tensor

    def __len__(self) -> int:
        return self.token.shape[0]

    def pick(self, index: Tensor) -> _Rows:
        return _Rows(*(getattr(self, x.name)[index] for x in fields(self)))

    def join(self, other: _Rows) -> _Rows:
        return _Rows(
            *(torch.cat([getattr(self, x.name), getattr(other, x.name)]) for x in fields(self))
        )


class Engine:
    """Samples from a `CausalLM`.

    Args:
        policy: whose weights are used, as they are at each token.
        slots: rows that may be live at a time. The cache takes rows × (longest row) × layers × 2 ×
            Hkv × D numbers.
        record: how steps are recorded and replayed (default: by CUDA graphs on a GPU, elsewhere not
            at all).

    Raises:
        ValueError: fewer than one slot.
    """

    def __init__(self, policy: CausalLM, *, slots: int = 64, record: Record | None = None) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.policy, self.slots = policy, slots
        self.cache = Cache()
        record = record or (cuda_graph if policy.device.type == "cuda" else None)
        self.recorded = (
            Recorded(slots, record) if record and policy.ropes is None else None
        )  # it knows no extents
        self._stops: dict[tuple[str, ...], StopStrings] = {}

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        partner: Partner | None = None,
    ) -> list[list[Completion]]:
        """`request.n` completions for each request, in order.

        The generator gives one seed for each row; what a row samples depends on its seed and the
        weights, not on the number of slots or on what else is asked for at the same time.
        progress(rows done, rows in all).

        partner: answers every turn. Rows are numbered through: the first request's, the second's, …
            A completion then holds
        what was sampled in all turns; what the partner said is the partner's to remember.

        Raises:
            ValueError: an empty prompt, or one that leaves no room in the model's context; a
                partner for a model that keeps its own attention.
            MemoryError: the cache does not fit; use fewer slots.
            FloatingPointError: the model's logits are not numbers.
        """
        sampling = sampling or Sampling()
        limits = [_limit(i, r, sampling, self.policy) for i, r in enumerate(requests)]
        model, was_training = self.policy.model, self.policy.model.training
        model.eval()
        try:
            if not self.policy.packed:
                if partner is not None:
                    name = f"{type(model).__name__} keeps its own attention"
                    raise ValueError(
                        f"{name} and cannot go on after a tool's reply: use another model"
                    )
                return plain_generate(self.policy, requests, limits, sampling, generator, progress)
            with torch.inference_mode():
                call = _Call(self, requests, limits, sampling, generator, progress, partner)
                call.run()
            return call.completions()
        except BaseException:
            self.cache = Cache()  # what it holds may not be numbers
            if self.recorded is not None:
                self.recorded.known.clear()
            raise
        finally:
            model.train(was_training)

    def stops(self, stop: tuple[str, ...]) -> StopStrings | None:
        """The finder of these strings, made once; None if there are none."""
        if stop and stop not in self._stops:
            self._stops[stop] = StopStrings(stop, self.policy.tokenizer, self.policy.vocabulary)
        return self._stops.get(stop)


def _limit(number: int, request: Request, sampling: Sampling, policy: CausalLM) -> int:
    """Tokens a row of this request may sample."""
    length, context = len(request.prompt), policy.context
    if length == 0:
        raise ValueError(
            f"prompt {number} is empty: a model needs at least one token (its BOS, say) to go on"
            " from"
        )
    if length >= context:
        raise ValueError(
            f"prompt {number} has {length} tokens, the model's context is {context}: shorten the"
            " prompt"
        )
    if request.n < 1:
        raise ValueError(f"request {number} asks for n={request.n} samples; ask for at least 1")
    limit = sampling.max_tokens if request.max_tokens is None else request.max_tokens
    if limit < 1:
        raise ValueError(f"request {number} has max_tokens={limit}; ask for at least 1")
    return min(limit, policy.reach(length) - length)


class _Call:
    """One call of `generate`: what waits, what is live, what was sampled."""

    def __init__(
        self, engine: Engine, requests, limits, sampling, generator, progress, partner
    ) -> None:
        self.engine, self.policy, self.cache = engine, engine.policy, engine.cache
        self.requests, self.limits, self.sampling, self.progress = (
            requests,
            limits,
            sampling,
            progress,
        )
        self.partner: Partner | None = partner
        self.owner = [i for i, r in enumerate(requests) for _ in range(r.n)]  # request of each row
        device = generator.device if generator is not None else "cpu"
        self.seeds = torch.randint(
            SEEDS, (len(self.owner),), generator=generator, device=device
        ).cpu()
        temperature = sampling.temperature or self.policy.temperature
        self.decoder = decoder(
            self.policy, max(limits, default=0), min(engine.slots, len(self.owner))
        )
        self.head = replace(self.decoder.head, temperature=temperature)
        if engine.recorded is not None:
            engine.recorded.begin(self.policy)
        self.is_eos = torch.zeros(
            self.policy.vocabulary, dtype=torch.bool, device=self.policy.device
        )
        self.is_eos[[i for i in self.policy.eos_ids if i < self.policy.vocabulary]] = True
        self.finder = engine.stops(sampling.stop)
        self.history: list[list[int]] = (
            [[] for _ in self.owner] if self.finder or partner else []
        )  # of the turn
        self.most = self.policy.context  # positions that a row can come to need
        if partner is None:
            self.most = max(
                (len(r.prompt) + n for r, n in zip(requests, limits, strict=True)), default=0
            )
        texts = [tuple(r.prompt) for r in requests]
        number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        self.prompt = [number[texts[i]] for i in self.owner]  # of each row
        self.waiting = deque(
            sorted(range(len(self.owner)), key=self.prompt.__getitem__)
        )  # rows of one prompt together
        live = engine.slots if partner is None and self.policy.device.type == "cpu" else 0
        together = [min(live, rows) for _, rows in sorted(Counter(self.prompt).items())]
        reach = torch.tensor([self.policy.reach(len(text)) for text in number])
        self.prompts = Prompts(
            self.decoder, self.policy.device, list(number), together, self.policy.extents(reach)
        )
        self.shared: Shared | None = None  # of the live rows' prompts
        self.rows = self.parked = self._fresh(
            []
        )  # live; waiting for the partner, in the slots behind
        self.number: list[int] = []  # of the live rows, as in `rows.row`
        self.longest = 0  # columns of the slots in use, with the next token's
        self.chances: list[Tensor] = []  # of the coming steps, the next one's last
        self.slot = torch.arange(engine.slots, device=self.policy.device)
        self.sampled: list[tuple[Tensor, Tensor, Tensor]] = []  # row, token, logp of each step
        self.stopped = [""] * len(self.owner)

    def run(self) -> None:
        while self.waiting or len(self.rows) or len(self.parked):
            if self.partner is not None and len(self.parked):
                self._go_on(
                    self.partner.replies(
                        wait=not len(self.rows) and not (self.waiting and self._free())
                    )
                )
            free = self._free()
            if self.waiting and (
                free >= max(1, self.engine.slots // 8) or (free and not len(self.rows))
            ):
                self._admit(free)
            if len(self.rows):
                ends = self._step()
                ended = torch.stack(list(ends.values())).any(0)
                if ended.any():
                    self._end(ends, ended)

    def _free(self) -> int:
        return self.engine.slots - len(self.rows) - len(self.parked)

    def _step(self) -> dict[str, Tensor]:
        """One token for every live row. {reason: [n] bool, the rows that end for this reason}, the
        strongest last."""
        rows = self.rows
        token, logp = draw(
            self.head.logits(self._hidden(rows)), self._chance(), self.greedy, self.sampling
        )
        self.sampled.append((rows.row, token, logp))
        self.rows = replace(rows, token=token, position=rows.position + 1, left=rows.left - 1)
        self.longest += 1
        if self.history:
            for row, said in zip(self.number, token.tolist(), strict=True):
                self.history[row].append(said)
        ends = {"length": self.rows.left <= 0, "stop": self._found(), "eos": self.is_eos[token]}
        return {reason: rows for reason, rows in ends.items() if rows is not None}

    def _hidden(self, rows: _Rows) -> Tensor:
        """[n, d] of the live rows' next tokens."""
        held = rows.position if self.shared is None else rows.position - self.shared.offset
        step = Step(
            self.cache,
            self.slot[: len(rows)],
            held,
            self.longest,
            extent=self.policy.extents(rows.reach),
        )
        if self.shared is None and self.engine.recorded is not None:
            return self.engine.recorded.hidden(self.decoder, step, rows.token, self.most)
        self.cache.reserve(len(rows), self.longest, self.most)
        packing = step if self.shared is None else Joint(step, self.shared)
        return self.decoder.hidden(packing, rows.token, rows.position)

    def _chance(self) -> Tensor:
        """[n] uniform numbers of this step; some steps' are made at once while the rows stay the
        same."""
        if not self.chances:
            coming = (
                self.rows.position + torch.arange(AHEAD, device=self.policy.device).flip(0)[:, None]
            )
            self.chances = list(uniform(self.rows.seed, coming))
        return self.chances.pop()

    def _found(self) -> Tensor | None:
        """[n] bool, the rows whose text has come to contain a stop string; None if there are no
        such strings."""
        if self.finder is None:
            return None
        return self.finder.found(self.rows.token, self.number, self.history)

    def _end(self, ends: dict[str, Tensor], ended: Tensor) -> None:
        """Say why rows end; those that ended their turn by themselves are handed to the partner."""
        if not bool(torch.isfinite(self.sampled[-1][2]).all()):
            raise FloatingPointError(
                "the model's logits are not numbers (NaN or infinite): the weights have diverged"
            )
        for reason, rows in ends.items():
            for i in rows.nonzero().squeeze(1).tolist():
                self.stopped[self.number[i]] = reason
        gone = ended.nonzero().squeeze(1).tolist()
        spoke = [
            i for i in gone if self.partner is not None and self.stopped[self.number[i]] in ENDED
        ]
        if spoke:
            self._speak(self.rows.pick(torch.tensor(spoke, dtype=torch.long, device=ended.device)))
        parked = range(len(self.rows), len(self.rows) + len(self.parked))
        self._settle((~ended).nonzero().squeeze(1).tolist(), [*spoke, *parked])

    def _speak(self, rows: _Rows) -> None:
        assert self.partner is not None
        spoken = (
            rows.row,
            rows.reach - rows.position - 2,
            rows.left,
        )  # its own next token takes a place too
        for row, room, left in zip(*(x.tolist() for x in spoken), strict=True):
            self.partner.hear(Spoken(row, self.history[row], self.stopped[row], left, room))
            self.history[row] = []

    def _go_on(self, heard: list[Heard]) -> None:
        """Let rows that were answered read the answer and live, or leave."""
        if not heard:
            return
        slot = {row: len(self.rows) + i for i, row in enumerate(self.parked.row.tolist())}
        live = [h for h in heard if h.observation is not None]
        for h in heard:
            self.stopped[h.row] = h.stop or self.stopped[h.row]
        if live:
            self._extend([slot[h.row] for h in live], [h.observation or () for h in live])
        answered = {slot[h.row] for h in heard}
        self._settle(
            [*range(len(self.rows)), *(slot[h.row] for h in live)],
            [s for s in slot.values() if s not in answered],
        )

    def _extend(self, slots: list[int], observations: Sequence[Sequence[int]]) -> None:
        """Forward what the rows in `slots` have not read but its last token, which is their next
        step's."""
        device = self.policy.device
        slot, count = (
            torch.tensor(x, device=device) for x in (slots, [len(o) for o in observations])
        )
        parked = slot - len(self.rows)
        start, token = self.parked.position[parked], self.parked.token[parked]
        said = token.tolist()
        self.cache.reserve(
            len(self.rows) + len(self.parked), int((start + count).max()) + 1, self.most
        )
        for some in _batches(count, start + count):
            text = [[said[i], *observations[i][:-1]] for i in some.tolist()]
            extent = self.policy.extents(self.parked.reach[parked[some]])
            extension = Extension.after(self.cache, slot[some], start[some], count[some], extent)
            ids = torch.tensor([t for x in text for t in x], device=device)
            self.decoder.hidden(extension, ids, extension.position)
        last = torch.tensor([o[-1] if o else -1 for o in observations], device=device)
        left = self.parked.left[parked].minimum(self.parked.reach[parked] - 1 - start - count)
        self.parked = replace(
            self.parked,
            token=self.parked.token.index_copy(0, parked, torch.where(last < 0, token, last)),
            position=self.parked.position.index_copy(0, parked, start + count),
            left=self.parked.left.index_copy(0, parked, left),
        )

    def _settle(self, live: list[int], parked: list[int]) -> None:
        """Put the rows in slots `live` first and those in slots `parked` behind them, moving as few
        as can be."""
        held = self.rows.join(self.parked) if len(self.parked) else self.rows
        order = _places(live, parked)
        moved = [(s, t) for t, s in enumerate(order) if s != t]
        if moved:
            source, target = torch.tensor(moved, device=self.policy.device).T
            self.cache.move(source, target, int(held.position[source].max()) + 1)
        index = torch.tensor(order, dtype=torch.long, device=self.policy.device)
        self._now(held.pick(index[: len(live)]), held.pick(index[len(live) :]))
        if self.progress is not None:
            self.progress(len(self.owner) - len(self.waiting) - len(order), len(self.owner))

    def _admit(self, free: int) -> None:
        """Give free slots to waiting rows, reading the prompts that have not been read."""
        entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        prompts = [self.prompt[row] for row in entering]
        slot = len(self.rows) + len(self.parked)
        needed = max(len(self.prompts.texts[p]) - self.prompts.offset[p] for p in prompts)
        self.cache.reserve(slot + len(entering), max(self.longest, needed), self.most)
        self.prompts.give(self.cache, slot, prompts)
        self._enter(self._fresh(entering))

    def _fresh(self, entering: list[int]) -> _Rows:
        owners = [self.owner[row] for row in entering]
        prompts = [self.requests[i].prompt for i in owners]
        of_prompts = [(p[-1], len(p) - 1, self.policy.reach(len(p))) for p in prompts]
        token, position, reach = torch.tensor(of_prompts, dtype=torch.long).view(-1, 3).T
        left, row = torch.tensor([[self.limits[i] for i in owners], entering], dtype=torch.long)
        greedy = torch.tensor([self.requests[i].greedy for i in owners], dtype=torch.bool)
        parts = (token, position, left, row, self.seeds[row], greedy, reach)
        return _Rows(*(x.to(self.policy.device) for x in parts))

    def _enter(self, rows: _Rows) -> None:
        """Rows whose prompts stand behind all others become live."""
        if not len(self.parked):
            self._now(self.rows.join(rows), self.parked)
            return
        n, m = len(self.rows), len(self.rows) + len(self.parked)
        self.parked = self.parked.join(rows)
        self._settle([*range(n), *range(m, m + len(rows))], [*range(n, m)])

    def _now(self, rows: _Rows, parked: _Rows) -> None:
        self.rows, self.parked, self.chances = rows, parked, []
        self.number = rows.row.tolist()
        live = [self.prompt[row] for row in self.number]
        self.prompts.keep([self.prompt[row] for row in [*self.waiting][:1]], live)
        self.shared = self.prompts.shared(live)
        column = rows.position if self.shared is None else rows.position - self.shared.offset
        self.longest = int(column.max()) + 1 if len(rows) else 0
        self.greedy = rows.greedy if bool(rows.greedy.any()) else None

    def completions(self) -> list[list[Completion]]:
        """What was sampled, by request. Ordinary tensors on the CPU, outside inference mode."""
        out: list[list[Completion]] = [[] for _ in self.requests]
        if not self.sampled:
            return out
        row, token, logp = (torch.cat(x).cpu() for x in zip(*self.sampled, strict=True))
        order = row.argsort(stable=True)
        sizes = row.bincount(minlength=len(self.owner)).tolist()
        rows = zip(token[order].split(sizes), logp[order].split(sizes), self.stopped, strict=True)
        for i, (t, lp, stop) in zip(self.owner, rows, strict=True):
            out[i].append(Completion(t.clone(), lp.clone(), stop))
        return out


def _places(live: Sequence[int], parked: Sequence[int]) -> list[int]:
    """The old slot of each new one: `live` come first, `parked` behind, and who stands on the right
    side stays.

    >>> _places([0, 3, 4], [1])
    [0, 3, 4, 1]
    >>> _places([0, 2, 5], [3, 4])
    [0, 5, 2, 3, 4]
    """
    order = [-1] * (len(live) + len(parked))
    for side, members in ((range(len(live)), live), (range(len(live), len(order)), parked)):
        inside = [slot for slot in members if slot in side]
        for slot in inside:
            order[slot] = slot
        movers = iter([slot for slot in members if slot not in side])
        for slot in side:
            if order[slot] < 0:
                order[slot] = next(movers)
    return order


def _batches(count: Tensor, end: Tensor) -> list[Tensor]:
    """Indices of rows that read `count` > 0 tokens up to position `end`, together while their
    attention fits into CELLS."""
    order = count.argsort(stable=True)
    out: list[list[int]] = []
    for i in order[count[order] > 0].tolist():
        together = [*out[-1], i] if out else [i]
        if out and len(together) * int(count[i]) * int(end[together].max()) <= CELLS:
            out[-1] = together
        else:
            out.append([i])
    return [torch.tensor(x, device=count.device) for x in out]

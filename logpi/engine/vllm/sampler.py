"""vLLM in our decoder's place: token ids to servers, tokens and log-probabilities back, each with
the version of the weights that it was sampled by.

Every row is a request of its own with its own seed, so the tokens do not depend on the number of
servers, on who takes what, or on how often it is tried; the rows of a group go to one server, which
reads their prompt once. One thread, the caller's, decides everything; a thread for each row that is
being sampled only waits for its answer. What goes wrong:

    a server dies, hangs, or comes back with other weights    its rows go to others, with their
                                                              seeds; it gets the weights again
    no server is left                                         wait, then `SamplerLost`
    weights did not arrive, though the server says so         sent once more, then `SamplerLost`

Left out: rows (`rows.py`), servers (`server.py`), how weights travel (`weights.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import torch

from logpi.engine.engine import token_limit
from logpi.engine.sampling import Completion, Request, Sampling, seeded
from logpi.engine.turns import ENDED, TurnEnd
from logpi.engine.vllm.client import Answer, ServerDown
from logpi.engine.vllm.rows import Row, own_logp, rows_of, settings
from logpi.engine.vllm.weights import Publisher, publish
from logpi.errors import SamplerLost, UserError

if TYPE_CHECKING:
    from logpi.engine.turns import OnTurnEnd
    from logpi.engine.vllm.server import Server
    from logpi.policies.causal_lm import CausalLM

# nats by which policy and server differ on average: float32 by 1e-5, two forwards of 16 bits by
# 0.007 to 0.05; weights that did not arrive, a stale cache or no temperature by 0.05 to 1
EXACT, ROUNDED = 2e-3, 0.1
# rows that are compared after weights were sent, and tokens of each
PROBES, PROBED = 4, 32
# failures of one row; seconds that the loop waits for an answer, and while tools reply
FAILURES, TICK, TURN_TICK = 6, 0.5, 0.02
# seconds: without any live server until the run ends; without a token until a server counts as dead
PATIENCE, HANG = 600.0, 120.0


class VLLMSampler:
    """Samples from a `CausalLM` by vLLM servers that get its weights. A `Sampler`.

    Args:
        policy: whose weights are sampled from. servers: one or more.
        publisher: how its weights get to them.
        version: number of updates that the weights of the moment have had; they are sent when it
            has changed. None: they are sent at every call, and calls are counted.
        slots: rows that one server samples at a time.
        limit: nats; a larger mean difference between policy and server is an error. None: 0.002, or
            0.1 for weights of 16 bits.
        patience: seconds without any live server until it gives up (default 600).
        hang: seconds without a token until a server counts as dead (default 120).

    Raises:
        UserError: a server that is not one for this policy (another model, tokenizer, log-
            probabilities before temperature, no routes for weights, nobody there): one line.
    """

    def __init__(
        self,
        policy: CausalLM,
        servers: Sequence[Server],
        publisher: Publisher,
        *,
        version: Callable[[], int] | None = None,
        slots: int = 128,
        limit: float | None = None,
        patience: float | None = None,
        hang: float | None = None,
    ) -> None:
        self.policy, self.servers, self.publisher = policy, list(servers), publisher
        self.version, self.slots = version, slots
        self.patience, self.hang = patience or PATIENCE, hang or HANG
        exact = policy.model.get_input_embeddings().weight.dtype == torch.float32
        self.limit = limit or (EXACT if exact else ROUNDED)
        self.published = -1
        # of the last call, for people
        self.numbers: dict[str, float] = {}
        try:
            for server in self.servers:
                self._ready(server)
        except ServerDown as error:
            raise UserError(f"the vLLM server does not answer: {error}") from None

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_turn_end: OnTurnEnd | None = None,
    ) -> list[list[Completion]]:
        """As `Sampler.generate`. Where the weights have changed, the servers get them first.

        Greedy rows at another temperature than 1 and truncated sampling get the policy's own log-
        probabilities, for the server's are of another distribution.

        Raises:
            ValueError: as `Engine.generate`; a temperature other than the policy's; stop strings of
                a server without a tokenizer.
            SamplerLost: no server is left, or the weights do not arrive.
            FloatingPointError: the model's logits are not numbers.
        """
        sampling, requests = sampling or Sampling(), seeded(requests, generator)
        self._check(sampling)
        rows = rows_of(requests, *self._limits(requests, sampling))
        call = _Call(self, rows, sampling, progress, on_turn_end)
        if rows:
            call.publish()
            call.run()
        return self._completions(call, len(requests))

    def metrics(self) -> dict[str, float]:
        """Numbers of what was sent since they were last asked for: seconds, and the differences
        that were found afterwards."""
        numbers, self.numbers = self.numbers, {}
        return numbers

    def close(self) -> None:
        """Stop the servers that are ours, and free what was sent."""
        self.publisher.close()
        for server in self.servers:
            if server.process is not None:
                server.process.stop()

    def _check(self, sampling: Sampling) -> None:
        if sampling.temperature not in (None, self.policy.temperature):
            raise ValueError(
                "vLLM samples at the policy's temperature: set it there, not in the sampling"
            )
        if sampling.stop and not all(s.stops_at_text for s in self.servers):
            raise ValueError("a vLLM server without a tokenizer knows no stop strings")

    def _limits(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> tuple[list[int], list[int]]:
        """Of each request the tokens that a row may sample, and those that it may have in all."""
        room = min(server.context for server in self.servers)
        reach = [min(self.policy.reach(len(r.prompt)), room) for r in requests]
        limits = [
            min(token_limit(i, r, sampling, self.policy), reach[i] - len(r.prompt))
            for i, r in enumerate(requests)
        ]
        if min(limits, default=1) < 1:
            raise ValueError(
                f"prompt {limits.index(min(limits))} leaves no room in the {room} tokens of the"
                " vLLM server: shorten it, or start the server with a longer --max-model-len"
            )
        return limits, reach

    def _ready(self, server: Server) -> None:
        """A server that has just been found, or found again: is it the right one, and awake?"""
        server.check(self.policy, self.publisher.backend)
        if server.client.get("/is_paused")["is_paused"]:
            # whoever paused it has gone
            server.client.post("/resume")
        self.publisher.connect(server.client)
        server.found()

    def _completions(self, call: _Call, requests: int) -> list[list[Completion]]:
        out: list[list[Completion]] = [[] for _ in range(requests)]
        tempered = call.sampling.truncated or self.policy.temperature != 1.0
        own = [r for r in call.rows if tempered and (r.greedy or call.sampling.truncated)]
        logp = dict(zip((r.number for r in own), own_logp(self.policy, own), strict=True))
        for row in call.rows:
            made = row.completion()
            out[row.request].append(replace(made, logp=logp.get(row.number, made.logp)))
        return out


class _Call:
    """One call: rows wait for a server, are sampled, pause for their environment, and end."""

    def __init__(
        self,
        sampler: VLLMSampler,
        rows: list[Row],
        sampling: Sampling,
        progress: Callable[[int, int], None] | None,
        on_turn_end: OnTurnEnd | None,
    ) -> None:
        self.sampler, self.policy, self.servers = sampler, sampler.policy, sampler.servers
        self.rows, self.sampling = rows, sampling
        self.progress, self.on_turn_end = progress, on_turn_end
        self.waiting = deque(rows)
        self.paused: dict[int, Row] = {}
        self.ended: list[TurnEnd] = []
        self.unfinished = len(rows)
        self.arrived: SimpleQueue[tuple[Row, int, Answer | Exception]] = SimpleQueue()
        self.alone_since: float | None = None
        # what is compared after weights were sent, as it is before anything is sampled
        firsts = list({row.request: row for row in reversed(rows)}.values())[-PROBES:]
        self.probes = [
            replace(r, ids=[*r.ids], own=[*r.own], left=min(r.left, PROBED), greedy=False)
            for r in firsts
        ]

    # --- weights ---

    def publish(self) -> None:
        """The weights of the moment to all servers that are live and have older ones."""
        sampler, begin = self.sampler, time.perf_counter()
        version = sampler.published + 1 if sampler.version is None else sampler.version()
        if version == sampler.published:
            return
        sampler.publisher.prepare(version)
        sampler.published = version
        live = [s for s in self.servers if s.live]
        with ThreadPoolExecutor(max(1, len(live))) as pool:
            list(pool.map(self._send_weights, live))
        gaps = [self._compared(s) for s in live if s.live]
        sampler.numbers["time/sync"] = time.perf_counter() - begin
        if gaps:
            sampler.numbers["gap_sync"] = max(gaps)

    def _send_weights(self, server: Server) -> None:
        version = self.sampler.published
        try:
            publish(server.client, self.sampler.publisher, version)
            server.labels.add(str(version))
        except ServerDown as error:
            server.lost(str(error))

    def _compared(self, server: Server) -> float:
        """Nats by which the server and the policy differ on some of the call's first tokens. If
        they differ too much, the weights are sent once more.

        Raises:
            SamplerLost: and differ again.
        """
        gap = self._gap(server)
        if gap > self.sampler.limit:
            self.sampler.publisher.prepare(self.sampler.published)
            self._send_weights(server)
            gap = self._gap(server)
        # NaN is wrong too; a server that died meanwhile is not compared
        if server.live and not gap <= self.sampler.limit:
            raise SamplerLost(
                f"{server.client.url} says that it has the weights of update"
                f" {self.sampler.published}, and gives tokens log-probabilities {gap:.3g} nats away"
                f" from the policy's (allowed: {self.sampler.limit:g}), also after they were sent"
                " again: does it see the directory of the weights, and serve the same model with"
                " processed log-probabilities?"
            )
        return gap

    def _gap(self, server: Server) -> float:
        def ask(probe: Row) -> Row:
            row = replace(probe, ids=[*probe.ids], own=[*probe.own], logp=[], versions=[])
            answer = server.client.sample(row.ids, settings(row, Sampling(), self.policy))
            row.add(answer, [], ())
            return row

        try:
            with ThreadPoolExecutor(PROBES) as pool:
                rows = list(pool.map(ask, self.probes))
        except ServerDown as error:
            server.lost(str(error))
            return 0.0
        theirs = torch.cat([torch.tensor(row.logp) for row in rows])
        return float((torch.cat(own_logp(self.policy, rows)) - theirs).abs().mean())

    # --- rows ---

    def run(self) -> None:
        """Until every row has ended."""
        try:
            while self.unfinished:
                self._give()
                self._take()
                self._go_on()
                self._look()
        except BaseException:
            for server in self.servers:
                if server.rows:
                    with suppress(ServerDown, UserError):
                        server.client.post("/abort_requests", {}, seconds=2)
                    server.rows = 0
            raise

    def _give(self) -> None:
        """Waiting rows to live servers that have room."""
        live = [s for s in self.servers if s.live]
        slots = self.sampler.slots
        for _ in range(len(self.waiting)):
            if all(s.rows >= slots for s in live):
                return
            row = self.waiting.popleft()
            server = live[row.request % len(live)]
            if server.rows >= slots:
                self.waiting.append(row)
                continue
            if not server.rows:
                server.moved = time.monotonic()
            row.server, row.tries = server, row.tries + 1
            server.rows += 1
            arguments = (row, server, row.tries, list(row.ids))
            threading.Thread(target=self._ask, args=arguments, daemon=True).start()

    def _ask(self, row: Row, server: Server, number: int, ids: list[int]) -> None:
        """In a thread: the answer, or why there is none."""
        try:
            answer = server.client.sample(ids, settings(row, self.sampling, self.policy))
        except Exception as error:
            self.arrived.put((row, number, error))
        else:
            self.arrived.put((row, number, answer))

    def _take(self) -> None:
        """Answers that have come; waits a little for the first."""
        busy = any(s.rows for s in self.servers)
        seconds = (TURN_TICK if self.paused else TICK) if busy else 0.0
        if not busy and not self.paused:
            seconds = TURN_TICK
        try:
            while True:
                self._receive(*self.arrived.get(timeout=seconds))
                seconds = 0.0
        except Empty:
            return

    def _receive(self, row: Row, number: int, answer: Answer | Exception) -> None:
        server = row.server
        if server is None or number != row.tries:
            # it was given to another server meanwhile
            return
        if isinstance(answer, Answer):
            foreign = {*(answer.versions or ())} - server.labels
            if foreign or answer.finish not in ("stop", "length"):
                why = f"its weights are {foreign}" if foreign else f"a row ended by {answer.finish}"
                answer = ServerDown(f"{server.client.url}: {why}")
        if isinstance(answer, ServerDown):
            self._lose(server, str(answer))
            return
        if isinstance(answer, Exception):
            raise answer
        row.server, server.rows, server.moved = None, server.rows - 1, time.monotonic()
        newest = str(self.sampler.published)
        versions = [int(v) for v in answer.versions or [newest] * len(answer.tokens)]
        row.add(answer, versions, self.policy.eos_ids)
        if self.on_turn_end is not None and row.stop in ENDED:
            self.paused[row.number] = row
            room = row.reach - len(row.ids) - 1
            self.ended.append(TurnEnd(row.number, answer.tokens, row.stop, row.left, room))
        else:
            self._finish()

    def _finish(self) -> None:
        self.unfinished -= 1
        if self.progress is not None:
            self.progress(len(self.rows) - self.unfinished, len(self.rows))

    def _go_on(self) -> None:
        """Rows whose environment has replied: they wait for a server again, or have ended."""
        if self.on_turn_end is None or not self.paused:
            return
        ended, self.ended = self.ended, []
        wait = not self.waiting and not any(s.rows for s in self.servers)
        for c in self.on_turn_end(ended, wait):
            row = self.paused.pop(c.row)
            row.stop = c.stop or row.stop
            if c.observation is None:
                self._finish()
            else:
                row.read(c.observation)
                self.waiting.append(row)

    # --- servers ---

    def _lose(self, server: Server, reason: str) -> None:
        """A server is down; its rows are sampled elsewhere, or there when it is back."""
        server.lost(reason)
        for row in self.rows:
            if row.server is server:
                row.server, row.failures = None, row.failures + 1
                self.waiting.appendleft(row)
                if row.failures >= FAILURES:
                    raise SamplerLost(f"a row failed {FAILURES} times, the last time by {reason}")

    def _look(self) -> None:
        """Which servers hang, which are back; gives up if there has been none for too long."""
        hang = self.sampler.hang
        for server in self.servers:
            if server.live and server.is_hung(hang):
                self._lose(server, f"{server.client.url} hung: no token for {hang:g} s")
            elif not server.live and self._is_back(server):
                self.alone_since = None
        if any(s.live for s in self.servers):
            return
        now = time.monotonic()
        self.alone_since = self.alone_since or now
        if now - self.alone_since > self.sampler.patience:
            reasons = "; ".join(dict.fromkeys(s.reason for s in self.servers))
            raise SamplerLost(f"no vLLM server answers: {reasons}")

    def _is_back(self, server: Server) -> bool:
        """Whether a server that was down is live again, with the weights of the moment."""
        try:
            if not server.is_back():
                return False
            with suppress(UserError):
                server.client.post("/abort_requests", {}, seconds=10)
            self.sampler._ready(server)
        except ServerDown as error:
            server.live, server.reason = False, str(error)
            return False
        except UserError as error:
            raise SamplerLost(str(error)) from error
        self._send_weights(server)
        if server.live:
            self._compared(server)
        return server.live

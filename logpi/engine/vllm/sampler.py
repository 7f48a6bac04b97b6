"""vLLM in our decoder's place: token ids to servers, tokens and log-probabilities back, each with
the version of the weights that it was sampled by.

Every row is a request of its own with its own seed, so the tokens do not depend on the number of
servers, on who takes what, or on how often it is tried; the rows of a group go to one server, which
reads their prompt once. What goes wrong:

    a server dies, hangs, or comes back with other weights    its rows go to others, with their
                                                              seeds; it gets the weights again
    no server is left                                         wait, then `SamplerLost`
    weights did not arrive, though the server says so         sent once more, then `SamplerLost`

Left out: rows on their way (`call.py`), servers (`server.py`), how weights travel (`weights.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from logpi.engine.engine import token_limit
from logpi.engine.sampling import Completion, Request, Sampling, seeded
from logpi.engine.vllm.call import Call, Patience
from logpi.engine.vllm.client import ServerDown
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
            0.1 where either has weights of 16 bits.
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
        self.patience = Patience(patience or PATIENCE, hang or HANG)
        exact = policy.model.get_input_embeddings().weight.dtype == torch.float32
        self.published = -1
        self.probes: list[Row] = []
        # of what was sent, for people
        self.numbers: dict[str, float] = {}
        # in it the policy is read; a lock where it changes while rows are sampled
        self.reading: AbstractContextManager[Any] = nullcontext()
        self.follows, self.aborted = False, Event()
        try:
            for server in self.servers:
                self._ready(server)
        except ServerDown as error:
            raise UserError(f"the vLLM server does not answer: {error}") from None
        exact = exact and all(server.exact for server in self.servers)
        self.limit = limit or (EXACT if exact else ROUNDED)

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
        # what is compared when weights were sent, as it is before anything is sampled
        firsts = list({row.request: row for row in reversed(rows)}.values())[-PROBES:]
        self.probes = [
            replace(r, ids=[*r.ids], own=[*r.own], left=min(r.left, PROBED), greedy=False)
            for r in firsts
        ]
        call = Call(
            self.policy, self.servers, self.slots, self.patience, rows, sampling, self._revive
        )
        call.progress, call.on_turn_end, call.aborted = progress, on_turn_end, self.aborted
        if rows:
            if not self.follows or self.published < 0:
                with self.reading:
                    self.publish()
            call.run()
        return self._completions(rows, sampling, len(requests))

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

    def follow(self, policy: AbstractContextManager[Any]) -> None:
        """As `IndependentSampler`."""
        self.reading, self.follows = policy, True

    def abort(self) -> None:
        """As `IndependentSampler`."""
        self.aborted.set()

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

    def _completions(
        self, rows: Sequence[Row], sampling: Sampling, requests: int
    ) -> list[list[Completion]]:
        out: list[list[Completion]] = [[] for _ in range(requests)]
        tempered = self.policy.temperature != 1.0
        own = [r for r in rows if sampling.truncated or (tempered and r.greedy)]
        with self.reading if own else nullcontext():
            logp = dict(zip((r.number for r in own), own_logp(self.policy, own), strict=True))
        for row in rows:
            made = row.completion()
            out[row.request].append(replace(made, logp=logp.get(row.number, made.logp)))
        return out

    # --- weights ---

    def publish(self) -> None:
        """The weights of the moment to all servers that are live and have older ones; rows that are
        being sampled go on under them. Before the first call nothing is sent, for there is nothing
        to compare."""
        begin = time.perf_counter()
        version = self.published + 1 if self.version is None else self.version()
        if version == self.published or not self.probes:
            return
        self.publisher.prepare(version)
        self.published = version
        live = [s for s in self.servers if s.live]
        with ThreadPoolExecutor(max(1, len(live))) as pool:
            list(pool.map(self._send_weights, live))
        gaps = [self._compared(s) for s in live if s.live]
        self.numbers["time/sync"] = time.perf_counter() - begin
        if gaps:
            self.numbers["gap_sync"] = max(gaps)

    def _send_weights(self, server: Server) -> None:
        version = self.published
        # before they are sent: a row under way may end with them at once
        server.labels.add(str(version))
        try:
            publish(server.client, self.publisher, version)
            server.label = str(version)
        except ServerDown as error:
            server.lost(str(error))
        except UserError as error:
            raise SamplerLost(f"the weights cannot be sent: {error}") from error

    def _compared(self, server: Server) -> float:
        """Nats by which the server and the policy differ on some of the call's first tokens. If
        they differ too much, the weights are sent once more.

        Raises:
            SamplerLost: and differ again.
        """
        gap = self._gap(server)
        if not gap <= self.limit:
            self.publisher.prepare(self.published)
            self._send_weights(server)
            gap = self._gap(server)
        # NaN is wrong too; a server that died meanwhile is not compared
        if server.live and not gap <= self.limit:
            raise SamplerLost(
                f"{server.client.url} says that it has the weights of update"
                f" {self.published}, and gives tokens log-probabilities {gap:.3g} nats away"
                f" from the policy's (allowed: {self.limit:g}), also after they were sent"
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

    def _revive(self, server: Server) -> bool:
        """Whether a server that was down is live again, with the weights of the moment."""
        try:
            if not server.is_back():
                return False
            with suppress(UserError):
                server.client.post("/abort_requests", {}, seconds=10)
            self._ready(server)
        except ServerDown as error:
            server.live, server.reason = False, str(error)
            return False
        except UserError as error:
            raise SamplerLost(str(error)) from error
        with self.reading:
            self._send_weights(server)
            if server.live:
                self._compared(server)
        return server.live

"""The rows of one call on their way through the servers.

    waiting ──a server has room──▶ sampled ──end of a turn──▶ paused ──observation──▶ waiting …
       ▲                             │  │                        │
       └── the server is down ───────┘  └── limit, one turn ──▶ ended ◀── the conversation is over

One thread, the caller's, decides everything; a thread for each row that is being sampled only waits
for its answer, and an answer that comes after its row was given to somebody else counts for
nothing. Left out: weights (`sampler.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from logpi.engine.turns import ENDED, TurnEnd
from logpi.engine.vllm.client import Answer, ServerDown
from logpi.engine.vllm.rows import Row, settings
from logpi.errors import SamplerLost, UserError

if TYPE_CHECKING:
    from logpi.engine.sampling import Sampling
    from logpi.engine.turns import OnTurnEnd
    from logpi.engine.vllm.server import Server
    from logpi.policies.causal_lm import CausalLM

# failures of one row; seconds that the loop waits for an answer, and while tools reply
FAILURES, TICK, TURN_TICK = 6, 0.5, 0.02


@dataclass(frozen=True)
class Patience:
    """How long servers are waited for.

    Attributes:
        alone: seconds without any live server until the call ends.
        hang: seconds without a token until a server counts as dead.
    """

    alone: float
    hang: float


class Call:
    """One call of the sampler.

    Args:
        policy: what the rows are sampled from. servers: who samples, each `slots` rows at a time.
        rows, sampling, progress, on_turn_end: of the call.
        revive: called with a server that is down; whether it is live again.
    """

    def __init__(
        self,
        policy: CausalLM,
        servers: Sequence[Server],
        slots: int,
        patience: Patience,
        rows: Sequence[Row],
        sampling: Sampling,
        revive: Callable[[Server], bool],
    ) -> None:
        self.policy, self.servers, self.slots, self.patience = policy, servers, slots, patience
        self.rows, self.sampling, self.revive = rows, sampling, revive
        self.waiting, self.unfinished = deque(rows), len(rows)
        self.paused: dict[int, Row] = {}
        self.ended: list[TurnEnd] = []
        self.arrived: SimpleQueue[tuple[Row, int, Answer | Exception]] = SimpleQueue()
        self.alone_since: float | None = None
        self.progress: Callable[[int, int], None] | None = None
        self.on_turn_end: OnTurnEnd | None = None
        self.aborted = threading.Event()

    def run(self) -> None:
        """Until every row has ended."""
        try:
            while self.unfinished:
                if self.aborted.is_set():
                    raise SamplerLost("sampling was ended")
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
        for _ in range(len(self.waiting)):
            if all(s.rows >= self.slots for s in live):
                return
            row = self.waiting.popleft()
            server = live[row.request % len(live)]
            if server.rows >= self.slots:
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
        # the oldest that may sample it, for servers that do not say
        label = server.label
        try:
            answer = server.client.sample(ids, settings(row, self.sampling, self.policy))
            if answer.versions is None:
                answer = replace(answer, versions=[label] * len(answer.tokens))
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
        versions = [int(v) for v in answer.versions or ()]
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
        hang = self.patience.hang
        for server in self.servers:
            if server.live and server.is_hung(hang):
                self._lose(server, f"{server.client.url} hung: no token for {hang:g} s")
            elif not server.live and self.revive(server):
                self.alone_since = None
        if any(s.live for s in self.servers):
            return
        now = time.monotonic()
        self.alone_since = self.alone_since or now
        if now - self.alone_since > self.patience.alone:
            reasons = "; ".join(dict.fromkeys(s.reason for s in self.servers))
            raise SamplerLost(f"no vLLM server answers: {reasons}")

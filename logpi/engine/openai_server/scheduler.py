"""One thread samples for all requests: they join, are stepped together, and leave; and between two
requests the weights may become others.

    submit ──▶ held ──▶ scored ──▶ rows of the generation ──▶ finished
                 │
                 └── while new weights wait: rows that are being sampled finish under the old ones,
                     and every request that comes meanwhile begins under the new ones

What a request learns is told in this thread, by its own `tell`: `Started`, then a `Piece` for each
token (or one for each sample, if it does not stream), or `Failed`. Left out: HTTP (`app.py`), and
prompts that are read a part at a time: a long one holds the others up while it is read.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import torch

from logpi.engine.engine import Engine
from logpi.engine.open_generation import OpenGeneration, Sampled
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.scores import PromptScore, Top, scores
from logpi.engine.openai_server.texts import TextStream
from logpi.engine.sampling import Request, Sampling, seeded

if TYPE_CHECKING:
    from logpi.engine.openai_server.fields import Wish
    from logpi.engine.openai_server.prompts import Prompts
    from logpi.policies.causal_lm import CausalLM

notices = logging.getLogger("logpi")
# prompt tokens that are scored between two steps, at least one prompt
SCORED = 2**12


@dataclass(frozen=True)
class Started:
    """version: of the weights. scores: of the prompts, if they were asked for."""

    version: str
    scores: Sequence[PromptScore]


@dataclass(frozen=True)
class Piece:
    """Tokens of a sample, and the text that they made sure.

    Attributes:
        choice: the sample's number in the request: its prompt's times n, and its own.
        tokens, logp, top: ids, nats, and the likeliest tokens of each.
        finish: "stop" or "length" in the last piece, else "". stopped: the stop string, or "".
    """

    choice: int
    tokens: Sequence[int]
    logp: Sequence[float]
    top: Sequence[Top]
    text: str
    finish: str = ""
    stopped: str = ""


@dataclass(frozen=True)
class Failed:
    error: RequestError


Event = Started | Piece | Failed


@dataclass(eq=False)
class Ask:
    """What one request wants sampled.

    Attributes:
        prompts: token ids. limits: tokens of a sample of each; 0: none. wish: all else.
        words: of the model. scored: the prompts' log-probabilities too. tell: gets the events.
        left: samples that have not finished.
    """

    prompts: Sequence[Sequence[int]]
    limits: Sequence[int]
    wish: Wish
    words: Prompts
    scored: bool
    tell: Callable[[Event], None]
    left: int = 0
    scores: list[PromptScore] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.prompts) * self.wish.n


@dataclass
class _Row:
    """A sample that is being made."""

    ask: Ask
    choice: int
    text: TextStream
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)
    said: str = ""


class Scheduler:
    """Samples from a policy until it is closed.

    Args:
        policy: at temperature 1. version: the name of its weights. slots: rows decoded together.
        rows: samples that are made or wait, at most. longest: tokens of one with its prompt, where
            the model's context has as many.
    """

    def __init__(
        self, policy: CausalLM, version: str, *, slots: int, rows: int, longest: int
    ) -> None:
        self.slots, self.most, self.longest = slots, rows, longest
        self.version = version
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._held: deque[Ask] = deque()
        self._scoring: deque[Ask] = deque()
        self._rows: dict[int, _Row] = {}
        self._next: tuple[CausalLM, str, Future[None]] | None = None
        self._count, self._lock = 0, threading.Lock()
        self._chance = torch.Generator()
        self._chance.seed()
        self._closed = False
        self._begin(policy, version)
        self._thread = threading.Thread(target=self._run, name="logpi serve", daemon=True)
        self._thread.start()

    # --- from other threads ---

    @property
    def busy(self) -> int:
        """Samples that are made or wait."""
        return self._count

    def check(self) -> None:
        """Raises RequestError: the thread has ended."""
        if self._closed:
            raise RequestError("the server has ended; its log says why", 503)

    def submit(self, ask: Ask) -> None:
        """Raises RequestError: too many samples at a time, or the thread has ended."""
        ask.left = ask.rows
        with self._lock:
            self.check()
            if ask.rows > self.most:
                raise RequestError(
                    f"the request asks for {ask.rows} samples, and this server makes at most"
                    f" {self.most} at a time (--max-requests): ask for fewer"
                )
            if self._count + ask.rows > self.most:
                raise RequestError(
                    f"the server is busy with {self._count} of at most {self.most} samples: try"
                    " again soon",
                    429,
                )
            self._count += ask.rows
            self._inbox.put(lambda: self._held.append(ask))

    def cancel(self, ask: Ask) -> None:
        """Nobody wants it any more."""
        self._inbox.put(lambda: self._drop(ask))

    def replace(self, policy: CausalLM, version: str) -> Future[None]:
        """Other weights, as soon as the rows that are being sampled have finished. Raises
        RequestError: the thread has ended."""
        done: Future[None] = Future()

        def put() -> None:
            if self._next is not None:
                self._next[2].set_result(None)
            self._next = policy, version, done

        with self._lock:
            self.check()
            self._inbox.put(put)
        return done

    def close(self) -> None:
        """End the thread; requests under way fail."""
        self._inbox.put(self._close)
        self._thread.join()

    # --- in the thread ---

    def _run(self) -> None:
        while not self._closed:
            try:
                self._receive()
                self._change()
                self._start()
                self._score()
                self._step()
            except Exception as error:
                self._fail(error)
        # nothing more comes in
        self._empty()
        ending = RequestError("the server is ending", 503)
        self._fail_all(ending)
        if self._next is not None:
            self._next[2].set_exception(ending)

    def _close(self) -> None:
        with self._lock:
            self._closed = True

    def _receive(self) -> None:
        """What other threads want; waits if there is nothing else to do."""
        if self._is_idle() and not self._held and self._next is None:
            self._inbox.get()()
        self._empty()

    def _empty(self) -> None:
        try:
            while True:
                self._inbox.get_nowait()()
        except Empty:
            return

    def _is_idle(self) -> bool:
        return not self._rows and not self._scoring

    def _change(self) -> None:
        if self._next is not None and self._is_idle():
            (policy, version, done), self._next = self._next, None
            try:
                self._begin(policy, version)
            except Exception as error:
                done.set_exception(RequestError(f"the old weights stay: {error}", 500))
            else:
                done.set_result(None)

    def _begin(self, policy: CausalLM, version: str) -> None:
        """A new generation, from weights as they are now."""
        policy.model.eval()
        engine = Engine(policy, slots=self.slots)
        with torch.inference_mode():
            self._generation = OpenGeneration(
                policy,
                engine.cache,
                engine.captured,
                slots=self.slots,
                rows=self.most,
                longest=min(self.longest, policy.context),
            )
        self.policy, self.version = policy, version

    def _start(self) -> None:
        """Requests that wait begin, unless new weights do."""
        while self._held and self._next is None:
            ask = self._held[0]
            if ask.scored:
                self._scoring.append(ask)
            else:
                self._join(ask)
            # last: a request that fails is still known to `_fail_all`
            self._held.popleft()

    def _score(self) -> None:
        """Some prompts' log-probabilities, SCORED tokens or one prompt."""
        if not self._scoring:
            return
        ask = self._scoring[0]
        some, tokens = [], 0
        for prompt in ask.prompts[len(ask.scores) :]:
            if some and tokens + len(prompt) > SCORED:
                break
            some.append(prompt)
            tokens += len(prompt)
        ask.scores += scores(self.policy, some, ask.wish.logprobs or 0)
        if len(ask.scores) == len(ask.prompts):
            self._join(ask)
            self._scoring.popleft()

    def _join(self, ask: Ask) -> None:
        ask.tell(Started(self.version, ask.scores))
        wish, words = ask.wish, ask.words
        sampling = Sampling(temperature=wish.temperature, top_k=wish.top_k, top_p=wish.top_p)
        for i, (prompt, limit) in enumerate(zip(ask.prompts, ask.limits, strict=True)):
            choices = range(i * wish.n, (i + 1) * wish.n)
            if not limit:
                for choice in choices:
                    self._finish(ask, Piece(choice, (), (), (), "", "length"))
                continue
            chance = self._chance
            if wish.seed is not None:
                chance = torch.Generator().manual_seed(wish.seed)
            [request] = seeded([Request(prompt, wish.n, wish.greedy, limit)], chance)
            with torch.inference_mode():
                rows = self._generation.join(request, sampling, wish.logprobs or 0)
            for row, choice in zip(rows, choices, strict=True):
                after = prompt[-1] if wish.goes_on else None
                silent = words.silent(wish.skip_special)
                stream = TextStream(words.decoder, silent, wish.stop, after)
                self._rows[row] = _Row(ask, choice, stream)

    def _step(self) -> None:
        """A token more of each sample; those that are finished leave."""
        if not self._rows:
            return
        with torch.inference_mode():
            ended = [s.row for s in self._generation.step() if self._took(s)]
            if ended:
                self._generation.leave(ended)
        for row in ended:
            del self._rows[row]

    def _took(self, s: Sampled) -> bool:
        """Note a token, tell what there is to tell; whether the sample is finished."""
        row = self._rows[s.row]
        row.tokens.append(s.token)
        row.logp.append(s.logp)
        row.top.append(s.top)
        row.said += row.text.push(s.token)
        if s.end and not row.text.stopped:
            row.said += row.text.end()
        stopped = row.text.stopped
        finish = "stop" if stopped or s.end == "eos" else s.end
        if finish or row.ask.wish.stream:
            piece = Piece(row.choice, row.tokens, row.logp, row.top, row.said, finish, stopped)
            row.tokens, row.logp, row.top, row.said = [], [], [], ""
            if finish:
                self._finish(row.ask, piece)
            else:
                row.ask.tell(piece)
        return bool(finish)

    def _finish(self, ask: Ask, piece: Piece) -> None:
        ask.left -= 1
        if not ask.left:
            self._count_down(ask)
        ask.tell(piece)

    def _count_down(self, ask: Ask) -> None:
        with self._lock:
            self._count -= ask.rows

    def _drop(self, ask: Ask) -> None:
        """Forget a request, wherever it is."""
        if not ask.left:
            return
        rows = [number for number, row in self._rows.items() if row.ask is ask]
        if rows:
            with torch.inference_mode():
                self._generation.leave(rows)
        for row in rows:
            del self._rows[row]
        for queue in (self._held, self._scoring):
            if ask in queue:
                queue.remove(ask)
        ask.left = 0
        self._count_down(ask)

    # --- failures ---

    def _fail(self, error: Exception) -> None:
        """What is being sampled is lost; the next request begins anew."""
        known = isinstance(error, FloatingPointError | MemoryError)
        if not known:
            notices.error("sampling failed", exc_info=error)
        line = str(error) if known else f"{type(error).__name__} in the server; its log says more"
        self._fail_all(RequestError(line, 500))
        try:
            self._begin(self.policy, self.version)
        except Exception as again:
            notices.error("the decoder cannot begin again", exc_info=again)
            self._close()

    def _fail_all(self, error: RequestError) -> None:
        asks = {id(row.ask): row.ask for row in self._rows.values()}
        asks |= {id(ask): ask for ask in (*self._scoring, *self._held)}
        self._rows.clear()
        self._scoring.clear()
        self._held.clear()
        for ask in asks.values():
            ask.left = 0
            self._count_down(ask)
            ask.tell(Failed(error))

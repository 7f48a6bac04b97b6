"""A search server as a searcher: the HTTP contract that Search-R1's servers speak.

    POST /retrieve {"queries": ["…", …], "topk": 3, "return_scores": true}
    → {"result": [[{"document": {"id": "…", "contents": "\\"Title\\"\\ntext"}, "score": 1.5}, …],
    …]}

Conversations ask from many threads: queries that come within a few milliseconds go out in one
request, equal ones once, answers are kept. A request is tried again after 0.5 s, 1 s, 2 s, … while
its time lasts; when it fails for good the caller
gets an error that says what is wrong: the policy reads it and the run goes on. A server is a
    stranger: an answer
has a deadline as a whole and a largest size, is never unpacked, and a redirect is not followed.
Left out: authentication, streaming, proxies, connections kept open.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from logpi.envs.conversation import encodable
from logpi.envs.tools.ranking import Document
from logpi.errors import UserError

PIECE = 1 << 16  # bytes read at a time
AGAIN = (408, 429)  # of what is the client's fault, only these pass by themselves


class RetrieveError(UserError):
    """The server did not answer, or not with what the contract says.

    Attributes:
        again: it may do so when it is asked again.
    """

    def __init__(self, what: str, again: bool = True) -> None:
        super().__init__(what)
        self.again = again


@dataclass
class _PendingBatch:
    """Queries that go out together."""

    queries: list[str] = field(default_factory=list)
    answers: list[Future[list[Document]]] = field(default_factory=list)


class RetrieveClient:
    """A `Searcher`.

    Args:
        url: of the server; /retrieve is added if it names no path. batch: queries of one request.
            wait: seconds to gather them.
        timeout: seconds for a request, from the first to the last byte and with its further tries.
        retries: how many of those. backoff: seconds before the first of them, doubled each time.
        largest: bytes of an answer. keep: answers that are remembered.

    Raises:
        ValueError: not an http(s) address.
    """

    def __init__(
        self,
        url: str,
        *,
        batch: int = 128,
        wait: float = 0.005,
        timeout: float = 30.0,
        retries: int = 3,
        backoff: float = 0.5,
        largest: int = 64 << 20,
        keep: int = 100_000,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"a search server's address begins with http:// or https://, not {url!r}"
            )
        path = url.split("://", 1)[1].rstrip("/").partition("/")[2]
        self.url = url if path else f"{url.rstrip('/')}/retrieve"
        self._at = urlsplit(self.url)
        try:
            usable = (
                bool(self._at.hostname)
                and (self._at.port is None or self._at.port > 0)
                and url.isascii()
            )
        except ValueError:  # a port that is no number
            usable = False
        if not usable or any(c.isspace() for c in url):
            raise ValueError(f"a search server's address is http://HOST:PORT, not {url!r}")
        self.batch, self.wait, self.timeout, self.retries = batch, wait, timeout, retries
        self.backoff, self.largest, self.keep = backoff, largest, keep
        self.requests = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, str], list[Document]] = OrderedDict()
        self._asked: dict[tuple[int, str], Future[list[Document]]] = {}
        self._waves: dict[int, _PendingBatch] = {}

    def check(self) -> None:
        """Ask once, before any work is done.

        Raises:
            ValueError: the server cannot be used; the text says what to do.
        """
        try:
            self._post(["test"], 1)
        except RetrieveError as error:
            raise ValueError(
                f"{error}; start the search server, or search a local corpus instead"
            ) from None

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        """Raises RetrieveError when the server cannot be asked."""
        mine = [encodable(" ".join(q.split())) for q in queries]
        waiting, leads = self._join(mine, top)
        for wave in leads:
            self._lead(wave, top)
        return [answer.result() for answer in waiting]

    def _join(
        self, queries: Sequence[str], top: int
    ) -> tuple[list[Future[list[Document]]], list[_PendingBatch]]:
        """An answer to wait for, for each query; and the waves that this thread must send, because
        it was the first in them."""
        waiting, leads = [], []
        with self._lock:
            for query in queries:
                key = (top, query)
                if key in self._known:
                    self._known.move_to_end(key)
                    waiting.append(_done(self._known[key]))
                    continue
                if key not in self._asked:
                    if top not in self._waves:
                        self._waves[top] = _PendingBatch()
                        leads.append(self._waves[top])
                    self._asked[key] = Future()
                    wave = self._waves[top]
                    wave.queries.append(query)
                    wave.answers.append(self._asked[key])
                    if len(wave.queries) >= self.batch:
                        del self._waves[top]
                waiting.append(self._asked[key])
        return waiting, leads

    def _lead(self, wave: _PendingBatch, top: int) -> None:
        """Wait for company, then ask for all."""
        if len(wave.queries) < self.batch:
            time.sleep(self.wait)
        with self._lock:
            if self._waves.get(top) is wave:
                del self._waves[top]
        try:
            found: Sequence[list[Document]] | BaseException = self._post(wave.queries, top)
        except BaseException as error:
            found = error
        with self._lock:
            for i, (query, answer) in enumerate(zip(wave.queries, wave.answers, strict=True)):
                del self._asked[top, query]
                if isinstance(found, BaseException):
                    answer.set_exception(found)
                    continue
                answer.set_result(found[i])
                self._known[top, query] = found[i]
                if len(self._known) > self.keep:
                    self._known.popitem(last=False)

    def _post(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        body = json.dumps({"queries": list(queries), "topk": top, "return_scores": True}).encode()
        until = time.monotonic() + self.timeout
        for attempt in range(self.retries + 1):
            try:
                return _read(self._exchange(body, until), len(queries), top)
            except RetrieveError as error:
                pause = self.backoff * 2**attempt
                if attempt == self.retries or not error.again or time.monotonic() + pause >= until:
                    tries = "1 try" if attempt == 0 else f"{attempt + 1} tries"
                    raise RetrieveError(f"search server {self.url}: {error} ({tries})") from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _exchange(self, body: bytes, until: float) -> Any:
        """The answer to one request as JSON. Raises RetrieveError."""
        self.requests += 1
        seconds = max(0.001, until - time.monotonic())
        kind = HTTPSConnection if self._at.scheme == "https" else HTTPConnection
        connection = kind(self._at.hostname or "", self._at.port, timeout=seconds)
        late = threading.Event()
        try:
            with _cut_off(connection, seconds, late):
                return json.loads(self._sent(connection, body))
        except RetrieveError:
            raise
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise RetrieveError(f"no whole answer in {self.timeout:g} s", again=False) from None
            raise RetrieveError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from None
        finally:
            connection.close()

    def _sent(self, connection: HTTPConnection, body: bytes) -> bytes:
        """The bytes of the answer."""
        path = f"{self._at.path}?{self._at.query}" if self._at.query else self._at.path
        connection.request(
            "POST", path, body, {"Content-Type": "application/json", "Accept": "application/json"}
        )
        with connection.getresponse() as answer:
            if 300 <= answer.status < 400:
                where = (answer.getheader("Location") or "nowhere")[:200]
                raise RetrieveError(
                    f"it sends us to {where!r}: give the address that is meant", again=False
                )
            if answer.status != 200:
                again = answer.status >= 500 or answer.status in AGAIN
                raise RetrieveError(f"{answer.status} {answer.reason[:100]}".strip(), again)
            data = bytearray()
            while piece := answer.read(PIECE):
                data += piece
                if len(data) > self.largest:
                    raise RetrieveError(
                        f"its answer is longer than {self.largest:,} bytes", again=False
                    )
            return bytes(data)


@contextmanager
def _cut_off(connection: HTTPConnection, seconds: float, late: threading.Event) -> Iterator[None]:
    """Shut the connection's socket after so long: a socket's own timeout begins anew with every
    byte."""

    def shut() -> None:
        late.set()
        with suppress(
            OSError, AttributeError
        ):  # gone already, or not there yet: connecting has a timeout of its own
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _done(found: list[Document]) -> Future[list[Document]]:
    future: Future[list[Document]] = Future()
    future.set_result(found)
    return future


def _read(answer: Any, queries: int, top: int) -> list[list[Document]]:
    """The contract's answer, with scores or (inner items are then bare documents) without."""
    rows = answer.get("result") if isinstance(answer, Mapping) else None
    if (
        not isinstance(rows, list)
        or len(rows) != queries
        or not all(isinstance(row, list) for row in rows)
    ):
        raise RetrieveError(
            f"expected {{'result': […]}} with {queries} lists, got {str(answer)[:80]!r}"
        )
    return [[_document(item) for item in row[:top]] for row in rows]


def _document(item: Any) -> Document:
    inner = item.get("document", item) if isinstance(item, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("contents"), str):
        raise RetrieveError(f"expected a document with contents, got {str(item)[:80]!r}")
    score = item.get("score")
    known = float(score) if isinstance(score, int | float) and abs(score) < math.inf else 0.0
    return Document(encodable(str(inner.get("id", ""))), encodable(inner["contents"]), known)

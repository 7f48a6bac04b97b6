"""A search server as a searcher: the HTTP contract that Search-R1's servers speak.

    POST /retrieve  {"queries": ["…", …], "topk": 3, "return_scores": true}
    200             {"result": [[{"document": {"id": "…", "contents": "…"}, "score": 11.2}, …], …]}

One request carries the queries of many threads, equal ones once, and results are cached. A request
that fails is repeated after 0.5 s, 1 s, 2 s, … until its deadline; then the caller gets an error
with the reason: the policy reads it, and the run continues. The server is not trusted: its answer
has one deadline and a largest size, is never decompressed, and redirects are not followed. Left
out: authentication, streaming, proxies, connections that stay open.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from logpi.envs.conversation import encodable
from logpi.envs.tools.ranking import Document
from logpi.errors import UserError

if TYPE_CHECKING:
    import httpx

AGAIN = (408, 429)
"""Client errors that a later try may not meet."""


class RetrieveError(UserError):
    """The server did not answer, or broke the contract.

    Attributes:
        again: another try may succeed.
    """

    def __init__(self, what: str, again: bool = True) -> None:
        super().__init__(what)
        self.again = again


@dataclass
class _PendingBatch:
    """Queries of one request, and a future result for each."""

    queries: list[str] = field(default_factory=list)
    results: list[Future[list[Document]]] = field(default_factory=list)


class RetrieveClient:
    """A `Searcher`.

    Args:
        url: of the server; /retrieve is added if it names no path. batch: queries of one request.
            wait: seconds to gather them.
        timeout: seconds for a request, from the first to the last byte and over all tries.
        retries: further tries. backoff: seconds before the first of them, doubled each time.
        largest: bytes of an answer. keep: answers in the cache.

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
        self._pending: dict[tuple[int, str], Future[list[Document]]] = {}
        self._open: dict[int, _PendingBatch] = {}

    def check(self) -> None:
        """Send one query, before any work.

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
        """Raises RetrieveError if the server cannot be reached.

        Threads A and B within `wait` seconds of each other, batch=3:

            A  search(x, y)   opens a batch [x, y], becomes its sender, and waits
            B  search(y, z)   y is pending, so it waits for A's; z fills the batch [x, y, z]
            A                 sends [x, y, z] in one request, and sets all three results
        """
        texts = [encodable(" ".join(q.split())) for q in queries]
        results, to_send = self._join(texts, top)
        for batch in to_send:
            self._send(batch, top)
        return [result.result() for result in results]

    def _join(
        self, queries: Sequence[str], top: int
    ) -> tuple[list[Future[list[Document]]], list[_PendingBatch]]:
        """A future result for each query, and the batches that this thread opened and must send."""
        results, to_send = [], []
        with self._lock:
            for query in queries:
                key = (top, query)
                if key in self._known:
                    self._known.move_to_end(key)
                    results.append(_done(self._known[key]))
                    continue
                if key not in self._pending:
                    if top not in self._open:
                        self._open[top] = _PendingBatch()
                        to_send.append(self._open[top])
                    self._pending[key] = Future()
                    batch = self._open[top]
                    batch.queries.append(query)
                    batch.results.append(self._pending[key])
                    if len(batch.queries) >= self.batch:
                        del self._open[top]
                results.append(self._pending[key])
        return results, to_send

    def _send(self, batch: _PendingBatch, top: int) -> None:
        """Wait for other threads' queries, then send them all."""
        if len(batch.queries) < self.batch:
            time.sleep(self.wait)
        with self._lock:
            if self._open.get(top) is batch:
                del self._open[top]
        try:
            documents: Sequence[list[Document]] | BaseException = self._post(batch.queries, top)
        except BaseException as error:
            documents = error
        with self._lock:
            for i, (query, result) in enumerate(zip(batch.queries, batch.results, strict=True)):
                del self._pending[top, query]
                if isinstance(documents, BaseException):
                    result.set_exception(documents)
                    continue
                result.set_result(documents[i])
                self._known[top, query] = documents[i]
                if len(self._known) > self.keep:
                    self._known.popitem(last=False)

    def _post(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        """One request, repeated until its deadline. Raises RetrieveError."""
        body = json.dumps({"queries": list(queries), "topk": top, "return_scores": True}).encode()
        until = time.monotonic() + self.timeout
        for attempt in range(self.retries + 1):
            try:
                return _documents(self._exchange(body, until), len(queries), top)
            except RetrieveError as error:
                pause = self.backoff * 2**attempt
                if attempt == self.retries or not error.again or time.monotonic() + pause >= until:
                    tries = "1 try" if attempt == 0 else f"{attempt + 1} tries"
                    raise RetrieveError(f"search server {self.url}: {error} ({tries})") from None
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _exchange(self, body: bytes, until: float) -> Any:
        """The result of one request as JSON. Raises RetrieveError."""
        import httpx

        self.requests += 1
        seconds = max(0.001, until - time.monotonic())
        request = asyncio.run_coroutine_threadsafe(self._sent(body, seconds), _loop())
        try:
            return json.loads(request.result())
        except TimeoutError:
            raise RetrieveError(f"no whole answer in {self.timeout:g} s", again=False) from None
        except (OSError, httpx.HTTPError, ValueError, RecursionError) as error:
            raise RetrieveError(_reason(error)) from None

    async def _sent(self, body: bytes, seconds: float) -> bytes:
        """The raw bytes of the answer, without decompression."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        async with asyncio.timeout(seconds):
            stream = self._client.stream("POST", self.url, content=body, headers=headers)
            async with stream as response:
                _check_status(response)
                data = bytearray()
                async for piece in response.aiter_raw():
                    data += piece
                    if len(data) > self.largest:
                        raise RetrieveError(
                            f"its answer is longer than {self.largest:,} bytes", again=False
                        )
                return bytes(data)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Without httpx's timeouts, which limit single reads; `asyncio.timeout` limits them all."""
        import httpx

        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(timeout=None, trust_env=False, limits=limits)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own, for all clients: the caller's thread may run a loop (a
    notebook's does), which cannot wait for another."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="retrieve", daemon=True).start()
    return loop


def _reason(error: BaseException) -> str:
    """The error as text; for an httpx.ConnectError the operating system's reason below it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno is not None and below.errno > 0:
            return f"{type(below).__name__}: {os.strerror(below.errno)}"
        below = below.__cause__ or below.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_status(response: httpx.Response) -> None:
    """Raises RetrieveError unless the status is 200."""
    status = response.status_code
    if 300 <= status < 400:
        where = response.headers.get("Location", "nowhere")[:200]
        raise RetrieveError(
            f"it sends us to {where!r}: give the address that is meant", again=False
        )
    if status != 200:
        again = status >= 500 or status in AGAIN
        raise RetrieveError(f"{status} {response.reason_phrase[:100]}".strip(), again)


def _done(documents: list[Document]) -> Future[list[Document]]:
    future: Future[list[Document]] = Future()
    future.set_result(documents)
    return future


def _documents(answer: Any, queries: int, top: int) -> list[list[Document]]:
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

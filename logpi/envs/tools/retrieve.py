"""A search server as a searcher: the HTTP contract that Search-R1's servers speak.

    POST /retrieve {"queries": ["…", …], "topk": 3, "return_scores": true}
    → {"result": [[{"document": {"id": "…", "contents": "\\"Title\\"\\ntext"}, "score": 1.5}, …], …]}

Conversations ask from many threads: queries that come within a few milliseconds go out in one request, equal ones once, answers are
kept. A request is tried again after 0.5 s, 1 s, 2 s, …; when it fails for good the caller gets an error that says what is wrong, and so the
policy reads an error and the run goes on. Left out: authentication, streaming, HTTP connections that are kept open.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from logpi.envs.tools.ranking import Document

__all__ = ["RetrieveClient", "RetrieveError"]


class RetrieveError(RuntimeError):
    """The server did not answer, or not with what the contract says."""


@dataclass
class _Wave:
    """Queries that go out together."""

    queries: list[str] = field(default_factory=list)
    answers: list[Future[list[Document]]] = field(default_factory=list)


class RetrieveClient:
    """A `Searcher`.

    Args:
        url: of the server; /retrieve is added if it names no path. batch: queries of one request. wait: seconds to gather them.
        timeout: seconds for a request. retries: further tries. backoff: seconds before the first of them, doubled each time.
        keep: answers that are remembered.

    Raises:
        ValueError: not an http(s) address.
    """

    def __init__(
        self, url: str, *, batch: int = 128, wait: float = 0.005, timeout: float = 30.0, retries: int = 3, backoff: float = 0.5,
        keep: int = 100_000,
    ) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a search server's address begins with http:// or https://, not {url!r}")
        path = url.split("://", 1)[1].rstrip("/").partition("/")[2]
        self.url = url if path else f"{url.rstrip('/')}/retrieve"
        self.batch, self.wait, self.timeout, self.retries, self.backoff, self.keep = (
            batch,
            wait,
            timeout,
            retries,
            backoff,
            keep,
        )
        self.requests = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, str], list[Document]] = OrderedDict()
        self._asked: dict[tuple[int, str], Future[list[Document]]] = {}
        self._waves: dict[int, _Wave] = {}

    def check(self) -> None:
        """Ask once, before any work is done.

        Raises:
            ValueError: the server cannot be used; the text says what to do.
        """
        try:
            self._post(["test"], 1)
        except RetrieveError as error:
            raise ValueError(f"{error}; start the search server, or search a local corpus instead") from None

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        """Raises RetrieveError when the server cannot be asked."""
        mine = [" ".join(q.split()) for q in queries]
        waiting, leads = self._join(mine, top)
        for wave in leads:
            self._lead(wave, top)
        return [answer.result() for answer in waiting]

    def _join(self, queries: Sequence[str], top: int) -> tuple[list[Future[list[Document]]], list[_Wave]]:
        """An answer to wait for, for each query; and the waves that this thread must send, because it was the first in them."""
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
                        self._waves[top] = _Wave()
                        leads.append(self._waves[top])
                    self._asked[key] = Future()
                    wave = self._waves[top]
                    wave.queries.append(query)
                    wave.answers.append(self._asked[key])
                    if len(wave.queries) >= self.batch:
                        del self._waves[top]
                waiting.append(self._asked[key])
        return waiting, leads

    def _lead(self, wave: _Wave, top: int) -> None:
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
        for attempt in range(self.retries + 1):
            try:
                return _read(self._send(body), len(queries))
            except (OSError, ValueError, RetrieveError) as error:
                known = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
                if attempt == self.retries or known:
                    reason = getattr(error, "reason", None) or error
                    raise RetrieveError(f"search server {self.url}: {reason} ({attempt + 1} tries)") from None
                time.sleep(self.backoff * 2**attempt)
        raise AssertionError("unreachable")

    def _send(self, body: bytes) -> Any:
        self.requests += 1
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return json.loads(answer.read())


def _done(found: list[Document]) -> Future[list[Document]]:
    future: Future[list[Document]] = Future()
    future.set_result(found)
    return future


def _read(answer: Any, queries: int) -> list[list[Document]]:
    """The contract's answer, with scores or (inner items are then bare documents) without."""
    rows = answer.get("result") if isinstance(answer, Mapping) else None
    if not isinstance(rows, list) or len(rows) != queries:
        raise RetrieveError(f"expected {{'result': […]}} with {queries} lists, got {str(answer)[:80]!r}")
    return [[_document(item) for item in row] for row in rows]


def _document(item: Any) -> Document:
    inner = item.get("document", item) if isinstance(item, Mapping) else None
    if not isinstance(inner, Mapping) or "contents" not in inner:
        raise RetrieveError(f"expected a document with contents, got {str(item)[:80]!r}")
    return Document(str(inner.get("id", "")), str(inner["contents"]), float(item.get("score", 0.0)))

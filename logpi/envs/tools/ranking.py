"""BM25 over a corpus in this process, and a searcher as a tool.

    score(q, d) = Σ over terms t of q   idf(t) · f / (f + k1 (1 − b + b |d| / mean |d|))
    idf(t)      = ln(1 + (N − n + ½) / (n + ½))

f: how often t occurs in d; n: documents with t, of N; k1 = 1.5, b = 0.75 (Robertson & Zaragoza
2009, in Lucene's form). `Bm25` ranks documents in memory, such as a row's own, with the package
bm25s: 10,000 passages in 0.1 ms, a million in 2 ms. `Corpus` reads them from a JSONL file of
`{id, contents}` and keeps the index. Equal scores keep the corpus's order. Left out: dense
retrieval; any object with `search(queries, top)` can take their place, such as a server with
Search-R1's contract (`retrieve.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from logpi.envs.conversation import encodable
from logpi.envs.tools.tool import Tool, tool
from logpi.runs import disk

K1, B = 1.5, 0.75
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Document:
    """A passage. contents: by Search-R1's convention its title, in quotes, is the first line.
    score: of the search that found it."""

    id: str
    contents: str
    score: float = field(default=0.0, compare=False)


class Searcher(Protocol):
    """Finds documents."""

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        """The `top` best documents for each query, best first; fewer where fewer share a term with
        it. May be called from many threads."""
        ...


def terms(text: str) -> list[str]:
    """The words of `text`, lower case."""
    return _WORD.findall(text.lower())


class Bm25:
    """Documents in memory, ranked by the package bm25s.

    Args:
        documents: in the order that decides between equal scores. index: of these documents, if
            there is one already.

    >>> index = Bm25([Document("0", "Paris is in France"), Document("1", "Rome is in Italy")])
    >>> [document.id for document in index.search(["italy"], 3)[0]]
    ['1']
    """

    def __init__(self, documents: Sequence[Document], index: Any = None) -> None:
        self.documents = list(documents)
        self._index = _indexed(self.documents) if index is None else index

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        # one query at a time: a batch saves nothing on one thread
        return [self._best(terms(query), top) for query in queries]

    def _best(self, words: Sequence[str], top: int) -> list[Document]:
        known = [w for w in words if w in self._index.vocab_dict] if self._index else []
        if not known:
            return []
        scores = self._index.get_scores(known)
        return [
            replace(self.documents[i], score=float(scores[i]))
            for i in _largest(scores, top).tolist()
            if scores[i] > 0
        ]


class Corpus(Bm25):
    """A JSONL file of `{id, contents}`, indexed once: the index is kept in the user's cache
    directory under a hash of the file.

    Args:
        path: the file. cache: directory of indices; None: `$XDG_CACHE_HOME/logpi/bm25`, "": none is
            kept.

    Raises:
        ValueError: no such file, a line that is no such object, or no documents.
    """

    def __init__(self, path: str | Path, cache: str | Path | None = None) -> None:
        self.path = Path(path)
        documents = _documents(self.path)
        if cache is None:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            cache = home / "logpi" / "bm25"
        place = None if cache == "" else Path(cache) / _digest(self.path)
        super().__init__(documents, _indexed(documents, place))


def _largest(scores: Any, top: int) -> Any:
    """The numbers of the `top` best documents, of equal scores those that come first.

    scores 1 3 0 3, top 2  →  1 3
    """
    import numpy as np

    # for a small corpus a full sort is cheaper than a partition
    if len(scores) <= 4096:
        return np.argsort(-scores, kind="stable")[:top]
    least = np.partition(scores, -min(top, len(scores)))[-min(top, len(scores))]
    some = np.flatnonzero(scores >= least)
    return some[np.argsort(-scores[some], kind="stable")][:top]


def _documents(path: Path) -> list[Document]:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a corpus is a JSONL file with id and contents on each line"
        )
    documents = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                documents.append(
                    Document(encodable(str(row["id"])), encodable(str(row["contents"])))
                )
            except (ValueError, KeyError, TypeError, RecursionError):
                text = line[:60].decode("utf-8", "replace")
                raise ValueError(
                    f"{path}, line {number}: expected an object with id and contents, got {text!r}"
                ) from None
    if not documents:
        raise ValueError(f"{path}: no documents")
    return documents


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _indexed(documents: Sequence[Document], place: Path | None = None) -> Any:
    """The index at `place`, or a new one, which is written there as a whole; None for documents
    without any word. Of several processes one makes it, and the others read its file."""
    if place is None:
        return _made(documents, None)
    with disk.in_turn(place.with_suffix(".lock")):
        return _made(documents, place)


def _made(documents: Sequence[Document], place: Path | None) -> Any:
    import bm25s

    if place is not None and place.is_dir():
        try:
            return bm25s.BM25.load(str(place), mmap=True)
        except Exception:  # damaged: index again
            shutil.rmtree(place, ignore_errors=True)
    words = [terms(d.contents) for d in documents]
    if not any(words):
        return None
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index(words, show_progress=False)
    if place is not None:
        # if it cannot be written, the next run indexes again
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = tempfile.mkdtemp(dir=place.parent)
            index.save(beside)
            os.replace(beside, place) if not place.exists() else shutil.rmtree(beside)
    return index


@lru_cache(maxsize=8)
def corpus(path: str) -> Corpus:
    """The corpus at `path`, read and indexed once in this process."""
    return Corpus(path)


def search_tool(searcher: Searcher, top: int = 3, name: str = "search") -> Tool:
    """The tool `search(query)` over a corpus or a server; results as a list of passages."""

    def search(query: str) -> str:
        """Searches a collection of documents and returns the passages that fit best.

        Args:
            query: what to look for, in a few words
        """
        documents = searcher.search([query], top)[0]
        passages = (f"[{i}] {d.contents}" for i, d in enumerate(documents, 1))
        return "\n\n".join(passages) or "Nothing was found."

    return replace(tool(search), name=name)

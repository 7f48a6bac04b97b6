"""BM25 over a corpus in this process, and a searcher as a tool.

    score(q, d) = Σ over terms t of q   idf(t) · f / (f + k1 (1 − b + b |d| / mean |d|))        f: how often t occurs in d
    idf(t)      = ln(1 + (N − n + ½) / (n + ½))                                                 n: documents with t, of N

(Robertson & Zaragoza 2009, in Lucene's form; k1 = 1.5, b = 0.75). `Bm25` is plain Python: for small
corpora, such as a row's own documents, and where the package bm25s is missing. `Corpus` reads a
JSONL file of `{id, contents}` and ranks with bm25s, which does 10,000 passages in 0.1 ms and a
million in 2 ms. Equal scores keep the corpus's order. Left out: dense retrieval; anything with
`search(queries, top)` will do instead, and a server with Search-R1's contract (`retrieve.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from logpi.envs.conversation import encodable
from logpi.envs.tools.tool import Tool, tool

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
    """A small corpus.

    >>> found = Bm25([Document("0", "Paris is in France"), Document("1", "Rome is in Italy")]).search(["italy"], 3)
    >>> [d.id for d in found[0]]
    ['1']
    """

    def __init__(
        self, documents: Sequence[Document], split: Callable[[str], list[str]] = terms
    ) -> None:
        self.documents, self.split = tuple(documents), split
        counts = [Counter(split(d.contents)) for d in self.documents]
        lengths = [c.total() for c in counts]
        mean = sum(lengths) / max(1, len(lengths)) or 1.0
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for i, count in enumerate(counts):
            for term, f in count.items():
                self._weights[term].append((i, f / (f + K1 * (1 - B + B * lengths[i] / mean))))

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        return [self._one(q, top) for q in queries]

    def _one(self, query: str, top: int) -> list[Document]:
        scores: dict[int, float] = defaultdict(float)
        for term in self.split(query):
            found = self._weights.get(term, ())
            idf = math.log(1 + (len(self.documents) - len(found) + 0.5) / (len(found) + 0.5))
            for i, weight in found:
                scores[i] += idf * weight
        best = heapq.nsmallest(top, scores.items(), key=lambda item: (-item[1], item[0]))
        return [Document(self.documents[i].id, self.documents[i].contents, s) for i, s in best]


class Corpus:
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
        self.documents = _documents(self.path)
        self._ranker: Any = None
        try:
            import bm25s  # noqa: F401
        except ImportError:
            self._small: Bm25 | None = Bm25(self.documents)
            return
        self._small = None
        home = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logpi" / "bm25"
            if cache is None
            else Path(cache)
        )
        self._ranker = _indexed(self.documents, None if cache == "" else home / _digest(self.path))

    def search(self, queries: Sequence[str], top: int) -> list[list[Document]]:
        if self._small is not None:
            return self._small.search(queries, top)
        import numpy as np

        # one query at a time: bm25s batches bring nothing on one thread, and a query without a
        # known word needs care
        out = []
        for query in queries:
            known = [t for t in terms(query) if t in self._ranker.vocab_dict]
            if not known:
                out.append([])
                continue
            scores = self._ranker.get_scores(known)
            at = (
                np.argsort(-scores, kind="stable")[:top]
                if len(scores) <= 4096
                else _largest(scores, top)
            )
            out.append([self._found(int(i), float(scores[i])) for i in at if scores[i] > 0])
        return out

    def _found(self, i: int, score: float) -> Document:
        return Document(self.documents[i].id, self.documents[i].contents, score)


def _largest(scores: Any, top: int) -> Any:
    import numpy as np

    some = np.argpartition(-scores, min(top, len(scores) - 1))[: top + 1]
    return some[np.lexsort((some, -scores[some]))][:top]


def _documents(path: Path) -> list[Document]:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a corpus is a JSONL file with id and contents on each line"
        )
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                found.append(Document(encodable(str(row["id"])), encodable(str(row["contents"]))))
            except (ValueError, KeyError, TypeError, RecursionError):
                shown = line[:60].decode("utf-8", "replace")
                raise ValueError(
                    f"{path}, line {number}: expected an object with id and contents, got {shown!r}"
                ) from None
    if not found:
        raise ValueError(f"{path}: no documents")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _indexed(documents: Sequence[Document], place: Path | None) -> Any:
    """The index from `place`, or made now and put there, whole or not at all."""
    import bm25s

    if place is not None and place.is_dir():
        try:
            return bm25s.BM25.load(str(place), mmap=True)
        except Exception:  # damaged: it is made again
            shutil.rmtree(place, ignore_errors=True)
    ranker = bm25s.BM25(k1=K1, b=B, method="lucene")
    ranker.index([terms(d.contents) for d in documents], show_progress=False)
    if place is not None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = tempfile.mkdtemp(dir=place.parent)
            ranker.save(beside)
            os.replace(beside, place) if not place.exists() else shutil.rmtree(beside)
        except OSError:  # nowhere to keep it: the next run indexes again
            pass
    return ranker


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
        found = searcher.search([query], top)[0]
        return (
            "\n\n".join(f"[{i}] {d.contents}" for i, d in enumerate(found, 1))
            or "Nothing was found."
        )

    made = tool(search)
    return Tool(name, made.description, made.parameters, search)

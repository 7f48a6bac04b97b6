"""BM25 in process, a corpus on disk, and a server with Search-R1's contract (a local one, made
here).

Run: python -m pytest -q tests/envs/tools/test_search.py
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import fmean

import bm25s
import numpy as np
import pytest

from logpi.envs.tools import Bm25, Corpus, Document, RetrieveClient, search_tool
from logpi.envs.tools.ranking import K1, B, _largest, terms
from logpi.envs.tools.retrieve import RetrieveError
from tests.envs.strange import BEHAVIOURS, Strange

WORDS = [f"w{i}" for i in range(200)]


def random_documents(n, seed=0):
    rng = random.Random(seed)
    return [
        Document(
            str(i),
            " ".join(
                rng.choices(WORDS, weights=[1 / (k + 1) for k in range(200)], k=rng.randint(5, 60))
            ),
        )
        for i in range(n)
    ]


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": d.id, "contents": d.contents}) + "\n" for d in random_documents(300)
        ),
        encoding="utf-8",
    )
    return path


def test_scores_by_hand():
    import math

    (found,) = Bm25([Document("a", "x y"), Document("b", "x x z z"), Document("c", "y")]).search(
        ["X, z?"], 5
    )
    idf = {"x": math.log(1 + (3 - 2 + 0.5) / 2.5), "z": math.log(1 + (3 - 1 + 0.5) / 1.5)}
    part = lambda f, length: f / (f + 1.5 * (0.25 + 0.75 * length / (7 / 3)))  # noqa: E731
    assert [d.id for d in found] == ["b", "a"]
    assert found[0].score == pytest.approx((idf["x"] + idf["z"]) * part(2, 4))
    assert found[1].score == pytest.approx(idf["x"] * part(1, 2))


def by_formula(documents: list[Document], query: str, top: int) -> list[tuple[str, float]]:
    """BM25 as the module's first lines write it, term by term: document and score, best first."""
    counts = [Counter(terms(d.contents)) for d in documents]
    mean = fmean(c.total() for c in counts)
    scores = dict.fromkeys(range(len(documents)), 0.0)
    for term in terms(query):
        n = sum(term in c for c in counts)
        idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
        for i, c in enumerate(counts):
            scores[i] += idf * c[term] / (c[term] + K1 * (1 - B + B * c.total() / mean))
    best = sorted(((i, s) for i, s in scores.items() if s > 0), key=lambda x: (-x[1], x[0]))
    return [(documents[i].id, s) for i, s in best[:top]]


def test_a_corpus_and_documents_in_memory_rank_as_the_formula_does(corpus_file, tmp_path):
    documents = random_documents(300)
    rng = random.Random(1)
    queries = [" ".join(rng.choices(WORDS, k=rng.randint(1, 5))) for _ in range(60)] + [
        "",
        "unknown words",
        "w0 unknown",
    ]
    for index in (Corpus(corpus_file, cache=tmp_path / "cache"), Bm25(documents)):
        for query, ranked in zip(queries, index.search(queries, 5), strict=True):
            expected = by_formula(documents, query, 5)
            assert [d.score for d in ranked] == pytest.approx([s for _, s in expected], rel=1e-4)
            scores = {round(s, 4) for _, s in expected}
            assert [d.id for d in ranked] == [i for i, _ in expected] or len(scores) < len(expected)


def test_equal_scores_keep_their_order_and_wordless_documents_are_never_found():
    same = [Document(str(i), "alpha beta") for i in range(9)]
    assert [d.id for d in Bm25(same).search(["beta"], 4)[0]] == ["0", "1", "2", "3"]
    assert Bm25([Document("0", "?!")]).search(["?!", "alpha"], 3) == [[], []]
    (ranked,) = Bm25([Document("0", ""), Document("1", "alpha")]).search(["alpha alpha"], 3)
    assert [d.id for d in ranked] == ["1"]
    assert Bm25([]).search(["alpha"], 3) == [[]]
    many = np.tile(np.array([1.0, 3.0, 0.0, 3.0]), 2000)  # past the size that is sorted whole
    assert _largest(many[:4], 2).tolist() == [1, 3] and _largest(many, 3).tolist() == [1, 3, 5]


def test_the_index_is_made_once_and_follows_the_file(corpus_file, tmp_path, monkeypatch):
    first = Corpus(corpus_file, cache=tmp_path / "cache").search(["w3 w7"], 3)
    with monkeypatch.context() as m:
        m.setattr(bm25s.BM25, "index", lambda *a, **k: pytest.fail("indexed again"))
        assert Corpus(corpus_file, cache=tmp_path / "cache").search(["w3 w7"], 3) == first
    with corpus_file.open("a") as file:
        file.write(json.dumps({"id": "new", "contents": "zebra"}) + "\n")
    assert Corpus(corpus_file, cache=tmp_path / "cache").search(["zebra"], 3)[0][0].id == "new"
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert (
        Corpus(corpus_file, cache=blocked / "cache").search(["zebra"], 1)[0][0].id == "new"
    )  # nowhere to keep it


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no documents"),
        ("{}\n", "line 1: expected an object with id and contents"),
        ('\n{"id": 1\n', "line 2"),
    ],
)
def test_corpora_that_cannot_be_read(tmp_path, text, line):
    path = tmp_path / "corpus.jsonl"
    with pytest.raises(ValueError, match="no such file"):
        Corpus(path)
    path.write_text(text)
    with pytest.raises(ValueError, match=line):
        Corpus(path)


def test_search_as_a_tool():
    made = search_tool(
        Bm25([Document("0", '"France"\nParis is its capital.'), Document("1", "Rome")]), top=2
    )
    assert (
        made({"query": "capital of France"}) == '[1] "France"\nParis is its capital.'
        and made({"query": "?"}) == "Nothing was found."
    )
    assert made.name == "search" and made.parameters["required"] == ["query"]


# --- the server ---


class Server:
    """POST /retrieve over three documents; what it was asked, and failures to order."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.failures: list[int | bytes] = []
        self.scores = True
        lock, outer = threading.Lock(), self
        ranker = Bm25(
            [Document("1", "alpha one"), Document("2", "beta two"), Document("3", "alpha beta")]
        )

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(body["queries"])
                    failure = outer.failures.pop(0) if outer.failures else None
                found = [
                    [{"id": d.id, "contents": d.contents, "score": d.score} for d in row]
                    for row in ranker.search(body["queries"], body["topk"])
                ]
                if outer.scores:
                    found = [
                        [
                            {
                                "document": {"id": d["id"], "contents": d["contents"]},
                                "score": d["score"],
                            }
                            for d in row
                        ]
                        for row in found
                    ]
                answer = (
                    failure
                    if isinstance(failure, bytes)
                    else json.dumps({"result": found}).encode()
                )
                self.send_response(
                    failure
                    if isinstance(failure, int)
                    else 200
                    if self.path == "/retrieve" and body["return_scores"]
                    else 404
                )
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def client(server, **options):
    return RetrieveClient(server.url, **{"backoff": 0.001, "timeout": 5.0} | options)


@pytest.mark.parametrize("scores", [True, False])
def test_the_contract(server, scores):
    server.scores = scores
    c = client(server)
    c.check()
    first, second = c.search(["alpha", " beta  two "], 2)
    assert [d.id for d in first] == ["1", "3"] and second[0] == Document("2", "beta two")
    assert (first[0].score > 0) == scores or not scores
    assert server.asked == [["test"], ["alpha", "beta two"]]


def test_threads_share_requests_and_answers_are_kept(server):
    c = client(server, wait=0.05)
    queries = [f"alpha {i % 10}" for i in range(40)]
    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda q: c.search([q], 2)[0], queries))
    assert all([d.id for d in f] == ["1", "3"] for f in found)
    sent = [q for batch in server.asked for q in batch]
    assert (
        sorted(sent) == sorted(set(queries)) and c.requests < 10
    )  # each query once, and many in one request
    before = c.requests
    assert c.search(queries, 2) == found and c.requests == before
    c.search(["alpha 0"], 1)
    assert c.requests == before + 1  # another number of documents is another question


def test_batches_have_a_limit_and_the_memory_too(server):
    c = client(server, batch=4, keep=5)
    assert len(c.search([f"alpha {i}" for i in range(10)], 1)) == 10
    assert [len(b) for b in server.asked] == [4, 4, 2]
    c.search(["alpha 9"], 1)
    assert c.requests == 3
    c.search(["alpha 0"], 1)
    assert c.requests == 4


def test_requests_are_tried_again(server):
    server.failures = [500, b"not json", b'{"result": []}', 429]
    c = client(server, retries=4)
    assert [d.id for d in c.search(["beta two"], 1)[0]] == ["2"] and c.requests == 5


def test_what_cannot_work_is_not_tried_again_and_is_asked_afresh_later(server):
    server.failures = [404]
    c = client(server)
    with pytest.raises(
        RetrieveError, match=r"search server http://.*/retrieve: 404 Not Found \(1 try\)"
    ):
        c.search(["alpha"], 1)
    assert c.search(["alpha"], 1)[0][0].id == "1"  # an error is not remembered


def test_everyone_who_waits_hears_of_a_failure(server):
    server.failures = [400] * 50
    c = client(server, wait=0.05)

    def ask(i):
        with pytest.raises(RetrieveError):
            c.search([f"alpha {i % 3}"], 1)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(12)))


def test_an_unreachable_server_is_one_line():
    c = RetrieveClient("http://127.0.0.1:9", retries=1, backoff=0.001, timeout=1)
    with pytest.raises(
        ValueError,
        match=(
            r"search server http://127.0.0.1:9/retrieve: .*refused.* \(2 tries\); start the search"
            r" server"
        ),
    ):
        c.check()
    with pytest.raises(ValueError, match="begins with http"):
        RetrieveClient("localhost:8000")
    assert (
        RetrieveClient("http://h:8000/my/path").url == "http://h:8000/my/path"
        and RetrieveClient("http://h/").url == "http://h/retrieve"
    )


@pytest.mark.parametrize(
    "answer", [b"[]", b'{"result": [[1]]}', b'{"result": [[{"document": {"id": 1}}]]}', b"\xff"]
)
def test_answers_outside_the_contract(server, answer):
    server.failures = [answer] * 2
    with pytest.raises(RetrieveError, match="search server"):
        client(server, retries=1).search(["alpha"], 1)


def test_a_search_from_a_thread_that_runs_an_event_loop(server):
    """As a notebook's does."""

    async def cell():
        return client(server).search(["alpha"], 1)

    assert asyncio.run(cell())[0][0].id == "1"


@pytest.mark.parametrize("what", BEHAVIOURS)
def test_strange_servers(what):
    """Each answers in time, or is one line in time; what takes time or memory without an end is
    asked once."""
    write, line, asked = BEHAVIOURS[what]
    with Strange(write) as strange:
        c = RetrieveClient(strange.url, timeout=0.6, retries=1, backoff=0.01, largest=1_000_000)
        start = time.monotonic()
        if line is None:
            (found,) = c.search(["alpha"], 3)
            assert (
                all(d.contents in ("alpha", "al?pha") and math.isfinite(d.score) for d in found)
                and len(found) <= 3
            )
        else:
            with pytest.raises(RetrieveError, match=line) as error:
                c.search(["alpha"], 3)
            assert "\n" not in str(error.value) and str(error.value).startswith(
                f"search server {strange.url}/retrieve: "
            )
        assert (
            time.monotonic() - start < 2 and strange.asked == (asked or strange.asked) == c.requests
        )


def test_a_slow_server_has_one_deadline_for_all_its_tries():
    def slow_failure(s):
        time.sleep(0.25)
        s.sendall(b"HTTP/1.1 500 x\r\n\r\n")

    with Strange(slow_failure) as strange:
        start = time.monotonic()
        with pytest.raises(RetrieveError, match="500 x .2 tries|no whole answer"):
            RetrieveClient(strange.url, timeout=0.6, retries=50, backoff=0.01).search(["alpha"], 1)
        assert time.monotonic() - start < 1.5 and strange.asked <= 3


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80",
        "http://h:port",
        "http://h:99999",
        "http://h h",
        "http://hé",
        "http://h/a b",
        "https:///x",
    ],
)
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match="address"):
        RetrieveClient(url)


def test_a_corpus_of_strangers(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"id": 1, "contents": "\\ud83d alpha"}\n')
    assert Corpus(bad, "").documents == [Document("1", "? alpha")]
    for line in (b'{"id": 1, "contents": "\xff"}', b"[" * 100_000, b"3", b'{"id": 1}', b"\x00"):
        bad.write_bytes(b'{"id": 1, "contents": "a"}\n' + line)
        with pytest.raises(
            ValueError, match="bad.jsonl, line 2: expected an object with id and contents"
        ):
            Corpus(bad, "")


def test_a_damaged_index_is_made_again(corpus_file, tmp_path):
    found = Corpus(corpus_file, tmp_path / "c").search(["w1 w2"], 3)
    for file in (tmp_path / "c").rglob("*"):
        file.is_file() and file.write_bytes(b"")
    assert Corpus(corpus_file, tmp_path / "c").search(["w1 w2"], 3) == found

"""Questions over a corpus: HotpotQA's files, Search-R1's and FlashRAG's, or any rows with a
question and its answer.

    qa(corpus=wiki.jsonl):questions.jsonl            searched with BM25 in this process
    qa(corpus="http://host:8000"):questions.jsonl    searched by a server with Search-R1's /retrieve
    qa:hotpot_dev_distractor_v1.json                 searched in each row's own paragraphs, its
                                                     `context`

Three ways to answer, which differ in nothing else:

    search     the policy searches when it wants to (`envs/tools/search_r1.py`)
    upfront    the documents that the question finds stand in the prompt
    closed     no documents

The task writes demonstrations from the answer and, where the data name them, the titles that
support it: it searches for the question, then for a supporting title that stands in a document,
until a document holds the answer. It searches when a row is read, for its neighbours too, so that a
server gets many queries in one request and none for rows that nobody reads. Left out: downloading,
HotpotQA's supporting-fact scores, dense indices (a server has those).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, overload

from logpi.envs.files import read_raw
from logpi.envs.task import Row, Split, check_template, parted
from logpi.envs.tools.ranking import Searcher
from logpi.envs.tools.ranking import corpus as corpus_of
from logpi.envs.tools.search_r1 import PROMPT, SearchR1
from logpi.errors import UserError
from logpi.rewards import AnswerF1, AnswerMatch, Rewards, Weighted
from logpi.rewards.qa import normalise

_DIRECT = (
    "Answer the given question. Give the answer inside <answer> and </answer>, without detailed"
    " illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
PROMPTS = {"search": PROMPT, "upfront": _DIRECT, "closed": _DIRECT}
TOGETHER = 128
"""Rows whose searches are made at the same time."""
notices = logging.getLogger("logpi")
# Texts call "Mercury (planet)" Mercury.
_ASIDE = re.compile(r"\s*\([^)]*\)$")


@lru_cache(maxsize=8)
def _searcher(place: str) -> Searcher:
    """A corpus file, or a server, checked by one query. Raises ValueError if there is none."""
    if not place.startswith(("http://", "https://")):
        return corpus_of(place)
    from logpi.envs.tools.retrieve import RetrieveClient

    client = RetrieveClient(place)
    client.check()
    return client


@dataclass(frozen=True)
class Questions:
    """Short answers to questions.

    A row: `prompt` (with the instructions), `question`, `answer` (a text or several), `category`
    (HotpotQA's type), perhaps `documents` (its own paragraphs), and a `completion` where a
    demonstration can be made.

    Attributes:
        path: of the questions. corpus: JSONL of `{id, contents}`, or a server's address; "": the
            rows' own paragraphs.
        mode: "search", "upfront" or "closed". top: documents for each search. longest: characters
            of them in one reply.
        turns: searches that are answered. prompt: with {question}; "": the published one.
        shots: demonstrations of training rows in front. grounded: only rows with a demonstration
            that read its answer, for `logpi sft`.
        test_share: of the questions on the test side, by a hash of the question; 1: all.

    Raises:
        ValueError: a missing file, a server that does not answer, rows of another layout, an option
            out of its range.
    """

    path: str
    corpus: str = ""
    mode: str = "search"
    top: int = 3
    longest: int = 2_000
    turns: int = 4
    prompt: str = ""
    shots: int = 0
    grounded: bool = False
    test_share: float = 0.1
    name: str = field(default="qa", init=False, repr=False)
    reward: Rewards = field(
        default=Rewards((Weighted(AnswerMatch()), Weighted(AnswerF1(), 0.0))),
        init=False,
        repr=False,
    )

    def __post_init__(self) -> None:
        if self.mode not in PROMPTS:
            raise ValueError(f"qa: mode is one of {', '.join(PROMPTS)}, got {self.mode!r}")
        if not 0 <= self.test_share <= 1 or self.shots < 0:
            raise ValueError(
                f"qa: needs 0 ≤ test_share ≤ 1 and shots ≥ 0, got {self.test_share} and"
                f" {self.shots}"
            )
        check_template("qa", self._template, "question")
        # A missing corpus is an error before anything is loaded.
        _ = self._search
        if self.mode != "closed" and not self.corpus and "documents" not in self._plain[0]:
            raise ValueError(
                f"{self.path}: its rows bring no paragraphs of their own: give corpus=FILE.jsonl or"
                " corpus='http://HOST:PORT'"
            )

    @property
    def env(self) -> SearchR1 | None:
        """The environment that answers searches; None where there is nothing to search."""
        return self._search if self.mode == "search" else None

    def rows(self, split: Split = "train", seed: int = 0) -> Sequence[Row]:
        rows = self._parted(split, seed)
        if not self.shots:
            return rows
        return [r | {"prompt": self._worked_examples + r["prompt"]} for r in rows]

    def _parted(self, split: Split, seed: int) -> Sequence[Row]:
        plain = self._grounded if self.grounded else self._plain
        return _LazyRows(
            parted(plain, split, seed, self.test_share, self.path, "question"), self._finished
        )

    @property
    def _template(self) -> str:
        return self.prompt or PROMPTS[self.mode]

    @cached_property
    def _search(self) -> SearchR1:
        searcher = _searcher(self.corpus) if self.corpus else None
        return SearchR1(searcher, top=self.top, turns=self.turns, longest=self.longest, prompt="")

    @cached_property
    def _plain(self) -> list[Row]:
        return [_row(raw, where) for where, raw in read_raw(self.path)]

    @cached_property
    def _grounded(self) -> list[Row]:
        """The rows that have a demonstration: all are tried."""
        every = _LazyRows(self._plain, self._finished)
        return [plain for plain, row in zip(self._plain, every, strict=True) if "completion" in row]

    @cached_property
    def _cache(self) -> dict[int, Row]:
        """Finished rows by the identity of their plain ones."""
        return {}

    def _finished(self, plain: Sequence[Row]) -> list[Row]:
        """The rows with prompt and demonstration, in threads: a server gets their queries in one
        request."""
        new = [r for r in plain if id(r) not in self._cache]
        if new:
            with ThreadPoolExecutor(TOGETHER, thread_name_prefix="demonstrations") as threads:
                rows = list(threads.map(lambda r: self._demonstrated(self._prompted(r)), new))
            self._cache.update((id(r), row) for r, row in zip(new, rows, strict=True))
        return [self._cache[id(r)] for r in plain]

    def _prompted(self, row: Row) -> Row:
        """The row with its prompt, of mode "upfront" with the documents in front."""
        question = self._template.replace("{question}", row["question"])
        documents = (
            f"{self._search.information(row['question'], row).strip()}\n\n"
            if self.mode == "upfront"
            else ""
        )
        return {**row, "prompt": documents + question}

    def _demonstrated(self, row: Row) -> Row:
        """The row with a completion, if one can be made, without what only that needed."""
        titles = row["titles"]
        row = {k: v for k, v in row.items() if k != "titles"}
        answer = row["answer"] if isinstance(row["answer"], str) else row["answer"][0]
        final = f"<answer> {answer} </answer>"
        if self.mode != "search":
            grounded = self.mode == "closed" or _read(row["answer"], row["prompt"], titles)
            return row | {"completion": final} if grounded else row
        looked_up = self._looked_up(row, titles)
        return (
            row | {"completion": [*looked_up, {"role": "assistant", "content": final}]}
            if looked_up
            else row
        )

    def _looked_up(self, row: Row, titles: Sequence[str]) -> list[dict[str, str]]:
        """Searches and their documents, until one holds the answer; [] if none does within
        `turns`."""
        messages, read, query = [], "", row["question"]
        conversation = self._search.start(row)
        for _ in range(self.turns):
            turn = f"<search> {query} </search>"
            try:
                observation = str(conversation.reply(turn).observation)
            except UserError as error:
                # the server is down, and `logpi rl` needs no demonstrations
                if self.grounded or self.shots:
                    raise
                notices.warning(f"no demonstration of {row['question'][:40]!r}: {error}")
                return []
            messages += [
                {"role": "assistant", "content": turn},
                {"role": "tool", "content": observation},
            ]
            read += observation
            if _read(row["answer"], read, titles):
                return messages
            text = f"{row['question']} {read}".lower()
            unread = [t for t in titles if not _titled(t, read)]
            query = next((t for t in unread if _ASIDE.sub("", t).lower() in text), "")
            if not query or any(query in m["content"] for m in messages[::2]):
                return []
        return []

    @cached_property
    def _worked_examples(self) -> str:
        """Worked examples, as text."""
        rows = list(islice((r for r in self._parted("train", 0) if "completion" in r), self.shots))
        if len(rows) < self.shots:
            raise ValueError(
                f"{self.path}: {self.shots} shots are asked for, {len(rows)} training rows have one"
            )
        return "".join(r["prompt"] + _text(r["completion"]) + "\n\n" for r in rows)


@dataclass(frozen=True)
class _LazyRows(Sequence[Row]):
    """Rows that are finished when they are read, with their neighbours.

    TOGETHER = 128: reading row 130 finishes rows 128 … 255.
    """

    plain: Sequence[Row]
    finish: Callable[[Sequence[Row]], list[Row]]

    def __len__(self) -> int:
        return len(self.plain)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index):
        at = range(len(self.plain))[index]
        if isinstance(at, range):
            return [self[i] for i in at]
        first = at - at % TOGETHER
        return self.finish(self.plain[first : first + TOGETHER])[at - first]


def _text(completion: str | Sequence[Mapping[str, str]]) -> str:
    return completion if isinstance(completion, str) else "".join(m["content"] for m in completion)


def _titled(title: str, read: str) -> bool:
    return f'(Title: "{title}")' in read


def _read(answer: str | Sequence[str], read: str, titles: Sequence[str]) -> bool:
    """Whether an answer stands in what was read; of a yes or no, whether all supporting pages
    do."""
    golds = [normalise(a) for a in ([answer] if isinstance(answer, str) else answer)]
    if {"yes", "no"} & set(golds):
        return bool(titles) and all(_titled(t, read) for t in titles)
    words = f" {normalise(read)} "
    return any(f" {g} " in words for g in golds if g)


def _row(raw: Any, where: str) -> Row:
    """A raw row of any of the layouts."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{where}: expected an object with named columns, got {type(raw).__name__}"
        )
    question = raw.get("question") or raw.get("prompt")
    answer = next((raw[n] for n in ("golden_answers", "answer", "answers") if raw.get(n)), None)
    if (
        not isinstance(question, str)
        or not isinstance(answer, str | list)
        or not all(isinstance(a, str) for a in answer)
    ):
        raise ValueError(
            f"{where}: expected a question and an answer (or golden_answers); found:"
            f" {', '.join(map(str, raw))}"
        )
    own = _paragraphs(raw.get("context"))
    row = {"question": question.strip(), "answer": answer, "titles": _supporting(raw)}
    return row | {k: v for k, v in (("category", raw.get("type")), ("documents", own)) if v}


def _paragraphs(context: Any) -> list[str]:
    """HotpotQA's context, as published (`[[title, sentences], …]`) or as the hub has it (`{"title":
    […], "sentences": […]}`)."""
    if isinstance(context, Mapping):
        context = list(zip(context.get("title", ()), context.get("sentences", ()), strict=False))
    return [f'"{title}"\n{"".join(sentences).strip()}' for title, sentences in context or ()]


def _supporting(raw: Mapping[str, Any]) -> list[str]:
    """The titles that support the answer, each once."""
    facts = raw.get("supporting_facts") or ()
    titles = facts.get("title", ()) if isinstance(facts, Mapping) else [f[0] for f in facts]
    return list(dict.fromkeys([*raw.get("supporting_titles", ()), *titles]))

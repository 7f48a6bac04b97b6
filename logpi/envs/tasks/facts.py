"""Questions about invented people, which a policy can answer only by a search.

Every row has its own world, drawn with the row: some people, and who is whose boss, friend, rival
or aunt. Facts of other rows do not help: worlds share nothing but their words. A one-hop question
needs one document; a two-hop question needs a second one, whose query stands in the first.

    search     Ada_boss friend?  <search>Ada_boss</search> → <information>Ada_boss Ben</information>
                                 Ada_boss Ben<search>Ben_friend</search> → <information>Ben_friend
                                 Kim</information> Ben_friend Kim<answer>Kim</answer>
    upfront    the best document for the question stands in front of it: enough for one hop, too
               little for two
    closed     no documents: a guess

Every word and every tag is one token of the small model (`words`), so a two-hop conversation takes
about 40 tokens. Turns repeat the last document, as Search-R1 reasons after every search: a small
model learns to copy sooner than to look up. Left out: questions with no answer, documents that
contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from logpi.calls import Search
from logpi.envs.task import GeneratedTask, Row
from logpi.envs.tools.ranking import Bm25, Document
from logpi.envs.tools.search_r1 import SearchR1
from logpi.rewards import AnswerMatch, Rewards, Weighted

MODES = ("search", "upfront", "closed")
_NAMES = (
    "Ada Ben Cleo Dov Eve Finn Gus Hana Ivo June Kim Leo Mia Nils Otto Pia Quin Rosa Sam Tess Una"
    " Vera Wim Zoe"
)
_RELATIONS = "boss friend rival aunt"
_TAGS = Search()


def _shown(documents: Sequence[Document]) -> str:
    return " ".join(d.contents for d in documents)


def _questions(
    people: Sequence[str], relations: Sequence[str], hops: int, rng: Random
) -> Iterator[tuple[str, list[str]]]:
    """Random questions; the last has one hop, so it cannot end where it begins."""
    for _ in range(20):
        yield rng.choice(people), [rng.choice(relations) for _ in range(hops)]
    yield people[0], [relations[0]]


def _reached(facts: Mapping[tuple[str, str], str], start: str, path: Sequence[str]) -> list[str]:
    """The people on the path, with the first one."""
    reached = [start]
    for relation in path:
        reached.append(facts[reached[-1], relation])
    return reached


@dataclass(frozen=True)
class Facts(GeneratedTask):
    """Who is Ada's boss's friend?

    A row: prompt `Ada_boss friend?`, answer `Kim`, `documents` (one for each fact), `level` (hops),
    and a demonstration as messages: the assistant's turns, the replies with role "tool".
    Demonstrations are of three kinds:

        searched    every hop is looked up; right
        hasty       two hops: only the first is looked up, and its result is the answer; one hop: as
                    a guess
        guess       somebody's name, at once

    Attributes:
        mode: "search", "upfront" or "closed". hops: of a question, at most, 1 or 2; each as often.
        people: of a world, 3 … 24. relations: that each of them has, 1 … 4.
        together: a document tells everything of a person instead of one fact, so that the right one
            must be picked out of it; the small model did not learn that within 500 updates.
        searched: share of demonstrations, in [0, 1]. hasty: share of the others; the rest are
            guesses.

    Raises:
        ValueError: an option out of its range.

    >>> Facts(searched=1, hops=1).rows("train", seed=1)[0]["prompt"]
    'Ben_friend?'
    """

    mode: str = "search"
    hops: int = 2
    people: int = 6
    relations: int = 3
    together: bool = False
    searched: float = 0.4
    hasty: float = 0.5
    name: str = field(default="facts", init=False, repr=False)
    reward: Rewards = field(default=Rewards((Weighted(AnswerMatch()),)), init=False, repr=False)
    names: ClassVar[tuple[str, ...]] = tuple(_NAMES.split())
    words: ClassVar[tuple[str, ...]] = (
        *(f"<{slash}{t}>" for t in (_TAGS.tag, _TAGS.result, _TAGS.answer) for slash in ("", "/")),
        *_NAMES.split(),
        *_RELATIONS.split(),
        *(
            f"{r} " for r in _RELATIONS.split()
        ),  # a name then follows its relation at once, which a small model copies sooner
    )

    @property
    def alphabet(self) -> str:
        return " ?_"

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.hops not in (1, 2):
            raise ValueError(
                f"facts: mode is one of {', '.join(MODES)} and hops 1 or 2, got {self.mode!r} and"
                f" {self.hops}"
            )
        if not (3 <= self.people <= len(self.names) and 1 <= self.relations <= 4):
            raise ValueError(
                f"facts: needs 3 ≤ people ≤ 24 and 1 ≤ relations ≤ 4, got {self.people} and"
                f" {self.relations}"
            )
        if not (0 <= self.searched <= 1 and 0 <= self.hasty <= 1):
            raise ValueError(
                f"facts: searched and hasty are shares in [0, 1], got {self.searched} and"
                f" {self.hasty}"
            )

    @property
    def env(self) -> SearchR1 | None:
        """The environment that answers searches; None where there is nothing to search."""
        if self.mode != "search":
            return None
        return SearchR1(top=1, prompt="", invalid="?", show=_shown, between="", turns=2 * self.hops)

    def draw(self, rng: Random) -> tuple[str, dict[str, Any]]:
        people = rng.sample(self.names, self.people)
        known = rng.sample(_RELATIONS.split(), self.relations)
        facts = {}
        for a in people:
            others = [b for b in people if b != a]
            facts |= {(a, r): rng.choice(others) for r in rng.sample(known, len(known))}
        sentences = [f"{a}_{r} {b}" for (a, r), b in facts.items()]
        documents = (
            [" ".join(s for s in sentences if s.startswith(f"{who}_")) for who in people]
            if self.together
            else sentences
        )
        hops = 1 + rng.randrange(self.hops)
        start, path = next(
            q for q in _questions(people, known, hops, rng) if _reached(facts, *q)[-1] != q[0]
        )
        return f"{start} {path} {sorted(documents)}", {
            "facts": facts,
            "documents": documents,
            "start": start,
            "path": path,
        }

    def row(self, problem: dict[str, Any], rng: Random) -> Row:
        start, path, documents = problem["start"], problem["path"], problem["documents"]
        question = f"{start}_{path[0]}{''.join(f' {r}' for r in path[1:])}?"
        reached = _reached(problem["facts"], start, path)
        row = {
            "prompt": question,
            "answer": reached[-1],
            "level": len(path),
            "documents": documents,
        }
        if self.mode == "upfront":
            index = Bm25([Document(str(i), d) for i, d in enumerate(documents)])
            row["prompt"] = f"{_shown(index.search([question], 1)[0])} {question}"
        return row | {"completion": self._demonstration(row, reached, path, rng)}

    def _demonstration(
        self, row: Row, reached: list[str], path: list[str], rng: Random
    ) -> str | list[dict[str, str]]:
        searched, hasty = rng.random() < self.searched, rng.random() < self.hasty
        searches = len(path) if searched else len(path) - 1 if hasty else 0
        facts = [
            f"{who}_{relation} {whom}"
            for who, relation, whom in zip(reached, path, reached[1:], strict=False)
        ]
        turns: list[str] = []
        if self.mode == "closed" or not searches:
            answer = f"<{_TAGS.answer}>{rng.choice(self.names)}</{_TAGS.answer}>"
        elif self.mode == "upfront":
            # the document in the prompt tells the first hop
            answer = f"{facts[0]}<{_TAGS.answer}>{reached[1]}</{_TAGS.answer}>"
        else:
            # every turn repeats the document that it has just read
            read = ["", *facts[:searches]]
            queries = [fact.partition(" ")[0] for fact in facts[:searches]]
            turns = [
                f"{document}<{_TAGS.tag}>{query}</{_TAGS.tag}>"
                for document, query in zip(read, queries, strict=False)
            ]
            answer = f"{read[-1]}<{_TAGS.answer}>{reached[searches]}</{_TAGS.answer}>"
        return self._conversation(row, turns, answer)

    def _conversation(
        self, row: Row, turns: Sequence[str], answer: str
    ) -> str | list[dict[str, str]]:
        """The turns with the environment's replies, and the answer."""
        env = self.env
        if env is None:
            return answer
        conversation, messages = env.start(row), []
        for turn in turns:
            messages.append({"role": "assistant", "content": turn})
            messages.append({"role": "tool", "content": str(conversation.reply(turn).observation)})
        return [*messages, {"role": "assistant", "content": answer}]

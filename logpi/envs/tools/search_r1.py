"""Search-R1 (Jin et al. 2025, arXiv:2503.09516): the policy thinks, searches, reads and answers, in
tags.

    the policy     <think> … </think> <search> capital of France </search>
    the reply      \\n\\n<information>Doc 1(Title: "France") …</information>\\n\\n
    the policy     <think> … </think> <answer> Paris </answer>

Prompt, tags, messages and turn limit are the published code's (PeterGriffinJin/Search-R1,
Apache-2.0, a14dc3a). Divergences: documents do not enter GAE, whitening or the critic's loss; text
is never decoded and tokenised again; a document that is cut off keeps its closing tag; end tokens
are not masked with the padding; the reward does not read the prompt or the documents. docs/tools.md
has the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from logpi.calls import Search
from logpi.calls.call import defused
from logpi.calls.plain import first_tag
from logpi.envs.conversation import Conversation, Reply
from logpi.envs.tools.ranking import Bm25, Document, Searcher

if TYPE_CHECKING:
    from logpi.envs.task import Row

PROMPT = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every"
    " time you get new information. After reasoning, if you find you lack some knowledge, you can"
    " call a search engine by <search> query </search> and it will return the top searched results"
    " between <information> and </information>. You can search as many times as your want. If you"
    " find no further external knowledge needed, you can directly provide the answer inside"
    " <answer> and </answer>, without detailed illustrations. For example, <answer> Beijing"
    " </answer>. Question: {question}\n"
)
INVALID = (
    "\nMy previous action is invalid. If I want to search, I should put the query between <search>"
    " and </search>. If I want to give the final answer, I should put the answer between <answer>"
    " and </answer>. Let me try again.\n"
)


def passages(documents: Sequence[Document]) -> str:
    """Documents in the published code's form: the first line is the title.

    >>> passages([Document("7", '"France"\\nIts capital is Paris.')])
    'Doc 1(Title: "France") Its capital is Paris.'
    """
    parts = [d.contents.partition("\n") for d in documents]
    return "\n".join(
        f"Doc {i}(Title: {title}) {text}" for i, (title, _, text) in enumerate(parts, 1)
    )


@lru_cache(maxsize=1024)
def _index_of(contents: tuple[str, ...]) -> Bm25:
    """The index of an item's own documents."""
    return Bm25([Document(str(i), c) for i, c in enumerate(contents)])


@dataclass(frozen=True)
class SearchR1:
    """Questions that are answered by searching. A `TextEnvironment`.

    Attributes:
        searcher: finds documents; None: among each item's own, in its column `documents` (a list of
            texts).
        top: documents for each search.
        turns: replies of a conversation. After them the policy writes once more, and a search gets
            no reply.
        longest: characters of documents in one reply; more are cut off, inside of the tags. The
            published limit is 500 tokens.
        prompt: with {question}; "": the item's prompt as it is.
        invalid: the reply to a turn that neither searches nor answers.
        tags: names of the tags. show: writes documents as text. between: stands around the
            information tags.

    Raises:
        ValueError: a prompt without {question}; top, turns or longest below 1.
    """

    searcher: Searcher | None = None
    top: int = 3
    turns: int = 4
    longest: int = 2_000
    prompt: str = PROMPT
    invalid: str = INVALID
    tags: Search = field(default_factory=Search)
    show: Callable[[Sequence[Document]], str] = field(default=passages, repr=False)
    between: str = "\n\n"
    tools: tuple[()] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.top, self.turns, self.longest) < 1:
            raise ValueError(
                f"search: top, turns and longest must be at least 1, got {self.top}, {self.turns},"
                f" {self.longest}"
            )
        if self.prompt and "{question}" not in self.prompt:
            raise ValueError(f"search: the prompt must hold {{question}}, got {self.prompt[:60]!r}")

    @property
    def stop(self) -> tuple[str, ...]:
        return self.tags.stop

    def start(self, row: Row) -> Conversation:
        if self.searcher is None and not row.get("documents"):
            raise ValueError(
                "no corpus to search: give a searcher, or rows with a column 'documents'"
            )
        return _SearchConversation(self, row)

    def information(self, query: str, row: Row) -> str:
        """The documents for a query, inside of the information tags."""
        searcher, tags = self.searcher or _index_of(tuple(row["documents"])), self.tags
        documents = self.show(searcher.search([query], self.top)[0])
        text = defused(documents, tags.tag, tags.answer, tags.result, "think")
        framed = f"<{tags.result}>{text[: self.longest].strip()}</{tags.result}>"
        return f"{self.between}{framed}{self.between}"


@dataclass
class _SearchConversation:
    """One conversation; it counts its replies."""

    environment: SearchR1
    row: Row
    replies: int = 0

    @property
    def prompt(self) -> str:
        question, template = self.row["prompt"], self.environment.prompt
        if not isinstance(question, str):
            raise ValueError("search: the row's prompt is a question, a text")
        return template.replace("{question}", question) if template else question

    def reply(self, text: str) -> Reply:
        tags = self.environment.tags
        action = first_tag(text, tags.tag, tags.answer)
        self.replies += 1
        if action is not None and action[0] == tags.answer:
            return Reply(done=True)
        if self.replies > self.environment.turns:
            return Reply(done=True, metrics={"unanswered": 1.0})
        if action is None:
            return Reply(self.environment.invalid, metrics={"invalid": 1.0})
        information = self.environment.information(action[1].strip(), self.row)
        return Reply(information, metrics={"searches": 1.0, "tool_calls": 1.0})

"""What the answers of both routes have in common: their head, the count of tokens, and how tokens
are called.

Left out: the choices themselves (`completions.py`, `chat.py`).
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.engine.openai_server.fields import Wish
    from logpi.engine.openai_server.prompts import Prompts
    from logpi.engine.openai_server.scheduler import Piece, Started
    from logpi.engine.openai_server.scores import Top

# what JSON has for a probability of 0, as vLLM writes it
NEVER = -9999.0


@dataclass(frozen=True)
class Question:
    """A request that was read and may be sampled.

    Attributes:
        model: as it calls the model. words: of the model. wish: how it wants to be answered.
        prompts: token ids. limits: tokens of a sample of each.
    """

    model: str
    words: Prompts
    wish: Wish
    prompts: Sequence[Sequence[int]]
    limits: Sequence[int]


class Answer(ABC):
    """The answer to a question, whole or in chunks.

    Attributes:
        KIND, PREFIX: of the object, and of its id. scored: it has the prompts' log-probabilities.
    """

    KIND = ""
    PREFIX = ""
    scored = False

    def __init__(self, question: Question) -> None:
        self.question, self.wish, self.words = question, question.wish, question.words
        self.id, self.created = f"{self.PREFIX}-{secrets.token_hex(12)}", int(time.time())
        self.started: Started | None = None
        self.tokens = 0

    def begin(self, started: Started) -> None:
        self.started = started

    @abstractmethod
    def choice(self, piece: Piece) -> dict[str, Any]:
        """A whole choice, of one piece."""

    @abstractmethod
    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        """The choices of the chunks that a piece makes."""

    def extra(self) -> dict[str, Any]:
        """Further fields of the whole answer, or of the first chunk."""
        return {}

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The answer, of one piece for each choice."""
        self.tokens = sum(len(p.tokens) for p in pieces)
        choices = [self.choice(p) for p in sorted(pieces, key=lambda p: p.choice)]
        head = self._head(self.KIND.removesuffix(".chunk"))
        return {**head, "choices": choices, "usage": self.usage(), **self.extra()}

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """The chunks that a piece makes, perhaps none."""
        first = not self.tokens
        self.tokens += len(piece.tokens)
        chunks = [{**self._head(self.KIND), "choices": [delta]} for delta in self.deltas(piece)]
        if first and chunks:
            chunks[0] |= self.extra()
        return chunks

    def last(self) -> list[dict[str, Any]]:
        """The chunk with the count of tokens, if it was asked for."""
        if not self.wish.usage:
            return []
        return [{**self._head(self.KIND), "choices": [], "usage": self.usage()}]

    def usage(self) -> dict[str, Any]:
        prompt = sum(map(len, self.question.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }

    def name(self, token: int) -> str:
        """How the answer calls a token."""
        return f"token_id:{token}" if self.wish.as_ids else self.words.spelled(token)

    def _head(self, kind: str) -> dict[str, Any]:
        version = self.started.version if self.started else ""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": f"logpi-{version}",
        }


def nats(value: float) -> float:
    """As JSON has it.

    >>> nats(-0.5), nats(float("-inf"))
    (-0.5, -9999.0)
    """
    return max(value, NEVER)


def likeliest(token: int, logp: float, top: Top) -> Mapping[int, float]:
    """The likeliest tokens and the token itself."""
    return dict(top) | {token: logp}

"""`/v1/completions`: prompts as texts or token ids, and what follows them; with `echo` and
`logprobs` also how likely they are themselves.

Left out: `suffix`, `best_of`, penalties (`fields.py` refuses them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from logpi.engine.openai_server.answers import Answer, Question, likeliest, nats
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.fields import COMPLETION, PROMPTS, checked, wish
from logpi.engine.openai_server.texts import TextStream

if TYPE_CHECKING:
    from logpi.engine.openai_server.prompts import Prompts, Texts
    from logpi.engine.openai_server.scheduler import Piece
    from logpi.engine.openai_server.scores import Top

# of a request that says none, as OpenAI has it
TOKENS = 16


def completion(body: Any, model: str, words: Prompts) -> CompletionAnswer:
    """The answer that a request asks for, still without samples.

    Raises:
        RequestError: it cannot be answered.
    """
    fields = checked(body, COMPLETION)
    wished = wish(fields, fields.get("max_tokens", TOKENS), fields.get("logprobs"))
    wished = replace(wished, goes_on=True)
    given = prompts_of(fields["prompt"])
    special = fields.get("add_special_tokens", True)
    prompts = [words.plain(p, special) for p in given]
    echo = bool(fields.get("echo"))
    if not wished.max_tokens and not echo:
        raise RequestError("max_tokens must be 1 or more, unless echo=true")
    limits = [words.room(p, wished.max_tokens) for p in prompts]
    question = Question(fields.get("model", model), words, wished, prompts, limits)
    texts = [p if isinstance(p, str) else words.detokenized(p) for p in given] if echo else []
    return CompletionAnswer(question, texts)


def prompts_of(prompt: Any) -> Sequence[Texts]:
    """A list of prompts, each a text or token ids.

    Raises:
        RequestError: it is none of these.

    >>> prompts_of("a"), prompts_of(["a", "b"]), prompts_of([1, 2]), prompts_of([[1, 2], [3]])
    (['a'], ['a', 'b'], [[1, 2]], [[1, 2], [3]])
    """
    several = prompt if isinstance(prompt, list) and prompt and not _is_ids(prompt) else [prompt]
    if len(several) > PROMPTS:
        raise RequestError(f"a request has at most {PROMPTS} prompts, not {len(several)}")
    if not all(isinstance(p, str) or (isinstance(p, list) and _is_ids(p)) for p in several):
        raise RequestError(
            "prompt must be a text, a list of texts, a list of token ids, or a list of such lists"
        )
    return several


def _is_ids(prompt: Sequence[Any]) -> bool:
    return all(type(i) is int for i in prompt)


@dataclass
class _Place:
    """Where the next token begins in a choice's text, and the text of the tokens before it."""

    at: int
    stream: TextStream


class CompletionAnswer(Answer):
    """Texts behind prompts. echoed: the prompts' own texts, to stand before them, or none."""

    KIND, PREFIX = "text_completion", "cmpl"

    def __init__(self, question: Question, echoed: Sequence[str]) -> None:
        super().__init__(question)
        self.echoed = echoed
        self.scored = bool(echoed) and self.wish.logprobs is not None
        self.silent = self.words.silent(self.wish.skip_special)
        self.places: dict[int, _Place] = {}

    def choice(self, piece: Piece) -> dict[str, Any]:
        number = piece.choice // self.wish.n
        first = piece.choice not in self.places
        before = self.echoed[number] if first and self.echoed else ""
        if first:
            after = self.question.prompts[number][-1]
            self.places[piece.choice] = self._place(len(before), after)
        out = {
            "index": piece.choice,
            "text": before + piece.text,
            "logprobs": self._logprobs(piece, number, first),
            "finish_reason": piece.finish or None,
            "stop_reason": piece.stopped or None,
        }
        if self.wish.token_ids:
            out["token_ids"] = list(piece.tokens)
            out |= {"prompt_token_ids": list(self.question.prompts[number])} if first else {}
        return out

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        shown = self.wish.token_ids or self.wish.logprobs is not None
        shown |= bool(self.echoed) and piece.choice not in self.places
        return [self.choice(piece)] if piece.text or piece.finish or shown else []

    def _logprobs(self, piece: Piece, number: int, first: bool) -> Any:
        """OpenAI's four lists, of the prompt's tokens too if it is echoed."""
        if self.wish.logprobs is None:
            return None
        columns: list[Any] = list(zip(piece.tokens, piece.logp, piece.top, strict=True))
        offsets = self._offsets(piece.tokens, self.places[piece.choice])
        if self.scored and first:
            assert self.started is not None
            prompt, score = self.question.prompts[number], self.started.scores[number]
            known = zip(prompt[1:], score.logp, score.top, strict=True)
            columns = [(prompt[0], None, ()), *known, *columns]
            offsets = self._offsets(prompt, self._place(0), self.echoed[number]) + offsets
        return {
            "text_offset": offsets,
            "token_logprobs": [None if logp is None else nats(logp) for _, logp, _ in columns],
            "tokens": [self.name(token) for token, _, _ in columns],
            "top_logprobs": [self._top(*column) for column in columns],
        }

    def _place(self, at: int, after: int | None = None) -> _Place:
        return _Place(at, TextStream(self.words.decoder, self.silent, after=after))

    def _offsets(self, tokens: Sequence[int], place: _Place, text: str = "") -> list[int]:
        """Where each token begins in the choice's text, of which `text` is the prompt's. A token
        that only begins a character has the character's place. Ends have no text, nor has a BOS
        that the prompt does not spell."""
        offsets = []
        for token in tokens:
            offsets.append(place.at)
            new = place.stream.push(token)
            if token in self.silent and text.startswith(self.words.spelled(token), place.at):
                new = self.words.spelled(token)
            place.at += len(new)
        return offsets

    def _top(self, token: int, logp: float | None, top: Top) -> Mapping[str, float] | None:
        """The likeliest tokens by name; of tokens of one name the likeliest."""
        if logp is None:
            return None
        pairs = sorted(likeliest(token, logp, top).items(), key=lambda pair: pair[1])
        named = {self.name(i): nats(value) for i, value in pairs}
        return dict(sorted(named.items(), key=lambda pair: -pair[1]))

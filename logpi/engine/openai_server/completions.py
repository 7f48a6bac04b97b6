"""`/v1/completions`: prompts as texts or token ids, and what follows them; with `echo` and
`logprobs` also how likely they are themselves.

Left out: `suffix`, `best_of`, penalties (`fields.py` refuses them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logpi.engine.openai_server.answers import Answer, Question, likeliest, nats
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.fields import COMPLETION, PROMPTS, checked, wish

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


class CompletionAnswer(Answer):
    """Texts behind prompts. echoed: the prompts' own texts, to stand before them, or none."""

    KIND, PREFIX = "text_completion", "cmpl"

    def __init__(self, question: Question, echoed: Sequence[str]) -> None:
        super().__init__(question)
        self.echoed = echoed
        self.scored = bool(echoed) and self.wish.logprobs is not None
        # where the next token of each choice begins in its text
        self.at: dict[int, int] = {}

    def choice(self, piece: Piece) -> dict[str, Any]:
        number = piece.choice // self.wish.n
        first = piece.choice not in self.at
        before = self.echoed[number] if first and self.echoed else ""
        if first:
            self.at[piece.choice] = 0 if self.scored else len(before)
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
        shown |= bool(self.echoed) and piece.choice not in self.at
        return [self.choice(piece)] if piece.text or piece.finish or shown else []

    def _logprobs(self, piece: Piece, number: int, first: bool) -> Any:
        """OpenAI's four lists, of the prompt's tokens too if it is echoed."""
        if self.wish.logprobs is None:
            return None
        columns: list[Any] = list(zip(piece.tokens, piece.logp, piece.top, strict=True))
        if self.scored and first:
            assert self.started is not None
            prompt, score = self.question.prompts[number], self.started.scores[number]
            known = zip(prompt[1:], score.logp, score.top, strict=True)
            columns = [(prompt[0], None, ()), *known, *columns]
        return {
            "text_offset": [self._offset(piece.choice, number, token) for token, _, _ in columns],
            "token_logprobs": [None if logp is None else nats(logp) for _, logp, _ in columns],
            "tokens": [self.name(token) for token, _, _ in columns],
            "top_logprobs": [self._top(*column) for column in columns],
        }

    def _offset(self, choice: int, number: int, token: int) -> int:
        """Where a token begins in the choice's text; the next one begins behind it. Ends have no
        text, nor has a BOS that the prompt does not spell."""
        at, text = self.at[choice], self.words.spelled(token)
        echoed = self.echoed[number] if self.scored else ""
        silent = self.words.silent(self.wish.skip_special)
        if token not in silent or (at < len(echoed) and echoed.startswith(text, at)):
            self.at[choice] += len(text)
        return at

    def _top(self, token: int, logp: float | None, top: Top) -> Mapping[str, float] | None:
        """The likeliest tokens by name; of tokens of one name the likeliest."""
        if logp is None:
            return None
        pairs = sorted(likeliest(token, logp, top).items(), key=lambda pair: pair[1])
        named = {self.name(i): nats(value) for i, value in pairs}
        return dict(sorted(named.items(), key=lambda pair: -pair[1]))

"""`/v1/chat/completions`: messages through the model's chat template, and the assistant's turn
with its tool calls.

Left out: images and sound, `tool_choice` other than auto and none, answers of a given form
(`response_format`); thoughts are a part of the content, as the model wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from logpi.calls.json_schema import short
from logpi.calls.messages import tool_list
from logpi.engine.openai_server.answers import Answer, Question, nats
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.fields import CHAT, checked, wish
from logpi.engine.openai_server.turns import Turn

if TYPE_CHECKING:
    from logpi.engine.openai_server.prompts import Prompts
    from logpi.engine.openai_server.scheduler import Piece
    from logpi.engine.openai_server.scores import Top


def chat(body: Any, model: str, words: Prompts) -> ChatAnswer:
    """The answer that a request asks for, still without samples.

    Raises:
        RequestError: it cannot be answered.
    """
    fields = checked(body, CHAT)
    tools = tools_of(fields)
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    if limit == 0:
        raise RequestError("max_tokens must be 1 or more")
    wished = wish(fields, limit, _logprobs(fields))
    # calls are read by their marks, which are special tokens of many models
    wished = replace(wished, skip_special=wished.skip_special and not tools)
    options = fields.get("chat_template_kwargs", {})
    prompt = words.chat(fields["messages"], tools, options)
    room = words.room(prompt, wished.max_tokens)
    question = Question(fields.get("model", model), words, wished, [prompt], [room])
    return ChatAnswer(question, tools)


def tools_of(fields: Mapping[str, Any]) -> list[Any]:
    """The tools that the model may call. Raises RequestError: no tools, or a choice among them."""
    choice = fields.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise RequestError(
            f"tool_choice={short(choice)} is not supported here (only auto and none): nothing makes"
            " a model call a tool"
        )
    try:
        return tool_list(fields.get("tools", ())) if choice == "auto" else []
    except ValueError as error:
        raise RequestError(str(error)) from None


def _logprobs(fields: Mapping[str, Any]) -> int | None:
    """How many likeliest tokens are reported, or None for no numbers."""
    if fields.get("logprobs"):
        return fields.get("top_logprobs", 0)
    if fields.get("top_logprobs"):
        raise RequestError("top_logprobs needs logprobs=true")
    return None


class ChatAnswer(Answer):
    """An assistant's turns."""

    KIND, PREFIX = "chat.completion.chunk", "chatcmpl"

    def __init__(self, question: Question, tools: Sequence[Any]) -> None:
        super().__init__(question)
        self.tools = tools
        self.turns: dict[int, Turn] = {}

    def extra(self) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.question.prompts[0])} if self.wish.token_ids else {}

    def choice(self, piece: Piece) -> dict[str, Any]:
        turn = Turn(self.tools)
        content = turn.push(piece.text) + turn.end()
        message = {"role": "assistant", "content": content or (None if turn.calls else "")}
        message |= {"tool_calls": turn.calls} if turn.calls else {}
        return self._choice(piece, "message", message, self._finish(piece, turn))

    def deltas(self, piece: Piece) -> list[dict[str, Any]]:
        out = []
        if piece.choice not in self.turns:
            self.turns[piece.choice] = Turn(self.tools)
            role = {"role": "assistant", "content": ""}
            out = [{"index": piece.choice, "delta": role, "logprobs": None, "finish_reason": None}]
        turn = self.turns[piece.choice]
        content = turn.push(piece.text) + (turn.end() if piece.finish else "")
        delta: dict[str, Any] = {"content": content} if content else {}
        if turn.calls:
            numbered = enumerate(turn.calls)
            delta["tool_calls"] = [{"index": i, **call} for i, call in numbered]
        if delta or piece.finish or self.wish.token_ids or self.wish.logprobs is not None:
            out.append(self._choice(piece, "delta", delta, self._finish(piece, turn)))
        return out

    def _finish(self, piece: Piece, turn: Turn) -> str | None:
        return "tool_calls" if turn.calls else piece.finish or None

    def _choice(self, piece: Piece, key: str, said: Any, finish: str | None) -> dict[str, Any]:
        logprobs = None if self.wish.logprobs is None else {"content": self._tokens(piece)}
        out = {
            "index": piece.choice,
            key: said,
            "logprobs": logprobs,
            "finish_reason": finish,
            "stop_reason": piece.stopped or None,
        }
        return out | ({"token_ids": list(piece.tokens)} if self.wish.token_ids else {})

    def _tokens(self, piece: Piece) -> list[dict[str, Any]]:
        columns = zip(piece.tokens, piece.logp, piece.top, strict=True)
        return [
            {**self._token(token, logp), "top_logprobs": self._top(top)}
            for token, logp, top in columns
        ]

    def _top(self, top: Top) -> list[dict[str, Any]]:
        return [self._token(token, logp) for token, logp in top]

    def _token(self, token: int, logp: float) -> dict[str, Any]:
        name = self.name(token)
        return {"token": name, "logprob": nats(logp), "bytes": list(name.encode())}

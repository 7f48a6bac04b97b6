"""A recorded conversation as rows: which of its tokens are the assistant's, by the model's own chat template.

    template marks its turns ({% generation %})   its mask, on the whole text
    it does not                                   what the template adds for each answer to the prompt that asks for it
    it rewrites history (Qwen 3 forgets what      a row for each answer: the prompt as it would be sampled from, and the
    was thought, …)                               answer

In the second case the pieces are tokenised apart, as a sampler would: it reads the prompt's tokens and draws the answer's,
so no token may straddle the two. An answer ends with its end token; a line break that the template puts behind it is
context. Left out: plain prompts with a completion (`demonstrations.py`), preferences (`pairs.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Turns", "spoken", "turns"]

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
Messages = Sequence[dict[str, Any]]


class Reader(Protocol):
    """What turns messages into tokens: a `CausalLM` or a `RewardModel`."""

    tokenizer: Any

    @property
    def eos_ids(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Turns:
    """Tokens of a conversation, and which of them are an answer's: `own[i]` says so of `ids[i]`."""

    ids: list[int]
    own: list[bool]


def turns(reader: Reader, messages: Messages, tools: Any = None, last: bool = False) -> list[Turns]:
    """The conversation as one row, or as one for each answer if the template rewrites what came before.

    Args:
        messages: with role and content, as the template wants them. tools: handed to the template, if there are any.
        last: only the last answer is learned.
    Raises:
        ValueError: no chat template; no answer; the template writes an answer otherwise than it asks for it.
    """
    if reader.tokenizer.chat_template is None:
        raise ValueError("the model has no chat template: give prompt and completion, or text; or set the tokenizer's")
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not answers:
        raise ValueError("the conversation has no answer of the assistant to learn from")
    template = _Template(reader, tools)
    if MARKED.search(template.source):
        found = template.marked(messages)
        return [_last_only(found) if last else found]
    wanted = answers[-1:] if last else answers
    whole = template.text(messages)
    spans = [template.answer(messages, i) for i in wanted]
    if all(whole.startswith(asked + answer) for asked, answer in spans):
        return [template.pieces(whole, spans)]
    return [template.pieces(asked + answer, [(asked, answer)]) for asked, answer in spans]


def spoken(reader: Reader, prompt: Sequence[int], messages: Messages) -> Turns:
    """A conversation as plain text behind a prompt's tokens: the assistant's messages are its own, all others what it was told.

    Each message is tokenised apart, as in a rollout; the last of the assistant's ends with an end token.
    """
    ids, own = list(prompt), [False] * len(prompt)
    for message in messages:
        part = list(reader.tokenizer(message["content"], add_special_tokens=False)["input_ids"])
        ids += part
        own += [message["role"] == "assistant"] * len(part)
    return Turns([*ids, reader.eos_ids[-1]], [*own, True]) if own and own[-1] else Turns(ids, own)


def _last_only(found: Turns) -> Turns:
    """The mask without all but its last stretch."""
    end = len(found.own) - found.own[::-1].index(True) if any(found.own) else 0
    begin = end
    while begin and found.own[begin - 1]:
        begin -= 1
    return Turns(found.ids, [begin <= i < end for i in range(len(found.ids))])


@dataclass(frozen=True)
class _Template:
    """A chat template, applied."""

    reader: Reader
    tools: Any

    @property
    def source(self) -> str:
        return self.reader.tokenizer.get_chat_template(tools=self.tools)

    def apply(self, messages: Messages, **options: Any) -> Any:
        """Raises ValueError with what the template says against these messages."""
        from jinja2 import TemplateError

        try:
            return self.reader.tokenizer.apply_chat_template(list(messages), tools=self.tools, **options)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from None

    def text(self, messages: Messages, ask: bool = False) -> str:
        return self.apply(messages, tokenize=False, add_generation_prompt=ask)

    def marked(self, messages: Messages) -> Turns:
        """By the template's own marks."""
        made = self.apply(messages, return_dict=True, return_assistant_tokens_mask=True)
        return Turns(list(made["input_ids"]), [bool(x) for x in made["assistant_masks"]])

    def answer(self, messages: Messages, i: int) -> tuple[str, str]:
        """What asks for message i, and what it adds."""
        asked, full = self.text(messages[:i], ask=True), self.text(messages[: i + 1])
        if not full.startswith(asked):
            raise ValueError(
                f"the chat template asks for message {i} with …{asked[-40:]!r} and writes it otherwise, so which tokens are "
                "the answer cannot be told: give prompt and completion instead, or set a template with {% generation %}"
            )
        return asked, full[len(asked) :]

    def pieces(self, whole: str, spans: Sequence[tuple[str, str]]) -> Turns:
        """Context and answers by turns, each tokenised apart."""
        ids, own, at = [], [], 0
        for text, mine in _cut(whole, spans):
            part = list(self.reader.tokenizer(text, add_special_tokens=False)["input_ids"])
            end = self._end(part) if mine else 0
            if mine and not end and at + len(text) == len(whole):  # a template without end tokens
                part, end = [*part, self.reader.eos_ids[-1]], len(part) + 1
            ids += part
            own += [j < (end or len(part) * mine) for j in range(len(part))]
            at += len(text)
        return Turns(ids, own)

    def _end(self, ids: list[int]) -> int:
        """The number of tokens up to the last end token, it included; 0 without one."""
        ends = [j for j, token in enumerate(ids) if token in self.reader.eos_ids]
        return ends[-1] + 1 if ends else 0


def _cut(whole: str, spans: Sequence[tuple[str, str]]) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each is an answer."""
    at = 0
    for asked, answer in spans:
        yield whole[at : len(asked)], False
        yield answer, True
        at = len(asked) + len(answer)
    if whole[at:]:
        yield whole[at:], False

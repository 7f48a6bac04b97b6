"""A recorded conversation as token rows. The model's own chat template says which tokens are the
assistant's.

    the template                               what is learned
    marks its turns ({% generation %})         the marked tokens of the whole text
    marks nothing                              what the template adds to a prompt for its answer
    rewrites earlier turns (Qwen 3 forgets     the answer, in a row for each answer: the prompt as
    thoughts, …)                               the policy would sample from it, and the answer

An answer begins where a sampler begins and ends with the token that ends a turn
(`policies/chat_template.py`). What the template writes behind it, a line break or the next role, is
context. With a template `<user>…<end>` and `<bot>…<end>`, · for context:

    text     <user> 2+3? <end> <bot> 5 <end> <user> thanks <end> <bot> bye <end>
    own         ·     ·    ·     ·   x   x      ·      ·     ·     ·    x    x

Left out: plain prompts with a completion (`demonstrations.py`), preferences
(`preference_pairs.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from logpi.calls.messages import conversation, tool_list

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.chat_template import Answer, ChatTemplate, Reader

Messages = Sequence[Mapping[str, Any]]
Options = Mapping[str, Any] | None


@dataclass(frozen=True)
class TokenRow:
    """Tokens of a text; `own[i]`: `ids[i]` is learned."""

    ids: list[int]
    own: list[bool]


def token_rows(
    reader: Reader,
    messages: Messages,
    tools: Any = None,
    last: bool = False,
    start: int = 0,
    options: Options = None,
) -> list[TokenRow]:
    """The conversation as one row, or as one for each answer if the template rewrites earlier
    turns.

    Args:
        messages: with role and content, as the template wants them. tools, options: of the
            template.
        last: learn only the last answer. start: learn only answers from message `start` on.

    Raises:
        ValueError: no chat template; no answer; the template refuses the messages, or writes an
            answer with calls in another form than its prompt asks for.
    """
    template = reader.template
    if template.tokenizer.chat_template is None:
        raise ValueError(
            "the model has no chat template: give prompt and completion, or text; or set the"
            " tokenizer's"
        )
    messages, tools = conversation(messages), tool_list(tools or ()) or None
    if tools and not _shows_tools(template, messages, tools, options):
        warnings.warn(
            "the chat template has no place for tools: answers are learned without them",
            stacklevel=2,
        )
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i >= max(start, 1)]
    if not answers:
        raise ValueError("the conversation has no answer of the assistant to learn from")
    if template.marks(tools):
        row = _marked(template, messages, tools, options)
        if start:
            at = len(template.ids(messages[:start], tools, options=options))
            row = TokenRow(row.ids, [own and i >= at for i, own in enumerate(row.own)])
        return [_last_only(row) if last else row]
    learned = answers[-1:] if last else answers
    whole = template.render(messages, tools, False, options)
    spans = [template.answer(messages[:i], messages[i], tools, options) for i in learned]
    return _by_spans(template, whole, spans)


def _shows_tools(template: ChatTemplate, messages: Messages, tools: Any, options: Options) -> bool:
    with_tools = template.render(messages, tools, False, options)
    return with_tools != template.render(messages, None, False, options)


def _by_spans(template: ChatTemplate, whole: str, spans: Sequence[Answer]) -> list[TokenRow]:
    """One row if the whole text begins with each answer as it was asked for; else a row for each
    answer."""
    if all(s.rest is not None and whole.startswith(s.asked + s.added) for s in spans):
        return [_row(template, whole, spans)]
    if any(s.rest is None for s in spans):
        _warn_lost(
            "or writes it otherwise than it asks for it: such answers are learned as they stand in"
            " the data"
        )
    elif len(spans) > 1:
        warnings.warn(
            "the chat template rewrites earlier turns (forgets thoughts, say): each answer of a"
            " conversation is a row of its own",
            stacklevel=2,
        )
    return [_row(template, s.asked + s.added + (s.rest or ""), [s]) for s in spans]


def shape(row: Row) -> Hashable:
    """The features for which a chat template may refuse an item: roles, kinds of content, calls,
    tools; not its words.

    >>> user = [{"role": "user", "content": "a"}]
    >>> shape({"prompt": "a"}) == shape({"prompt": "b"}) != shape({"prompt": user})
    True
    """

    def of(value: Any) -> Hashable:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return type(value).__name__
        return tuple(
            (m.get("role"), type(m.get("content")).__name__, bool(m.get("tool_calls")))
            for m in value
        )

    columns = ("prompt", "messages", "completion")
    return (
        *(of(row.get(c)) for c in columns),
        bool(row.get("tools") or row.get("template_tools")),
        str(row.get("chat_template_kwargs")),
    )


def plain_completion(template: ChatTemplate, prompt: Sequence[int], completion: str) -> TokenRow:
    """A completion as text behind a prompt's tokens, and one end token, also if the text itself
    spells one."""
    start = list(prompt) or [i for i in (template.eos_id,) if i is not None]
    text = template.hidden(template.unended(completion))
    ids = [*template.behind(start[-1] if start else None, text), *_ending(template, start)]
    return TokenRow([*start, *ids], [False] * len(start) + [True] * len(ids))


def plain_conversation(reader: Reader, prompt: Sequence[int], messages: Messages) -> TokenRow:
    """A conversation as plain text behind a prompt's tokens: the assistant's messages are learned,
    all others are context.

    Each message is tokenised by itself, as in a rollout. A last message of the assistant gets an
    end token.
    """
    template = reader.template
    ids, own = list(prompt), [False] * len(prompt)
    for message in messages:
        learned = message["role"] == "assistant"
        text = template.unended(message["content"]) if learned else message["content"]
        part = template.continuation(text)
        ids += part
        own += [learned] * len(part)
    end = _ending(template, prompt) if own and own[-1] else []
    return TokenRow([*ids, *end], [*own, *(True for _ in end)])


def _ending(template: ChatTemplate, prompt: Sequence[int]) -> list[int]:
    """The end token of an answer: the template's if the prompt has one, for then the template wrote
    the prompt; else the model's."""
    end = template.end_id if template.end_id in prompt else template.eos_id
    return [] if end is None else [end]


def _row(template: ChatTemplate, whole: str, spans: Sequence[Answer]) -> TokenRow:
    """Context and answers by turns. The last answer gets an end token if the template writes
    none."""
    cuts = list(chain.from_iterable((len(s.asked), len(s.asked + s.added)) for s in spans))
    ids, own = _parted(template, whole, cuts)
    end, last = template.end_id, cuts[-1] == len(whole)
    if last and end is not None and not (own[-1] and ids[-1] == end):
        ids, own = [*ids, end], [*own, True]
    return TokenRow(ids, own)


def _parted(
    template: ChatTemplate, whole: str, cuts: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Tokens of a template's text; those behind the first, third, … cut are learned."""
    ids: list[int] = []
    own: list[bool] = []
    for i, part in enumerate(template.pieces(whole, cuts)):
        ids += part
        own += [i % 2 == 1] * len(part)
    return ids, own


def _marked(template: ChatTemplate, messages: Messages, tools: Any, options: Options) -> TokenRow:
    """The row by the template's own marks, each span up to the end token that closes it."""
    whole, cuts = template.marked(messages, tools, options)
    if any(
        str(m.get("reasoning_content") or "").strip() not in whole
        for m in messages
        if m["role"] == "assistant"
    ):
        _warn_lost("which is not learned")
    ids, own = _parted(template, whole, _closed(template, whole, cuts))
    if not any(own):
        raise ValueError(
            "the chat template's {% generation %} marks cover no token of this conversation"
        )
    return TokenRow(ids, own)


def _closed(template: ChatTemplate, whole: str, cuts: Sequence[int]) -> list[int]:
    r"""The cuts of the marked spans, each without the answer's header, and cut or extended to end
    with the end token.

        whole    <h> a b <end> \n c            <h> a b <end> \n c
        marked   ----------------                  ---
        closed       ---------                     ---------
    """
    closed, end = [], template.end_text
    for start, stop, following in zip(
        cuts[::2], cuts[1::2], [*cuts[2::2], len(whole)], strict=True
    ):
        if template.header and whole.startswith(template.header, start, stop):
            start += len(template.header)
        within, behind = whole[start:stop].find(end), whole[stop:following].find(end)
        if end and within >= 0:
            stop = start + within + len(end)
        elif end and behind >= 0 and not whole[stop : stop + behind].strip():
            stop += behind + len(end)
            _warn_unmarked(end, "it is learned too")
        elif behind >= 0 or following == len(whole):
            _warn_unmarked(end or "an end token", "the model will not learn to stop")
        closed += [start, stop]
    return closed


def _warn_lost(what: str) -> None:
    warnings.warn(
        f"the chat template leaves out what an answer says (a thought, say), {what}", stacklevel=2
    )


def _warn_unmarked(end: str, what: str) -> None:
    warnings.warn(
        f"the chat template's {{% generation %}} marks leave out {end}, without which the model"
        f" would never stop: {what}",
        stacklevel=2,
    )


def _last_only(row: TokenRow) -> TokenRow:
    """The mask with its last span only."""
    end = len(row.own) - row.own[::-1].index(True) if any(row.own) else 0
    begin = end
    while begin and row.own[begin - 1]:
        begin -= 1
    return TokenRow(row.ids, [begin <= i < end for i in range(len(row.ids))])

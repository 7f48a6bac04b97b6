"""Laws of a chat template: thoughts, tools, results and system messages, and its limits.

Each function's name and docstring are the law's. `TEMPLATE` is their order. Left out: the tokens of
rows and prompts (`model_text.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logpi.calls.templates import style_of_template, unread
from logpi.errors import UserError
from logpi.rollouts.observations import Observations
from logpi.testing.model_text import ASK, CONVERSATIONS, SAY
from logpi.testing.subject import (
    LawFinding,
    Subject,
    absent,
    answer,
    fail,
    holds,
    limited,
    system,
    user,
    with_warnings,
)

__all__ = ["TEMPLATE"]

THOUGHT = "<think>\nlook at the map\n</think>\n\nIt is 4 km."
TOOL = {
    "type": "function",
    "function": {
        "name": "distance",
        "description": "Distance to a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}},
            "required": ["town"],
        },
    },
}
NO_TEMPLATE = "no chat template"
# Variables and functions that the renderer provides to a template.
PROVIDED = {
    *("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"),
    *("raise_exception", "strftime_now", "namespace", "loop", "range"),
}


def thinking(s: Subject) -> LawFinding:
    """A thought in a demonstration is opened and closed once, also where the template opens it; the
    finding tells how the template treats thoughts."""
    if not s.chats:
        return absent(NO_TEMPLATE)
    (row, *_), warned = with_warnings(
        lambda: s.demonstrated({"prompt": ASK, "completion": THOUGHT})
    )
    opened = s.template.prefix(s.template.ids([user(ASK)]))
    text = opened + s.own(row)
    tag = opened.strip() or "<think>"
    if (
        text.count(tag) != 1
        or text.count(tag.replace("<", "</").replace("[", "[/")) != 1
        or "look at the map" not in text
    ):
        return fail(f"{THOUGHT!r} is learned as {text!r}")
    facts = [f"prompts open {opened!r}"] if opened else []
    if "enable_thinking" in s.tokenizer.get_chat_template():
        facts.append("--template-options enable_thinking=false switches thoughts off")
    rows, _ = with_warnings(
        lambda: s.conversed([user(ASK), answer(THOUGHT), user("And back?"), answer(THOUGHT)])
    )
    if len(rows) > 1:
        facts.append("later turns forget earlier thoughts: a row for each answer")
    if warned:
        facts.append(warned)
    if warned or opened or len(rows) > 1:
        return limited("; ".join(facts))
    return holds("; ".join(facts) or "a thought is text of the answer")


def tools(s: Subject) -> LawFinding:
    """The model sees its tools, its calls are of a style that logpi reads, and results are appended
    to the conversation."""
    if not s.chats:
        return absent(NO_TEMPLATE)
    if limits := list(_tool_limits(s)):
        return limited("; ".join(limits))
    return holds(f"calls are of style {_style(s)}, results are appended")


def _tool_limits(s: Subject) -> Iterator[str]:
    if s.template.ids([user(ASK)], [TOOL]) == s.template.ids([user(ASK)]):
        yield "the template has no place for tools: describe them in the prompt (native=False)"
        return
    if not _style(s):
        yield "the template writes calls in no style of logpi.calls"
    if wrong := unread(_rendered(s)):
        yield f"the template's text of a call is not read back: {wrong!r}"
    try:
        Observations(s.template, [TOOL]).check("tool")
    except UserError as error:
        yield str(error)


def _style(s: Subject) -> str:
    """The style in which the template writes calls; "" if logpi has no such style, or the template
    refuses calls."""
    try:
        return style_of_template(_rendered(s)) or ""
    except ValueError:
        return ""


def _rendered(s: Subject) -> Callable[[Sequence[Any], Sequence[Any]], str]:
    return lambda messages, tools: s.template.text(messages, tools, ask=False)


def observations(s: Subject) -> LawFinding:
    """Prompt, answer and the user's next message have the template's tokens of the whole, so
    sampled text is never tokenised again."""
    if not s.chats:
        return holds("plain text is appended")
    observe, more = Observations(s.template), [dict(user("And back?"))]
    try:
        observe.check("user")
    except UserError as error:
        return limited(str(error))
    row = s.conversed([user(ASK), answer(SAY)])[0]
    behind = int(row.mask.nonzero().max()) + 2  # where the end of the answer is
    ids = [*row.obs[:behind].tolist(), *observe(more, s.end).ids]
    written = s.written([user(ASK), answer(SAY), *more], ask=True)
    if ids == written:
        return holds("token by token as the template writes the whole")
    if not s.template.ends_turns:
        return limited(
            f"the template writes no end of a turn: {s.template.end_text} stands between an answer"
            " and what follows it"
        )
    return fail(f"{s.decoded(ids)!r} goes on where the template writes {s.decoded(written)!r}")


def system_message(s: Subject) -> LawFinding:
    """The template writes a system message, or refuses it."""
    if not s.chats:
        return absent(NO_TEMPLATE)
    reason = s.refusal([system("Be brief."), user(ASK)])
    return limited(f"a system message is refused: {reason}") if reason else holds("accepted")


def roles(s: Subject) -> LawFinding:
    """The template writes two messages of one role in a row, or refuses them."""
    if not s.chats:
        return absent(NO_TEMPLATE)
    if reason := s.refusal([user(ASK), user("And back?")]):
        return limited(f"roles must alternate: {reason}")
    return holds("two questions in a row are written")


def marks(s: Subject) -> LawFinding:
    """Where the template marks answers itself ({% generation %}), the end token is learned with
    them."""
    if not s.chats or not s.template.marks():
        return absent("the template has no {% generation %}")
    rows, warned = with_warnings(lambda: s.conversed(CONVERSATIONS["three turns"]))
    count = sum(s.own(r).count(s.template.end_text) for r in rows)
    if count != 3:
        return fail(f"of three answers {count} learn to stop: {s.own(rows[0])!r}")
    return limited(warned) if warned else holds("they cover the end of a turn")


def options(s: Subject) -> LawFinding:
    """The template's variables can be set."""
    if not s.chats:
        return absent(NO_TEMPLATE)
    template = s.tokenizer.get_chat_template()
    names = set(re.findall(r"(?<![.\w])(\w+) is (?:not )?defined", template)) - PROVIDED
    if not names:
        return absent("it has none")
    return holds(f"--template-options {' '.join(sorted(names))}")


TEMPLATE = (thinking, tools, observations, system_message, roles, marks, options)

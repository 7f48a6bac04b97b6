r"""Observations: the environment's words as token ids behind the policy's own, cut to a length.

    text       encoded as it is
    messages   what the model's chat template adds for them to a conversation: template(…, turn,
               messages) minus template(…, turn), with a placeholder for the policy's turn. The
               policy's own words are never tokenised again.

The policy wrote a call and closed its turn with <end>; the tool says 12 C. With a chatml template:

    before       <user>logpi asks<end>\n<bot>logpi says so<end>\n
    after        <user>logpi asks<end>\n<bot>logpi says so<end>\n<tool>12 C<end>\n<bot>
    observation                                               \n<tool>12 C<end>\n<bot>

The observation begins behind the end token, which is the policy's own. Where the policy stopped at
a stop string instead, the observation begins with <end>.

A template that rewrites earlier turns (drops thoughts, hides tool results) is refused: it would
show the policy later another text than the one it was trained on. An observation that is too long
loses the middle of its body and keeps its closing tags. Control tokens in it are text: a tool's
result cannot end a turn or begin another. Left out: whose turn it is (`open_conversations.py`); the
environment's own tags inside a result, which the environment guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.envs.conversation import Message
    from logpi.policies.chat_template import ChatTemplate

GAP = " ... "
# characters for which every known tokenizer makes at least one token; a flood is cut before it is
# encoded
DENSE = 16
USER: Message = {"role": "user", "content": "logpi asks"}
SAID = "logpi says so"
THOUGHT = f"<think>\nlogpi thinks\n</think>\n\n{SAID}"
CALL = {"id": "call00000", "type": "function", "function": {"name": "logpi_tool", "arguments": {}}}
# Placeholders for the policy's turn. Some templates want a tool's result to follow a call of their
# own kind, and then may leave out the turn's content.
TURNS: tuple[Message, ...] = (
    {"role": "assistant", "content": THOUGHT},
    {"role": "assistant", "content": THOUGHT, "tool_calls": [CALL]},
)


@dataclass(frozen=True)
class Observation:
    """What follows a turn in the context.

    Attributes:
        ids: its tokens. text: their text, for people. cut: something was left out.
    """

    ids: tuple[int, ...]
    text: str
    cut: bool


class Observations:
    """Encodes observations.

    Args:
        template: the policy's. tools: JSON schemas for it.
        limit: tokens of an observation. What the template or closing tags add around the body is
            never cut.
    """

    def __init__(
        self, template: ChatTemplate, tools: Sequence[Mapping[str, Any]] = (), limit: int = 512
    ) -> None:
        self.template, self.tools, self.limit = template, list(tools), limit
        # by role: the placeholder turn after which the template takes its messages
        self._turns: dict[str, Message] = {}

    def __call__(self, observation: str | Sequence[Message], last: int | None) -> Observation:
        """The observation as tokens.

        Args:
            last: the end token of the policy's turn, or None if it stopped at a stop string.

        Raises:
            UserError: messages, and the model has no chat template or one that rewrites earlier
                turns.
            ValueError: the template cannot write these messages.
        """
        if isinstance(observation, str):
            body = self.template.hidden(observation)
            end = _closing(body)
            return self._fit([body[:end]], lambda parts: parts[0] + body[end:], last)
        for role in dict.fromkeys(m["role"] for m in observation):
            self.check(role)
        bodies = [m["content"] for m in observation]

        def render(parts: list[str]) -> str:
            cut = zip(observation, parts, strict=True)
            return self._added([{**_answering(m), "content": part} for m, part in cut], last)

        return self._fit(bodies, render, last)

    def check(self, role: str) -> None:
        """Refuse a template that cannot continue after a message of this role, with the reason.
        Each role is tried once."""
        if role in self._turns:
            return
        if self.template.tokenizer.chat_template is None:
            raise UserError(
                "the environment answers in messages, and the model has no chat template: use one"
                " that has"
            )
        reason = ""
        for turn in TURNS:
            try:
                message = _answering({"role": role, "content": "logpi reads this"})
                problem = self._rewritten(turn, message)
            except ValueError as error:
                problem = f"fails on it: {error}"
            if not problem:
                self._turns[role] = turn
                return
            reason = reason or problem
        raise UserError(
            f"the model's chat template cannot go on after a {role!r} message, it {reason}. What"
            " the policy sees later must begin with what it saw before: use a template that only"
            " appends, or an environment that answers in plain text"
        )

    def _rewritten(self, turn: Message, message: Message) -> str:
        """How the template rewrites the beginning of a conversation that grows; "" if it does
        not."""
        messages = [USER, turn, message, turn, message]
        # [user]?  [user, turn]  [user, turn, message]? …: ? marks a prompt for a turn
        texts = (self._seen(messages[: i + 1], i % 2 == 0) for i in range(len(messages)))
        for before, after in pairwise(texts):
            if not after.startswith(before):
                at = len(commonprefix([before, after]))
                change = f"{before[at : at + 40]!r} becomes {after[at : at + 40]!r}"
                return f"rewrites earlier turns ({change})"
        return ""

    def _seen(self, messages: Sequence[Message], prompt: bool) -> str:
        """What the policy has seen: the prompt for a turn, or the text up to the end of its turn,
        without what the template writes behind it."""
        text, end = self._template(messages, prompt), self.template.end_text
        return text if prompt or not end or end not in text else text[: text.rindex(end) + len(end)]

    def _template(self, messages: Sequence[Message], prompt: bool) -> str:
        return self.template.render(messages, self.tools, prompt, None)

    def _added(self, messages: list[Message], last: int | None) -> str:
        """What the template writes after the policy's turn, with the end token unless the policy
        wrote it."""
        turn = self._turns[messages[0]["role"]]
        before = self._template([USER, turn], False)
        after = self._template([USER, turn, *messages], True)
        closing = self.template.end_text if last is None else self.template.tokenizer.decode([last])
        at = before.find(SAID)
        # where the turn's text ends, and where its end token begins
        text_end, end = at + len(SAID), before.find(closing, at)
        if at < 0:
            # the template shows the call alone
            text_end = end = before.rfind(closing)
        if last is None and text_end >= 0:
            return after[text_end:]
        return after[end + len(closing) if end >= 0 else len(before) :]

    def _fit(
        self, bodies: list[str], render: Callable[[list[str]], str], last: int | None
    ) -> Observation:
        """Cut all bodies to one length, the largest for which the rendered text has at most `limit`
        tokens behind `last`."""
        size, longest = DENSE * self.limit, max(map(len, bodies), default=0)
        while True:
            text = render([_middle(b, size) for b in bodies])
            ids = tuple(self.template.behind(last, text))
            if len(ids) <= self.limit or size == 0:
                return Observation(ids, self.template.spelled(text), longest > size)
            size = int(min(size, longest) * 0.9 * self.limit / len(ids))


def _answering(message: Message) -> Message:
    """A tool's message with the id of the placeholder's call, which some templates show; the id of
    the policy's own call is not known here."""
    return {"tool_call_id": CALL["id"], **message} if message["role"] == "tool" else message


def _middle(text: str, size: int) -> str:
    """`text` without its middle if it is longer than `size` characters; three quarters of the rest
    are its head.

    >>> _middle("abcdefghijklmnop", 12)
    'abcdef ... p'
    """
    if len(text) <= size:
        return text
    length = max(0, size - len(GAP))
    tail = length // 4
    return text[: length - tail] + GAP[: size - length] + text[len(text) - tail :]


def _closing(text: str) -> int:
    """The start of the closing tags that end `text`, at most eight; its length without any.

    >>> _closing("<a><b>x</b>\\n</a>\\n")
    7
    """
    end = len(text)
    for _ in range(8):
        body = text[:end].rstrip()
        start = body.rfind("</", max(0, len(body) - 80))
        if start < 0 or not body.endswith(">") or body.find(">", start) != len(body) - 1:
            break
        end = start
    return end

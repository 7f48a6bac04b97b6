"""What the environment says, as token ids that go on after the policy's own: cut to a length, and
safe.

    text       encoded as it is
    messages   what the model's chat template adds for them to a conversation: template(… said, messages) minus template(… said),
               with a placeholder for what was said, so that nothing the policy wrote is ever
               tokenised again

A template that rewrites earlier turns (drops what was thought, folds tool results away) is refused:
what it would show the policy later is not what the policy was trained on. An observation that is
too long loses the middle of its body, so that what closes it stands. Control tokens in it are text:
a tool's result cannot end a turn or begin another's. Left out: whose turn it is, and when
(`tool_conversations.py`); tags of the environment's own inside a result, which are the
environment's to guard.
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
DENSE = 16  # no tokenizer of ours makes fewer tokens than one for so many characters of prose; a flood is cut before it is encoded
USER: Message = {"role": "user", "content": "logpi asks"}
SAID = "logpi says so"
THOUGHT = f"<think>\nlogpi thinks\n</think>\n\n{SAID}"
CALL = {"id": "call00000", "type": "function", "function": {"name": "logpi_tool", "arguments": {}}}
TURNS: tuple[
    Message, ...
] = (  # some templates want a tool's result to follow a call of their own kind
    {"role": "assistant", "content": THOUGHT},
    {
        "role": "assistant",
        "content": THOUGHT,
        "tool_calls": [CALL],
    },  # and then may pass its content over
)


@dataclass(frozen=True)
class Observation:
    """ids: what follows in the context. text: what they say, for people. cut: something was left
    out."""

    ids: tuple[int, ...]
    text: str
    cut: bool


class Observations:
    """Encodes what the environment says.

    Args:
        template: the policy's. tools: JSON schemas for it. limit: tokens of an observation; what
            the template or closing tags add around an empty body is never cut.
    """

    def __init__(
        self, template: ChatTemplate, tools: Sequence[Mapping[str, Any]] = (), limit: int = 512
    ) -> None:
        self.template, self.tools, self.limit = template, list(tools), limit
        self._said: dict[
            str, Message
        ] = {}  # role -> the placeholder turn after which the template takes it

    def __call__(self, observation: str | Sequence[Message], last: int | None) -> Observation:
        """`last`: the end token with which the policy closed its turn, or None if it stopped at a
        stop string.

        Raises:
            UserError: messages, and the model has no chat template or one that rewrites what was
                said.
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
            return self._added(
                [{**_answering(m), "content": p} for m, p in zip(observation, parts, strict=True)],
                last,
            )

        return self._fit(bodies, render, last)

    def check(self, role: str) -> None:
        """Refuse a template that cannot be gone on with after a message of this role. Done once for
        each.

        Raises:
            UserError: with the reason.
        """
        if role in self._said:
            return
        if self.template.tokenizer.chat_template is None:
            raise UserError(
                "the environment answers in messages, and the model has no chat template: use one"
                " that has"
            )
        reason = ""
        for said in TURNS:
            try:
                problem = self._rewritten(
                    said, [_answering({"role": role, "content": "logpi is told"})]
                )
            except ValueError as error:
                problem = f"fails on it: {error}"
            if not problem:
                self._said[role] = said
                return
            reason = reason or problem
        raise UserError(
            f"the model's chat template cannot go on after a {role!r} message, it {reason}. What"
            " the policy sees later must begin with what it saw before: use a template that only"
            " appends, or an environment that answers in plain text"
        )

    def _rewritten(self, said: Message, told: list[Message]) -> str:
        """What becomes of the conversation's beginning as it grows; "" if it stays."""
        once = [USER, said, *told]
        steps = (
            ([USER], True),
            ([USER, said], False),
            (once, True),
            ([*once, said], False),
            ([*once, said, *told], True),
        )
        for before, after in pairwise(self._seen(m, prompt) for m, prompt in steps):
            if not after.startswith(before):
                same = len(commonprefix([before, after]))
                return (
                    f"rewrites earlier turns ({before[same : same + 40]!r} becomes"
                    f" {after[same : same + 40]!r})"
                )
        return ""

    def _seen(self, messages: Sequence[Message], prompt: bool) -> str:
        """What the policy has seen when it is asked, or has ended its turn: what a template writes
        behind, to end a text, is not."""
        text, end = self._template(messages, prompt), self.template.end_text
        return text if prompt or not end or end not in text else text[: text.rindex(end) + len(end)]

    def _template(self, messages: Sequence[Message], prompt: bool) -> str:
        return self.template.render(messages, self.tools, prompt, None)

    def _added(self, messages: list[Message], last: int | None) -> str:
        """What the template writes after the policy's turn. The end token is the policy's own, if
        it wrote it."""
        said = self._said[messages[0]["role"]]
        before, after = (
            self._template([USER, said], False),
            self._template([USER, said, *messages], True),
        )
        closing = self.template.end_text if last is None else self.template.tokenizer.decode([last])
        at = before.find(SAID)
        if at >= 0:
            open_, end = at + len(SAID), before.find(closing, at)
        else:  # the template shows the call alone
            open_ = end = before.rfind(closing)
        if last is None and open_ >= 0:
            return after[open_:]
        return after[end + len(closing) if end >= 0 else len(before) :]

    def _fit(
        self, bodies: list[str], render: Callable[[list[str]], str], last: int | None
    ) -> Observation:
        """The longest bodies, cut alike, with which the rendered text has at most `limit` tokens,
        behind `last`."""
        size, longest = DENSE * self.limit, max(map(len, bodies), default=0)
        while True:
            text = render([_middle(b, size) for b in bodies])
            ids = tuple(self.template.behind(last, text))
            if len(ids) <= self.limit or size == 0:
                return Observation(ids, self.template.spelled(text), longest > size)
            size = int(min(size, longest) * 0.9 * self.limit / len(ids))


def _answering(message: Message) -> Message:
    """A tool's message as the answer to the placeholder's call, whose number some templates show:
    the policy's own is not known here."""
    return {"tool_call_id": CALL["id"], **message} if message["role"] == "tool" else message


def _middle(text: str, size: int) -> str:
    """`text` with its middle left out if it is longer than `size` characters; three quarters of
    what stays are its head.

    >>> _middle("abcdefghijklmnop", 12)
    'abcdef ... p'
    """
    if len(text) <= size:
        return text
    kept = max(0, size - len(GAP))
    tail = kept // 4
    return text[: kept - tail] + GAP[: size - kept] + text[len(text) - tail :]


def _closing(text: str) -> int:
    """Where the closing tags begin that end `text`, at most eight of them; its length if there are
    none.

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

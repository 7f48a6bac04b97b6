r"""A model's chat template: messages become text and tokens, and a token ends each turn.

    text, ids    messages as the template writes them, and as tokens
    end_id       the token that ends an assistant's turn, found by rendering one
    answer       the prompt for a message, and the text that the template then adds for it
    decode       the text of sampled tokens, for people and rewards

Control tokens that data spell stay text (`text_tokens.py`). Left out: the learned parts of a
conversation (`rollouts/chat_rows.py`), and replies of an environment (`rollouts/observations.py`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import commonprefix
from typing import Any, Protocol

from logpi.calls.messages import conversation, forms, tool_list
from logpi.policies.template_text import behind_opening, holds, refuse_omissions
from logpi.policies.text_tokens import TextTokens, any_of

Message = Mapping[str, Any]
Messages = Sequence[Message]

# The conversation that shows how a template writes an answer.
QUESTION: Message = {"role": "user", "content": "logpi asks"}
ANSWER = "logpi says so"
# Control tokens by their spelling: of parts within an answer, and of the ends of texts and turns.
MARK = re.compile(r"think|thought|tool|call|python|arg|result", re.IGNORECASE)
ENDS = re.compile(r"end_?of_?(text|turn|sentence)|eo[mst]_id", re.IGNORECASE)
PREFIX = re.compile(r"(<think(?:ing)?>|\[THINK\])(\s*(?:</think(?:ing)?>|\[/THINK\]))?\s*\Z")
# tokens of a prompt that may open an answer
TAIL = 16
# Private characters for {% generation %} and {% endgeneration %}.
OPEN, CLOSE = "\U000ffffc", "\U000ffffd"
MARKS = {
    name: re.compile(rf"\{{%([-+]?)\s*{name}\s*([-+]?)%\}}")
    for name in ("generation", "endgeneration")
}
# Variables of a template that the library sets.
RESERVED = {
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
    *("tokenize", "chat_template"),
}


@dataclass(frozen=True)
class Answer:
    """How a template writes an assistant's message behind a conversation.

        [user "2+2?", assistant "4", user "sure?"]        the message is "4"
        asked    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n
        added    4<|im_end|>
        rest     \n

    Attributes:
        asked: the text before the message, which asks for it. added: the message, up to the end of
            its turn.
        rest: the template's text behind it. None where the template does not write the message
            behind `asked`; `added` is then the message as it is.
    """

    asked: str
    added: str
    rest: str | None


@dataclass(frozen=True, eq=False)
class ChatTemplate(TextTokens):
    """A tokenizer with its chat template, if it has one.

    Attributes:
        tokenizer: of `transformers`. options: variables of the template (`enable_thinking`).
        end: spelling of the token that ends an answer; "": found by rendering. stops: further
            tokens that end one (the generation config's).
    Raises:
        ValueError: `end` is no single token; an option that the template does not know.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    end: str = ""
    stops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.end and not isinstance(self._id(self.end), int):
            raise ValueError(f"--end-token {self.end!r} is not one token of this tokenizer")
        if unknown := self.unknown(self.options):
            raise ValueError(
                f"the model's chat template has no variable {unknown!r} to set (--template-options)"
            )

    # Text

    def text(
        self,
        messages: Messages,
        tools: Any = None,
        *,
        ask: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The messages as the template writes them. `ask`: it also asks for an answer. `options`
        override the template's own.

        Raises:
            ValueError: there is no template, or it refuses the messages, with its own reason.
        """
        return self.spelled(self.render(messages, tools, ask, options))

    def marks(self, tools: Any = None) -> bool:
        """Whether the template itself marks answers ({% generation %})."""
        return MARKS["generation"].search(self.tokenizer.get_chat_template(tools=tools)) is not None

    def marked(
        self, messages: Messages, tools: Any, options: Mapping[str, Any] | None
    ) -> tuple[str, list[int]]:
        """`render` of a conversation, and the places where marked stretches begin and end, in turn.

        A mark becomes an `if` around one private character, which strips the same white space as
        the mark.

        Raises:
            ValueError: as `text`.
        """
        source = self.tokenizer.get_chat_template(tools=tools)
        for (_, mark), character in zip(MARKS.items(), (OPEN, CLOSE), strict=True):
            source = mark.sub(rf"{{%\1 if true %}}{character}{{% endif \2%}}", source)
        text = self._apply([self._masked(m) for m in messages], tools, False, options, source)
        whole, cuts = "", []
        for part in re.split(f"[{OPEN}{CLOSE}]", text):
            whole += part
            cuts.append(len(whole))
        return whole, cuts[:-1]

    def answer(
        self,
        before: Messages,
        message: Message,
        tools: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> Answer:
        """The assistant's `message` behind the conversation `before`; control tokens in it are
        private characters.

        A template may lose a part of the message (DeepSeek-R1's cuts off thoughts). The message is
        then added as it is.

        Raises:
            ValueError: the template loses a part of a message with calls, which only it can write.
        """
        (message,) = conversation([message])
        asked = self.render(before, tools, True, options)
        whole = self.render([*before, message], tools, False, options)
        masked = self._masked(message)
        content, thought = masked.get("content") or "", masked.get("reasoning_content") or ""
        added, calls = whole.removeprefix(asked), message.get("tool_calls") or ()
        is_whole = holds(f"{thought}</think>{content}" if thought else content, added)
        is_whole &= all(call["function"]["name"] in added for call in calls)
        if whole.startswith(asked) and is_whole:
            return Answer(asked, *self._ended(added))
        if calls:
            raise ValueError(
                f"the chat template asks for an answer with …{self.spelled(asked)[-40:]!r} and"
                " writes one with calls otherwise, so which tokens are the answer cannot be told:"
                " give prompt and completion instead, or set a template with {% generation %}"
            )
        body = f"<think>\n{thought}\n</think>\n\n{content}" if thought else content
        return Answer(asked, behind_opening(asked, body) + self.end_text, None)

    def prefix(self, asked: Sequence[int]) -> str:
        """The beginning of the answer that a prompt's last tokens have already written.

        … <|im_start|>assistant\\n                            ""
        … <|im_start|>assistant\\n<think>\\n                   "<think>\\n"
        … <|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n     "<think>\\n\\n</think>\\n\\n"
        """
        match = PREFIX.search(self.tokenizer.decode(list(asked[-TAIL:])))
        return match[0] if match else ""

    def opening(self, text: str) -> str:
        """The control token of turns with which `text` begins, as a template's output does; "" if
        there is none."""
        match = self._framing.match(text.lstrip())
        return match[0] if match else ""

    def decode(self, ids: Iterable[Any]) -> str:
        """The text of a turn's tokens, without ends and padding. Other special tokens stay: some
        models mark calls and thoughts with them."""
        return self.tokenizer.decode([i for i in map(int, ids) if i not in self.silent])

    # Tokens

    def ids(
        self,
        messages: Messages,
        tools: Any = None,
        *,
        ask: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """`text` as tokens. Raises ValueError as there."""
        return self.encode(self.render(messages, tools, ask, options))

    # Ends

    @cached_property
    def end_id(self) -> int | None:
        """The token that ends an assistant's turn; `eos_id` where the template writes none, or
        there is no template."""
        tokenizer = self.tokenizer
        added = {*tokenizer.added_tokens_decoder, *self.stops, tokenizer.eos_token_id}
        # _closing of "…<|im_start|>assistant\nlogpi says so<|im_end|>\n" is [<|im_end|>, "\n"]
        end = next((i for i in self._closing if i in added), None)
        return self.eos_id if self.end or end is None else end

    @cached_property
    def eos_id(self) -> int | None:
        """The token that ends a text: the tokenizer's, or the last of the generation config's."""
        if self.end:
            return self._id(self.end)
        own = self.tokenizer.eos_token_id
        return own if own is not None else self.stops[-1] if self.stops else None

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a response; the template's comes last."""
        # generation config [1, 106], tokenizer 1, template 106 (Gemma): (1, 106)
        ends = [*self.stops, self.tokenizer.eos_token_id, self.eos_id]
        ends = [*(i for i in ends if i != self.end_id), self.end_id]
        return tuple(dict.fromkeys(i for i in ends if i is not None))

    @cached_property
    def silent(self) -> frozenset[int]:
        """Tokens that have no place in a turn's text: ends, beginnings, padding."""
        t = self.tokenizer
        ids = {*self.ends, t.bos_token_id, t.pad_token_id, t.unk_token_id}
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def spelled_ends(self) -> tuple[str, ...]:
        """`ends` as the tokenizer spells them."""
        return tuple(
            self.tokenizer.convert_ids_to_tokens(i) for i in self.ends if i < len(self.tokenizer)
        )

    def unended(self, text: str) -> str:
        """An answer without an end that it spells itself: the template, or the maker of rows,
        writes one."""
        end = next((e for e in self.spelled_ends if text.rstrip().endswith(e)), "")
        return text.rstrip().removesuffix(end) if end else text

    @cached_property
    def ends_turns(self) -> bool:
        """Whether the template itself writes the end of an assistant's turn."""
        return self.end_id in self._closing

    def describe(self) -> str:
        """One line for a run's log."""
        if self.end_id is None:
            return "answers have no end token"
        line = f"answers end with {self.tokenizer.convert_ids_to_tokens(self.end_id)}"
        if self.tokenizer.chat_template is not None and not self.end and not self.ends_turns:
            line += " (the chat template writes no end of a turn; --end-token chooses another)"
        return line

    # Inside

    def unknown(self, options: Mapping[str, Any]) -> str:
        """The first option that is no variable of the template, or that users may not set; "" if
        there is none."""
        source = str(self.tokenizer.chat_template or "")
        variables = set(re.findall(r"\w+", source)) - RESERVED
        return next((name for name in options if name not in variables), "")

    def _id(self, token: str) -> Any:
        number, tokenizer = self.tokenizer.convert_tokens_to_ids(token), self.tokenizer
        unknown = number == tokenizer.unk_token_id and token != tokenizer.unk_token
        return None if unknown else number

    @cached_property
    def _framing(self) -> re.Pattern[str]:
        """Control tokens that no answer may write: those of turns, texts and roles. Marks of parts
        of an answer are not among them."""
        system, tokenizer = {"role": "system", "content": ANSWER}, self.tokenizer
        asked = [self._tried(m, True) for m in ([QUESTION], [system, QUESTION])]
        frame = "".join([self._answered, *asked])
        fixed = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, *self.spelled_ends}
        in_frame = [c for c in self.controls if c in frame or ENDS.search(c)]
        turns = [c for c in in_frame if not MARK.search(c)]
        return any_of([*turns, *(c for c in self.controls if c in fixed)])

    @cached_property
    def _answered(self) -> str:
        """A question with its answer."""
        return self._tried([QUESTION, {"role": "assistant", "content": ANSWER}], False)

    def _tried(self, messages: Messages, ask: bool) -> str:
        """The messages as the template writes them; "" if it refuses them, or there is none."""
        if self.tokenizer.chat_template is None:
            return ""
        try:
            return self._apply(messages, None, ask, None)
        except ValueError:
            return ""

    @cached_property
    def _closing(self) -> list[int]:
        """Tokens that the template writes behind a conversation's last answer."""
        _, answer, closing = self._answered.rpartition(ANSWER)
        return self._bare(closing, False) if answer else []

    @cached_property
    def header(self) -> str:
        """The template's text before an answer, without a thought that it opens there."""
        before, asked = self._tried([QUESTION], False), self._tried([QUESTION], True)
        return PREFIX.sub("", asked[len(commonprefix([before, asked])) :])

    @property
    def end_text(self) -> str:
        """`end_id` as the tokenizer spells it."""
        return "" if self.end_id is None else self.tokenizer.convert_ids_to_tokens(self.end_id)

    def _ended(self, added: str) -> tuple[str, str]:
        """The text that a template added for an answer, split behind its end token; without one,
        all of it and ""."""
        at = added.find(self.end_text) if self.end_text else -1
        at = len(added) if at < 0 else at + len(self.end_text)
        return added[:at], added[at:]

    def render(
        self, messages: Messages, tools: Any, ask: bool, options: Mapping[str, Any] | None
    ) -> str:
        """`text` for `encode` and `pieces`: control tokens that the data spell are private
        characters. Raises ValueError as there."""
        if self.tokenizer.chat_template is None:
            raise ValueError(
                "the model has no chat template: give prompts as strings, or set the tokenizer's"
            )
        masked = [self._masked(m) for m in conversation(messages)]
        return self._apply(masked, tool_list(tools or ()), ask, options)

    def _apply(
        self,
        messages: Messages,
        tools: Any,
        ask: bool,
        options: Mapping[str, Any] | None,
        source: str | None = None,
    ) -> str:
        if unknown := self.unknown(options or {}):
            warnings.warn(
                f"the chat template has no variable {unknown!r}, which rows set"
                " (chat_template_kwargs)",
                stacklevel=2,
            )
        asking = {"add_generation_prompt": ask, "chat_template": source}
        variables = {**self.options, **(options or {}), **asking}
        tools, problem = list(tools) if tools else None, None
        for form in forms(messages):
            try:
                text = self.tokenizer.apply_chat_template(
                    form, tools=tools, tokenize=False, **variables
                )
            # a template may raise anything
            except Exception as error:
                problem = problem or error
            else:
                refuse_omissions(messages, text)
                return text
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise ValueError(f"the chat template refuses these messages: {reason}") from None

    def _masked(self, message: Message) -> dict[str, Any]:
        """The message with a private character for each control token that it spells."""
        controls = self._framing if message.get("role") == "assistant" else None
        return {k: v if k == "role" else self.hidden(v, controls) for k, v in message.items()}


class Reader(Protocol):
    """A model that turns text into tokens: a `CausalLM` or a `RewardModel`."""

    @property
    def template(self) -> ChatTemplate: ...

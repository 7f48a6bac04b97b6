"""Prompts of requests as token ids, and tokens as text, by the tokenizer of the served model.

A tokenizer of `transformers` changes its settings while it encodes, so texts are encoded by one
copy, behind a lock, and tokens are decoded by another. Left out: the chat template itself
(`policies/chat_template.py`).
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from logpi.calls.messages import conversation
from logpi.engine.openai_server.errors import RequestError

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

Texts = str | Sequence[int]
# of OpenAI's protocol
ROLES = ("system", "developer", "user", "assistant", "tool")
QUOTED = re.compile(r"""["']([\w-]+)["']""")


class Prompts:
    """Token ids of prompts.

    Args:
        policy: whose tokenizer and chat template. longest: tokens of a prompt with its answer, at
            most the model's context.
    """

    def __init__(self, policy: CausalLM, longest: int) -> None:
        self.longest, self.reach = min(longest, policy.context), policy.reach
        self.embeddings = policy.embeddings
        self.tokenizer = copy.deepcopy(policy.tokenizer)
        # it only decodes, which any number of threads may do at once
        self.decoder = copy.deepcopy(policy.tokenizer)
        self.template = replace(policy.template, tokenizer=self.tokenizer)
        self._lock = threading.Lock()
        self.special = self.template.silent | frozenset(self.tokenizer.all_special_ids)
        self.spelled = lru_cache(2**16)(self._spelled)

    # --- in ---

    def plain(self, prompt: Texts, special: bool = True) -> list[int]:
        """A text as it is, with its BOS if `special`; token ids as they are.

        Raises:
            RequestError: ids that are no tokens, or half a character.
        """
        if isinstance(prompt, str):
            _utf8(prompt)
            with self._lock:
                if special:
                    return self.template.plain(prompt)
                return list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if bad := next((i for i in prompt if not 0 <= i < self.embeddings), None):
            raise RequestError(
                f"the prompt has token id {bad}; the model's are 0 to {self.embeddings - 1}"
            )
        return list(prompt)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        options: Mapping[str, Any],
        ask: bool = True,
    ) -> list[int]:
        """Messages through the chat template.

        Raises:
            RequestError: no template, one that refuses them, or that has no place for the tools; a
                role that nobody knows.
        """
        _utf8(messages, tools)
        with self._lock:
            template = self.template
            try:
                if unknown := template.unknown(options):
                    raise ValueError(f"the chat template has no variable {unknown!r} to set")
                self._check_roles(conversation(messages))
                ids = template.ids(messages, tools, ask=ask, options=options)
                if tools and ids == template.ids(messages, (), ask=ask, options=options):
                    raise ValueError("the model's chat template has no place for tools")
            except ValueError as error:
                raise RequestError(str(error)) from None
        return ids

    def _check_roles(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Raises ValueError: a role of neither OpenAI's protocol nor the model's template, which
        most templates would write as it stands."""
        for number, message in enumerate(messages, 1):
            role = message["role"]
            if role not in ROLES and role not in self._quoted:
                shown = ", ".join(ROLES)
                raise ValueError(f"message {number}: there is no role {role[:60]!r} ({shown})")

    @cached_property
    def _quoted(self) -> frozenset[str]:
        """Every word in quotes of the chat template, its roles among them."""
        return frozenset(QUOTED.findall(str(self.tokenizer.chat_template or "")))

    def room(self, prompt: Sequence[int], max_tokens: int | None) -> int:
        """Tokens that may follow a prompt: `max_tokens`, or all that fit.

        Raises:
            RequestError: they do not fit, or the prompt is empty.
        """
        if not prompt:
            raise RequestError("a prompt is empty: a model needs a token to go on from")
        longest = min(self.longest, self.reach(len(prompt)))
        room = longest - len(prompt)
        if room < max(1 if max_tokens is None else max_tokens, 0):
            wish = "an answer" if max_tokens is None else f"max_tokens={max_tokens}"
            # of a model whose rotary embeddings change with a text's length
            short = "" if longest == self.longest else " for so short a prompt"
            raise RequestError(
                f"this model's context is {longest} tokens{short}: the prompt has {len(prompt)},"
                f" and {wish} does not fit behind it; shorten the prompt or ask for fewer tokens"
            )
        return room if max_tokens is None else max_tokens

    # --- out ---

    def detokenized(self, ids: Sequence[int]) -> str:
        return self.decoder.decode(list(ids))

    def silent(self, skip_special: bool) -> frozenset[int]:
        """Tokens that have no place in an answer's text; with `skip_special` every special one."""
        return self.special if skip_special else self.template.silent

    def names(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary spells them."""
        return self.decoder.convert_ids_to_tokens(list(ids))

    def _spelled(self, token: int) -> str:
        """The text of a token behind another, which is itself; broken bytes are �.

        SentencePiece's kind strips a text's first space: [▁a] is "a" and [▁a, ▁a] is "a a", so ▁a
        is " a".
        """
        alone = self.decoder.decode([token])
        return self.decoder.decode([token, token])[len(alone) :]


def _utf8(*values: Any) -> None:
    """Raises RequestError: a text in one of the values is no UTF-8."""
    for value in values:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise RequestError("a text has half a character, which is no UTF-8") from None
        elif isinstance(value, Mapping):
            _utf8(*value, *value.values())
        elif isinstance(value, list | tuple):
            _utf8(*value)

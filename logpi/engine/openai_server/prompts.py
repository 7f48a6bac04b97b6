"""Prompts of requests as token ids, and tokens as text, by the tokenizer of the served model.

A tokenizer of `transformers` changes its settings while it encodes, so texts are encoded by one
copy, behind a lock, and tokens are decoded by another. Left out: the chat template itself
(`policies/chat_template.py`).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from logpi.engine.openai_server.errors import RequestError

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM

Texts = str | Sequence[int]


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
        t = self.tokenizer
        ends = {*self.template.ends, t.bos_token_id, t.pad_token_id, t.unk_token_id}
        self.ends = frozenset(i for i in ends if i is not None)
        self.special = self.ends | frozenset(t.all_special_ids)
        self.spelled = lru_cache(2**16)(self._spelled)

    # --- in ---

    def plain(self, prompt: Texts, special: bool = True) -> list[int]:
        """A text as it is, with its BOS if `special`; token ids as they are.

        Raises:
            RequestError: an empty prompt, or ids that are no tokens.
        """
        if not isinstance(prompt, str):
            if bad := next((i for i in prompt if not 0 <= i < self.embeddings), None):
                raise RequestError(
                    f"the prompt has token id {bad}; the model's are 0 to {self.embeddings - 1}"
                )
            ids = list(prompt)
        else:
            with self._lock:
                bare = self.tokenizer(prompt, add_special_tokens=False) if not special else {}
                ids = list(bare["input_ids"]) if bare else self.template.plain(_utf8(prompt))
        if not ids:
            raise RequestError("a prompt is empty: a model needs a token to go on from")
        return ids

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        options: Mapping[str, Any],
        ask: bool = True,
    ) -> list[int]:
        """Messages through the chat template.

        Raises:
            RequestError: no template, one that refuses them, or that has no place for the tools.
        """
        _utf8(messages, tools)
        with self._lock:
            template = self.template
            try:
                if unknown := template.unknown(options):
                    raise ValueError(f"the chat template has no variable {unknown!r} to set")
                ids = template.ids(messages, tools, ask=ask, options=options)
                if tools and ids == template.ids(messages, (), ask=ask, options=options):
                    raise ValueError("the model's chat template has no place for tools")
            except ValueError as error:
                raise RequestError(str(error)) from None
        return ids

    def room(self, prompt: Sequence[int], max_tokens: int | None) -> int:
        """Tokens that may follow a prompt: `max_tokens`, or all that fit.

        Raises:
            RequestError: they do not fit.
        """
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
        """Tokens that have no place in an answer's text: ends, beginnings, padding; with
        `skip_special` every special token."""
        return self.special if skip_special else self.ends

    def names(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary spells them."""
        return self.decoder.convert_ids_to_tokens(list(ids))

    def _spelled(self, token: int) -> str:
        """The text of a token alone; broken bytes are �."""
        return self.decoder.decode([token])


def _utf8(*values: Any) -> Any:
    """The first of the values. Raises RequestError: a text in one is no UTF-8."""
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
    return values[0] if values else None

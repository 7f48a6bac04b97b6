"""Turns the prompt of an item into tokens: as plain text, or as messages through the model's chat
template.

Left out: the template itself (`policies/chat_template.py`), which prompts fit
(`prompt_filter.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.rollouts.prompt_templates import filled

if TYPE_CHECKING:
    from logpi.policies.chat_template import Message, Reader


@dataclass(frozen=True)
class Chat:
    """How the prompt of an item becomes tokens.

    Attributes:
        wrap: make a plain string a user's message in the model's chat template.
        system: system message in front, or "".
        around: a text with {prompt} around plain prompts (`prompt_templates.py`), or "".
    """

    wrap: bool = False
    system: str = ""
    around: str = ""

    def __call__(
        self,
        policy: Reader,
        prompt: str | Sequence[Message],
        tools: Sequence[Message] = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of the prompt; `tools` and `options` go to the chat template.

        Raises:
            UserError: the chat template has no place for the tools.
            ValueError: the model has no template for messages, or one that refuses them; as
                `messages`.
        """
        ids = self._ids(policy, prompt, tools, options)
        if tools and ids == self._ids(policy, prompt, (), options):
            raise UserError(
                "the model's chat template has no place for tools, so the policy would not know of"
                " them: use a model whose template has, or an environment or task that describes"
                " them in its prompt"
            )
        return ids

    def _ids(
        self,
        policy: Reader,
        prompt: str | Sequence[Message],
        tools: Sequence[Message],
        options: Mapping[str, Any] | None,
    ) -> list[int]:
        messages = self.messages(policy, prompt)
        if messages is not None:
            return policy.template.ids(messages, tools, options=options)
        assert isinstance(prompt, str)
        text = filled(self.around, prompt) if self.around else prompt
        return policy.template.plain(self.system + text)

    def messages(self, policy: Reader, prompt: str | Sequence[Message]) -> list[Message] | None:
        """The prompt as messages, the system's first; None for a plain text.

        Raises:
            ValueError: the prompt has a system message beside `system`, or is a text that a
                template has already written.
        """
        if isinstance(prompt, str) and not self.wrap:
            return None
        if isinstance(prompt, str) and (control := policy.template.opening(prompt)):
            raise ValueError(
                f"the prompt begins with {control}, as if a chat template had written it: --no-chat"
                " takes such prompts as they are"
            )
        messages: list[Message] = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        )
        if not self.system:
            return messages
        if any(m.get("role") in ("system", "developer") for m in messages):
            raise ValueError(
                "the prompt has a system message of its own: leave --system out, or that message"
            )
        return [{"role": "system", "content": self.system}, *messages]

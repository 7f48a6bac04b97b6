"""How a row's prompt becomes tokens: as a text that is gone on with, or as messages through the
model's chat template.

Left out: the template itself (`policies/chat_template.py`), and which prompts fit
(`prompt_filter.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.rollouts.prompt_templates import filled

if TYPE_CHECKING:
    from logpi.policies.chat_template import Message, Reader


@dataclass(frozen=True)
class Chat:
    """How a row's prompt becomes tokens.

    Attributes:
        wrap: a plain string is put as a user's message through the model's chat template.
        system: system message in front, or "".
        around: for plain prompts without a chat template: a text with {prompt}
            (`prompt_templates.py`), or "".
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
        """Token ids of the prompt; `tools` and `options` are for a chat template.

        Raises:
            ValueError: messages meet a model without a template, or one that refuses them; as
                `messages`.
        """
        messages = self.messages(policy, prompt)
        if messages is None:
            assert isinstance(prompt, str)
            return policy.template.plain(
                self.system + (filled(self.around, prompt) if self.around else prompt)
            )
        return policy.template.ids(messages, tools, options=options)

    def messages(self, policy: Reader, prompt: str | Sequence[Message]) -> list[Message] | None:
        """The prompt as messages, the system's first; None for a text that is gone on with as it
        is.

        Raises:
            ValueError: the prompt has a system message of its own beside `system`, or is a text
                that a template wrote already.
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

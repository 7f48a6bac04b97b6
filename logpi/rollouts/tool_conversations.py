"""Conversations of a policy with a task's environment.

    ToolConversations(policy, environment, limits, chat)    of a rollout
    .prompt(row)                                            token ids of what the policy sees first
    .begin(rows, requests) -> OpenConversations             of one call of the sampler, whose rows
                                                            `on_turn_end` answers

Left out: what happens in a conversation (`open_conversations.py`), how observations are encoded
(`observations.py`), what the final answer is worth (`rewards`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logpi.calls.templates import unread
from logpi.envs.conversation import (
    Conversation,
    TextEnvironment,
    encodable,
    end,
    error_text,
)
from logpi.errors import UserError
from logpi.rollouts.observations import Observations
from logpi.rollouts.open_conversations import OpenConversations

if TYPE_CHECKING:
    import threading

    from logpi.engine.sampling import Request
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.turns import TurnLimits


@dataclass(frozen=True)
class ToolConversations:
    """An environment, and how a policy talks with it.

    Attributes:
        policy: writes the turns. environment: replies to them. limits: of each conversation.
        chat: how prompts become tokens.
        late: threads that still run after their deadline.

    Raises:
        UserError: the model's chat template cannot show the tools, rewrites earlier turns, or
            writes calls that cannot be read.
    """

    policy: CausalLM
    environment: TextEnvironment
    limits: TurnLimits
    chat: Chat
    observations: Observations = field(init=False, repr=False)
    late: list[threading.Thread] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        tools = self.tools
        observations = Observations(self.policy.template, tools, self.limits.observation)
        object.__setattr__(self, "observations", observations)
        if tools:
            observations.check("tool")
            self._check_calls()

    def _check_calls(self) -> None:
        """Refuse a model whose template writes calls in a form that `calls/` cannot read."""
        text = unread(lambda messages, tools: self.policy.template.text(messages, tools, ask=False))
        if text:
            raise UserError(
                "the model's chat template writes calls in a form that cannot be read:"
                f" …{text.strip()[-120:]!r}; use another template, or an environment that describes"
                " its tools and a form of calls itself (native=False)"
            )

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The environment's tools, for the chat template."""
        return encodable(self.environment.tools)

    def prompt(self, row: Row) -> list[int]:
        """Token ids of what the policy sees first.

        Raises:
            UserError: the model's chat template has no place for the tools.
        """
        conversation = self._start(row)
        try:
            prompt = encodable(conversation.prompt)
        finally:
            end(conversation)
        return self.chat(self.policy, prompt, self.tools, row.get("chat_template_kwargs"))

    def begin(self, rows: Sequence[Row], requests: Sequence[Request]) -> OpenConversations:
        """A new conversation about `rows[i]` for every sample of `requests[i]`.

        Raises:
            UserError: the conversations of one row have different prompts, or cannot begin.
        """
        conversations: list[Conversation] = []
        try:
            for row, request in zip(rows, requests, strict=True):
                first = len(conversations)
                for _ in range(request.n):
                    conversations.append(self._start(row))
                if any(c.prompt != conversations[first].prompt for c in conversations[first:]):
                    raise UserError(
                        "the environment begins conversations about one row with different"
                        " prompts: a group must begin alike"
                    )
        except BaseException:
            for conversation in conversations:
                end(conversation)
            raise
        return OpenConversations(
            conversations,
            tools=bool(self.environment.tools),
            limits=self.limits,
            template=self.policy.template,
            chat=self.chat,
            observations=self.observations,
            late=self.late,
        )

    def _start(self, row: Row) -> Conversation:
        try:
            return self.environment.start(row)
        except (ValueError, UserError):
            raise
        except Exception as error:  # somebody else's code
            raise UserError(
                f"the environment cannot begin a conversation: {error_text(error)}"
            ) from error

"""How a model's responses are sampled: options of every job that samples.

Left out: the items (`items.py`), and the sampler itself (`engine/`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.engine.sampling import Sampling
    from logpi.envs.task import Row
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.prompt_filter import PromptFilter
    from logpi.rollouts.tool_conversations import ToolConversations


@dataclass(frozen=True, kw_only=True)
class DecodingArguments:
    """Options of every job that samples."""

    HEADING: ClassVar[str] = "sampling"

    temperature: float = option(1.0, help="of sampling", above=0, least=1e-3, most=1000)
    max_completion_length: int = option(
        512, help="tokens after which a completion is cut off", least=1, most=2**24
    )
    slots: int = option(
        64,
        help="completions decoded at the same time; memory and speed only",
        least=1,
        most=2**16,
        changeable=True,
    )
    overlong_prompts: str = option(
        "drop",
        help=(
            "prompts longer than the model's context: left out and counted, shortened, or an error"
        ),
        choices=("drop", "cut", "refuse"),
    )

    def prompt_filter(
        self, policy: CausalLM, chat: Chat, conversations: ToolConversations | None = None
    ) -> PromptFilter:
        """The filter that makes token ids of prompts, and drops or cuts those that are too long."""
        from logpi.rollouts.prompt_filter import PromptFilter

        return PromptFilter(policy, chat, conversations, self.overlong_prompts)


@dataclass(frozen=True, kw_only=True)
class SamplingArguments(DecodingArguments):
    """How responses are sampled to be measured."""

    HEADING: ClassVar[str] = "sampling"

    samples: int = option(4, help="for each item", least=1, most=2**16)
    top_p: float = option(
        1.0, help="sample from the likeliest tokens of this total probability", above=0, most=1
    )
    stop: tuple[str, ...] = option(
        (), help="strings that end a completion (default: the FORMAT's)", nargs="*"
    )

    def sampling(self, stop: tuple[str, ...]) -> Sampling:
        """The sampler's settings; `stop` are the task's own."""
        from logpi.engine.sampling import Sampling

        return Sampling(
            top_p=self.top_p, max_tokens=self.max_completion_length, stop=self.stop or stop
        )

    def fitting(
        self,
        rows: Sequence[Row],
        policy: CausalLM,
        chat: Chat,
        conversations: ToolConversations | None = None,
    ) -> Sequence[Row]:
        """The items whose prompts the policy can read. Prints how its answers end. Raises UserError
        if its chat template refuses one."""
        print(policy.template.describe(), file=sys.stderr)
        return self.prompt_filter(policy, chat, conversations).check(list(rows), "items")

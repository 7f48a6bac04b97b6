"""Limits of conversations with a task's environment: options of `logpi rl` and `logpi eval`.

Left out: tasks without an environment; these options do not touch them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.envs.task import Task
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.tool_conversations import ToolConversations


@dataclass(frozen=True, kw_only=True)
class TurnArguments:
    """Limits of a conversation. `--max-completion-length` limits what the policy itself writes in
    all turns."""

    HEADING: ClassVar[str] = "tools"

    max_turns: int = option(8, help="with tools: turns of the policy", least=1)
    max_tool_calls: int = option(16, help="with tools: calls in one conversation", least=0)
    max_observation_length: int = option(
        512, help="with tools: tokens of a reply; a longer one loses its middle", least=1
    )
    tool_timeout: float = option(
        30.0, help="with tools: seconds for a reply", above=0, most=86_400, changeable=True
    )
    tool_patience: float = option(
        0.05,
        help=(
            "with tools: seconds that all rows wait for replies; inf repeats bit for bit, slow"
            " tools or not"
        ),
        least=0,
        most=float("inf"),
        changeable=True,
    )

    def conversations(self, task: Task, policy: CausalLM, chat: Chat) -> ToolConversations | None:
        """Conversations with the task's environment; None if it has none.

        Raises:
            UserError: the model cannot have them.
        """
        from logpi.rollouts.tool_conversations import ToolConversations
        from logpi.rollouts.turns import TurnLimits

        environment = getattr(task, "env", None)
        if environment is None:
            return None
        limits = TurnLimits(
            self.max_turns,
            self.max_tool_calls,
            self.max_observation_length,
            self.tool_timeout,
            self.tool_patience,
        )
        return ToolConversations(policy, environment, limits, chat)


def columns(task: Task) -> tuple[str, ...]:
    """Columns that reward functions get beside the item's own."""
    of_turns = () if getattr(task, "env", None) is None else ("turns", "step_reward")
    return ("step", "assistant_prefix", *of_turns)

"""Tools for any task, and the limits of conversations: options of `logpi rl` and `logpi eval`.

`--tools` gives a task without an environment one of the user's own functions. How the model learns
of them depends on the model (`toolbox`). Left out: tasks with neither; these options do not touch
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.envs.conversation import TextEnvironment
    from logpi.envs.task import Task
    from logpi.envs.tools import Tool, ToolEnvironment
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.tool_conversations import ToolConversations


@dataclass(frozen=True, kw_only=True)
class TurnArguments:
    """Limits of a conversation. `--max-completion-length` limits what the policy itself writes in
    all turns."""

    HEADING: ClassVar[str] = "tools"

    tools: tuple[str | Any, ...] = option(
        (),
        objects=True,
        help="FILE.py:FUNCTION that the model may call, on a task without tools of its own",
        nargs="*",
    )
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
        """Conversations with the task's environment, or about the tools; None without both.

        Raises:
            UserError: the model cannot have them, or as `given_tools`.
        """
        from logpi.rollouts.tool_conversations import ToolConversations
        from logpi.rollouts.turns import TurnLimits

        tools = self.given_tools(task)
        environment: TextEnvironment | None = getattr(task, "env", None)
        if tools:
            environment = toolbox(tools, task, policy, chat)
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

    def given_tools(self, task: Task) -> tuple[Tool, ...]:
        """The tools of `--tools`.

        Raises:
            UserError: the task has an environment. ValueError: a function that cannot be a tool.
        """
        from logpi.envs.tools import tool

        if self.tools and getattr(task, "env", None) is not None:
            raise UserError(
                f"the task {task.name} has an environment, which says what its tools are: leave"
                " --tools out, or choose a task without one"
            )
        return tuple(map(tool, self.tools))


def toolbox(tools: Sequence[Tool], task: Task, policy: CausalLM, chat: Chat) -> ToolEnvironment:
    """An environment of tools, in the form that the model can read.

    its chat template lists tools   the template writes them, and their results
    its chat template has no place  a system message lists them, a user's message tells results
    prompts are plain text          text in front lists them, results are text
    """
    from logpi.envs.tools import ToolEnvironment

    if not chat.wrap and isinstance(_first(task)["prompt"], str):
        return ToolEnvironment(tuple(tools), chat=False, native=False)
    asked = [{"role": "user", "content": "logpi asks"}]
    schemas, template = [t.schema for t in tools], policy.template
    lists = template.text(asked, schemas) != template.text(asked)
    return ToolEnvironment(tuple(tools), native=lists)


def _first(task: Task) -> Mapping[str, Any]:
    """A row of the task; a benchmark may have a test alone."""
    try:
        return task.rows("train")[0]
    except ValueError:
        return task.rows("test")[0]


def columns(task: Task, a: Any = None) -> tuple[str, ...]:
    """Columns that reward functions get beside the item's own, in a job with the options `a`."""
    tools = a.given_tools(task) if isinstance(a, TurnArguments) else ()
    talks = tools or getattr(task, "env", None) is not None
    more = ("turns", "step_reward", "verdicts") if talks else ()
    return ("step", "assistant_prefix", *more)

"""Which prompts a run of reinforcement learning takes: the curriculum, and general prompts mixed
in. Arguments of `logpi rl`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.envs.task import Task
    from logpi.rollouts.prompt_sources import PromptSource


@dataclass(frozen=True, kw_only=True)
class SourceArguments:
    """The order of prompts, and a second source of them."""

    HEADING: ClassVar[str] = "order of prompts, and general ones"

    curriculum: bool = option(
        False, help="prefer prompts that are answered right sometimes, neither always nor never"
    )
    general: str | Any = option(
        "",
        objects=True,
        help="further prompts, which have no answer: a file or hub name (reward: preference:PATH)",
    )
    general_share: float = option(0.25, help="their share of an update's prompts", least=0, most=1)
    general_from: int = option(0, help="updates before they join", least=0)

    def others(self) -> Task | None:
        """The task of general prompts. Raises UserError if they have answers that a verifier would
        judge."""
        from logpi.envs.tasks import task as make_task

        if not self.general:
            return None
        other = make_task(self.general)
        if "answer" in other.rows("train")[0]:
            raise UserError(
                f"--general {self.general} has answers: mix it into --task, where they are checked"
            )
        return other

    def source(self, task: Task, other: Task | None, prompts: int, seed: int) -> PromptSource:
        """The source of prompts; `other`: general ones."""
        from logpi.rollouts.prompt_sources import Curriculum, Mixture, TaskPrompts

        main: PromptSource = TaskPrompts(task, seed)
        if self.curriculum:
            main = Curriculum(main, seed)
        if other is None:
            return main
        return Mixture(
            main,
            TaskPrompts(other, seed),
            share=self.general_share,
            start=self.general_from * prompts,
        )

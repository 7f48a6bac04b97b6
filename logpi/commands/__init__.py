"""The table of commands; and those of them that read runs or models and make no run.

Jobs, which make runs, are in `jobs/`, chains of them in `demos/`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple


class CommandEntry(NamedTuple):
    """A command.

    Attributes:
        module: it has `main(argv)`. options: the dataclass of its options there, or a table of
            sub-commands that have one each. summary: what it does.
    """

    module: str
    options: str
    summary: str

    def load(self) -> ModuleType:
        return import_module(f"logpi.{self.module}")

    def declaration(self) -> Any:
        """The dataclass, or the table."""
        return getattr(self.load(), self.options)


COMMANDS: dict[str, CommandEntry] = {
    "demo": CommandEntry(
        "demos.demo",
        "ReasoningDemo",
        "a small language model learns to reason, in about five minutes on two cores",
    ),
    "r1": CommandEntry(
        "demos.r1", "R1", "DeepSeek-R1's recipe, all stages, on a small model or yours"
    ),
    "rl": CommandEntry("jobs.rl", "RL", "train a language model with rewards that can be checked"),
    "sft": CommandEntry("jobs.sft", "SFT", "fine-tune a language model on demonstrations"),
    "reward-model": CommandEntry(
        "jobs.reward_model", "TrainRewardModel", "train a reward model on preference pairs"
    ),
    "prefer": CommandEntry(
        "jobs.prefer",
        "Prefer",
        "DPO, IPO, KTO, ORPO, SimPO and kin: learn from preferences directly",
    ),
    "preferences-demo": CommandEntry(
        "demos.preferences",
        "PreferencesDemo",
        "two lanes side by side: SFT -> reward model -> PPO, and SFT -> DPO",
    ),
    "distill-demo": CommandEntry(
        "demos.distillation",
        "DistillationDemo",
        "a small model learns from a larger one, in four lanes with the same budget",
    ),
    "tools-demo": CommandEntry(
        "demos.tools",
        "ToolsDemo",
        "small models learn to search and to call, beside others that lack a part",
    ),
    "gym": CommandEntry("jobs.gym", "Gym", "train on a Gymnasium environment or the grid world"),
    "play": CommandEntry("commands.play", "Play", "watch a policy that `logpi gym` trained"),
    "eval": CommandEntry("jobs.evaluate", "Evaluate", "pass@1, pass@k and maj@k on held-out items"),
    "step-labels": CommandEntry(
        "jobs.step_labels",
        "StepLabels",
        "pairs of beginnings, for a process reward model to learn from",
    ),
    "harvest": CommandEntry(
        "jobs.harvest",
        "Harvest",
        "a teacher's responses, judged and cleaned, as demonstrations for sft",
    ),
    "compute": CommandEntry(
        "jobs.compute",
        "Compute",
        "accuracy against tokens spent at test time, of one model or of two",
    ),
    "inspect": CommandEntry(
        "commands.inspect",
        "Inspect",
        "one response of a run, turn by turn: what was written, earned and taught",
    ),
    "view": CommandEntry(
        "commands.view",
        "View",
        "runs in the browser: curves, comparisons, responses token by token",
    ),
    "compare": CommandEntry(
        "commands.compare",
        "Compare",
        "runs side by side: the arguments that differ, means over seeds, one picture",
    ),
    "chat": CommandEntry("commands.chat", "ChatWith", "talk to a model"),
    "serve": CommandEntry(
        "commands.serve",
        "Serve",
        "a model behind OpenAI's protocol, for lm-eval, inspect-ai and other harnesses",
    ),
    "check-model": CommandEntry(
        "commands.check_model",
        "CheckModel",
        "what logpi relies on, held against a model and its tokenizer",
    ),
    "algorithms": CommandEntry("commands.algorithms", "AlgorithmList", "the table of algorithms"),
    "describe": CommandEntry(
        "commands.describe",
        "Describe",
        "an algorithm as mathematics, with its sources and divergences",
    ),
    "lab": CommandEntry(
        "commands.lab",
        "COMMANDS",
        "every estimator held against the exact gradient, by enumeration",
    ),
    "repeat": CommandEntry(
        "commands.repeat", "RepeatRun", "run a saved run's command again with its own arguments"
    ),
    "launch": CommandEntry(
        "commands.launch",
        "Launch",
        "start a job on several ranks: on this machine, by Ray or by SLURM",
    ),
    "sweep": CommandEntry(
        "jobs.sweep", "JobSweep", "one job with several values of its options, and a table"
    ),
    "completion": CommandEntry(
        "commands.completion", "ShellCompletion", "completion of commands and options in a shell"
    ),
}

# Those that compute nothing, and choose no threads.
LIGHT = {"algorithms", "compare", "completion", "describe", "inspect", "launch", "view"}
# Those that several ranks can share the work of.
WITH_RANKS = {"eval", "prefer", "r1", "reward-model", "rl", "sft"}

"""The table of commands; and those of them that read runs or models and make no run.

Jobs, which make runs, are in `jobs/`, chains of them in `demos/`.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

# name -> (module with main(argv), what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "demos.demo",
        "a small language model learns to reason, in about five minutes on two cores",
    ),
    "r1": ("demos.r1", "DeepSeek-R1's recipe, all stages, on a small model or yours"),
    "rl": ("jobs.rl", "train a language model with rewards that can be checked"),
    "sft": ("jobs.sft", "fine-tune a language model on demonstrations"),
    "reward-model": ("jobs.reward_model", "train a reward model on preference pairs"),
    "prefer": (
        "jobs.prefer",
        "DPO, IPO, KTO, ORPO, SimPO and kin: learn from preferences directly",
    ),
    "preferences-demo": (
        "demos.preferences",
        "two lanes side by side: SFT -> reward model -> PPO, and SFT -> DPO",
    ),
    "tools-demo": (
        "demos.tools",
        "small models learn to search and to call, beside others that lack a part",
    ),
    "gym": ("jobs.gym", "train on a Gymnasium environment or the grid world"),
    "play": ("commands.play", "watch a policy that `logpi gym` trained"),
    "eval": ("jobs.evaluate", "pass@1, pass@k and maj@k on held-out items"),
    "step-labels": (
        "jobs.step_labels",
        "pairs of beginnings, for a process reward model to learn from",
    ),
    "compute": (
        "jobs.compute",
        "accuracy against tokens spent at test time, of one model or of two",
    ),
    "inspect": (
        "commands.inspect",
        "one response of a run, turn by turn: what was written, earned and taught",
    ),
    "chat": ("commands.chat", "talk to a model"),
    "check-model": (
        "commands.check_model",
        "what logpi relies on, held against a model and its tokenizer",
    ),
    "algorithms": ("commands.algorithms", "the table of algorithms"),
    "describe": (
        "commands.describe",
        "an algorithm as mathematics, with its sources and divergences",
    ),
    "lab": ("commands.lab", "every estimator held against the exact gradient, by enumeration"),
    "repeat": ("commands.repeat", "run a saved run's command again with its own arguments"),
}

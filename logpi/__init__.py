"""logpi: policy gradients, from the theorem to reasoning models.

Environments and policies make rollouts; rollouts make batches; an objective scores a batch; an
update moves the policy; an algorithm names the choices. This page is the public API; everything
heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Algorithm": "algorithms",
    "algorithm": "algorithms",
    "describe": "algorithms",
    "PolicyGradient": "objectives.policy_gradient",
    "TruncatedIS": "ops.corrections",
    "Batch": "types",
    "Collected": "types",
    "Comparison": "types",
    "Data": "types",
    "Objective": "types",
    "PolicyOutput": "types",
    "Targets": "types",
    "Trajectory": "types",
    "collate": "rollouts.collate",
    "AdamW": "updates.adamw",
    "Constant": "updates.adamw",
    "Cosine": "updates.adamw",
    "Linear": "updates.adamw",
    "TorchOptimizer": "updates.adamw",
    "SGD": "updates.sgd",
    "TrustRegion": "updates.trust_region",
    "Learner": "learner",
    "OffPolicyError": "learner",
    "Trust": "learner",
    "RL": "jobs.rl",
    "SFT": "jobs.sft",
    "Prefer": "jobs.prefer",
    "RewardModel": "jobs.reward_model:TrainRewardModel",
    "Gym": "jobs.gym",
    "Evaluate": "jobs.evaluate",
    "open_run": "jobs.open_run",
    "LanguageModel": "engine.language_model",
    "complete": "train",
}
__all__ = ["__version__", *sorted(_WHERE)]

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm, algorithm, describe
    from logpi.engine.language_model import LanguageModel
    from logpi.jobs.evaluate import Evaluate
    from logpi.jobs.gym import Gym
    from logpi.jobs.open_run import open_run
    from logpi.jobs.prefer import Prefer
    from logpi.jobs.reward_model import TrainRewardModel as RewardModel
    from logpi.jobs.rl import RL
    from logpi.jobs.sft import SFT
    from logpi.learner import Learner, OffPolicyError, Trust
    from logpi.objectives.policy_gradient import PolicyGradient
    from logpi.ops.corrections import TruncatedIS
    from logpi.rollouts.collate import collate
    from logpi.train import complete
    from logpi.types import Batch, Collected, PolicyOutput, Targets, Trajectory
    from logpi.updates.adamw import AdamW, Constant, Cosine, Linear, TorchOptimizer
    from logpi.updates.sgd import SGD
    from logpi.updates.trust_region import TrustRegion


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        module, _, own = _WHERE[name].partition(":")
        return getattr(import_module(f"logpi.{module}"), own or name)
    if name in ("algorithms", "lab", "objectives", "ops", "testing", "train", "types"):
        return import_module(f"logpi.{name}")
    raise AttributeError(f"module 'logpi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

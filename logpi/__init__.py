"""logpi: policy gradients, from the theorem to reasoning models.

Environments and policies make rollouts; rollouts make batches; an objective scores a batch; an update moves the policy; an
algorithm names the choices. This page is the public API; everything heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Algorithm": "algorithms", "algorithm": "algorithms", "describe": "algorithms",
    "PolicyGradient": "objectives", "TruncatedIS": "objectives",
    "Batch": "types", "Collected": "types", "Evaluation": "types", "Targets": "types", "Trajectory": "types",
    "collate": "types",
    "AdamW": "optimizers", "Constant": "optimizers", "Cosine": "optimizers", "Linear": "optimizers", "SGD": "update",
    "TrustRegion": "update",
    "Learner": "learner", "OffPolicyError": "learner", "Trust": "learner",
}  # fmt: skip
__all__ = ["__version__", *sorted(_WHERE)]

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm, algorithm, describe
    from logpi.learner import Learner, OffPolicyError, Trust
    from logpi.objectives import PolicyGradient, TruncatedIS
    from logpi.optimizers import AdamW, Constant, Cosine, Linear
    from logpi.types import Batch, Collected, Evaluation, Targets, Trajectory, collate
    from logpi.update import SGD, TrustRegion


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"logpi.{_WHERE[name]}"), name)
    if name in ("algorithms", "lab", "objectives", "ops", "testing", "types"):
        return import_module(f"logpi.{name}")
    raise AttributeError(f"module 'logpi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Checks of your own parts, as functions.

    check_all(objective, …)   invariances of a loss; AssertionError names the broken one
    check_model(policy)       laws of a model and its tokenizer; a table with a verdict

Left out: whether an objective learns (`logpi.lab` compares it with the exact gradient).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from logpi.testing.objective import (
    check_all,
    check_dead_rows,
    check_garbage,
    check_micro_batches,
    check_observation_deletion,
    check_padding,
    check_ranks,
    check_row_order,
    gradient,
    group,
    random_case,
    row,
)

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.reward_model import RewardModel
    from logpi.testing.model import ModelReport

__all__ = [
    "check_all",
    "check_dead_rows",
    "check_garbage",
    "check_micro_batches",
    "check_model",
    "check_observation_deletion",
    "check_padding",
    "check_ranks",
    "check_row_order",
    "gradient",
    "group",
    "random_case",
    "row",
]


def check_model(policy: CausalLM | RewardModel) -> ModelReport:
    """Check every law of models (`logpi.testing.model.LAWS`); it takes less than a minute for a
    small model.

    `print(report)` shows each law, its verdict and one line; `report.passed` is whether no law is
    broken. A known limit of a model ("the template refuses a system message") is reported and
    breaks no law. Nothing is raised: an exception inside a law is that law's finding.
    """
    from logpi.testing.model import check

    return check(policy)

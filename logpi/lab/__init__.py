"""The lab: every estimator held against the exact gradient, by enumeration and not by argument.

    mdp.py          finite processes: J, ∇J, V, Q, A, visits, Fisher matrix, every trajectory
    worlds.py       token tasks and the grid world as such processes, recorded as batches
    expectation.py  E[∇L̂] and Var[∇L̂] over every batch, through the library's own objectives
    claims.py       what theory says they are
    verdict.py      the same for your own objective: `logpi.lab.check(objective)`
    bias.py variance.py kl.py clip.py length.py trust.py bellman.py steps.py
                    one report each, `logpi lab NAME`
    report.py       tables, JSON, pictures; `scripts/lab_docs.py` writes the pages in docs/lab

Left out: anything sampled, but for `steps.py`, which asks a real language model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Check": "verdict",
    "MDP": "mdp",
    "Moments": "expectation",
    "Setting": "expectation",
    "World": "worlds",
    "check": "verdict",
    "double": "worlds",
    "gradients": "expectation",
    "grid_world": "worlds",
    "moments": "expectation",
    "responses": "worlds",
    "standard": "worlds",
    "token_world": "worlds",
}
__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from logpi.lab.expectation import Moments as Moments
    from logpi.lab.expectation import Setting as Setting
    from logpi.lab.expectation import gradients as gradients
    from logpi.lab.expectation import moments as moments
    from logpi.lab.mdp import MDP as MDP
    from logpi.lab.verdict import Check as Check
    from logpi.lab.verdict import check as check
    from logpi.lab.worlds import World as World
    from logpi.lab.worlds import double as double
    from logpi.lab.worlds import grid_world as grid_world
    from logpi.lab.worlds import responses as responses
    from logpi.lab.worlds import standard as standard
    from logpi.lab.worlds import token_world as token_world


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        found = getattr(import_module(f"logpi.lab.{_WHERE[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'logpi.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The lab: every estimator is compared with the exact gradient, by enumeration.

    mdp.py          finite processes: J, ∇J, V, Q, A, visits, Fisher matrix, every trajectory
    worlds.py       token tasks and the grid world as such processes, recorded as batches
    expectation.py  E[∇L̂] and Var[∇L̂] over every batch, through the library's own objectives
    claims.py       what they are in theory: closed forms
    verdict.py      the same for your own objective: `logpi.lab.check(objective)`
    bias.py variance.py kl.py clip.py length.py trust.py bellman.py rewards.py preferences.py
    weights.py worked.py ladder.py steps.py
                    one report each, `logpi lab NAME` (unpacking.py: GAE's chain for `worked`)
    rungs.py episodes.py
                    REINFORCE and five fixes, trained on sampled episodes, for `ladder`
    grids.py policy_values.py
                    maps of a grid world; V, Q and A of a given policy
    report.py       tables, JSON, pictures; `scripts/lab_docs.py` writes the pages in docs/lab

Left out: sampling, except in `steps.py`, which uses a real language model, and for `ladder`.
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
    from logpi.lab.expectation import Moments, Setting, gradients, moments
    from logpi.lab.mdp import MDP
    from logpi.lab.verdict import Check, check
    from logpi.lab.worlds import World, double, grid_world, responses, standard, token_world


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(f"logpi.lab.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'logpi.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""A learner's saved state, made to fit the policy and the optimiser that go on with it.

Weights and moments that were whole go into shards and back, with any number of ranks. In shards
bfloat16 learns on weights of 32 bits, whole on masters (`masters.py`): these are the same numbers,
and become each other.

Left out: reading the state (`runs/checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from logpi.distributed.parts import fitted
from logpi.updates.masters import Masters, narrow

__all__ = ["fit_module", "fit_optimizer", "fit_policy"]

State = dict[str, Any]


def fit_module(saved: Mapping[str, Any], module: Any) -> State:
    """What `module.load_state_dict` takes."""
    own = module.state_dict()
    return {k: fitted(v, own[k]) if k in own else v for k, v in saved.items()}


def fit_policy(
    saved: Mapping[str, Any], moments: Mapping[str, Any], policy: Any, optimizer: Any
) -> State:
    """The same of a policy that learns: weights from their masters, where they have no masters
    here."""
    weights = dict(saved)
    if "masters" in moments and not isinstance(optimizer, Masters):
        masters = iter(moments["masters"])
        names = _names(policy)
        for p in _params(optimizer):
            if narrow(saved[names[p][0]]):
                weights |= dict.fromkeys(names[p], next(masters))
    return fit_module(weights, policy)


def fit_optimizer(
    saved: Mapping[str, Any], weights: Mapping[str, Any], policy: Any, optimizer: Any
) -> State:
    """What `optimizer.load_state_dict` takes.

    Args:
        weights: the policy's as they were saved, of which masters are made where none were.
    """
    params = _params(optimizer)
    moments = {
        i: {k: _like(v, params[int(i)]) for k, v in own.items()}
        for i, own in saved["state"].items()
    }
    state = {**saved, "state": moments}
    if isinstance(optimizer, Masters):
        names = _names(policy)
        taken = saved.get("masters") or [weights[names[p][0]] for p, _ in optimizer.pairs]
        state["masters"] = [fitted(v, m) for v, (_, m) in zip(taken, optimizer.pairs, strict=True)]
    else:
        state.pop("masters", None)
    return state


def _like(value: Any, p: Tensor) -> Any:
    """A moment as its weight is laid out; a number of steps as it is."""
    moment = isinstance(value, Tensor) and value.shape == p.shape
    return fitted(value, p) if moment else value


def _params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _names(policy: Any) -> dict[Tensor, list[str]]:
    """Every name of each weight: tied ones have several."""
    names: dict[Tensor, list[str]] = {}
    for name, p in policy.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    return names

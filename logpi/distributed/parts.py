"""Tensors of which every rank holds a part (torch's `DTensor`), beside whole ones.

Left out: which modules have such weights, and when they are whole (`sharding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from logpi.distributed.world import is_sharded

__all__ = ["fitted", "local", "norm"]


def local(x: Tensor) -> Tensor:
    """What this rank holds of it; the same memory."""
    return x._local_tensor if is_sharded(x) else x  # type: ignore[attr-defined]


def fitted(value: Tensor, like: Tensor) -> Tensor:
    """The tensor laid out over the ranks as `like` is. Every rank calls it, and has the same whole
    tensor, or its own part."""
    if not is_sharded(like):
        return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]
    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    if is_sharded(value):
        if value.device_mesh == mesh and value.placements == placements:  # type: ignore[attr-defined]
            return value
        value = value.full_tensor()  # type: ignore[attr-defined]
    from torch.distributed.tensor import distribute_tensor

    # every rank cuts its own part out of what it holds
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


def norm(grads: Sequence[Tensor]) -> float:
    """‖g‖ of gradients of which some are in shards; every rank calls it, and gets the same."""
    shards = [g for g in grads if is_sharded(g)]
    size = float(_norm([g for g in grads if not is_sharded(g)]))
    if not shards:
        return size
    from torch.distributed import all_reduce

    mesh = shards[0].device_mesh  # type: ignore[attr-defined]
    square = _norm([local(g) for g in shards]).to(mesh.device_type).square()
    all_reduce(square, group=mesh.get_group(mesh.ndim - 1))
    return math.hypot(size, float(square.sqrt()))


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(
        tensors[0] if len(tensors) == 1 else torch.stack(torch._foreach_norm(tensors))
    )

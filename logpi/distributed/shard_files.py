"""Tensors in shards as files: every rank writes what it holds, as safetensors, and any number of
ranks reads them back (torch's distributed checkpoints; no pickle).

    write({"policy.w": w}, directory)                         # every rank calls
    read({"policy.w": ("float32", (8, 4))}, directory, mesh)  # shards, or whole without a mesh

Left out: what else is in a checkpoint, its hashes and its name (`runs/checkpoint.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logpi.distributed.world import current

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Described", "described", "mine", "read", "write"]

Described = tuple[str, Sequence[int]]
"""A tensor's precision and its whole shape."""


def described(tensor: Tensor) -> Described:
    """What `read` must know of a tensor."""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape)


def mine(directory: Path) -> list[Path]:
    """The files that this rank has written, in no subdirectory."""
    return sorted(directory.glob(f"shard-{current().rank + 1:05d}-*.safetensors"))


def write(tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Write shards into a directory that every rank sees; every rank calls it.

    Raises:
        OSError: on every rank, if the disk fails on one.
    """
    from torch.distributed.checkpoint import save
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    with _plainly():
        save(dict(tensors), storage_writer=writer, process_group=current()._data)


def read(
    wanted: Mapping[str, Described], directory: Path, mesh: DeviceMesh | None = None
) -> dict[str, Tensor]:
    """The tensors by name: on a mesh in shards, as FSDP lays them out; without one whole, on the
    CPU. Every rank calls it."""
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    world = current()
    out = {name: _blank(kind, shape, mesh) for name, (kind, shape) in wanted.items()}
    with _plainly():
        load(
            out,
            storage_reader=HuggingFaceStorageReader(str(directory)),
            process_group=world._data,
            no_dist=world.size == 1,
        )
    return out


def _blank(kind: str, shape: Sequence[int], mesh: DeviceMesh | None) -> Tensor:
    dtype = getattr(torch, kind)
    if mesh is None:
        return torch.empty(*shape, dtype=dtype)
    from torch.distributed.tensor import Replicate, Shard, empty

    placements = [Replicate()] * (mesh.ndim - 1) + [Shard(0)]
    return empty(*shape, dtype=dtype, device_mesh=mesh, placements=placements)


@contextmanager
def _plainly() -> Iterator[None]:
    """The first rank's own error, instead of torch's collection of them; no word of one process."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        cause: Any = next(iter(error.failures.values()))[0]
        raise cause from None

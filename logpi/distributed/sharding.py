"""Weights in shards: every rank holds a part of each weight, and all of one layer while it computes
(FSDP2, arXiv:2304.11277).

    shard = Shard.parse("4x2", ranks=8)          # 4 shards, each held by 2 replicas
    policy = CausalLM.load(path, shard=shard)    # every rank reads its own shard
    with whole(policy): ...                      # all weights everywhere, for the decoder

transformers' plan says which modules are gathered together. Three things are done otherwise:
gradients are added up, not averaged (weights of rows are made for the whole batch); a module frees
its weights after *every* forward, so that a parameter is its shard whenever nothing runs; and what
logpi computes outside a module's `forward` runs `inside` the module.

Left out: reading models (`policies/loading.py`), single tensors in parts (`parts.py`), gradients of
weights that are whole (`World.sum`), tensor, expert and pipeline parallelism.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from logpi.distributed import ranks
from logpi.distributed.world import current, is_sharded
from logpi.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    "NONE",
    "Shard",
    "full_state",
    "inside",
    "mesh_of",
    "plain_class",
    "reshard",
    "settle",
    "sharded",
    "whole",
]

R = TypeVar("R")

# A weight in float32 with its gradient and Adam's moments, and the part of a device that they may
# take: the rest is for activations and the decoder.
BYTES, ROOM = 16, 0.6
# units whose weights are whole for a while
_whole: WeakSet[Any] = WeakSet()
RUN = "logpi_run"  # the method of a module that runs work inside it


@dataclass(frozen=True)
class Shard:
    """How weights are laid out over the ranks.

    Attributes:
        shards: parts of every weight. replicas: ranks that hold the same part.
        auto: as many shards as ranks where the whole would not fit (`for_model`), else one.
        offload: shards rest in the CPU's memory.
    """

    shards: int = 1
    replicas: int = 1
    auto: bool = False
    offload: bool = False

    @classmethod
    def parse(cls, word: str | int | Shard | None, offload: bool = False) -> Shard:
        """Of `auto`, `none`, `N` or `NxM` (N shards, M replicas), for the ranks of this run.

        Raises:
            UserError: another word, or N · M is not the number of ranks.
        """
        if isinstance(word, Shard):
            return word
        size, said = ranks(), "none" if word is None else str(word)
        if said == "none" or (said == "auto" and (size == 1 or not torch.cuda.is_available())):
            return NONE
        if said == "auto":
            return cls(auto=True, offload=offload)
        numbers = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", said)
        if numbers is None:
            raise UserError(f"--shard is auto, none, N or NxM (N shards, M replicas), not {said!r}")
        shards, replicas = int(numbers[1]), int(numbers[2] or 1)
        if shards * replicas != size:
            raise UserError(
                f"--shard {said} is for {shards * replicas} ranks and there are {size}: N shards"
                " times M replicas is the number of ranks; --shard none leaves weights whole"
            )
        return cls(shards, replicas, offload=offload) if size > 1 else NONE

    def for_model(self, parameters: int) -> Shard:
        """Of a model with so many parameters: `auto` decided."""
        if not self.auto:
            return self
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        fits = parameters * BYTES <= ROOM * memory
        return NONE if fits else Shard(ranks(), offload=self.offload)

    def __bool__(self) -> bool:
        """Whether weights are in the care of FSDP."""
        return self.shards * self.replicas > 1

    def config(self, mixed: bool, plan: dict[str, str]) -> dict[str, Any]:
        """transformers' `distributed_config`.

        Args:
            mixed: shards in float32, computing in bfloat16. plan: beside the model's own.
        """
        current()  # the ranks meet, with logpi's time-outs
        return {
            "fsdp_size": self.shards,
            "dp_replicate_size": self.replicas,
            "fsdp_mixed_precision": mixed,
            "fsdp_cpu_offload": self.offload,
            "fsdp_plan": plan,
        }


NONE = Shard()


def sharded(module: Any) -> bool:
    """Whether some of its weights are in shards."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(m, fsdp.FSDPModule) for m in module.modules())


def plain_class(module: nn.Module) -> type:
    """Its class, as if it were not in shards."""
    return type(module).__bases__[-1] if _is_unit(module) else type(module)


def mesh_of(module: Any) -> DeviceMesh | None:
    """The ranks that its shards are on, replicas × shards; None if nothing is in shards."""
    return next((p.device_mesh for p in module.parameters() if is_sharded(p)), None)  # type: ignore[attr-defined]


def settle(model: nn.Module) -> None:
    """Make a model that was just put into shards add gradients up, free weights after every forward
    and run work inside it; once for each model."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    for module in _units(model):
        module.set_gradient_divide_factor(1.0)
        # another factor than the number of ranks is refused by gloo, and is 0 in bfloat16 on NCCL
        # (pytorch/pytorch#190747)
        module.set_force_sum_reduction_for_comms(True)
    # A weight that stays whole after a forward without backward would be what an optimiser gets to
    # see, and not what the model is made of.
    model.set_reshard_after_forward(True)  # type: ignore[operator]
    for module in (model, model.get_output_embeddings()):  # type: ignore[operator]
        if module is not None and _is_unit(module):
            setattr(module, RUN, _run)
            register_fsdp_forward_method(module, RUN)


def inside(module: nn.Module, work: Callable[..., R], *tensors: Tensor) -> R:
    """What `work` makes of the tensors, run as if it were the module's `forward`: what the module
    itself owns is whole meanwhile. Every rank must call it, as often as the others.

    Args:
        work: returns tensors, in tuples if need be. Gradients reach weights through them.
    """
    run = getattr(module, RUN, None)
    if run is None:
        return work(*tensors)
    try:
        return run(work, *tensors)
    except BaseException:
        reshard(module)
        raise


def _run(work: Callable[..., Any], *tensors: Tensor) -> Any:
    """No results that are views: a change in place would take FSDP's hooks off them."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, lambda x: x if x._base is None else x.clone(), work(*tensors))


def reshard(module: Any) -> None:
    """Free what is whole, after a forward that was broken off."""
    for unit in _units(module):
        state = unit._get_fsdp_state()
        if state._is_root:
            unit.reset_iter_state()
        unit.reshard()


@contextmanager
def whole(module: Any) -> Iterator[None]:
    """Every weight whole on every rank, for reading: the ranks may then do different things, such
    as sample. Nothing happens to a module without shards, or whose weights are whole already."""
    units = [unit for unit in _units(module) if unit not in _whole]
    _whole.update(units)
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            _whole.discard(unit)
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def _state(module: Any) -> dict[str, Tensor]:
    """Its state; of one whose weights are whole without those hooks that would cut them again."""
    units = _units(module)
    if not units or any(unit not in _whole for unit in units):
        return module.state_dict(keep_vars=True)
    state = dict(module.named_parameters(remove_duplicate=False))
    for name, owner in module.named_modules():
        kept = owner._buffers.keys() - owner._non_persistent_buffers_set
        state |= {f"{name}.{k}".lstrip("."): owner._buffers[k] for k in sorted(kept)}
    return state


def full_state(module: Any, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """On the first rank the whole state on the CPU, gathered one tensor at a time, tied ones once;
    elsewhere {}. Every rank calls it.

    Args:
        dtype: of what is in shards, if not their own.
    """
    seen: dict[int, Tensor] = {}
    state = _state(module)
    for value in state.values():
        if id(value) not in seen:
            full = value.detach()
            if is_sharded(full):
                full = (full if dtype is None else full.to(dtype)).full_tensor()  # type: ignore[attr-defined]
            seen[id(value)] = full.cpu() if current().first else torch.empty(0)
    return {name: seen[id(value)] for name, value in state.items()} if current().first else {}


def _is_unit(module: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def _units(module: Any) -> list[Any]:
    """The modules whose weights are gathered together."""
    return [m for m in module.modules() if _is_unit(m)]

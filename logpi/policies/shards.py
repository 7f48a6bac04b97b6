"""A `transformers` model in shards (`distributed/sharding.py`): how it is cut, copied, and taken
out of them again.

`transformers` cuts by its own plan, module by module, while it reads. Left out: reading
(`loading.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from logpi.distributed.parts import local
from logpi.distributed.sharding import Shard, full_state, plain_class, settle, sharded
from logpi.distributed.world import current

FREE = "free_full_weight"  # a rule of transformers: weights are freed after forward


def layout(shard: Shard, model: Any, dtype: torch.dtype) -> tuple[Shard, dict[str, Any]]:
    """The layout, decided for a model (which may be without memory), and what `from_pretrained`
    needs for it: bfloat16 is computed with shards in float32."""
    shard = shard.for_model(sum(p.numel() for p in model.parameters()))
    if not shard:
        return shard, {}
    mixed = dtype == torch.bfloat16
    options: dict[str, Any] = {"dtype": torch.float32} if mixed else {}
    return shard, options | {"distributed_config": shard.config(mixed, _plan(model))}


@contextmanager
def same_chance(shard: Shard) -> Iterator[None]:
    """Generators of random numbers as they were: a new weight in shards draws as many numbers as a
    rank's shard has, and ranks would go on with different ones."""
    if not shard:
        yield
        return
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DTensor random operators")
        yield


def _plan(model: Any) -> dict[str, str]:
    """Rules beside those that `transformers` has for the model: none is gathered together with the
    output layer, which runs by itself (`heads.py`); layers are units in every family."""
    names = {m: n for n, m in model.named_modules()}
    head = names.get(model.get_output_embeddings())
    lists = [m for m in names if isinstance(m, nn.ModuleList)]
    layers = [f"{names[m]}.*" for m in sorted(lists, key=len)[-1:]]
    return dict.fromkeys([*(n for n in model.fsdp_plan if n != head), *layers], FREE)


def cut(model: Any, shard: Shard) -> Any:
    """A whole model, the same on every rank, put into shards in place.

    Raises:
        RunError: it is not the same on every rank.
    """
    shard, options = layout(shard, model, model.dtype)
    if not shard:
        return model
    current().same({"the model's weights": model.parameters()})
    config, device, meshes = model.prepare_distribute_model(options["distributed_config"])
    model.to(device=device, dtype=options.get("dtype"))
    made = _distributed(model, config, meshes)
    made.tie_weights()
    settle(made)
    return made


def twin(model: Any) -> Any:
    """A second model with the same weights in the same shards."""
    made = _empty(model)
    made = _distributed(made, made.config.distributed_config, model._mesh_manager)
    made.to_empty(device=local(next(model.parameters())).device)
    made.tie_weights()
    states = [chain(m.named_parameters(), m.named_buffers()) for m in (made, model)]
    for (name, mine), (other, theirs) in zip(*states, strict=True):
        assert name == other
        local(mine.detach()).copy_(local(theirs.detach()))
    settle(made)
    return made.train(model.training)


def _distributed(model: Any, config: Any, meshes: Any) -> Any:
    """Put into shards, an output layer that shares its weight untied: FSDP takes each weight once,
    and `transformers` ties shards afterwards."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    return model.maybe_distribute_model(model, config, meshes)


def plain(model: Any) -> tuple[Any, dict[str, Tensor] | None]:
    """The model itself and None; of one in shards, the same without memory and on the first rank
    all its weights, as it computes with them. Every rank calls it."""
    if not sharded(model):
        return model, None
    mixed = model.config.distributed_config.fsdp_mixed_precision
    dtype = torch.bfloat16 if mixed else model.dtype
    shell = _empty(model).to(dtype)
    del shell.config.distributed_config
    return shell, full_state(model, dtype)


def _empty(model: Any) -> Any:
    """A model of the same kind, whole, without memory."""
    with torch.device("meta"):
        made = plain_class(model)(deepcopy(model.config))
    if model.can_generate():
        made.generation_config = model.generation_config
    return made.to(model.dtype)

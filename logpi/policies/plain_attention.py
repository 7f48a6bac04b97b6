"""A `transformers` model between two attentions: the packing's, and its own.

`exchange` gives the model the attention of `packing.py`, for good: gradient checkpointing runs
layers again in backward, outside any context manager. Calls of the model itself, as `transformers`
documents them, still use its own attention:

    model(input_ids)             own attention, for this call (hooks)
    model.generate(input_ids)    own attention in eval mode, the mode put back afterwards
    policy.evaluate(batch)       calls `model.base_model` with a packing: the exchanged attention

Left out: backward through `model(input_ids)` with gradient checkpointing, which needs
`plain_attention` around both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from logpi.policies.packing import ATTENTION, register

# attribute of an exchanged model: the names of attentions to return to
STACK = "attentions"


def exchange(model: Any) -> None:
    """Let a model's layers attend by the packing that its base model is called with."""
    if _own(model) is not None:
        return
    register()
    model.own_attention = model.config._attn_implementation
    setattr(model, STACK, [])
    model.config._attn_implementation = ATTENTION
    model.register_forward_pre_hook(_open)
    model.register_forward_hook(_close, always_call=True)
    # a method, not a closure: `copy.deepcopy`, which makes references, binds it to the copy
    model.generate = MethodType(_generate, model)


@contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """The model with another attention for a while."""
    config = model.config
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """The model as `transformers` made it, for its own forward and `generate`, and for saving."""
    with attention(model, _own(model) or model.config._attn_implementation):
        yield


def _own(model: Any) -> str | None:
    """The name of the attention that an exchanged model came with."""
    return vars(model).get("own_attention")


def _open(model: Any, args: tuple[Any, ...]) -> None:
    getattr(model, STACK).append(model.config._attn_implementation)
    model.config._attn_implementation = model.own_attention


def _close(model: Any, args: tuple[Any, ...], output: Any) -> None:
    model.config._attn_implementation = getattr(model, STACK).pop()


def _generate(model: Any, *args: Any, **kwargs: Any) -> Any:
    """`transformers`' own `generate` (see there)."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with plain_attention(model):
            return type(model).generate(model, *args, **kwargs)
    finally:
        for module, training in modes:
            module.training = training

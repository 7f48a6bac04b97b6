"""Positions: how many a model has, and rotary embeddings whose frequencies depend on how long the
text is.

`positions` is where learned embeddings of positions end. Beyond it the model would raise an
IndexError; rows are cut, or refused, before.

Two kinds of frequencies depend on length:

    longrope (Phi-3, Phi-4-mini, MiniCPM)    one set for texts of up to L tokens, another for longer
    dynamic NTK                              the trained ones up to L tokens; beyond, the slower the
                                             longer the text

`transformers` chooses them by the longest position of a forward, of any row: beside a long row a
short one would become another text, and so would a packed one. Here every row has the frequencies
that it has alone. Every token carries its row's *extent*, and a model's own rotary embedding is
called once for each different extent.

    two rows, L = 32     extents of their tokens   20 20 … 20 60 60 … 60
                         longrope: two calls, "up to 32" and "beyond"

A row's extent is its length, up to the token of its last action. The length of a row that is being
sampled is not known yet, so its extent is the most that it may become (`reach`): a row that begins
within L tokens stays within them, and is cut off there.

Left out: rows that are sampled across L. The frequencies of tokens already read would change, so
their log-probabilities would belong to no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TYPES = ("dynamic", "longrope")
# tokens
NO_LIMIT = 2**31


@dataclass(frozen=True)
class Ropes:
    """The rotary embeddings of a model that depend on length.

    Attributes:
        modules: of the model. limit: L, tokens. two: beyond L all lengths are one (longrope).
    """

    modules: tuple[Any, ...]
    limit: int
    two: bool

    @classmethod
    def of(cls, model: nn.Module) -> Ropes | None:
        """None: there are none, as in most models."""
        modules = tuple(m for m in model.modules() if any(t in TYPES for t in _types(m)))
        if not modules:
            return None
        for m in modules:
            # another policy may have the same model
            if _turn not in m._forward_hooks.values():
                m.register_forward_hook(_turn, with_kwargs=True)
        config: Any = modules[0].config
        settings = _settings(config)
        ends = [
            s.get("original_max_position_embeddings") or config.max_position_embeddings
            for s in settings
        ]
        return cls(modules, min(ends), all(s["rope_type"] == "longrope" for s in settings))

    def reach(self, prompt: int, context: int) -> int:
        """Most tokens of a row whose prompt has `prompt` tokens."""
        return self.limit if prompt < self.limit <= context else context

    def classes(self, extent: Tensor) -> Tensor:
        """One extent, the shortest, for all that have the same frequencies."""
        return extent.clamp(self.limit, self.limit + 1 if self.two else None)

    @contextmanager
    def extended(self, extent: Tensor | None) -> Iterator[None]:
        """While a model is run on tokens of these extents [N], which `classes` made."""
        for m in self.modules:
            m.extent = extent
        try:
            yield
        finally:
            for m in self.modules:
                m.extent = None


def _types(module: Any) -> list[Any]:
    """Of a rotary embedding: one, or one for each type of layer."""
    types = getattr(module, "rope_type", None)
    return list(types.values()) if isinstance(types, dict) else [types]


def _settings(config: Any) -> list[dict[str, Any]]:
    """The configuration's settings of rotary embeddings that depend on length."""
    parameters = config.rope_parameters
    each = [parameters] if "rope_type" in parameters else list(parameters.values())
    return [s for s in each if s and s.get("rope_type") in TYPES]


def _turn(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """A forward hook: the output [1, N, *], or several, for each token as its row alone would have
    it.

    It is a hook, and the extent is on the module, because both survive `copy.deepcopy`, which makes
    reference models.
    """
    extent = getattr(module, "extent", None)
    if extent is None:
        return output
    by_name = "position_ids" in kwargs
    position = kwargs["position_ids"] if by_name else args[1]
    outputs = list(output) if isinstance(output, tuple) else [output]
    results = [torch.empty_like(x) for x in outputs]
    for long in extent.unique().tolist():
        index = (extent == long).nonzero().squeeze(1)
        # the row's own last position decides: it is read too, and its result cut off
        last = torch.full_like(position[..., :1], long - 1)
        positions = torch.cat([position[..., index], last], -1)
        _forget(module)
        if by_name:
            part = type(module).forward(module, *args, **{**kwargs, "position_ids": positions})
        else:
            part = type(module).forward(module, args[0], positions, *args[2:], **kwargs)
        parts = part if isinstance(output, tuple) else [part]
        for result, x in zip(results, parts, strict=True):
            result.index_copy_(-2, index, x[..., :-1, :])
    return tuple(results) if isinstance(output, tuple) else results[0]


def _forget(module: Any) -> None:
    """The trained frequencies again: with dynamic NTK `transformers` keeps those of the longest
    text that there was."""
    if "dynamic" not in _types(module):
        return
    for name, trained in list(module.named_buffers(recurse=False)):
        if name.endswith("original_inv_freq"):
            setattr(module, name.replace("original_inv_freq", "inv_freq"), trained)
    for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
        setattr(module, name, module.original_max_seq_len)


def positions(model: Any) -> int:
    """Tokens beyond which a model has no embedding of a position; NO_LIMIT where positions
    rotate."""
    if any("inv_freq" in name for name, _ in model.named_buffers()):
        return NO_LIMIT
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT


def within(length: Tensor, positions: int) -> None:
    """Raises ValueError: a row of these lengths [B] has more tokens than the model has positions,
    where the model would raise an IndexError."""
    longest = int(length.max()) if len(length) else 0
    if longest > positions:
        raise ValueError(
            f"a row of {longest} tokens: the model has no more than {positions} positions"
        )

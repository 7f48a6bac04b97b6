"""Attention of ragged rows without padding: one call a layer of PyTorch's flash attention for all
rows of a packed sequence.

It serves half precision on a GPU (compute capability 8 or more, heads of at most 256 numbers, a
multiple of 8). `kernel` decides; without a kernel, packed rows attend in the blocks of
`packing.py`. `plainly` computes the same in plain products. A probe compares outputs and gradients
of the two before the kernel is used at all.

It was written without a GPU: tests run layout and decision with `plainly` in the kernel's place,
and the kernel itself has not run. Left out: soft caps, which PyTorch's kernel does not have, and
second derivatives: within `sdpa_kernel(MATH)`, where those are taken, the kernel is not used.

Legend: N packed tokens · R rows · K keys of all rows · H, Hkv heads · D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from logpi.policies.fast.probe import KERNEL, finds, notice

Kernel = Callable[..., Any]
"""The interface of `torch.nn.attention.varlen.varlen_attn`; see `plainly`."""

HALF = (torch.bfloat16, torch.float16)
# numbers of a head
LARGEST = 256
# PyTorch's first version had none of these
OPTIONS = {"scale", "window_size", "enable_gqa"}


@dataclass(frozen=True)
class Ragged:
    """The rows of a packed sequence for a kernel that takes ragged rows.

    A row's queries are its own tokens, which stand side by side. Its keys are all that it can see;
    its last query stands at its last key. Two rows share the prompt a b c (`packing.py`):

        packed         a b c d e f       row 0: a b c d e    row 1: a b c f
        queries        0 5 6             row 0 asks with tokens 0 … 4, row 1 with token 5
        key            0 1 2 3 4 | 0 1 2 5
        keys           0 5 9

    Attributes:
        key: [K] packed index of the keys, row by row; None where no row shares anything: keys are
            the packed tokens.
        queries, keys: [R+1] int32, the beginnings of rows among the queries and among the keys, and
            the end.
        most_queries, most_keys: of a row.
    """

    key: Tensor | None
    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int

    def attend(
        self, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """[N, H, D] for q [N, H, D], k and v [N, Hkv, D]. window: keys that a query sees, its own
        included, or None for all."""
        if self.key is not None:
            k, v = _Taken.apply(k, self.key), _Taken.apply(v, self.key)
        # the kernel's window is the number of keys before the query's own
        left = -1 if window is None or window >= self.most_keys else window - 1
        return kernel(
            q,
            k,
            v,
            self.queries,
            self.keys,
            self.most_queries,
            self.most_keys,
            scale=scaling,
            window_size=(left, 0),
            enable_gqa=q.shape[1] != k.shape[1],
        )


class _Taken(torch.autograd.Function):
    """x[index]. A shared token's gradient has a term for each row that sees it; they are summed in
    float32, and rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.length = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        (g,) = grads
        (index,) = ctx.saved_tensors
        exact = g.to(torch.promote_types(g.dtype, torch.float32))
        total = exact.new_zeros((ctx.length, *g.shape[1:])).index_add_(0, index, exact)
        return total.to(g.dtype), None


def kernel(q: Tensor, k: Tensor, v: Tensor) -> Kernel | None:
    """The kernel for queries [*, H, D], keys and values [*, Hkv, D] of ragged rows, or None."""
    size = q.shape[2]
    if not q.is_cuda or q.dtype not in HALF or size % 8 or size > LARGEST or v.shape[2] != size:
        return None
    # it is disabled within sdpa_kernel(MATH)
    if not torch.backends.cuda.flash_sdp_enabled():
        return None
    flash = _flash(q.device)
    if flash is None or not _sound(flash, q.device, q.dtype, q.shape[1], k.shape[1], size):
        return None
    return flash


@cache
def _flash(device: torch.device) -> Kernel | None:
    """PyTorch's kernel, where PyTorch is recent enough and the GPU is supported."""
    if torch.version.hip is not None or not torch.backends.cuda.is_flash_attention_available():
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if signature(varlen_attn).parameters.keys() >= OPTIONS else None


def plainly(  # noqa: PLR0913 (as PyTorch's)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """`varlen_attn` as it is documented, row by row in plain products; [N, H, D]. Carries
    gradients.

    window_size: keys that a query sees before and after its own place, −1 for all of them. A row's
        last query is at its last key (FlashAttention 2.1 and later), so with fewer queries than
        keys the first query is not at the first key.
    """
    out = []
    for (i, j), (m, n) in zip(
        pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True
    ):
        k, v = (x[m:n].repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        own = torch.arange(j - i, device=query.device)[:, None] + (n - m) - (j - i)
        away = torch.arange(n - m, device=query.device) - own
        hidden = torch.zeros_like(away, dtype=torch.bool)
        if window_size[0] >= 0:
            hidden |= away < -window_size[0]
        if window_size[1] >= 0:
            hidden |= away > window_size[1]
        scores = torch.einsum("qhd,khd->hqk", query[i:j], k) * scale
        weight = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out.append(torch.einsum("hqk,khd->qhd", weight, v))
    return torch.cat(out)


@cache
def _sound(
    attend: Kernel, device: torch.device, dtype: torch.dtype, heads: int, kv: int, size: int
) -> bool:
    """Whether the kernel computes `plainly`'s outputs and gradients; a notice if not."""
    keep = lambda x: x  # noqa: E731
    # without the hooks of an enclosing checkpoint
    own = torch.autograd.graph.saved_tensors_hooks(keep, keep)
    with torch.inference_mode(False), torch.enable_grad(), own:
        shape = heads, kv, size
        sound = all(_equal(attend, device, dtype, shape, window) for window in (None, 7))
    if not sound:
        name, problem = "flash attention of ragged rows", "computes other numbers here"
        notice(name, problem, "padded blocks are used")
    return sound


def _equal(
    attend: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    window: int | None,
) -> bool:
    """`_sound` on a row of several tiles of the kernel, one of fewer queries than keys, and one of
    a single token, for heads of `shape` (H, Hkv, D)."""
    heads, kv, size = shape
    random = torch.Generator().manual_seed(0)
    begin = [[0, 150, 170, 171], [0, 150, 300, 301]]
    queries, keys = (torch.tensor(x, dtype=torch.int32, device=device) for x in begin)
    rows = Ragged(None, queries, keys, 150, 150)
    shapes = (171, heads), (301, kv), (301, kv), (171, heads)
    *leaves, slope = (
        torch.randn(*s, size, generator=random).to(device, dtype).requires_grad_() for s in shapes
    )

    def results(kernel: Kernel, inputs: list[Tensor]) -> list[Tensor]:
        q, k, v = inputs
        out = rows.attend(kernel, q, k, v, size**-0.5, window)
        gradients = torch.autograd.grad(out, leaves, slope.detach().to(out.dtype))
        return [out.detach(), *gradients]

    expected = results(plainly, [x.float() for x in leaves])
    return finds(lambda: results(attend, leaves), expected, KERNEL)

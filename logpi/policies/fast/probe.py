"""The one rule by which every quick path is compared with the plain one before it is used.

A quick path (`own_modules.py`: packed rows; `trunk.py`: written-out derivatives; `decoder.py`: a
copy for sampling; `varlen.py`: a GPU's kernel) and the plain one compute the same few tokens. The
quick path is used where both give the same numbers up to rounding:

    |ours − theirs| ≤ tolerance · (1 + max |theirs|)          tolerance by the precision of `theirs`

    theirs   2.0  −3.0   0.5       float32: 1e-4 · (1 + 3) = 4e-4
    ours     2.0  −3.0003 0.5      agree, 3e-4 away
    ours     2.0  −3.001  0.5      do not

Left out: the inputs of each path's probe, and what the path is for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
# of a single operation of a GPU in half precision
KERNEL = 2e-2
# errors of a model of another make under a known name, or of one that takes no `packing`
REFUSALS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def agree(ours: Tensor, theirs: Tensor, tolerance: float | None = None) -> bool:
    """Whether two results are equal up to rounding (NaN never is).

    Args:
        tolerance: relative to 1 + the largest number; None: that of `theirs`' precision.

    >>> agree(torch.tensor([2.0, -3.0003]), torch.tensor([2.0, -3.0]))
    True
    """
    if ours.shape != theirs.shape:
        return False
    relative = TOLERANCE[theirs.dtype] if tolerance is None else tolerance
    ours, theirs = ours.detach().float(), theirs.detach().float()
    return float((ours - theirs).abs().max()) <= relative * (1 + float(theirs.abs().max()))


def finds(
    quick: Callable[[], Iterable[Tensor]],
    theirs: Sequence[Tensor],
    tolerance: float | None = None,
) -> bool:
    """Whether `quick` runs here, and agrees with every tensor of `theirs`."""
    try:
        return all(agree(x, y, tolerance) for x, y in zip(quick(), theirs, strict=True))
    except REFUSALS:
        return False


def notice(name: str, problem: str, instead: str) -> None:
    """One warning: which model or kernel has a problem, and what runs instead."""
    warnings.warn(f"{name} {problem}; {instead}", stacklevel=3)


def sample_rows(vocabulary: int, shared: int, device: torch.device) -> Tensor:
    """[2, 16] token ids of a probe, spread over the vocabulary; the rows open with `shared` equal
    tokens."""
    ids = (torch.arange(32, device=device) * 7919 + 13).view(2, 16) % vocabulary
    ids[1, :shared] = ids[0, :shared]
    return ids

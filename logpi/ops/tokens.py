"""Which tokens learn: a share of the batch's own actions, by the policy's entropy.

Left out: which rows and groups enter the batch (`selection.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["highest_entropy"]

# In nats. The first tokens of a group's rows have one entropy, up to the rounding of another split.
EQUAL = 1e-5


def highest_entropy(entropy: Tensor, mask: Tensor, share: float) -> Tensor:
    """The forking tokens (arXiv:2506.01939): the `share` of the own actions at which the policy is
    least sure; [B, T] bool.

        Hₜ ≥ τ,   τ the ⌈share · n⌉-th largest of the n entropies

    Of equal entropies at the threshold (up to 1e-5 nats) all are taken. The n actions are those of
    the whole batch, on all ranks, so a split into micro-batches changes nothing. TRL takes the
    threshold of each micro-batch on all ranks.

    Args:
        entropy: [B, T] nats, of the policy that sampled. mask: [B, T] bool.
        share: in (0, 1].

    >>> import torch
    >>> entropy = torch.tensor([[0.1, 2.0, 0.3], [1.5, 0.2, 9.0]])
    >>> highest_entropy(entropy, torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(), 0.4)
    tensor([[False,  True, False],
            [ True, False, False]])
    """
    values = entropy[mask]
    # 0.2 · 15 is a little more than 3 in floats
    number = math.ceil(share * len(values) - 1e-9)
    if not 0 < number < len(values):
        return mask
    return mask & (entropy >= values.topk(number).values[-1] - EQUAL)

"""Sums over time in which only the policy's own actions count.

Where `mask` is False (prompt, tool output, padding) nothing is read or written and a recursion
passes through, so tool output neither discounts nor bootstraps. Left out: the advantage estimators
that are made of these sums (`advantages.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from logpi.types import Batch

__all__ = ["check_discounts", "next_value", "own", "spread", "td_error", "to_go"]


def check_discounts(**named: float) -> None:
    """Raises ValueError: a discount is not between 0 and 1."""
    for name, x in named.items():
        if not 0 <= x <= 1:
            raise ValueError(f"{name} is between 0 and 1, not {x:g}")


def own(x: Tensor, mask: Tensor) -> Tensor:
    """`x` [B, T] where `mask` is True, exactly 0 elsewhere, whatever stood there (NaN too). Carries
    gradient."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """[B, T] the number `x` [B] of each row at all its own actions."""
    return own(x[:, None].expand(mask.shape), mask)


def to_go(x: Tensor, mask: Tensor, factor: float, steps: int | None = None) -> Tensor:
    """yₜ = Σₖ factorᵏ xₜ₊ₖ over the policy's own actions, at most `steps` of them (None: to the
    row's end); [B, T], 0 where `mask` is False. No gradient.

    >>> to_go(torch.tensor([[-1., -1., -1., 5.]]), torch.ones(1, 4, dtype=torch.bool), 1.0)
    tensor([[2., 3., 4., 5.]])
    >>> to_go(torch.tensor([[-1., -1., -1., 5.]]), torch.ones(1, 4, dtype=torch.bool), 1.0, 2)
    tensor([[-2., -2.,  4.,  5.]])
    """
    x = own(x.detach(), mask)
    if factor == 1.0 and steps is None:
        return own(x.flip(1).cumsum(1).flip(1), mask)
    # A parallel scan: log₂ T turns instead of T steps. Own actions are first put side by side, so
    # that "k actions on" is "k columns on"; then each turn joins two sums into one of twice the
    # reach. With factor ½ and one token of a tool (·) between four actions:
    #
    #     x        1  2  ·  4  8
    #     place    0  1  1  2  3      the action's number in its row
    #     part     1  2  4  8         side by side: sums over 1 action
    #     reach 1  2  4  8  8         part[k] + ½  part[k+1]: sums over 2
    #     reach 2  4  6  8  8         part[k] + ½² part[k+2]: sums over 4
    #     y        4  6  ·  8  8      back in its columns; 4 = 1 + ½·2 + ¼·4 + ⅛·8
    #
    # A number of steps is a sum of powers of two: 3 = 1 + 2 takes `part` at reach 1, and then at
    # reach 2 one action on.
    place = (mask.cumsum(1) - 1).clamp(min=0)
    part = torch.zeros_like(x).scatter_add(1, place, x)
    width = x.shape[1]
    left = 1 << max(width - 1, 0).bit_length() if steps is None or steps >= width else steps
    out, reach, done = torch.zeros_like(x), 1, 0
    while left:
        if left & 1:
            out[:, : width - done] += factor**done * part[:, done:]
            done += reach
        part[:, :-reach] += factor**reach * part[:, reach:]
        reach, left = reach * 2, left >> 1
    return own(out.gather(1, place), mask)


def next_value(value: Tensor, mask: Tensor, terminated: Tensor) -> Tensor:
    """V of the state in which the policy acts next, [B, T]; after a row's last own action V of the
    state that follows.

    That last value is 0 where `terminated` [B] is True (the state is absorbing) and bootstraps
    otherwise. `value` is [B, T+1], in units of return. 0 where `mask` is False. No gradient.
    """
    # Where does the policy act next? For a row of five columns with a gap, V at 0 … 5:
    #
    #     mask       1  0  0  1  0
    #     first_own  0  3  3  3  6      the first own action from here on; 6: there is none
    #     after      3  3  3  6  6      the first own action after this one
    #     state      3  ·  ·  4  ·      column of V: the gap's states are skipped, and the last
    #                                   action is followed by the state right after it
    steps = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    beyond = mask.shape[1] + 1
    first_own = torch.where(mask, steps, beyond).flip(1).cummin(1).values.flip(1)
    after = torch.cat([first_own[:, 1:], torch.full_like(first_own[:, :1], beyond)], 1)
    last = after == beyond
    state = torch.where(last, steps + 1, after)
    return own(value.detach().gather(1, state), mask & ~(last & terminated[:, None]))


def td_error(batch: Batch, value: Tensor, gamma: float) -> Tensor:
    """δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ) [B, T], in units of return; anything where `mask` is False. No
    gradient.

    `value` is [B, T+1]; V(sₜ₊₁) as in `next_value`.
    """
    # Two actions with a tool's reply (·) between them, γ = 1, V = 1 · 3 0, terminated:
    #
    #     r       0  ·  5
    #     after   3  ·  0      V of the state in which the policy acts next; 0 at the end
    #     δ       2  ·  2      0 + 3 − 1 and 5 + 0 − 3
    #     Â       3  ·  2      GAE with λ = ½: 2 + ½·2 and 2, so the reply is no step of its own
    after = next_value(value, batch.mask, batch.terminated)
    return batch.reward + gamma * after - value.detach()[:, :-1]

"""Gymnasium spaces as numbers: observations to rows of features, actions to a family of distributions.

    Box, one float row; Discrete, MultiDiscrete, MultiBinary one-hot; Dict and Tuple flattened; byte images left as they are
    Dict with an "action_mask" (or an environment that puts one in its info): its bits follow the features

Leaves out spaces of no fixed size (Sequence, Graph, Text), which no fixed network can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from logpi.errors import UserError
from logpi.ops.distributions import Bernoulli, Categorical, Distribution, Gaussian, MultiCategorical, SquashedGaussian

__all__ = ["MASK", "action_kind", "check_mask", "encode", "encoded_shape", "is_image", "stack"]

Array = np.ndarray
MASK = "action_mask"


def is_image(space: gym.Space) -> bool:
    """Bytes with three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def encoded_shape(space: gym.Space) -> tuple[int, ...]:
    """The shape of one encoded observation, without bits that come in `info`.

    Raises:
        UserError: a space that no fixed network can read.
    """
    return encode(space, stack(space, [space.sample()])).shape[1:]


def stack(space: gym.Space, items: Sequence[Any]) -> Any:
    """Single observations as the batch that a vector environment would give."""
    if isinstance(space, spaces.Dict):
        return {k: stack(s, [x[k] for x in items]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(s, [x[i] for x in items]) for i, s in enumerate(space.spaces))
    return np.array(items)


def encode(space: gym.Space, x: Any) -> Array:
    """A batch of N observations as [N, D] float32 (bytes [N, *] for an image). An "action_mask" comes last."""
    return x if is_image(space) else _flat(space, x)


def _flat(space: gym.Space, x: Any) -> Array:
    match space:
        case spaces.Box():
            return np.asarray(x, np.float32).reshape(len(x), -1)
        case spaces.Discrete():
            return np.eye(int(space.n), dtype=np.float32)[np.asarray(x) - int(space.start)]
        case spaces.MultiBinary():
            return np.asarray(x, np.float32).reshape(len(x), -1)
        case spaces.MultiDiscrete():
            sizes, x = space.nvec.ravel(), (np.asarray(x) - space.start).reshape(len(x), -1)
            return np.concatenate([np.eye(int(n), dtype=np.float32)[x[:, i]] for i, n in enumerate(sizes)], -1)
        case spaces.Dict():
            names = sorted(space.spaces, key=lambda k: k == MASK)  # stable: the mask last, the others in order
            return np.concatenate([_flat(space.spaces[k], x[k]) for k in names], -1)
        case spaces.Tuple():
            return np.concatenate([_flat(s, x[i]) for i, s in enumerate(space.spaces)], -1)
    raise UserError(
        f"observations of the kind {type(space).__name__} are not supported; supported: Box, Discrete, MultiDiscrete, "
        "MultiBinary, and Dict or Tuple of these. Wrap the environment in one that gives those"
    )


def mask_size(space: gym.Space) -> int:
    """Bits of the observation's own "action_mask"; 0 without one."""
    inside: Mapping[str, gym.Space] = space.spaces if isinstance(space, spaces.Dict) else {}
    return encoded_shape(inside[MASK])[0] if MASK in inside else 0


def check_mask(action: gym.Space, bits: int) -> None:
    """Raises UserError unless a mask of so many bits allows and forbids the actions of this space."""
    match action:
        case spaces.Discrete():
            needed = int(action.n)
        case spaces.MultiDiscrete():
            needed = int(action.nvec.sum())
        case spaces.MultiBinary():
            needed = int(np.prod(action.shape))
        case _:
            raise UserError(
                f"an {MASK} needs actions that can be counted, not {action}: take it out of the observation"
            )
    if bits != needed:
        raise UserError(f"the {MASK} has {bits} bits, {action} has {needed} actions to allow: one bit for each")


def action_kind(space: gym.Space, squash: bool = False) -> Distribution:
    """The family of distributions over an action space.

    Raises:
        UserError: a space without one, or squashing where there are no finite bounds.
    """
    if squash and not isinstance(space, spaces.Box):
        raise UserError(f"only actions of a Box can be squashed, not {space}: leave squash out")
    match space:
        case spaces.Discrete():
            return Categorical(int(space.n), int(space.start))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return MultiCategorical(tuple(int(n) for n in space.nvec))
        case spaces.MultiBinary() if isinstance(space.n, int | np.integer):
            return Bernoulli(int(space.n))
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            shape = None if len(space.shape) == 1 else space.shape
            low, high = (tuple(float(v) for v in x.ravel()) for x in (space.low, space.high))
            try:
                return (SquashedGaussian if squash else Gaussian)(low, high, shape)
            except ValueError as error:
                raise UserError(str(error)) from None
    raise UserError(
        f"actions {space} are not supported; supported: Discrete, MultiDiscrete (one axis, from 0), MultiBinary (one axis), "
        "Box of floats. Wrap the environment in one that takes those"
    )

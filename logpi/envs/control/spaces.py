"""Gymnasium spaces as numbers: observations to rows of features, actions to a family of
distributions.

    Box                                       its numbers, in one row
    Discrete, MultiDiscrete, MultiBinary      one-hot, one bit a number:  Discrete(3), 1 → 0 1 0
    Dict, Tuple                               their parts side by side
    bytes with three axes (an image)          as they are
    Dict with "action_mask", or info with it  the mask's bits come last

`checked_observation` compares an environment's observation with its space: shape, kind of number,
range of Discrete numbers; not the bounds of a Box, which nothing uses. Left out: spaces without a
fixed size (Sequence, Graph, Text), which no network here can read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from logpi.errors import UserError
from logpi.policies.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
)

Array = np.ndarray
MASK = "action_mask"
LARGEST = 10_000_000  # numbers of an encoded observation
notices = logging.getLogger("logpi")


def is_image(space: gym.Space) -> bool:
    """Bytes with three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def encoded_shape(space: gym.Space) -> tuple[int, ...]:
    """The shape of one encoded observation, without mask bits from `info`.

    Raises:
        UserError: a space that no network here can read, for its kind or its size.
    """
    try:
        size = spaces.flatdim(space)
    except (NotImplementedError, ValueError):
        # not a space that can be flattened: `encode` refuses it
        size = 0
    if size > LARGEST:
        raise UserError(
            f"an observation would be {size:,} numbers: wrap the environment in one that gives"
            " fewer"
        )
    return encode(space, stack(space, [space.sample()])).shape[1:]


def checked_observation(space: gym.Space, x: Any, name: str = "an observation") -> Any:
    """A copy of one observation: environments may overwrite theirs at the next step.

    Raises:
        UserError: a shape or kind of number that is not the space's, a missing part, a number out
            of a Discrete space's range.
    """
    if (
        isinstance(space, spaces.Box)
        and isinstance(x, np.ndarray)
        and x.dtype == space.dtype
        and x.shape == space.shape
    ):
        return x.copy()
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _parts(space, x, name)
    try:
        values = np.array(x)
    except Exception:  # lists of unequal length, objects that refuse
        values = np.array(None)
    if values.dtype.kind not in "biuf":
        raise UserError(
            f"the environment gave {name} that is no number or array of numbers: {str(x)[:60]!r}"
        )
    if values.shape != space.shape:
        raise UserError(
            f"the environment gave {name} of shape {values.shape}, and announces {space.shape} in"
            " its observation_space: mend one of the two"
        )
    if isinstance(space, spaces.Box):
        if is_image(space) and values.dtype != np.uint8:
            return _exactly(
                values, np.uint8, f"{name} of {values.dtype} that is not in whole bytes", space
            )
        return values
    values = _exactly(values, space.dtype, f"{name} that is no whole number", space)
    if not space.contains(values):
        raise UserError(
            f"the environment gave {name} {values}, which is not in its observation_space {space}"
        )
    return values


def _parts(space: spaces.Dict | spaces.Tuple, x: Any, name: str) -> Any:
    if isinstance(space, spaces.Dict):
        missing = [k for k in space.spaces if not isinstance(x, Mapping) or k not in x]
        if missing:
            raise UserError(
                f"the environment gave {name} without {missing[0]!r}, which its observation_space"
                " announces"
            )
        return {k: checked_observation(s, x[k], f"{name}[{k!r}]") for k, s in space.spaces.items()}
    if not isinstance(x, tuple | list) or len(x) != len(space.spaces):
        raise UserError(
            f"the environment gave {name} that is no tuple of {len(space.spaces)}, as its"
            " observation_space announces"
        )
    return tuple(
        checked_observation(s, part, f"{name}[{i}]")
        for i, (s, part) in enumerate(zip(space.spaces, x, strict=True))
    )


def _exactly(values: Array, dtype: Any, what: str, space: gym.Space) -> Array:
    """The same numbers in another type. Raises UserError if that would change them."""
    is_finite = values.dtype.kind != "f" or np.isfinite(values).all()
    if not is_finite or not np.array_equal(whole := values.astype(dtype), values):
        raise UserError(f"the environment gave {what}, and announces {space}: mend one of the two")
    return whole


def stack(space: gym.Space, items: Sequence[Any]) -> Any:
    """Single observations as a batch, in the form of a vector environment's."""
    if isinstance(space, spaces.Dict):
        return {k: stack(s, [x[k] for x in items]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(s, [x[i] for x in items]) for i, s in enumerate(space.spaces))
    return np.array(items)


def encode(space: gym.Space, x: Any) -> Array:
    """A batch of N observations as [N, D] float32 (bytes [N, *] for an image). An "action_mask"
    comes last."""
    return x if is_image(space) else _flat(space, x)


def encode_given(space: gym.Space, x: Any) -> Array:
    """One observation as [D] (an image as it is), or a batch of N as [N, D].

    Whether it is one or a batch, the axes say. An array that is encoded already stays as it is: of
    another shape than a Box has, or of floats where another space has whole numbers.

    >>> encode_given(spaces.Discrete(3), 1), encode_given(spaces.Discrete(3), [1, 0]).shape
    (array([0., 1., 0.], dtype=float32), (2, 3))
    >>> both = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 9)})
    >>> encode_given(both, {"a": 1, "b": [5]})
    array([0., 1., 5.], dtype=float32)
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raw = isinstance(x, Mapping | tuple)
    elif isinstance(space, spaces.Box):
        raw = space.shape in (np.shape(x), np.shape(x)[1:])
    else:
        raw = np.asarray(x).dtype.kind in "biu"
    if not raw:
        return np.asarray(x)
    single = _is_single(space, x)
    rows = encode(space, stack(space, [x]) if single else x)
    return rows[0] if single else np.asarray(rows)


def _is_single(space: gym.Space, x: Any) -> bool:
    """Whether an observation has the axes of its space, and none for a batch."""
    match space:
        case spaces.Dict():
            return all(_is_single(s, x[k]) for k, s in space.spaces.items())
        case spaces.Tuple():
            return all(map(_is_single, space.spaces, x))
    return np.ndim(x) == len(space.shape or ())


def _flat(space: gym.Space, x: Any) -> Array:
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return np.asarray(x, np.float32).reshape(len(x), -1)
        case spaces.Discrete():
            return _one_hot(np.asarray(x) - int(space.start), int(space.n))
        case spaces.MultiDiscrete():
            sizes, x = space.nvec.ravel(), (np.asarray(x) - space.start).reshape(len(x), -1)
            return np.concatenate([_one_hot(x[:, i], int(n)) for i, n in enumerate(sizes)], -1)
        case spaces.Dict():
            # a stable sort: the mask comes last, the others keep their order
            names = sorted(space.spaces, key=lambda k: k == MASK)
            return np.concatenate([_flat(space.spaces[k], x[k]) for k in names], -1)
        case spaces.Tuple():
            return np.concatenate([_flat(s, x[i]) for i, s in enumerate(space.spaces)], -1)
    raise UserError(
        f"observations of the kind {type(space).__name__} are not supported; supported: Box,"
        " Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these. Wrap the environment"
        " in one that gives those"
    )


def _one_hot(x: Array, n: int) -> Array:
    """[N] whole numbers from 0 as [N, n]."""
    out = np.zeros((len(x), n), np.float32)
    out[np.arange(len(x)), x] = 1.0
    return out


def mask_size(space: gym.Space) -> int:
    """Bits of the observation's own "action_mask"; 0 without one."""
    inside: Mapping[str, gym.Space] = space.spaces if isinstance(space, spaces.Dict) else {}
    return encoded_shape(inside[MASK])[0] if MASK in inside else 0


def check_mask(action: gym.Space, bits: int) -> None:
    """Raises UserError unless a mask of so many bits has one for each action of this space."""
    if not isinstance(action, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise UserError(
            f"an {MASK} needs actions that can be counted, not {action}: take it out of the"
            " observation"
        )
    needed = spaces.flatdim(action)
    if bits != needed:
        raise UserError(
            f"the {MASK} has {bits} bits, {action} has {needed} actions to allow: one bit for each"
        )


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
        f"actions {space} are not supported; supported: Discrete, MultiDiscrete (one axis, from 0),"
        " MultiBinary (one axis), Box of floats. Wrap the environment in one that takes those"
    )


def check_reach(space: gym.Space, log_std: float) -> None:
    """Check that an untrained policy, a normal around 0, reaches the actions of a Box. Warns if the
    Box is far wider.

    Box(100, 200), log_std 0: Φ(200) − Φ(100) = 0 of its actions are within the bounds, refused.
    Box(-1, 1), log_std 0:    Φ(1) − Φ(−1) = 0.68 of them are, fine.

    Raises:
        UserError: nearly all its actions are out of bounds, so it would try only a bound.
    """
    if not isinstance(space, spaces.Box):
        return
    std = math.exp(log_std)
    for low, high in {
        (float(a), float(b)) for a, b in zip(space.low.ravel(), space.high.ravel(), strict=True)
    }:
        below, above = (math.erf(x / std / math.sqrt(2)) / 2 for x in (low, high))
        finite = math.isfinite(low) and math.isfinite(high)
        remedy = "set squash=true, which covers the bounds," if finite else "set log_std,"
        untrained = f"the untrained policy's are normal around 0 with a deviation of {std:g}"
        where = f"actions go from {low:g} to {high:g}, {untrained}"
        if above - below < 0.05:
            raise UserError(
                f"{where}: nearly none of them would be within the bounds; {remedy} or rescale the "
                "environment's actions"
            )
        if finite and high - low > 1000 * std:
            notices.warning(
                f"{where}: it tries next to nothing of them; {remedy} or rescale the environment's"
                " actions"
            )

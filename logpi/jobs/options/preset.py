"""Settings of an environment's preset and of the algorithm, as flags of `logpi gym`:
`--n-steps 64 --gamma 0.98 --hidden 256 256`.

Left out: the presets themselves (`envs/control/presets.py`).
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from logpi.algorithms import names
from logpi.envs.control.presets import Preset, preset
from logpi.jobs.options.algorithm import flags_of_algorithm, without
from logpi.jobs.options.fields import FieldType, OptionField, aliases_of

HEADING = "settings of the preset (default: of environment and algorithm, else of the algorithm)"
HELP = {
    "settings": "a preset with a name, such as cleanrl, instead of the environment's own",
    "envs": "copies of the environment stepped together",
    "n_steps": "of each copy in a batch, for methods that learn from fragments",
    "episodes": "in a batch, for methods that learn from whole episodes",
    "group": "episodes that share a reset seed, for methods that compare them",
    "lr": "Adam's learning rate",
    "linear": "the rate falls to 0",
    "epochs": "passes over a batch",
    "minibatches": "optimiser steps in a pass",
    "max_grad_norm": "gradients are scaled down to this norm (none: never)",
    "hidden": "widths of the layers",
    "relu": "ReLU instead of tanh",
    "shared": "policy and critic share their layers",
    "log_std": "of a Gaussian policy, where it begins",
    "plain": "torch's initial weights instead of orthogonal ones",
    "squash": "actions through tanh instead of clipped",
    "normalize": "observations by their running mean and spread",
    "scale": "rewards over the running spread of the discounted return",
    "repeat": "environment steps that each action is held for",
}
# `--repeat RUN` begins a run anew.
ALIASES = {"repeat": ("action_repeat", "frame_skip")}
# `logpi gym` chooses them itself.
CHOSEN = ("micro_tokens", "update", "critic", "shuffle")


def flags_of_gym(known: Mapping[str, Any]) -> list[OptionField]:
    """The preset's settings, and those of the algorithm if its name is known.

    Raises:
        ValueError, UserError: there is no such algorithm.
    """
    own = list(HELP)
    settings = {f.name: f for f in flags_of_algorithm(known)}
    values = _values(known)
    hints = typing.get_type_hints(Preset)
    kinds = {name: FieldType.of(hints.get(name, str), f"Preset.{name}") for name in own}
    numbers = {name for name in own if kinds[name].item in (int, float)}
    return [
        OptionField(
            name,
            kinds[name],
            values.get(name),
            HEADING,
            HELP[name],
            least=-math.inf if name in numbers else None,
            aliases=ALIASES.get(name) or aliases_of(name, names.JOB_NAMES, names.OPTIONS),
        )
        for name in own
    ] + [
        replace(f, default=values.get(f.name, f.default))
        for f in without(settings.values(), {*own, *CHOSEN})
    ]


def _values(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset of a named algorithm says."""
    name = known.get("algorithm")
    if not isinstance(name, str):
        return {}
    plain = name.lower().replace("-", "_")
    chosen = preset(str(known.get("env", "")), names.ROWS.get(plain, plain), None)
    return {f.name: getattr(chosen, f.name) for f in fields(Preset)} | dict(chosen.options)

"""Algorithms by name: `algorithm("dapo", high=0.3)` makes one, `describe("dapo")` prints it as
mathematics.

The compositions themselves are THE TABLE, `table.py`. Here are only names: aliases that users of
other libraries know, options, and the words for a mistake.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from logpi.algorithms.table import NAMES, PREFERENCES, TABLE, Algorithm
from logpi.errors import wrong_type
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.kl import KL, AdaptiveKL, k1, k2, k3
from logpi.ops.surrogates import Clip, DecayingClip, DualClip

__all__ = [
    "ALIASES",
    "NAMES",
    "OPTION_ALIASES",
    "PREFERENCES",
    "SHORTHAND",
    "TABLE",
    "Algorithm",
    "algorithm",
    "describe",
    "known_as",
    "options",
]

ALIASES = {
    "gae": "ppo",
    "vpg": "policy_gradient",
    "reinforce++": "reinforce_plus_plus",
    "group_norm": "grpo",
    "reinforce++_baseline": "reinforce_plus_plus_baseline",
    "drgrpo": "dr_grpo",
    "dr.grpo": "dr_grpo",
}
OPTION_ALIASES = {
    "epsilon": "low",
    "epsilon_high": "high",
    "clip_range": "low",
    "gae_lambda": "lam",
    "ent_coef": "entropy_coef",
    "vf_coef": "value_coef",
    "clip_range_vf": "value_clip",
    "num_iterations": "epochs",
    "n_epochs": "epochs",
    "kl_coef": "beta",
    "init_kl_coef": "beta",
    "label_smoothing": "smoothing",
    "rpo_alpha": "sft",
    "simpo_gamma": "gamma",
    "desirable_weight": "desirable",
    "undesirable_weight": "undesirable",
    "center_rewards_coefficient": "centre",
}
_OBJECTIVE = (
    "whiten",
    "value_coef",
    "value_clip",
    "entropy_coef",
    "correction",
    "weight",
    "surrogate",
    "ratio",
)
_PARTS = ("keep", "truncation", "update")


def _kl(o: PolicyGradient, name: str) -> KL:
    if o.kl is None:
        raise ValueError(f"{name} needs a KL penalty: give a beta above 0")
    return o.kl


def _kl_target(o: PolicyGradient, nats: float) -> PolicyGradient:
    return replace(o, kl=replace(_kl(o, "kl_target"), adapt=AdaptiveKL(nats)))


def _kl_estimator(o: PolicyGradient, name: str) -> PolicyGradient:
    if name not in ESTIMATORS:
        raise ValueError(f"kl_estimator is one of {', '.join(ESTIMATORS)}, not {name!r}")
    return replace(o, kl=replace(_kl(o, "kl_estimator"), estimator=ESTIMATORS[name]))


def _kl_place(o: PolicyGradient, place: str) -> PolicyGradient:
    return replace(o, kl=replace(_kl(o, "kl_place"), place=place))


def _dual_clip(o: PolicyGradient, c: float) -> PolicyGradient:
    if type(o.surrogate) is not Clip:
        raise ValueError(
            f"dual_clip needs a clipped surrogate (without clip_decay), not {o.surrogate}"
        )
    return replace(o, surrogate=DualClip(o.surrogate.low, o.surrogate.high, c))


def _clip_decay(o: PolicyGradient, on: bool) -> PolicyGradient:
    if type(o.surrogate) is not Clip:
        raise ValueError(
            f"clip_decay needs a clipped surrogate (without dual_clip), not {o.surrogate}"
        )
    return replace(o, surrogate=DecayingClip(o.surrogate.low, o.surrogate.high)) if on else o


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
SHORTHAND: dict[str, Callable[[PolicyGradient, Any], PolicyGradient]] = {
    "kl_target": _kl_target,
    "kl_estimator": _kl_estimator,
    "kl_place": _kl_place,
    "dual_clip": _dual_clip,
    "clip_decay": _clip_decay,
}


def _row(name: str) -> Callable[..., Algorithm]:
    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in TABLE:
        near = difflib.get_close_matches(plain, [*TABLE, *ALIASES], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown algorithm {name!r}{hint} (known: {', '.join(TABLE)})")
    return TABLE[plain]


def options(name: str) -> dict[str, Any]:
    """What `algorithm(name, …)` takes beyond what every algorithm takes, with its defaults."""
    return {k: p.default for k, p in inspect.signature(_row(name)).parameters.items()}


def known_as(name: str, option: str) -> str:
    """What this algorithm calls an option that other libraries have another name for."""
    return option if option in options(name) else OPTION_ALIASES.get(option, option)


def _check(kinds: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raises ValueError if a chosen value is not of the kind that its annotation says."""
    for name, value in chosen.items():
        kind = kinds.get(name)
        wanted = wrong_type(kind, value) if isinstance(kind, str) else None
        if wanted is not None:
            raise ValueError(f"{name} must be {wanted}, not {value!r}")


def algorithm(name: str, **chosen: Any) -> Algorithm:
    """The algorithm of this name, as a value.

    Args:
        name: a row of the table or one of `ALIASES` (upper case and dashes are fine).
        chosen: options of the row (`options(name)`), and for every policy gradient: entropy_coef,
            value_coef, value_clip, whiten, kl_target (nats a response: makes the KL coefficient
            adaptive), kl_estimator ("k1", "k2", "k3"), kl_place ("reward", "loss"), dual_clip (its
            c), clip_decay (the clip's bounds fall linearly to 0 over the run), correction, weight,
            surrogate, ratio, epochs, minibatches, micro_tokens, max_grad_norm, keep, truncation,
            update. TRL's and SB3's names are understood (`OPTION_ALIASES`).
    Raises:
        ValueError: unknown name or option, with the nearest known one; a value of the wrong kind.

    >>> algorithm("dapo", high=0.3).objective.surrogate
    Clip(low=0.2, high=0.3)
    """
    row = _row(name)
    own = inspect.signature(row).parameters
    chosen = {known_as(name, k): v for k, v in chosen.items()}
    _check({k: p.annotation for k, p in own.items()}, chosen)
    made = row(**{k: chosen.pop(k) for k in list(chosen) if k in own})
    update = {f.name: chosen.pop(f.name) for f in fields(made.update) if f.name in chosen}
    common, short = (
        (_OBJECTIVE, SHORTHAND) if isinstance(made.objective, PolicyGradient) else ((), {})
    )
    objective = {k: chosen.pop(k) for k in common if k in chosen}
    parts = {k: chosen.pop(k) for k in _PARTS if k in chosen}
    shorthand = {k: chosen.pop(k) for k in short if k in chosen}
    for holder, some in ((made.update, update), (made.objective, objective), (made, parts)):
        _check({f.name: f.type for f in fields(holder)}, some)  # type: ignore[arg-type]
    _check(
        {k: [*inspect.signature(f).parameters.values()][1].annotation for k, f in short.items()},
        shorthand,
    )
    if chosen:
        known = [*own, *common, *_PARTS, *short, *(f.name for f in fields(made.update))]
        bad = next(iter(chosen))
        near = difflib.get_close_matches(bad, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        raise ValueError(f"{row.__name__} has no option {bad!r}{hint}")
    changed = replace(made.objective, **objective)  # type: ignore[type-var]
    for k, value in shorthand.items():
        changed = SHORTHAND[k](changed, value)
    made = replace(made, objective=changed, update=replace(made.update, **update))
    return replace(made, **parts, name=row.__name__, source=_source(row), differs=_differs(row))


def _source(row: Callable) -> str:
    return (inspect.getdoc(row) or "").split("\n\n")[0].replace("\n", " ")


def _differs(row: Callable) -> tuple[str, ...]:
    text = (inspect.getdoc(row) or "").partition("\n\n")[2]
    return tuple(" ".join(x.split()) for x in ("\n" + text).split("\n- ")[1:])


def describe(which: str | Algorithm, **chosen: Any) -> str:
    """The exact objective as mathematics, from the composition itself, with sources and
    divergences.

    >>> print(describe("sft").splitlines()[2])
      maximise  Σₜ wₜ log π(aₜ|sₜ) Âₜ
    """
    a = algorithm(which, **chosen) if isinstance(which, str) else which
    e = a.objective.explain()
    choices = {
        **e.parts,
        "update": str(a.update),
        "keep": str(a.keep),
        "truncation": str(a.truncation),
    }
    lines = [f"{a.name}: {a.source}", "", f"  {e.goal}", *(f"  where     {x}" for x in e.where)]
    lines += ["", *(f"  {k:<11}{v}" for k, v in choices.items())]
    lines += ["", "  sources   " + "; ".join(dict.fromkeys(e.sources))]
    if a.differs:
        lines += ["  differs   " + a.differs[0], *(f"            {x}" for x in a.differs[1:])]
    return "\n".join(lines)

"""Presets: training settings for environments and algorithms, each with its source. "ours" marks
settings that are not published.

    preset("CartPole-v1", "ppo")                -> Preset(envs=8, n_steps=32, epochs=20, …)
    preset("CartPole-v1", "ppo", "cleanrl")     other settings with a name (`OTHERS`); on the
                                                command line --settings cleanrl

The look-up is by environment and algorithm, then by algorithm alone. Names are Stable-Baselines3's
and RL-Zoo's where they have one. Left out: what an algorithm is (`algorithms/`). This file imports
nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from logpi.errors import UserError, nearest, wrong_type


@dataclass(frozen=True)
class Preset:
    """How to train an algorithm on an environment.

    Attributes:
        steps: environment steps of the run, for methods that learn from fragments. updates: of the
            run, for whole episodes.
        envs: copies stepped together. n_steps: of each in a batch. episodes, group: in a batch; G
            of them share a reset seed.
        lr, linear: Adam's rate (ε = 1e-5), and whether it falls to 0. epochs, minibatches,
            max_grad_norm: see `update.SGD`; for TRPO epochs and minibatches are the critic's.
        hidden, relu, shared, log_std, plain: the networks (plain: torch's initial weights instead
            of orthogonal ones).
        squash: a Gaussian through tanh instead of a clipped one.
        normalize: running normalisation of observations. scale: divide rewards by the spread of
            the discounted return.
        repeat: steps for which every action is held (for longer exploration; all of them count as
            environment steps).
        options: of the algorithm. source: where the settings are from.
    """

    steps: int = 200_000
    updates: int = 100
    envs: int = 8
    n_steps: int = 128
    episodes: int = 16
    group: int = 1
    lr: float = 1e-3
    linear: bool = True
    epochs: int = 1
    minibatches: int = 1
    max_grad_norm: float | None = 0.5
    hidden: tuple[int, ...] = (64, 64)
    relu: bool = False
    shared: bool = False
    log_std: float = 0.0
    plain: bool = False
    squash: bool = False
    normalize: bool = False
    scale: bool = False
    repeat: int = 1
    options: tuple[tuple[str, Any], ...] = ()
    source: str = "ours"


def _p(base: Preset | None = None, options: dict[str, Any] | None = None, **changed: Any) -> Preset:
    base = base or Preset()
    return replace(base, options=tuple((dict(base.options) | (options or {})).items()), **changed)


ZOO = "RL-Zoo"
CLEANRL = "CleanRL"
PPO = _p(
    None,
    dict(gamma=0.99, lam=0.95, low=0.2),
    lr=3e-4,
    epochs=4,
    minibatches=4,
    source=CLEANRL,
)
A2C = _p(
    None,
    dict(gamma=0.99, lam=1.0),
    lr=7e-4,
    n_steps=5,
    linear=False,
    scale=True,
    source=(
        f"{ZOO}'s, with Adam for RMSprop and with scaled rewards: a critic of returns near 100"
        " saturates its tanh layers"
    ),
)
TRPO = _p(
    None,
    dict(gamma=0.99, lam=0.95, max_kl=0.01),
    n_steps=256,
    epochs=10,
    minibatches=16,
    linear=False,
    max_grad_norm=None,
    source="sb3-contrib's defaults",
)
EPISODES = _p(None, dict(gamma=0.99), lr=5e-3, envs=16)
# Returns in spreads of the batch: otherwise all actions are pushed the same way.
REINFORCE = _p(EPISODES, dict(whiten=True))
GROUPS = _p(EPISODES, dict(beta=0.0), episodes=32, group=8, updates=60)
CONTINUOUS = _p(
    PPO,
    dict(value_clip=0.2),
    envs=1,
    n_steps=2048,
    epochs=10,
    minibatches=32,
    normalize=True,
    scale=True,
    steps=1_000_000,
    source="CleanRL, ppo_continuous_action.py",
)

# Algorithms that compare the episodes of a group.
COMPARED = (
    *("reinforce_plus_plus_baseline", "rloo", "remax", "grpo", "grpo_r1", "grpo_sequence"),
    *("dr_grpo", "gspo", "cispo", "sapo", "gmpo", "dppo", "lite_ppo", "opo", "pkpo", "pass_at_k"),
    "maxrl",
)
# algorithm -> settings where the environment has none of its own
DEFAULTS: dict[str, Preset] = {
    "ppo": PPO,
    "orz": PPO,
    "a2c": A2C,
    "trpo": TRPO,
    "reinforce": REINFORCE,
    "policy_gradient": REINFORCE,
    "reinforce_baseline": EPISODES,
    "actor_critic_q": REINFORCE,
    "reinforce_plus_plus": _p(GROUPS, group=1, epochs=4),
    **dict.fromkeys(COMPARED, GROUPS),
}

PRESETS: dict[tuple[str, str], Preset] = {
    ("CartPole-v1", "ppo"): _p(
        PPO,
        dict(gamma=0.98, lam=0.8, clip_decay=True),
        steps=100_000,
        n_steps=32,
        epochs=20,
        minibatches=1,
        lr=1e-3,
        source=ZOO,
    ),
    ("CartPole-v1", "trpo"): _p(
        TRPO,
        dict(lam=0.98, damping=1e-3),
        steps=100_000,
        envs=2,
        n_steps=512,
        epochs=20,
        minibatches=2,
        source=ZOO,
    ),
    ("Acrobot-v1", "ppo"): _p(
        PPO,
        dict(lam=0.94),
        steps=300_000,
        envs=16,
        n_steps=256,
        minibatches=64,
        normalize=True,
        scale=True,
        source=f"{ZOO}, a third of its steps",
    ),
    ("Acrobot-v1", "trpo"): _p(
        TRPO, steps=100_000, envs=2, n_steps=1024, normalize=True, scale=True, source=ZOO
    ),
    ("Pendulum-v1", "ppo"): _p(
        PPO,
        dict(gamma=0.9, lam=0.95),
        steps=102_400,
        envs=4,
        n_steps=1024,
        epochs=10,
        minibatches=64,
        lr=1e-3,
        source=f"{ZOO}, without state-dependent exploration",
    ),
    ("Pendulum-v1", "trpo"): _p(
        TRPO,
        dict(gamma=0.9),
        steps=100_000,
        envs=2,
        n_steps=1024,
        epochs=15,
        source=f"{ZOO}, without state-dependent exploration",
    ),
    ("MountainCarContinuous-v0", "ppo"): _p(
        PPO,
        dict(gamma=0.99, lam=0.95, entropy_coef=0.0),
        steps=100_000,
        envs=8,
        n_steps=64,
        epochs=10,
        minibatches=4,
        lr=1e-3,
        normalize=True,
        scale=True,
        repeat=8,
        source="ours: actions held for 8 steps, as state-dependent exploration would",
    ),
    ("MountainCar-v0", "ppo"): _p(
        PPO,
        dict(entropy_coef=0.01),
        steps=500_000,
        envs=4,
        lr=2.5e-4,
        source="CleanRL, ppo.py: fails, as it should: no episode ever sees the goal",
    ),
    ("LunarLander-v3", "ppo"): _p(
        PPO,
        dict(gamma=0.999, lam=0.98, entropy_coef=0.01, value_coef=1.0),
        steps=1_000_000,
        envs=16,
        n_steps=1024,
        epochs=4,
        minibatches=256,
        lr=3e-4,
        linear=False,
        source=f"{ZOO}: the rate is constant, the critic's error counts twice CleanRL's",
    ),
    ("LunarLander-v3", "trpo"): _p(
        TRPO,
        dict(gamma=0.99, lam=0.98),
        steps=200_000,
        envs=2,
        n_steps=512,
        epochs=15,
        minibatches=8,
        source=ZOO,
    ),
    ("InvertedPendulum-v5", "ppo"): _p(
        CONTINUOUS, steps=300_000, source="CleanRL, ppo_continuous_action.py, 300k steps"
    ),
    ("HalfCheetah-v5", "ppo"): _p(
        PPO,
        dict(gamma=0.98, lam=0.92, low=0.1, entropy_coef=0.000401762, value_coef=2 * 0.58096),
        steps=1_000_000,
        envs=1,
        n_steps=512,
        epochs=20,
        minibatches=8,
        lr=2.0633e-5,
        linear=False,
        max_grad_norm=0.8,
        hidden=(256, 256),
        relu=True,
        log_std=-2.0,
        plain=True,
        normalize=True,
        scale=True,
        source=f"{ZOO}, whose critic's error has no half",
    ),
    ("logpi/GridWorld-v0", "ppo"): _p(
        PPO, dict(gamma=1.0), steps=30_000, n_steps=32, lr=3e-3, hidden=()
    ),
    ("logpi/GridWorld-v0", "a2c"): _p(
        None, dict(gamma=1.0, lam=0.95), steps=30_000, n_steps=16, lr=1e-2, hidden=()
    ),
    ("logpi/GridWorld-v0", "trpo"): _p(
        TRPO, dict(gamma=1.0), steps=30_000, n_steps=64, lr=1e-2, hidden=()
    ),
}
# settings with a name, beside the preset's
OTHERS: dict[tuple[str, str, str], Preset] = {
    ("CartPole-v1", "ppo", "cleanrl"): _p(
        PPO, dict(entropy_coef=0.01), steps=500_000, envs=4, lr=2.5e-4, source="CleanRL, ppo.py"
    ),
    ("CartPole-v1", "ppo", "wide"): _p(
        PRESETS["CartPole-v1", "ppo"],
        steps=300_000,
        envs=128,
        epochs=3,
        minibatches=4,
        lr=4e-3,
        source="ours, for --vectorized",
    ),
    ("HalfCheetah-v5", "ppo", "cleanrl"): CONTINUOUS,
}
# a table: one number for each state and action
GRID = dict(updates=100, lr=3e-2, hidden=())


def preset(
    env: str,
    algorithm: str,
    settings: str | None = None,
    fallback: Preset = GROUPS,
    **changed: Any,
) -> Preset:
    """The settings, or those of this name, with changes; `fallback` if the algorithm has none.

    Raises:
        UserError: a name that is not in `OTHERS`; an unknown setting, or a value out of its range.
    """
    base = PRESETS.get((env, algorithm)) if settings is None else _named(env, algorithm, settings)
    if base is None:
        base = DEFAULTS.get(algorithm, fallback)
        if env == "logpi/GridWorld-v0":
            base = _p(base, dict(gamma=1.0), **GRID)
    known = {x.name for x in fields(Preset)}
    for name in changed:
        if name not in known:
            raise UserError(f"no setting {name!r}; {nearest(name, sorted(known))}")
        _check(name, changed[name])
    if "hidden" in changed:
        changed["hidden"] = tuple(changed["hidden"])
    return replace(base, **changed)


def _named(env: str, algorithm: str, settings: str) -> Preset:
    presets = {name: p for (e, a, name), p in OTHERS.items() if (e, a) == (env, algorithm)}
    if settings not in presets:
        raise UserError(
            f"no settings {settings!r} for {algorithm} on {env}; by name there are:"
            f" {', '.join(presets) or 'none'}"
        )
    return presets[settings]


POSITIVE = ("lr", "max_grad_norm")


def _check(name: str, value: Any) -> None:
    kind = {x.name: str(x.type) for x in fields(Preset)}[name]
    expected = wrong_type(kind, value)
    counts = value if isinstance(value, list | tuple) else [value]
    counted = "int" in kind or name in POSITIVE
    if expected is None and counted and any(x is not None and x <= 0 for x in counts):
        expected = "a whole number above 0" if kind == "int" else "above 0"
    if expected is not None:
        raise UserError(f"{name} must be {expected}, not {value!r}")

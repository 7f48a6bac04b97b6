"""The parts of a run on a Gymnasium environment, method from the job's options: preset, algorithm,
networks, rollout, evaluation, and the policy on disk.

Left out: the options and the run itself (`gym.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.envs.control.presets import EPISODES, GROUPS, PPO, Preset, preset
from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.envs.control.vector import VectorEnvironment
    from logpi.policies.distributions import Distribution
    from logpi.policies.mlp import ActorCritic
    from logpi.rollouts.gym import Episodes, Fragments

STEPS = ("epochs", "minibatches", "max_grad_norm")
NETWORK = ("hidden", "relu", "shared", "log_std", "squash", "normalize")


def build(a: Any) -> tuple[Preset, Algorithm, Fragments | Episodes, Any, int]:
    """Preset, algorithm, rollout (with its policy), learner and number of updates."""
    from logpi.envs.control.make import make_vector_environment
    from logpi.envs.control.spaces import action_kind, check_reach
    from logpi.learner import Learner
    from logpi.rollouts.transitions import trial
    from logpi.updates.adamw import AdamW, Constant, Linear

    p, settings = resolved(a)
    method = make_algorithm(a.algorithm, p, settings)
    grouped = _grouped(method)
    if not grouped and "group" in a.options:
        raise UserError(
            f"{method.name} compares no episodes with each other: leave group out (grpo and rloo"
            " have groups)"
        )
    p = replace(p, group=max(p.group if grouped else 1, 1))
    options = a.env_options
    probe = make_vector_environment(a.env, 2, a.vectorized, p.repeat, **options)
    if not p.squash:
        check_reach(probe.action, p.log_std)
    kind = action_kind(probe.action, p.squash)
    _check_probabilities(method, kind)
    cost = trial(probe, kind)
    number = env_processes(a, cost, p.envs)
    envs = make_vector_environment(a.env, p.envs, a.vectorized, p.repeat, number, **options)
    policy = make_policy(envs, p, critic=method.objective.needs_critic, own=own_network(a.network))
    rollout = make_rollout(method, p, envs, policy, a.seed)
    batch = envs.n * p.n_steps * p.repeat
    updates = max(1, p.steps // batch) if method.objective.fragments else p.updates
    schedule = Linear() if p.linear else Constant()
    # ε: 37 details of PPO, and it matters
    adam = AdamW(p.lr, betas=(0.9, 0.999), eps=1e-5, schedule=schedule)
    learner = Learner(policy, method, a.optimizer or adam, total=updates, seed=a.seed)
    return p, method, rollout, learner, updates


def _check_probabilities(method: Algorithm, kind: Distribution) -> None:
    """Raises UserError: the surrogate compares probabilities of actions that have densities."""
    surrogate = getattr(method.objective, "surrogate", None)
    if kind.density and surrogate is not None and surrogate.of_actions:
        raise UserError(
            f"{surrogate} compares probabilities of actions, and continuous actions have densities:"
            " choose an environment with discrete actions, or another surrogate"
        )


def env_processes(a: Any, cost: float, n: int) -> int:
    """Processes that step n environments: as many as were asked for, else one for each core where
    a step of all, n times `cost` seconds, is worth it. An environment that is an object stays in
    this process, where its user may look at it."""
    from logpi.distributed import cores
    from logpi.envs.control.processes import WORTH

    if a.env_processes is not None:
        return a.env_processes
    worth = isinstance(a.env, str) and not a.vectorized and cost * n > WORTH
    return min(n, cores()) if worth else 1


def resolved(a: Any) -> tuple[Preset, dict[str, Any]]:
    """The preset with the arguments' changes, and what is left of them for the algorithm."""
    from logpi.algorithms import algorithm, known_as, names, options

    settings = {known_as(a.algorithm, k): v for k, v in a.options.items()}
    settings = {names.JOB_NAMES.get(k, k): v for k, v in settings.items()}
    for k in ("update", "critic", "shuffle", "micro_tokens"):
        if k in settings:
            raise UserError(
                f"{k} is this command's own choice: leave it out (what there is to set:"
                " logpi/envs/control/presets.py)"
            )
    row, known = algorithm(a.algorithm), {x.name for x in options(a.algorithm)}
    own = {k: v for k, v in settings.items() if k in known and k not in STEPS}
    method = algorithm(a.algorithm, **own)
    # Other parts may need whole episodes where the row learns from fragments.
    name, fragments = method.name, method.objective.fragments
    name = name if _structure(method) == _structure(row) else ""
    variant = settings.pop("settings", None)
    changed = {x.name: settings.pop(x.name) for x in fields(Preset) if x.name in settings}
    if fragments and a.updates is not None:
        raise UserError(
            f"{method.name} learns from fragments of a fixed size: say --steps, not --updates"
        )
    if not fragments and a.steps is not None:
        raise UserError(
            f"{method.name} learns from whole episodes, whose length nobody knows before: say"
            " --updates, not --steps"
        )
    changed |= {k: v for k, v in (("steps", a.steps), ("updates", a.updates)) if v is not None}
    fallback = _fallback(method)
    if not isinstance(a.algorithm, str):
        # An algorithm that is a value keeps its own numbers, whatever its row's are here.
        its = preset(a.env, name, variant, fallback)
        steps = {k: getattr(fallback, k) for k in STEPS}
        return replace(its, options=(), **{**steps, **changed}), settings
    return preset(a.env, name, variant, fallback, **changed), settings


def _structure(method: Algorithm) -> tuple[bool, bool]:
    """Fragments or whole episodes; compared with each other or not."""
    return method.objective.fragments, _grouped(method)


def _grouped(method: Algorithm) -> bool:
    """It compares episodes of one reset seed."""
    return method.objective.min_group > 1 or method.objective.needs_greedy


def _fallback(method: Algorithm) -> Preset:
    """The settings of an algorithm that no table knows, a user's own: its numbers stay as they
    are."""
    base = PPO if method.objective.fragments else GROUPS if _grouped(method) else EPISODES
    steps = method.update.gradient_steps
    own = {k: getattr(steps, k) for k in STEPS}
    return replace(base, options=(), source="ours", **own)


def make_algorithm(name: str, p: Preset, settings: Mapping[str, Any]) -> Algorithm:
    """The algorithm with the preset's options and update.

    Raises:
        UserError: one that learns from something else than rewards, or samples in a way that
            environments cannot.
        ValueError: an option that it does not have.
    """
    from logpi.algorithms import algorithm
    from logpi.algorithms import options as known
    from logpi.updates.sgd import SGD, Actions, Groups

    usable = {o.name for o in known(name)}
    options = _of_preset(name, p, settings, usable) | dict(settings)
    method = algorithm(name, **options)
    if method.objective.needs_teacher:
        raise UserError(
            f"{method.name} learns from a teacher, and an environment has none: choose another"
            " algorithm"
        )
    if not method.objective.on_policy:
        raise UserError(
            f"{method.name} learns from demonstrations or preferences, not from an environment's"
            " rewards"
        )
    shuffle = Actions() if method.objective.fragments else Groups()
    sgd = SGD(
        p.epochs, p.minibatches, micro_tokens=None, max_grad_norm=p.max_grad_norm, shuffle=shuffle
    )
    return algorithm(name, update=method.update.with_gradient_steps(sgd), **options)


def _of_preset(
    name: str, p: Preset, settings: Mapping[str, Any], usable: set[str]
) -> dict[str, Any]:
    """The preset's options for this algorithm, but for those of a part that the user exchanged: the
    new one has none of this name, or it was given with it."""
    from logpi.algorithms import algorithm
    from logpi.algorithms.parts import AXES, given_in, part_at, read_part, settings_of

    row, lost = algorithm(name), set()
    for axis in (AXES[k] for k in settings if k in AXES and settings[k] is not None):
        part = read_part(axis, settings[axis.name])
        lost |= set(settings_of(part_at(row, axis))) - set(settings_of(part))
        lost |= given_in(axis, settings[axis.name])
    return {k: v for k, v in p.options if k in usable - lost}


def notes(a: Any, method: Algorithm) -> list[str]:
    """The parts that the user exchanged, and what the composition warns of."""
    from logpi.algorithms.parts import AXES, part_at

    parts = [f"{k}={part_at(method, AXES[k])}" for k in a.options if k in AXES]
    warnings = [f"warning: {x}" for x in method.objective.explain().warnings]
    return ([f"but with {', '.join(parts)}"] if parts else []) + warnings


def own_network(policy: Any) -> Any:
    """The user's own policy, network or function that makes one; None for the preset's networks."""
    from logpi.runs.user_code import from_user_code

    return from_user_code(policy) if isinstance(policy, str) else policy


def make_policy(envs: VectorEnvironment, p: Preset, critic: bool, own: Any = None) -> ActorCritic:
    """Networks for the environment's spaces, the preset's or the user's `own`.

    Args:
        own: an `ActorCritic`; a network of features [N, inputs] to [N, outputs]; or a class or
            function that makes one, called as `own(inputs, outputs)`, for a critic once more.
    Raises:
        UserError: `own` is none of these, or cannot make the critic that the algorithm needs.
    """
    from logpi.envs.control.spaces import action_kind, check_mask, encode_given
    from logpi.policies.cnn import cnn

    kind = action_kind(envs.action, p.squash)
    if envs.masks:
        check_mask(envs.action, envs.masks)
    if own is not None:
        policy = _own_networks(own, envs, p, critic, kind)
    elif envs.image:
        policy = cnn(envs.obs.shape[1:], kind, critic=critic, log_std=p.log_std)
    else:
        policy = _dense_networks(envs, p, critic, kind)
    policy.encode = partial(encode_given, envs.observation)
    return policy


def _dense_networks(
    envs: VectorEnvironment, p: Preset, critic: bool, kind: Distribution
) -> ActorCritic:
    from torch import nn

    from logpi.policies.mlp import mlp

    return mlp(
        envs.features,
        kind,
        hidden=p.hidden,
        critic=critic,
        shared=p.shared,
        normalize=p.normalize,
        masks=envs.masks,
        log_std=p.log_std,
        activation=nn.ReLU if p.relu else nn.Tanh,
        plain=p.plain,
    )


def _own_networks(
    own: Any, envs: VectorEnvironment, p: Preset, critic: bool, kind: Distribution
) -> ActorCritic:
    from torch import nn

    from logpi.policies.mlp import ActorCritic

    if isinstance(own, ActorCritic):
        if critic and own.critic_net is None:
            raise UserError("the algorithm needs a critic, and the policy has none")
        return own
    if isinstance(own, nn.Module):
        if critic:
            raise UserError(
                "the algorithm needs a critic too: give the network's class, or a function"
                " (inputs, outputs) that makes one"
            )
        return ActorCritic(kind, own, masks=envs.masks, log_std=p.log_std)
    if not callable(own):
        raise UserError(f"a policy is a network or a function that makes one, not {own!r}")
    outputs = [kind.outputs, 1] if critic else [kind.outputs]
    networks: list[Any] = [own(envs.features, n) for n in outputs]
    for network in networks:
        if not isinstance(network, nn.Module):
            raise UserError(f"the policy's function gives {network!r}, which is no torch.nn.Module")
    return ActorCritic(kind, *networks, masks=envs.masks, log_std=p.log_std)


def make_rollout(
    method: Algorithm, p: Preset, envs: VectorEnvironment, policy: ActorCritic, seed: int
) -> Fragments | Episodes:
    """Fragments for methods that bootstrap, whole episodes (in groups, if the method compares them)
    for the others."""
    from logpi.rollouts.gym import Episodes, Fragments, RewardScale

    scale = RewardScale(float(dict(p.options).get("gamma", 0.99))) if p.scale else None
    common: dict[str, Any] = {"algorithm": method, "seed": seed, "scale": scale}
    if method.objective.fragments:
        return Fragments(envs, policy, steps=p.n_steps, **common)
    return Episodes(envs, policy, episodes=p.episodes, group=p.group, **common)


def evaluator(
    a: Any, p: Preset, policy: ActorCritic
) -> Callable[[int], tuple[dict[str, float], list[dict[str, Any]]]]:
    """Greedy episodes on seeds that training does not use; its own environments, so measuring
    changes nothing."""
    from logpi.envs.control.make import make_vector_environment
    from logpi.rollouts.gym import play

    envs = make_vector_environment(
        a.env, min(a.eval_episodes, 10), False, p.repeat, **a.env_options
    )
    # Training draws its seeds below 2³¹.
    seeds = list(range(2**31, 2**31 + a.eval_episodes))
    act = policy.actor()

    def choose(obs: Any) -> tuple[Any, Any]:
        params = act(obs)
        return params, policy.kind.mode(params)

    def evaluate(step: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        returns = play(envs, choose, policy.kind, seeds)
        numbers = {
            "eval/reward": float(returns.mean()),
            "eval/std": float(returns.std()),
            "eval/min": float(returns.min()),
            "eval/max": float(returns.max()),
        }
        rows = [{"seed": s, "return": float(r)} for s, r in zip(seeds, returns, strict=True)]
        return numbers, rows

    return evaluate


# --- the model on disk ---


def save_policy(policy: ActorCritic, p: Preset, directory: Path) -> None:
    """Weights (statistics of the normalisation among them) and what it takes to build the networks
    again."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in policy.state_dict().items()},
        directory / "policy.safetensors",
    )
    network = {k: getattr(p, k) for k in NETWORK} | {
        "critic": policy.critic_net is not None,
        "repeat": p.repeat,
    }
    (directory / "policy.json").write_text(json.dumps(network, indent=2))


def load_policy(directory: Path, envs: VectorEnvironment, own: Any = None) -> ActorCritic:
    """The policy that `save_policy` wrote, for the same environment (and of the user's `own`
    networks, if it was method of them).

    Raises:
        UserError: there is none, or it is damaged or of another environment.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (directory / "policy.json").exists():
        raise UserError(f"there is no policy at {directory}; it is written when training ends")
    try:
        network = json.loads((directory / "policy.json").read_bytes())
        saved: dict[str, Any] = {
            k: tuple(v) if k == "hidden" else v for k, v in network.items() if k in NETWORK
        }
        policy = make_policy(envs, Preset(**saved), network["critic"], own)
        weights = load_file(directory / "policy.safetensors")
        policy.load_state_dict(weights)
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise UserError(
            f"the policy at {directory} is damaged, or of another environment: {error}"
        ) from None
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise UserError(f"the policy at {directory} is damaged: {name} is not finite")
    return policy

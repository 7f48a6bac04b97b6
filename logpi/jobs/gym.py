"""`logpi gym`: reinforcement learning on a Gymnasium environment, by any algorithm of the table.

The loop, the learner and the objectives are those that train language models; only policy and
rollout are others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.envs.control.presets import EPISODES, GROUPS, PPO, Preset, preset
from logpi.errors import UserError, as_user_errors
from logpi.jobs.common import drawn, opened, settle
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.preset import flags_of_gym
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.seeds import SeedArguments
from logpi.jobs.seeds import start

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.envs.control.vector import VectorEnvironment
    from logpi.policies.mlp import ActorCritic
    from logpi.rollouts.gym import Episodes, Fragments
    from logpi.train import Outcome

SHOWN = ("reward", "reward_100", "episode_length", "entropy", "value/explained_variance")
CURVES = (
    ("reward", "eval/reward"),
    "episode_length",
    "entropy",
    "value/explained_variance",
    "trust/kl",
    "grad_norm",
)
NETWORK = ("hidden", "relu", "shared", "log_std", "squash", "normalize")


@dataclass(frozen=True, kw_only=True)
class Gym(SeedArguments, RunArguments):
    """Arguments of `logpi gym`."""

    HEADING: ClassVar[str] = "training"
    FIRST: ClassVar[str] = "env algorithm steps updates seeds out"

    env: str = option("CartPole-v1", help="a Gymnasium id, e.g. Pendulum-v1, or logpi/GridWorld-v0")
    algorithm: str = option("ppo", help="a row of `logpi algorithms`")
    options: Mapping[str, Any] = option(
        {},
        help=(
            "settings of the preset or the algorithm, e.g. lr=1e-3 n_steps=64 gamma=0.98"
            " hidden=[256,256]"
        ),
        nargs="*",
        flags=flags_of_gym,
    )
    env_options: Mapping[str, Any] = option({}, help="of the environment, e.g. slip=0.2", nargs="*")
    steps: int | None = option(
        None,
        help="environment steps in all (default: the preset's)",
        least=1,
        changeable=True,
        aliases=("total_timesteps",),
    )
    updates: int | None = option(
        None,
        help="updates in all, for methods that learn from whole episodes",
        least=1,
        changeable=True,
    )
    vectorized: bool = option(False, help="step the environment's own vectorised form")
    at_once: int = changed(SeedArguments, "at_once", 0)
    eval_episodes: int = option(
        20, help="greedy episodes on fresh seeds, for each evaluation", least=1, most=100_000
    )
    evaluations: int = option(
        5,
        help="evaluations during training, besides those before and after",
        least=0,
        changeable=True,
    )


def main(argv: Sequence[str]) -> int:
    arguments = read(Gym, argv, "gym", "Train a policy on a Gymnasium environment.")
    available(arguments)
    if arguments.seeds > 1:
        with as_user_errors():
            build(arguments)  # what is wrong is said now, once
    start(run, arguments, "gym", f"{arguments.env}, {arguments.algorithm}")
    return 0


def run(a: Gym) -> Outcome:
    """Set everything up, train, and leave the run's directory behind."""
    import torch

    from logpi.runs.progress import Progress
    from logpi.runs.rng import seed
    from logpi.train import train

    torch.set_num_threads(1)  # networks this small only lose by more
    with as_user_errors():
        seed(a.seed)
        p, made, rollout, learner, updates = build(a)
        evaluate = evaluator(a, p, rollout.policy)
        print(f"{a.env}, {made.name}: {p}", file=sys.stderr)
    with opened(a, "gym") as home:
        every = max(1, updates // (a.evaluations + 1)) if a.evaluations else 0
        outcome = train(
            rollout,
            learner,
            home,
            steps=updates,
            evaluate=evaluate,
            eval_every=every,
            save_every=max(a.save_every, updates // 20),
            shown=SHOWN,
            progress=Progress(updates, unit="steps"),
        )
        settle(home, outcome)
        home.save_model(lambda directory: save_policy(rollout.policy, p, directory))
        picture = drawn(home, CURVES)
        print(
            f"{_table(outcome.last)}\nmodel   {home.model}\n{picture}\nwatch   logpi play"
            f" {home.path}",
            file=sys.stderr,
        )
    return outcome


def build(a: Gym) -> tuple[Preset, Algorithm, Fragments | Episodes, Any, int]:
    """Preset, algorithm, rollout (with its policy), learner and number of updates."""
    from logpi.envs.control.make import make_vector_environment
    from logpi.envs.control.spaces import action_kind, check_reach
    from logpi.learner import Learner
    from logpi.rollouts.gym import trial
    from logpi.updates.adamw import AdamW, Constant, Linear

    p, chosen = resolved(a)
    made = make_algorithm(a.algorithm, p, chosen)
    grouped = _grouped(made)
    if not grouped and "group" in a.options:
        raise UserError(
            f"{made.name} compares no episodes with each other: leave group out (grpo and rloo have"
            " groups)"
        )
    p = replace(p, group=max(p.group if grouped else 1, 1))
    options = a.env_options
    tried = make_vector_environment(a.env, 2, a.vectorized, p.repeat, **options)
    if not p.squash:
        check_reach(tried.action, p.log_std)
    trial(tried, action_kind(tried.action, p.squash))
    envs = make_vector_environment(a.env, p.envs, a.vectorized, p.repeat, **options)
    policy = make_policy(envs, p, critic=made.objective.needs_critic)
    rollout = make_rollout(made, p, envs, policy, a.seed)
    batch = envs.n * p.n_steps * p.repeat
    updates = max(1, p.steps // batch) if made.objective.fragments else p.updates
    schedule = Linear() if p.linear else Constant()
    optimizer = AdamW(
        p.lr, betas=(0.9, 0.999), eps=1e-5, schedule=schedule
    )  # ε: 37 details of PPO, and it matters
    return p, made, rollout, Learner(policy, made, optimizer, total=updates, seed=a.seed), updates


def resolved(a: Gym) -> tuple[Preset, dict[str, Any]]:
    """The preset with the arguments' changes, and what is left of them for the algorithm."""
    from logpi.algorithms import algorithm, known_as, names

    made = algorithm(a.algorithm)
    name, fragments = made.name, made.objective.fragments
    chosen = {known_as(a.algorithm, k): v for k, v in a.options.items()}
    chosen = {names.JOB_NAMES.get(k, k): v for k, v in chosen.items()}
    named = chosen.pop("settings", None)
    changed = {x.name: chosen.pop(x.name) for x in fields(Preset) if x.name in chosen}
    if fragments and a.updates is not None:
        raise UserError(f"{name} learns from fragments of a fixed size: say --steps, not --updates")
    if not fragments and a.steps is not None:
        raise UserError(
            f"{name} learns from whole episodes, whose length nobody knows before: say --updates,"
            " not --steps"
        )
    changed |= {k: v for k, v in (("steps", a.steps), ("updates", a.updates)) if v is not None}
    return preset(a.env, name, named, _fallback(made), **changed), chosen


def _grouped(made: Algorithm) -> bool:
    """It compares episodes of one reset seed."""
    return made.objective.min_group > 1 or made.objective.needs_greedy


def _fallback(made: Algorithm) -> Preset:
    """The settings of an algorithm that no table knows, a user's own: its numbers stay as they
    are."""
    base = PPO if made.objective.fragments else GROUPS if _grouped(made) else EPISODES
    steps = made.update.gradient_steps
    own = {k: getattr(steps, k) for k in ("epochs", "minibatches", "max_grad_norm")}
    return replace(base, options=(), source="ours", **own)


def make_algorithm(name: str, p: Preset, chosen: Mapping[str, Any]) -> Algorithm:
    """The algorithm with the preset's options and update.

    Raises:
        UserError: one that learns from something else than rewards, or samples in a way that
            environments cannot.
        ValueError: an option that it does not have.
    """
    from logpi.algorithms import algorithm
    from logpi.algorithms import options as known
    from logpi.updates.sgd import SGD, Actions, Groups

    made = algorithm(name)
    if not made.objective.on_policy:
        raise UserError(
            f"{made.name} learns from demonstrations or preferences, not from an environment's"
            " rewards"
        )
    usable = {o.name for o in known(name)}
    options = {k: v for k, v in p.options if k in usable} | dict(chosen)
    shuffle = Actions() if made.objective.fragments else Groups()
    sgd = SGD(
        p.epochs, p.minibatches, micro_tokens=None, max_grad_norm=p.max_grad_norm, shuffle=shuffle
    )
    for k in ("update", "critic", "shuffle", "micro_tokens"):
        if k in chosen:
            raise UserError(
                f"{k} is this command's own choice: leave it out (what there is to set:"
                " logpi/envs/control/presets.py)"
            )
    return algorithm(name, update=made.update.with_gradient_steps(sgd), **options)


def make_policy(envs: VectorEnvironment, p: Preset, critic: bool) -> ActorCritic:
    """Networks for the environment's spaces."""
    from torch import nn

    from logpi.envs.control.spaces import action_kind, check_mask
    from logpi.policies.cnn import cnn
    from logpi.policies.mlp import mlp

    kind = action_kind(envs.action, p.squash)
    if envs.masks:
        check_mask(envs.action, envs.masks)
    if envs.image:
        return cnn(envs.obs.shape[1:], kind, critic=critic, log_std=p.log_std)
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


def make_rollout(
    made: Algorithm, p: Preset, envs: VectorEnvironment, policy: ActorCritic, seed: int
) -> Fragments | Episodes:
    """Fragments for methods that bootstrap, whole episodes (in groups, if the method compares them)
    for the others."""
    from logpi.rollouts.gym import Episodes, Fragments, RewardScale

    scale = RewardScale(float(dict(p.options).get("gamma", 0.99))) if p.scale else None
    if made.objective.fragments:
        return Fragments(envs, policy, steps=p.n_steps, algorithm=made, seed=seed, scale=scale)
    return Episodes(
        envs, policy, episodes=p.episodes, group=p.group, algorithm=made, seed=seed, scale=scale
    )


def evaluator(
    a: Gym, p: Preset, policy: ActorCritic
) -> Callable[[int], tuple[dict[str, float], list[dict[str, Any]]]]:
    """Greedy episodes on seeds that training does not use; its own environments, so measuring
    changes nothing."""
    from logpi.envs.control.make import make_vector_environment
    from logpi.rollouts.gym import play

    envs = make_vector_environment(
        a.env, min(a.eval_episodes, 10), False, p.repeat, **a.env_options
    )
    seeds = fresh_seeds(a.eval_episodes)
    act = policy.actor()

    def choose(obs: Any) -> tuple[Any, Any]:
        params = act(obs)
        return params, policy.kind.mode(params)

    def evaluate(step: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        returns = play(envs, choose, policy.kind, seeds)
        numbers = {
            "eval/reward": returns.mean(),
            "eval/std": returns.std(),
            "eval/min": returns.min(),
            "eval/max": returns.max(),
        }
        rows = [{"seed": s, "return": float(r)} for s, r in zip(seeds, returns, strict=True)]
        return {k: float(v) for k, v in numbers.items()}, rows

    return evaluate


def fresh_seeds(n: int) -> list[int]:
    """Of the episodes of an evaluation: training draws below 2³¹."""
    return [2**31 + i for i in range(n)]


def _table(numbers: Mapping[str, float]) -> str:
    names = [k for k in numbers if k.startswith("eval/")]
    return "evaluation, greedy, fresh seeds:  " + "  ".join(
        f"{k.removeprefix('eval/')} {numbers[k]:.2f}" for k in names
    )


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


def load_policy(directory: Path, envs: VectorEnvironment) -> ActorCritic:
    """The policy that `save_policy` wrote, for the same environment.

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
        policy = make_policy(envs, Preset(**saved), network["critic"])
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
    broken = next(
        (name for name, w in weights.items() if w.is_floating_point() and not w.isfinite().all()),
        None,
    )
    if broken is not None:
        raise UserError(
            f"the policy at {directory} is no policy: {broken} holds what is not a number"
        )
    return policy
